"""Quality of service of every topic (REP 2003), and a report where a peer's does not fit.

Subscribe with sensor-data QoS, publish reliably: then every kind of peer connects. Every profile
can be overridden by parameters (``qos_overrides.<topic>.publisher.reliability`` and so on).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

from rclpy.callback_groups import CallbackGroup
from rclpy.duration import Duration
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.qos import (
    QoSDurabilityPolicy,
    QoSHistoryPolicy,
    QoSLivelinessPolicy,
    QoSPolicyKind,
    QoSProfile,
    QoSReliabilityPolicy,
)
from rclpy.qos_overriding_options import QoSOverridingOptions

Direction = Literal['publisher', 'subscription']

_OVERRIDABLE = {'reliability', 'durability'}
_POLICIES = (
    QoSPolicyKind.HISTORY,
    QoSPolicyKind.DEPTH,
    QoSPolicyKind.RELIABILITY,
    QoSPolicyKind.DURABILITY,
)
# What the middleware reports for an endless duration is some 292 years.
_INFINITE_SECONDS = 2.0**31 - 1
# What rclpy calls the node of a topic whose node the graph does not know yet, and how often a peer
# of that name is looked at before it is reported all the same.
UNKNOWN_NODE, LOOKS = '_NODE_NAME_UNKNOWN_', 5


def sensor_input() -> QoSProfile:
    """Best effort, the newest only: a camera's image."""
    return _profile(QoSReliabilityPolicy.BEST_EFFORT, QoSDurabilityPolicy.VOLATILE, 1)


def matched_input() -> QoSProfile:
    """Best effort, a few deep: what is matched by its stamp, where the newest alone is too few."""
    return _profile(QoSReliabilityPolicy.BEST_EFFORT, QoSDurabilityPolicy.VOLATILE, 5)


def command_input() -> QoSProfile:
    """Reliable, a few deep: what people and programs ask for."""
    return _profile(QoSReliabilityPolicy.RELIABLE, QoSDurabilityPolicy.VOLATILE, 10)


def image_output() -> QoSProfile:
    """Reliable, the newest only; connects to best-effort subscribers too."""
    return _profile(QoSReliabilityPolicy.RELIABLE, QoSDurabilityPolicy.VOLATILE, 1)


def report_output() -> QoSProfile:
    """Reliable, a few deep: what is told, each message of it."""
    return _profile(QoSReliabilityPolicy.RELIABLE, QoSDurabilityPolicy.VOLATILE, 10)


def latched_output() -> QoSProfile:
    """Reliable, and a late subscriber gets the last message."""
    return _profile(QoSReliabilityPolicy.RELIABLE, QoSDurabilityPolicy.TRANSIENT_LOCAL, 1)


def _profile(
    reliability: QoSReliabilityPolicy, durability: QoSDurabilityPolicy, depth: int
) -> QoSProfile:
    return QoSProfile(
        history=QoSHistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=reliability,
        durability=durability,
    )


class QosWatch:
    """Creates topics whose QoS can be overridden, and finds the peers that it does not fit.

    The middleware only says that something was incompatible, and says so before the graph knows
    who it was. So its event marks the topic, and :meth:`mismatches`, called now and then, looks
    the peer up.

    Args:
        node: The node whose topics are watched.
    """

    def __init__(self, node: Any) -> None:
        self._node = node
        self._profiles: dict[tuple[str, Direction], QoSProfile] = {}
        self._suspects: set[tuple[str, Direction]] = set()
        self._nameless: Counter[tuple[int, ...]] = Counter()

    def create_publisher(
        self, message_type: Any, topic: str, profile: QoSProfile, managed: bool = False
    ) -> Any:
        """Creates a publisher.

        Args:
            message_type: Of its messages.
            topic: Its name, as ``create_publisher`` of the node takes it.
            profile: Unless parameters override it; they are written into it.
            managed: Whether it publishes only while the node, a lifecycle node, is active.
        """
        suspect = self._watch(topic, 'publisher', profile)
        create = self._node.create_lifecycle_publisher if managed else self._node.create_publisher
        return create(
            message_type,
            topic,
            profile,
            event_callbacks=PublisherEventCallbacks(incompatible_qos=suspect),
            qos_overriding_options=QoSOverridingOptions(_POLICIES),
        )

    def create_subscription(
        self,
        message_type: Any,
        topic: str,
        callback: Callable[..., None],
        profile: QoSProfile,
        callback_group: CallbackGroup | None = None,
    ) -> Any:
        """Creates a subscription.

        Args:
            message_type: Of its messages.
            topic: Its name, as ``create_subscription`` of the node takes it.
            callback: Takes each message.
            profile: Unless parameters override it; they are written into it.
            callback_group: Of the callback; the node's own.
        """
        suspect = self._watch(topic, 'subscription', profile)
        return self._node.create_subscription(
            message_type,
            topic,
            callback,
            profile,
            callback_group=callback_group,
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=suspect),
            qos_overriding_options=QoSOverridingOptions(_POLICIES),
        )

    def mismatches(self) -> list[str]:
        """Returns one sentence for each peer that does not fit now: both sides and the remedy."""
        sentences = []
        for topic, direction in sorted(self._suspects):
            own = self._profiles[topic, direction]
            if direction == 'publisher':
                peers = self._node.get_subscriptions_info_by_topic(topic)
            else:
                peers = self._node.get_publishers_info_by_topic(topic)
            for peer in peers:
                offered, requested = own, peer.qos_profile
                if direction == 'subscription':
                    offered, requested = requested, offered
                policies = incompatible_policies(offered, requested)
                if policies and not self._is_to_be_named(peer):
                    name = f'{peer.node_namespace.rstrip("/")}/{peer.node_name}'
                    sentences.append(_explain(topic, direction, name, offered, requested, policies))
        return sentences

    def _is_to_be_named(self, peer: Any) -> bool:
        """Whether the graph will soon know the node of a topic that it knows already."""
        if peer.node_name != UNKNOWN_NODE:
            return False
        endpoint = tuple(peer.endpoint_gid)
        self._nameless[endpoint] += 1
        return self._nameless[endpoint] < LOOKS

    def _watch(
        self, topic: str, direction: Direction, profile: QoSProfile
    ) -> Callable[[Any], None]:
        """Returns what to call when the middleware finds a peer that does not fit."""
        key = (self._node.resolve_topic_name(topic), direction)
        self._profiles[key] = profile
        return lambda _: self._suspects.add(key)


def incompatible_policies(offered: QoSProfile, requested: QoSProfile) -> list[str]:
    """Returns the policies in which a publisher offers less than a subscriber asks for.

    The middleware's own check takes a peer's infinite durations for demands, which they are not.
    """
    policies = []
    if (
        offered.reliability == QoSReliabilityPolicy.BEST_EFFORT
        and requested.reliability == QoSReliabilityPolicy.RELIABLE
    ):
        policies.append('reliability')
    if (
        offered.durability == QoSDurabilityPolicy.VOLATILE
        and requested.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL
    ):
        policies.append('durability')
    if (
        offered.liveliness != QoSLivelinessPolicy.MANUAL_BY_TOPIC
        and requested.liveliness == QoSLivelinessPolicy.MANUAL_BY_TOPIC
    ):
        policies.append('liveliness')
    policies += [
        name
        for name in ('deadline', 'liveliness_lease_duration')
        if _seconds(getattr(offered, name)) > _seconds(getattr(requested, name))
    ]
    return policies


def _seconds(duration: Duration) -> float:
    """A duration; zero, which nobody has set, and the middleware's largest are infinite."""
    seconds = float(duration.nanoseconds) * 1e-9
    return seconds if 0.0 < seconds < _INFINITE_SECONDS else math.inf


def _explain(
    topic: str,
    direction: Direction,
    peer: str,
    offered: QoSProfile,
    requested: QoSProfile,
    policies: list[str],
) -> str:
    """Names what the publisher offers, what the subscriber asks for, and the remedy."""
    publisher, subscriber = ('this node', peer) if direction == 'publisher' else (peer, 'this node')
    offers = ', '.join(f'{policy} {_name(getattr(offered, policy))}' for policy in policies)
    asks = ', '.join(f'{policy} {_name(getattr(requested, policy))}' for policy in policies)
    remedy = f'change the QoS of {peer}'
    if set(policies) <= _OVERRIDABLE:
        wanted = requested if direction == 'publisher' else offered
        overrides = ' '.join(
            f'-p qos_overrides.{topic}.{direction}.{policy}:={_name(getattr(wanted, policy))}'
            for policy in policies
        )
        remedy += f', or start this node with {overrides}'
    return (
        f'QoS mismatch on {topic}: {publisher} offers {offers} and {subscriber} asks for {asks}, '
        f'so nothing passes between them. Remedy: {remedy}'
    )


def _name(value: Any) -> str:
    if isinstance(value, Duration):
        return f'{_seconds(value):g} s'
    return str(getattr(value, 'name', value)).lower()
