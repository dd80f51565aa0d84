"""docs/reference.md says what the nodes declare, and what a running node shows to others."""

from __future__ import annotations

import re
import subprocess
import sys
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

import pytest
import rclpy
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import DescribeParameters, GetParameters, ListParameters
from rclpy.context import Context
from rclpy.parameter import Parameter
from rclpy.qos import QoSDurabilityPolicy, QoSReliabilityPolicy
from ros_peers import ROOT, NodeProcess, Peer, wait_until
from sensor_msgs.msg import Image

from clipseg_ros.camera.node import CameraNode

PAGE = ROOT / 'docs' / 'reference.md'
# What the fixture `full_node` sets.
GIVEN = {'model', 'device', 'threads', 'prompt'}
EVERY_NODES = re.compile(r'/(parameter_events|rosout)$|/clipseg/transition_event$')


def rows(node: str, section: str) -> list[list[str]]:
    """The cells of a table of the page, without backticks around them."""
    of_node = PAGE.read_text().split(f'\n## {node}\n')[1].split('\n## ')[0]
    lines = of_node.split(f'### {section}\n')[1].split('\n### ')[0].splitlines()
    body = [line for line in lines if line.startswith('|')][2:]
    cells = [[cell.strip() for cell in re.split(r'(?<!\\)\|', line)[1:-1]] for line in body]
    return [[re.sub(r'^`(.*)`$', r'\1', cell.replace('\\|', '|')) for cell in row] for row in cells]


@pytest.fixture(scope='module')
def peer(own_domain: int) -> Iterator[Peer]:
    made = Peer(own_domain)
    yield made
    made.close()


def full_name(name: str) -> str:
    return name.replace('~', '/clipseg') if name[0] == '~' else '/' + name.lstrip('/')


def short(kind: str) -> str:
    """A type as the page writes it."""
    return re.sub('/(msg|srv)/', '/', kind)


def seen_in_time(peer: Peer, look: Callable[[], Any], expected: Any) -> Any:
    """What a peer sees of the node, once that is what is expected or time is up."""
    wait_until(lambda: 'clipseg' in peer.node.get_node_names())
    with suppress(AssertionError):
        wait_until(lambda: look() == expected, 5)
    return look()


def test_pages_and_parameter_files_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / 'scripts' / 'make_reference.py', '--check'],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('direction', ['in', 'out'])
def test_topics_are_those_of_the_running_node(
    full_node: NodeProcess, peer: Peer, direction: str
) -> None:
    node = peer.node
    # Images are received while somebody listens.
    peer.collect(Image, '/clipseg/mask', 1)
    names_of, infos_of = {
        'in': (node.get_subscriber_names_and_types_by_node, node.get_subscriptions_info_by_topic),
        'out': (node.get_publisher_names_and_types_by_node, node.get_publishers_info_by_topic),
    }[direction]

    def look() -> dict[tuple[str, str], str]:
        found = {}
        for topic, (kind,) in names_of('clipseg', '/'):
            if EVERY_NODES.search(topic):
                continue
            (profile,) = [i.qos_profile for i in infos_of(topic) if i.node_name == 'clipseg']
            reliable = profile.reliability == QoSReliabilityPolicy.RELIABLE
            latched = profile.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL
            qos = f'{"reliable" if reliable else "best effort"}{", latched" if latched else ""}'
            found[topic, short(kind)] = qos
        return found

    expected = {}
    for name, kind, qos, _ in rows('segment', 'Topics'):
        # No package of tests stands in for it.
        if kind.startswith('visualization_msgs') and not find_spec('visualization_msgs'):
            continue
        # Depth and calibration are subscribed to while somebody listens to what needs them.
        topic = name.removesuffix(' (in)').strip('`')
        if name.endswith(' (in)') == (direction == 'in') and topic not in ('depth', 'camera_info'):
            # Others do not see the depth of the queue.
            expected[full_name(topic), kind] = re.sub(r', depth \d+', '', qos)
    assert seen_in_time(peer, look, expected) == expected


def test_topics_are_those_of_the_camera(own_domain: int) -> None:
    context = Context()
    rclpy.init(context=context, domain_id=own_domain)
    source = Parameter('source', value=str(ROOT / 'docs' / 'images' / 'demo.png'))
    camera = CameraNode(context=context, namespace='/camera', parameter_overrides=[source])
    try:
        publishers = camera.get_publisher_names_and_types_by_node('camera', '/camera')
        found = {
            (topic.removeprefix('/camera/'), short(kind))
            for topic, (kind,) in publishers
            if not EVERY_NODES.search(topic)
        }
    finally:
        camera.close()
        camera.destroy_node()
        context.try_shutdown()
    expected = {(name.replace('~', 'camera'), kind) for name, kind, _ in rows('camera', 'Topics')}
    assert found == expected


def test_services_are_those_of_the_running_node(full_node: NodeProcess, peer: Peer) -> None:
    expected = {(full_name(name), kind) for name, kind, _ in rows('segment', 'Services')}
    general = ('rcl_interfaces', 'lifecycle_msgs', 'type_description_interfaces')

    def look() -> set[tuple[str, str]]:
        services = peer.node.get_service_names_and_types_by_node('clipseg', '/')
        return {(name, short(kind)) for name, (kind,) in services if not kind.startswith(general)}

    assert seen_in_time(peer, look, expected) == expected


def test_parameters_are_those_of_the_running_node(full_node: NodeProcess, peer: Peer) -> None:
    listed = peer.call(ListParameters, '/clipseg/list_parameters', ListParameters.Request())
    general = ('qos_overrides', 'use_sim_time', 'start_type_description_service')
    names = sorted(name for name in listed.result.names if not name.startswith(general))
    described = peer.call(
        DescribeParameters,
        '/clipseg/describe_parameters',
        DescribeParameters.Request(names=names),
    ).descriptors
    values = peer.call(
        GetParameters, '/clipseg/get_parameters', GetParameters.Request(names=names)
    ).values
    kinds = {
        ParameterType.PARAMETER_BOOL: 'bool',
        ParameterType.PARAMETER_INTEGER: 'integer',
        ParameterType.PARAMETER_DOUBLE: 'double',
        ParameterType.PARAMETER_STRING: 'string',
        ParameterType.PARAMETER_INTEGER_ARRAY: 'integers',
    }
    page = {row[0]: row for row in rows('segment', 'Parameters')}
    assert sorted(page) == names
    for name, descriptor, message in zip(names, described, values, strict=True):
        _, kind, default, allowed, when, meaning = page[name]
        assert kind.split(',')[0] == kinds[message.type], name
        assert ('list' in kind) == descriptor.dynamic_typing, name
        assert meaning == descriptor.description, name
        assert (when == 'start') == descriptor.read_only, name
        assert ('configured' in descriptor.additional_constraints) == (when == 'configure'), name
        limits: list[Any] = [*descriptor.floating_point_range, *descriptor.integer_range]
        written = [float(n) for n in re.findall(r'^(\S+) … ([\d,.]*\d)', allowed.replace(',', ''))
                   for n in n]  # fmt: skip
        assert written == [n for one in limits for n in (one.from_value, one.to_value)], name
        if name not in GIVEN:
            value = rclpy.parameter.parameter_value_to_python(message)
            value = list(value) if isinstance(value, array) else value
            shown = str(value).lower() if isinstance(value, bool) else str(value)
            assert default == (shown or "''"), name


def test_every_message_and_service_is_shown_whole() -> None:
    text = PAGE.read_text()
    paths = [*ROOT.glob('msg/*.msg'), *ROOT.glob('srv/*.srv')]
    assert len(paths) >= 5
    for path in paths:
        assert f'### clipseg_ros/{path.suffix[1:]}/{path.stem}\n' in text
        assert path.read_text().strip() in text
