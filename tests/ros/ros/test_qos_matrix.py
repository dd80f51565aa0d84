"""Every pair of QoS and transport either connects, or is explained within 5 s.

Eight nodes, one for each way to subscribe to images, meet eight cameras one after the other; then
each way to publish masks meets each way to subscribe to them. What is expected comes from the rule
of DDS: an offer may not be less than what is asked for.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from ros_peers import (
    NodeProcess,
    Peer,
    picture,
    ros_arguments,
    running_node,
    stamp_of,
)
from sensor_msgs.msg import CompressedImage, Image

from clipseg_ros.health.diagnostics import Level
from clipseg_ros.process.domain import claimed_domain
from clipseg_ros.ros.qos import incompatible_policies

pytestmark = [pytest.mark.slow, pytest.mark.ci]

LIMIT = 5.0
TRANSPORTS = ('raw', 'compressed')
POLICIES = [
    (reliability, durability)
    for reliability in ('reliable', 'best_effort')
    for durability in ('volatile', 'transient_local')
]
SIDES = list(itertools.product(TRANSPORTS, POLICIES))


def profile(policies: tuple[str, str]) -> QoSProfile:
    reliability, durability = policies
    return QoSProfile(
        depth=5,
        reliability=QoSReliabilityPolicy[reliability.upper()],
        durability=QoSDurabilityPolicy[durability.upper()],
    )


def namespace(transport: str, policies: tuple[str, str]) -> str:
    return '_'.join((transport, *policies))


@pytest.fixture(scope='module')
def meeting(tiny_model: Path) -> Iterator[tuple[NodeProcess, Peer]]:
    """The eight nodes in one process, and a peer in the same domain."""
    arguments = {}
    for transport, (reliability, durability) in SIDES:
        name = namespace(transport, (reliability, durability))
        topic = f'/{name}/image' + ('/compressed' if transport == 'compressed' else '')
        # The same policies for what each publishes, so that outputs have all four too.
        parameters = {
            'model': tiny_model,
            'device': 'cpu',
            'threads': 1,
            'prompt': 'the mug',
            'image_transport': transport,
            f'qos_overrides.{topic}.subscription.reliability': reliability,
            f'qos_overrides.{topic}.subscription.durability': durability,
            f'qos_overrides./{name}/clipseg/mask.publisher.reliability': reliability,
            f'qos_overrides./{name}/clipseg/mask.publisher.durability': durability,
        }
        arguments[name] = ros_arguments(parameters)
    host = str(Path(__file__).parents[1] / 'processes' / 'node_host.py')
    with claimed_domain() as domain:
        words = {'script': [json.dumps(arguments)], 'environment': {'ROS_DOMAIN_ID': str(domain)}}
        with running_node(host, ready='', **words) as node, closing(Peer(domain)) as peer:
            for name in arguments:
                node.wait_for(f'[{name}.clipseg]: active', timeout=90)
            yield node, peer


def within_limit(condition: Callable[[], bool], act: Callable[[], object] = lambda: None) -> bool:
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        act()
        if condition():
            return True
        time.sleep(0.1)
    return False


class Explanations:
    """What the nodes said, in their log and on /diagnostics, since this was made."""

    def __init__(self, node: NodeProcess, statuses: list[DiagnosticArray]) -> None:
        self._node, self._statuses = node, statuses
        self._line, self._status = len(node.lines), len(statuses)

    def of(self, name: str, topic: str) -> tuple[list[str], list[str]]:
        """Sentences on a topic in the log and in diagnostics of warning or worse."""
        lines = [
            line
            for line in self._node.lines[self._line :]
            if f'[{name}.clipseg]' in line and f'mismatch on {topic}:' in line
        ]
        verdicts = [
            status.message
            for array in self._statuses[self._status :]
            for status in array.status
            if status.name == f'{name}/clipseg: segmentation'
            and status.level[0] >= Level.WARN
            and f'mismatch on {topic}:' in status.message
        ]
        return lines, verdicts


@pytest.fixture(scope='module')
def statuses(meeting: tuple[NodeProcess, Peer]) -> list[DiagnosticArray]:
    return meeting[1].collect(DiagnosticArray, '/diagnostics', 10)


@pytest.fixture(scope='module')
def masks(meeting: tuple[NodeProcess, Peer]) -> dict[str, list[Image]]:
    """Of every node; asked for in a way that always connects."""
    weakest = profile(('best_effort', 'volatile'))
    names = [namespace(*side) for side in SIDES]
    return {name: meeting[1].collect(Image, f'/{name}/clipseg/mask', weakest) for name in names}


@pytest.mark.parametrize(('transport', 'policies'), SIDES, ids=[namespace(*s) for s in SIDES])
def test_every_camera_connects_or_is_explained(
    meeting: tuple[NodeProcess, Peer],
    statuses: list[DiagnosticArray],
    masks: dict[str, list[Image]],
    transport: str,
    policies: tuple[str, str],
) -> None:
    node, peer = meeting
    said = Explanations(node, statuses)
    cameras = {}
    for name in masks:
        kind, topic = Image, f'/{name}/image'
        if transport == 'compressed':
            kind, topic = CompressedImage, f'{topic}/compressed'
        cameras[name] = peer.node.create_publisher(kind, topic, profile(policies))
    image: Any = peer.stamped(picture(48, 64))
    if transport == 'compressed':
        _, png = cv2.imencode('.png', picture(48, 64))
        image = CompressedImage(header=image.header, format='png', data=png.tobytes())

    def connects(side: tuple[str, tuple[str, str]]) -> bool:
        offered, requested = profile(policies), profile(side[1])
        return side[0] == transport and not incompatible_policies(offered, requested)

    expected = {namespace(*side): connects(side) for side in SIDES}
    topics = {
        namespace(*side): f'/{namespace(*side)}/image'
        + ('/compressed' if side[0] == 'compressed' else '')
        for side in SIDES
    }
    arrived: set[str] = set()

    def settled() -> bool:
        arrived.update(
            name
            for name, received in masks.items()
            if any(stamp_of(mask) == stamp_of(image) for mask in list(received))
        )
        return all(
            name in arrived if fits else all(said.of(name, topics[name]))
            for name, fits in expected.items()
        )

    try:
        done = within_limit(settled, lambda: [camera.publish(image) for camera in cameras.values()])
        lines = {name: said.of(name, topics[name]) for name in masks}
        assert done, (expected, arrived, lines)
        for name, fits in expected.items():
            assert (name in arrived) == fits, name
            assert not (fits and any(lines[name])), lines[name]
            if not fits:
                assert len(lines[name][0]) == 1, lines[name]
                (line,), verdicts = lines[name]
                assert 'Remedy: ' in line, 'once in the log'
                assert '/peer' in line, 'it says who'
                assert verdicts[-1] in line
    finally:
        for camera in cameras.values():
            peer.node.destroy_publisher(camera)
        # The nodes notice that the cameras are gone; what comes back is told again.
        time.sleep(1.2)


@pytest.mark.parametrize('policies', POLICIES, ids='_'.join)
def test_every_consumer_connects_or_is_explained(
    meeting: tuple[NodeProcess, Peer],
    statuses: list[DiagnosticArray],
    masks: dict[str, list[Image]],
    policies: tuple[str, str],
) -> None:
    node, peer = meeting
    said = Explanations(node, statuses)
    sides = [side for side in SIDES if side[0] == 'raw']
    names = {namespace(*side): side for side in sides}
    received: dict[str, list[Image]] = {name: [] for name in names}
    subscriptions = [
        peer.node.create_subscription(
            Image, f'/{name}/clipseg/mask', received[name].append, profile(policies)
        )
        for name in names
    ]
    # Reliable and latched: fits every node.
    strongest = profile(('reliable', 'transient_local'))
    cameras = [peer.node.create_publisher(Image, f'/{name}/image', strongest) for name in names]
    image = peer.stamped(picture(48, 64))
    expected = {
        name: not incompatible_policies(profile(side[1]), profile(policies))
        for name, side in names.items()
    }

    def settled() -> bool:
        return all(
            any(stamp_of(mask) == stamp_of(image) for mask in list(received[name]))
            if fits
            else all(said.of(name, f'/{name}/clipseg/mask'))
            for name, fits in expected.items()
        )

    try:
        assert within_limit(settled, lambda: [camera.publish(image) for camera in cameras]), (
            expected,
            {name: said.of(name, f'/{name}/clipseg/mask') for name in names},
            {name: len(masks) for name, masks in received.items()},
        )
        for name, fits in expected.items():
            lines, _ = said.of(name, f'/{name}/clipseg/mask')
            assert bool(lines) != fits, name
            assert bool(received[name]) == fits, name
            if lines:
                assert 'Remedy: ' in lines[0]
                assert 'qos_overrides' in lines[0]
    finally:
        for entity in subscriptions:
            peer.node.destroy_subscription(entity)
        for camera in cameras:
            peer.node.destroy_publisher(camera)
        time.sleep(1.2)


def test_another_type_on_the_topic_is_explained(
    meeting: tuple[NodeProcess, Peer], statuses: list[DiagnosticArray]
) -> None:
    node, peer = meeting
    said = Explanations(node, statuses)
    name = namespace('raw', ('best_effort', 'volatile'))
    camera = peer.node.create_publisher(
        CompressedImage, f'/{name}/image', profile(('reliable', 'volatile'))
    )
    try:
        assert within_limit(lambda: all(said.of(name, f'/{name}/image')))
        (line,), _ = said.of(name, f'/{name}/image')
        assert 'publishes sensor_msgs/msg/CompressedImage' in line
        assert 'reads sensor_msgs/msg/Image' in line
        assert 'image_transport:=compressed' in line
    finally:
        peer.node.destroy_publisher(camera)
