"""Rules of the node that hold for each of its topics, read off docs/reference.md."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from rcl_interfaces.srv import ListParameters
from rclpy.duration import Duration
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from reference_page import topics
from ros_peers import NodeProcess, Peer, running_node, wait_until
from sensor_msgs.msg import PointCloud2

from clipseg_ros.ros.qos import image_output

POLICIES = ('depth', 'durability', 'history', 'reliability')
# There is no stand-in for visualization_msgs here, so the node runs without its topic.
TOPICS = [row for row in topics('segment') if not row[2].startswith('visualization_msgs/')]


@pytest.fixture(scope='module')
def peer(own_domain: int, full_node: NodeProcess) -> Iterator[Peer]:
    """A peer that listens to points, so that depth and calibration are subscribed to."""
    made = Peer(own_domain)
    made.collect(PointCloud2, '/clipseg/points', image_output())
    wait_until(lambda: made.node.count_subscribers('/camera_info'))
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.ci
def test_the_qos_of_every_topic_can_be_overridden(peer: Peer) -> None:
    listed = peer.call(ListParameters, '/clipseg/list_parameters', ListParameters.Request())
    found = {name for name in listed.result.names if name.startswith('qos_overrides.')}
    sides = {'in': 'subscription', 'out': 'publisher'}
    expected = {
        f'qos_overrides.{topic}.{sides[way]}.{policy}'
        for topic, way, _, _ in TOPICS
        for policy in POLICIES
    }
    assert len(expected) > 60
    # ROS adds /clock and the like.
    assert expected - found == set()


def message_type(kind: str) -> Any:
    package, _, name = kind.split('/')
    return getattr(importlib.import_module(f'{package}.msg'), name)


def what_is_too_much(way: str, qos: str) -> tuple[str, QoSProfile, tuple[str, str]]:
    """What a peer of a topic asks for that the node does not offer.

    Returns:
        The policy, a profile with it, and what the node says: policy and remedy.
    """
    if way == 'in':
        reliability = QoSReliabilityPolicy.BEST_EFFORT
        said = ('reliability best_effort', '.subscription.reliability:=best_effort')
        return 'reliability', QoSProfile(depth=1, reliability=reliability), said
    if 'latched' in qos:
        profile = QoSProfile(depth=1, deadline=Duration(seconds=0.5))
        return 'deadline', profile, ('deadline 0.5 s', 'change the QoS of /peer')
    durability = QoSDurabilityPolicy.TRANSIENT_LOCAL
    said = ('durability transient_local', '.publisher.durability:=transient_local')
    return 'durability', QoSProfile(depth=1, durability=durability), said


@pytest.mark.slow
@pytest.mark.ci
def test_every_peer_that_does_not_fit_is_named_once(
    full_node: NodeProcess, peer: Peer, full_environment: dict[str, str]
) -> None:
    # Nobody can offer a best-effort, volatile subscriber too little.
    told = [row for row in TOPICS if row[1] == 'out' or row[3].startswith('reliable')]
    assert len(told) >= 16
    since = len(full_node.lines)
    with ExitStack() as stack:
        for topic, way, kind, qos in told:
            policy, profile, said = what_is_too_much(way, qos)
            try:
                message = message_type(kind)
            except (ImportError, AttributeError):
                # This process has not the messages that the node has.
                script = str(Path(__file__).parents[1] / 'processes' / 'demanding_peer.py')
                words = {'script': [topic, kind, policy], 'environment': full_environment}
                stack.enter_context(running_node(script, ready='listening', **words))
            else:
                if way == 'in':
                    made = peer.node.create_publisher(message, topic, profile)
                    stack.callback(peer.node.destroy_publisher, made)
                else:
                    made = peer.node.create_subscription(message, topic, lambda _: None, profile)
                    stack.callback(peer.node.destroy_subscription, made)
            line = full_node.wait_for(f'QoS mismatch on {topic}:', timeout=5.0, since=since)
            for words_said in ('[WARN]', 'this node', '/peer', *said):
                assert words_said in line
        time.sleep(2.2)
        for topic, *_ in told:
            assert full_node.count(f'QoS mismatch on {topic}:', since) == 1, f'said once of {topic}'
