#!/usr/bin/env python3
"""Write what the nodes themselves declare: pages of docs/ and the parameter files of config/.

    python scripts/make_reference.py [--check]

For docs/reference.md, each node is made and configured, once in every variant that has other
topics, and what it creates is written down. Message packages that are not installed here are
stood in for. A topic or service without a meaning in MEANINGS below, and a meaning without a
topic, are errors. The tables of parameters in docs/nodes.md and the files config/segment.yaml and
config/camera.yaml come from the declarations of the parameters.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
# The nodes are made to be looked at: nobody else has to see them, or colour in what they log.
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'OFF'

import rclpy  # noqa: E402
from parameter_pages import fill_tables, parameter_file, parameter_table, table  # noqa: E402
from rclpy.lifecycle import LifecycleNode  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy  # noqa: E402

from clipseg_ros import camera_node  # noqa: E402
from clipseg_ros.camera import parameters as camera_parameters  # noqa: E402
from clipseg_ros.outputs import publishers as segment_publishers  # noqa: E402
from clipseg_ros.ros import interfaces  # noqa: E402
from clipseg_ros.ros.parameters import Declaration  # noqa: E402
from clipseg_ros.segment import lifecycle as segment_lifecycle  # noqa: E402
from clipseg_ros.segment import parameters as segment_parameters  # noqa: E402

NAMESPACE = '/reference'

# What is the same for every node of rclpy.
EVERY_NODES = ('rcl_interfaces', 'lifecycle_msgs', 'rosgraph_msgs', 'type_description_interfaces')

NEEDS = {
    'clipseg_ros': 'the messages of this package (`colcon build`)',
    'vision_msgs': 'vision_msgs',
}

# Parameters of the node `segment` that change its topics, and how the page says so.
VARIANTS: dict[str, dict[str, Any]] = {
    '': {},
    '`image_transport:=compressed`': {'image_transport': 'compressed'},
}

MEANINGS = {
    'segment': {
        'image': 'The camera; remap it.',
        'image/compressed': 'The camera, compressed: JPEG or PNG.',
        '~/prompt': 'New prompts in place of the old ones; `;` or a line break separates several, '
        '`name: phrase` names one, `!` makes one negative, empty stops.',
        '~/prompt_image': 'A support image: the prompt `example` finds what it shows.',
        '~/prompt_mask': 'What of the support image is meant (not 0 on it); of its size and stamp.',
        '~/pick_point': '"That one there": a pixel (x, y) of the newest frame becomes a prompt.',
        '~/pick_box': 'The same with a box.',
        '~/mask': 'mono8: 255 where any prompt matches, else 0.',
        '~/labels': 'mono8: the id of the winning prompt, 0 for none; 255 is never used.',
        '~/labels/compressed': 'The same as PNG, without loss.',
        '~/confidence': 'mono8: 255 × probability of the winning prompt, 0 where labels is 0.',
        '~/probability': '32FC1: probability of the winning prompt, everywhere.',
        '~/overlay': 'rgb8: the image tinted by the labels, for people.',
        '~/segments': 'For each prompt: score, presence, area, box, centroid; with depth, its '
        'position in space.',
        '~/points': 'The masked cloud: x, y, z, rgb, label, probability. While somebody listens, '
        '`depth` (sensor_msgs/msg/Image) and `camera_info` (sensor_msgs/msg/CameraInfo) are '
        'subscribed to, best effort.',
        '~/prompts': 'The active prompts with their ids and thresholds.',
        '~/label_info': 'Which id is which name.',
        '~/detections': "Every connected part of every prompt's mask: name, score, box.",
        '/diagnostics': 'Once a second: how it is, how fast, and why nothing comes.',
        '~/enable': 'False: images are ignored and cost nothing; true: go on.',
        '~/pick': 'A point or a box of the newest frame becomes a prompt; the answer says which.',
        '~/get_masks': 'The own mask of every prompt in the newest frame.',
        '~/save_prompts': 'Writes the prompts to `prompt_file`.',
        '~/load_prompts': 'Reads them from there, in place of the active ones.',
        '~/set_prompts': 'All prompts at once; all or none take effect, and the answer says why.',
    },
    'camera': {
        'image': 'rgb8: colour.',
        'depth': '32FC1: metres along the optical axis, registered to colour; 0 is unknown.',
        'camera_info': 'Pinhole without distortion; K is zero where it is not calibrated.',
        '~/instances': 'mono8: the truth, the id of the object at each pixel; 0 is none.',
    },
}


@dataclass
class Endpoint:
    """A topic or service of a node.

    Attributes:
        kind: `in`, `out` or `service`.
        name: As its node knows it: private, relative or absolute.
        type: Such as `sensor_msgs/msg/Image`.
        qos: Profile of a topic, in words.
        variants: Variants that have it.
    """

    kind: str
    name: str
    type: str
    qos: str = ''
    variants: list[str] = field(default_factory=list)


def describe_qos(profile: QoSProfile | int) -> str:
    """Returns reliability, durability and depth in words."""
    if isinstance(profile, int):
        profile = QoSProfile(depth=profile)
    reliability = {
        QoSReliabilityPolicy.BEST_EFFORT: 'best effort',
        QoSReliabilityPolicy.RELIABLE: 'reliable',
    }[profile.reliability]
    latched = profile.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL
    return f'{reliability}, {"transient local" if latched else "volatile"}, depth {profile.depth}'


def type_name(kind: Any) -> str:
    """Returns the name of a message or service class, such as `std_msgs/msg/String`."""
    package, group, *_ = kind.__module__.split('.')
    return f'{package}/{group}/{kind.__name__}'


class StandIn:
    """A message, service, publisher or anything else of a package that is not installed."""

    def __init__(self, *_: Any, **fields: Any) -> None:
        self.__dict__.update(fields)

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__'):
            raise AttributeError(name)
        return lambda *_, **__: 0


def stand_in(package: str, group: str, name: str) -> Any:
    """Returns a class that stands in for a message or service."""
    return type(name, (StandIn,), {'__module__': f'{package}.{group}'})


class Recorder:
    """Notes what nodes create while it is in force."""

    def __init__(self) -> None:
        self.endpoints: list[Endpoint] = []

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Listens in on every node's methods."""
        methods = [
            (Node, 'create_publisher', 'out'),
            (Node, 'create_subscription', 'in'),
            (Node, 'create_service', 'service'),
            (LifecycleNode, 'create_lifecycle_publisher', ''),
        ]
        originals = [getattr(owner, name) for owner, name, _ in methods]
        for (owner, name, kind), original in zip(methods, originals, strict=True):
            setattr(owner, name, self._listen(original, kind))
        try:
            yield
        finally:
            for (owner, name, _), original in zip(methods, originals, strict=True):
                setattr(owner, name, original)

    def _listen(self, original: Callable[..., Any], kind: str) -> Callable[..., Any]:
        # A lifecycle publisher is made by create_publisher, which notes it; a stand-in is not.
        def create(node: Any, type_: Any, name: str, *words: Any, **options: Any) -> Any:
            missing = issubclass(type_, StandIn)
            made = StandIn() if missing else original(node, type_, name, *words, **options)
            if (kind or missing) and not type_name(type_).startswith(EVERY_NODES):
                profile = words[1] if kind == 'in' else words[0] if kind != 'service' else None
                qos = '' if profile is None else describe_qos(profile)
                endpoint = Endpoint(kind or 'out', own_name(node, name), type_name(type_), qos)
                self.endpoints.append(endpoint)
            return made

        return create


def own_name(node: Any, name: str) -> str:
    """Returns a name as short as its node can write it."""
    resolved = node.resolve_topic_name(name)
    private = f'{node.get_fully_qualified_name()}/'
    if resolved.startswith(private):
        return f'~/{resolved.removeprefix(private)}'
    return str(resolved.removeprefix(f'{NAMESPACE}/'))


@contextmanager
def missing_packages_stood_in_for() -> Iterator[None]:
    """Lets nodes find all message packages."""
    replaced: list[tuple[Any, str, Any]] = []

    def replace(module: Any, name: str, value: Any) -> None:
        replaced.append((module, name, getattr(module, name)))
        setattr(module, name, value)

    if interfaces.load_interfaces() is None:
        names = interfaces.Interfaces.__dataclass_fields__
        services = {path.stem for path in (ROOT / 'srv').glob('*.srv')}
        classes = {
            name: stand_in('clipseg_ros', 'srv' if name in services else 'msg', name)
            for name in names
        }
        replace(segment_lifecycle, 'load_interfaces', lambda: interfaces.Interfaces(**classes))
    if segment_publishers.load_vision_messages() is None:
        names_of_vision = (
            *('LabelInfo', 'VisionClass', 'Detection2DArray', 'Detection2D', 'BoundingBox2D'),
            *('Pose2D', 'Point2D', 'ObjectHypothesis', 'ObjectHypothesisWithPose'),
        )
        vision = SimpleNamespace(
            **{name: stand_in('vision_msgs', 'msg', name) for name in names_of_vision}
        )
        for module in (segment_lifecycle, segment_publishers):
            replace(module, 'load_vision_messages', lambda: vision)
    try:
        yield
    finally:
        for module, name, value in replaced:
            setattr(module, name, value)


def endpoints_of(make: Callable[[dict[str, Any]], Any], variants: Iterable[str]) -> list[Endpoint]:
    """Returns what a node creates, over all variants.

    Args:
        make: Makes the node with parameters, and everything that it creates at any time.
        variants: Keys of :data:`VARIANTS`.
    """
    found: dict[tuple[str, str, str, str], Endpoint] = {}
    variants = list(variants)
    for variant in variants:
        recorder = Recorder()
        with recorder.in_force(), missing_packages_stood_in_for():
            node = make(VARIANTS[variant])
            node.close()
            node.destroy_node()
        for endpoint in recorder.endpoints:
            key = (endpoint.kind, endpoint.name, endpoint.type, endpoint.qos)
            found.setdefault(key, endpoint).variants.append(variant)
    for endpoint in found.values():
        if len(set(endpoint.variants)) == len(variants):
            endpoint.variants = []
    return list(found.values())


def make_segment(parameters: dict[str, Any]) -> Any:
    """Makes and configures the node `segment`."""
    values = {'autostart': False, 'device': 'cpu', **parameters}
    node = segment_lifecycle.SegmentNode(
        namespace=NAMESPACE,
        parameter_overrides=[Parameter(name, value=value) for name, value in values.items()],
    )
    node.trigger_configure()
    if node._failure:
        raise RuntimeError(f'the node cannot be configured: {node._failure}')
    return node


def make_camera(parameters: dict[str, Any]) -> Any:
    """Makes the node `camera`; a picture is quicker than a rendered world."""
    picture = str(ROOT / 'docs' / 'images' / 'demo.png')
    overrides = [Parameter('source', value=picture)]
    return camera_node.CameraNode(namespace=NAMESPACE, parameter_overrides=overrides)


def condition(endpoint: Endpoint) -> str:
    """What has to be there for an endpoint to exist."""
    needs = NEEDS.get(endpoint.type.split('/')[0], '')
    variants = ', or '.join(variant or '`image_transport:=raw`' for variant in endpoint.variants)
    return '; '.join(filter(None, [needs, variants]))


def node_section(
    name: str, endpoints: list[Endpoint], declarations: Mapping[str, Declaration]
) -> list[str]:
    """Returns the section on a node."""
    meanings = MEANINGS[name]
    unexplained = {endpoint.name for endpoint in endpoints} ^ set(meanings)
    if unexplained:
        raise SystemExit(
            f'{name}: {", ".join(sorted(unexplained))}: on the node and not in MEANINGS of '
            f'{Path(__file__).name}, or the other way round'
        )
    order = {'in': 0, 'out': 1, 'service': 2}
    endpoints = sorted(endpoints, key=lambda entry: order[entry.kind])
    topics = [entry for entry in endpoints if entry.kind != 'service']
    services = [entry for entry in endpoints if entry.kind == 'service']
    lines = [f'## {name}', '', '### Topics', '']
    lines += table(
        ('topic', 'direction', 'type', 'QoS', 'only with', 'meaning'),
        (
            [f'`{e.name}`', e.kind, f'`{e.type}`', e.qos, condition(e), meanings[e.name]]
            for e in topics
        ),
    )
    if services:
        lines += ['', '### Services', '']
        lines += table(
            ('service', 'type', 'only with', 'meaning'),
            ([f'`{e.name}`', f'`{e.type}`', condition(e), meanings[e.name]] for e in services),
        )
    return [*lines, '', '### Parameters', '', *parameter_table(declarations), '']


def interface_section() -> list[str]:
    """Returns the section on the package's own messages and services."""
    lines = ['## Messages and services', '']
    for path in sorted([*ROOT.glob('msg/*.msg'), *ROOT.glob('srv/*.srv')]):
        name = f'clipseg_ros/{path.suffix[1:]}/{path.stem}'
        lines += [f'### {name}', '', '```', path.read_text().strip(), '```', '']
    return lines


def make_page() -> str:
    """Return the text of docs/reference.md."""
    rclpy.init(args=['--ros-args', '--log-level', 'error'])
    try:
        segment = endpoints_of(make_segment, VARIANTS)
        camera = endpoints_of(make_camera, [''])
    finally:
        rclpy.shutdown()
    lines = [
        '# Reference',
        '',
        '<!-- Written by scripts/make_reference.py from what the nodes declare. Do not edit. -->',
        '',
        'Every topic, service and parameter of the nodes, as they declare them;',
        '[nodes.md](nodes.md) explains them. Names that begin with `~/` are private: `~/mask` of',
        'the node `clipseg` is `/clipseg/mask`. The QoS of every topic can be changed',
        '(`qos_overrides`). The services of every node (parameters) and of every managed node',
        '(`~/change_state` and so on) are left out.',
        '',
        *node_section('segment', segment, segment_parameters.DECLARATIONS),
        *node_section('camera', camera, camera_parameters.DECLARATIONS),
        *interface_section(),
    ]
    return '\n'.join(lines).rstrip() + '\n'


def make_files() -> dict[str, str]:
    """Return the text of every file that is written, by its path in the repository."""
    segment, camera = segment_parameters.DECLARATIONS, camera_parameters.DECLARATIONS
    nodes = (ROOT / 'docs' / 'nodes.md').read_text(encoding='utf-8')
    return {
        'docs/reference.md': make_page(),
        'docs/nodes.md': fill_tables(nodes, {'segment': segment, 'camera': camera}),
        'config/segment.yaml': parameter_file('segment', 'clipseg', segment),
        'config/camera.yaml': parameter_file('camera', 'camera', camera),
    }


def main() -> int:
    """Write the files, or only say which of them are stale."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--check', action='store_true', help='write nothing; fail if one is stale')
    check = parser.parse_args().check
    texts = {ROOT / path: text for path, text in make_files().items()}
    stale = [path for path, text in texts.items() if path.read_text(encoding='utf-8') != text]
    for path in stale:
        if check:
            print(f'{path.relative_to(ROOT)} is stale: make reference', file=sys.stderr)
        else:
            path.write_text(texts[path], encoding='utf-8')
    return 1 if check and stale else 0


if __name__ == '__main__':
    raise SystemExit(main())
