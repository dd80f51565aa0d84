"""Quality of service of every topic (REP 2003), and a report on peers that do not fit.

The nodes subscribe with sensor-data QoS and publish reliably, so that every kind of peer connects.
Every profile can be overridden by parameters (``qos_overrides.<topic>.publisher.reliability`` and
so on).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

from rclpy.callback_groups import CallbackGroup
from rclpy.duration import Duration
from rclpy.qos import (
    QoSDurabilityPolicy,
    QoSHistoryPolicy,
    QoSLivelinessPolicy,
    QoSPolicyKind,
    QoSProfile,
    QoSReliabilityPolicy,
)
from rclpy.qos_overriding_options import QoSOverridingOptions

from clipseg_ros.ros.distributions import (
    PublisherEventCallbacks,
    SubscriptionEventCallbacks,
    UnsupportedEventTypeError,
    with_message_info,
)
from clipseg_ros.ros.log import ThrottledLog

Direction = Literal['publisher', 'subscription']

_OVERRIDABLE = {'reliability', 'durability'}
_POLICIES = (
    QoSPolicyKind.HISTORY,
    QoSPolicyKind.DEPTH,
    QoSPolicyKind.RELIABILITY,
    QoSPolicyKind.DURABILITY,
)
# Policy, what falls short, and what is asked for then.
_DEMANDS = (
    ('reliability', QoSReliabilityPolicy.BEST_EFFORT, QoSReliabilityPolicy.RELIABLE),
    ('durability', QoSDurabilityPolicy.VOLATILE, QoSDurabilityPolicy.TRANSIENT_LOCAL),
)
# What the middleware reports for an endless duration is some 292 years.
_INFINITE_SECONDS = 2.0**31 - 1
# The graph learns of a topic before it learns of the topic's node, which rclpy calls by this name
# meanwhile. A peer is reported under it after so many looks.
_UNKNOWN_NODE, _LOOKS = '_NODE_NAME_UNKNOWN_', 5


def sensor_input() -> QoSProfile:
    """Return best effort, the newest only: for a camera's image."""
    return _profile(QoSReliabilityPolicy.BEST_EFFORT, QoSDurabilityPolicy.VOLATILE, 1)


def matched_input() -> QoSProfile:
    """Return best effort, five deep: for messages that are matched by their stamps."""
    return _profile(QoSReliabilityPolicy.BEST_EFFORT, QoSDurabilityPolicy.VOLATILE, 5)


def command_input() -> QoSProfile:
    """Return reliable, ten deep: for commands."""
    return _profile(QoSReliabilityPolicy.RELIABLE, QoSDurabilityPolicy.VOLATILE, 10)


def crowd_service() -> QoSProfile:
    """Return reliable, 40 deep: for services that take many requests at the same time.

    Those of a burst are lost beyond the depth until the node takes them; services have ten.
    """
    return _profile(QoSReliabilityPolicy.RELIABLE, QoSDurabilityPolicy.VOLATILE, 40)


def image_output() -> QoSProfile:
    """Return reliable, the newest only: for images."""
    return _profile(QoSReliabilityPolicy.RELIABLE, QoSDurabilityPolicy.VOLATILE, 1)


def report_output() -> QoSProfile:
    """Return reliable, ten deep: for reports, of which each message counts."""
    return _profile(QoSReliabilityPolicy.RELIABLE, QoSDurabilityPolicy.VOLATILE, 10)


def latched_output() -> QoSProfile:
    """Return reliable and transient local: a late subscriber gets the last message."""
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
    """Creates topics whose QoS can be overridden, and finds the peers that do not fit.

    The middleware's event only says that some peer is incompatible, before the graph knows which.
    So the event marks the topic, and :meth:`mismatches`, called now and then, finds the peer.
    """

    def __init__(self, node: Any) -> None:
        self._node, self._log = node, ThrottledLog(node.get_logger())
        self._profiles: dict[tuple[str, Direction], QoSProfile] = {}
        self._suspects: set[tuple[str, Direction]] = set()
        self._nameless: Counter[tuple[int, ...]] = Counter()
        self._warned_of: list[str] = []
        # Topic of images → whether they are expected to be compressed.
        self._images: dict[str, bool] = {}

    def create_publisher(
        self, message_type: Any, topic: str, profile: QoSProfile, managed: bool = False
    ) -> Any:
        """Create a publisher; parameters that override the profile are written into it.

        One that is ``managed`` publishes only while the node, a lifecycle node, is active.
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
        """Create a subscription; parameters that override the profile are written into it."""
        suspect = self._watch(topic, 'subscription', profile)
        return self._subscribe(
            SubscriptionEventCallbacks(incompatible_qos=suspect),
            message_type,
            topic,
            callback,
            profile,
            callback_group=callback_group,
        )

    def create_counting_subscription(
        self,
        message_type: Any,
        topic: str,
        callback: Callable[..., None],
        profile: QoSProfile,
        lose: Callable[[int], None],
    ) -> tuple[Any, bool]:
        """Create a subscription as :meth:`create_subscription`, and say what the middleware loses.

        Args:
            message_type: Of its messages.
            topic: Its name.
            callback: Takes a message, and rclpy's information on it.
            profile: Parameters that override it are written into it.
            lose: Called with the number of messages lost since its start.

        Returns:
            The subscription, and whether the middleware counts all that is lost: for a reliable
            one it does not, and not every middleware does.
        """
        suspect = self._watch(topic, 'subscription', profile)
        of_topic = message_type, topic, with_message_info(callback), profile
        events = SubscriptionEventCallbacks(
            incompatible_qos=suspect, message_lost=lambda event: lose(event.total_count)
        )
        try:
            made = self._subscribe(events, *of_topic)
        except UnsupportedEventTypeError:
            plain = SubscriptionEventCallbacks(incompatible_qos=suspect)
            return self._subscribe(plain, *of_topic), False
        return made, profile.reliability == QoSReliabilityPolicy.BEST_EFFORT

    def _subscribe(
        self,
        events: SubscriptionEventCallbacks,
        message_type: Any,
        topic: str,
        callback: Callable[..., None],
        profile: QoSProfile,
        **options: Any,
    ) -> Any:
        return self._node.create_subscription(
            message_type,
            topic,
            callback,
            profile,
            event_callbacks=events,
            qos_overriding_options=QoSOverridingOptions(_POLICIES),
            **options,
        )

    def expect_images(self, topic: str, compressed: bool) -> None:
        """Report publishers of the other image transport on a resolved topic from now on."""
        self._images[topic] = compressed

    def mismatches(self) -> list[str]:
        """Return a sentence for each peer that does not fit now, with both sides and the remedy."""
        transports = (self._transport_problem(*images) for images in self._images.items())
        sentences = [problem for problem in transports if problem]
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
                    name = _full_name(peer)
                    sentences.append(_explain(topic, direction, name, offered, requested, policies))
        return sentences

    def warn(self) -> list[str]:
        """Log each of :meth:`mismatches` once, and again where it comes back; return them."""
        mismatches = self.mismatches()
        for mismatch in mismatches:
            if mismatch not in self._warned_of:
                self._log.warning('mismatch', mismatch, each=True, again=True)
        self._warned_of = mismatches
        return mismatches

    def _transport_problem(self, topic: str, compressed: bool) -> str:
        """Return why the images that are published do not come, or an empty string.

        Of different types on different topics the middleware never says that they do not fit.
        """
        wanted = f'sensor_msgs/msg/{"CompressedImage" if compressed else "Image"}'
        remedy = f'-p image_transport:={"raw" if compressed else "compressed"}'
        publishers = self._node.get_publishers_info_by_topic(topic)
        if any(peer.topic_type == wanted for peer in publishers):
            return ''
        other = topic.removesuffix('/compressed') if compressed else f'{topic}/compressed'
        others = publishers or self._node.get_publishers_info_by_topic(other)
        if not others or any(self._is_to_be_named(peer) for peer in others):
            return ''
        names = ', '.join(sorted({_full_name(peer) for peer in others}))
        if publishers:
            types = ', '.join(sorted({peer.topic_type for peer in publishers}))
            return (
                f'type mismatch on {topic}: {names} publishes {types} and this node reads '
                f'{wanted}. Remedy: remap image to a topic of that type, or start with {remedy}'
            )
        return (
            f'transport mismatch on {topic}: nobody publishes there, and {names} publishes '
            f'{other}. Remedy: start this node with {remedy}, or have the camera publish {topic}'
        )

    def _is_to_be_named(self, peer: Any) -> bool:
        """Return whether the graph can be expected to learn the name of the peer's node soon."""
        if peer.node_name != _UNKNOWN_NODE:
            return False
        endpoint = tuple(peer.endpoint_gid)
        self._nameless[endpoint] += 1
        return self._nameless[endpoint] < _LOOKS

    def _watch(
        self, topic: str, direction: Direction, profile: QoSProfile
    ) -> Callable[[Any], None]:
        """Return the callback for the middleware's event of an incompatible peer."""
        key = (self._node.resolve_topic_name(topic), direction)
        self._profiles[key] = profile
        return lambda _: self._suspects.add(key)


def incompatible_policies(offered: QoSProfile, requested: QoSProfile) -> list[str]:
    """Return the policies in which a publisher offers less than a subscriber asks for.

    The middleware's own check takes an infinite duration for a demand.
    """
    policies = [
        name
        for name, less, more in _DEMANDS
        if getattr(offered, name) == less and getattr(requested, name) == more
    ]
    manual = QoSLivelinessPolicy.MANUAL_BY_TOPIC
    if offered.liveliness != manual == requested.liveliness:
        policies.append('liveliness')
    for name in ('deadline', 'liveliness_lease_duration'):
        if _seconds(getattr(offered, name)) > _seconds(getattr(requested, name)):
            policies.append(name)
    return policies


def _seconds(duration: Duration) -> float:
    """Return a duration; unset (0) and the largest of the middleware count as infinite."""
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
    """Return what the publisher offers, what the subscriber asks for, and the remedy."""
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


def _full_name(peer: Any) -> str:
    return f'{peer.node_namespace.rstrip("/")}/{peer.node_name}'


def _name(value: Any) -> str:
    if isinstance(value, Duration):
        return f'{_seconds(value):g} s'
    return str(getattr(value, 'name', value)).lower()
