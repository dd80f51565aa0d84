"""Messages, requests and parameters that no well-meaning peer would send, from a seed."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from typing import Any

import cv2
import numpy as np
from geometry_msgs.msg import Point
from lifecycle_msgs.srv import ChangeState
from PIL import Image as Picture
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import (
    DescribeParameters,
    GetParameters,
    ListParameters,
    SetParameters,
    SetParametersAtomically,
)
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from clipseg_ros.images.encodings import ENCODINGS
from clipseg_ros.segment.parameters import DECLARATIONS
from tests.fuzz.mutations import EXTREMES, mutate_bytes

Rng = np.random.Generator

MERGES = ', '.join(
    ['[&a0 {mug: mug}', *(f'&a{n} {{<<: [{", ".join([f"*a{n - 1}"] * 9)}]}}' for n in range(1, 9))]
)
"""YAML whose last mapping is merged of nine to the power of eight."""

NAMES = [*DECLARATIONS, 'use_sim_time', 'x', '', 'start_type_description_service']
WORDS = (
    '', ';', '!', ':', 'the mug', 'red bowl', '!the mug', 'mug: the mug', '\n', 'ü', '\x01',
    '☕' * 20, 'x' * 1001, 'a;' * 300, 'mug ' * 70_000, '{', '[', '&a', '%', '../..',
    '[' * 3000, '[' + 'a,' * 50_000 + ']', f'{MERGES}]', '---\n' * 80_000, '9' * 5000,
    'x: !!bool maybe', 'x: !!timestamp maybe', '2020-13-45',
)  # fmt: skip
_LARGE = 0.1
"""Share of a camera's images that are as large as a node takes them, or larger.

Not of other topics: the middleware keeps the memory of the largest messages, as many as the history
of a topic is deep, which is no leak of the node.
"""

NUMBERS = (0.0, -1.0, 1.0, 0.5, 1e308, -1e308, float('nan'), float('inf'), float('-inf'), 1e-320)


def text(rng: Rng) -> str:
    if rng.random() < 0.2:
        return rng.bytes(int(rng.integers(0, 200))).decode('latin-1').replace('\0', '')
    # Not by choice(), which makes an array of them all, each as long as the longest.
    return ''.join(WORDS[n] for n in rng.integers(0, len(WORDS), int(rng.integers(1, 4))))


def number(rng: Rng) -> float:
    return float(rng.choice(NUMBERS)) if rng.random() < 0.7 else float(rng.normal(0, 100))


def integer(rng: Rng, bits: int) -> int:
    """An integer that a signed field of so many bits can hold."""
    value = EXTREMES[rng.integers(0, len(EXTREMES))] if rng.random() < 0.6 else rng.integers(0, 300)
    return int(value) % (1 << (bits - 1)) * (-1 if rng.random() < 0.2 else 1)


def image(rng: Rng, large: float = 0.0) -> Image:
    """Valid, or with one or several fields that are not; now and then a large one."""
    if large and rng.random() < large:
        width, height = (
            int(side) for side in rng.choice([(3840, 2160), (6000, 5000), (6000, 5001)])
        )
        data = bytes(width * height)
        return Image(height=height, width=width, encoding='mono8', step=width, data=data)
    encoding = str(rng.choice(list(ENCODINGS)))
    height, width = (int(side) for side in rng.integers(1, 40, 2))
    known = ENCODINGS[encoding]
    step = width * known.channels * known.dtype.itemsize
    rows = int(height * known.rows)
    made = Image(height=height, width=width, encoding=encoding, step=step)
    size = step * rows
    for _ in range(int(rng.integers(0, 3))):
        match rng.integers(0, 7):
            case 0:
                made.encoding = text(rng)
            case 1:
                made.width = abs(integer(rng, 33)) % 2**32
            case 2:
                made.height = abs(integer(rng, 33)) % 2**32
            case 3:
                made.step = abs(integer(rng, 33)) % 2**32
            case 4:
                size = int(rng.integers(0, 5000))
            case 5:
                made.header.frame_id = text(rng)[:1000]
            case 6:
                made.header.stamp.sec = integer(rng, 32)
    made.is_bigendian = int(rng.integers(0, 256))
    made.data = rng.bytes(size)
    return made


def compressed(rng: Rng) -> CompressedImage:
    if rng.random() < _LARGE:
        return CompressedImage(format='jpeg', data=rng.choice(large_pictures()))
    kind = str(rng.choice(['.jpg', '.png', '.webp', '.bmp', '.tiff', '.ras', '.ppm']))
    pixels = rng.integers(0, 256, (int(rng.integers(1, 40)), int(rng.integers(1, 40)), 3), np.uint8)
    data = cv2.imencode(kind, pixels)[1].tobytes()
    if rng.random() < 0.8:
        data = mutate_bytes(data, rng)
    formats = ('jpeg', 'png', 'rgb8; jpeg compressed bgr8', '16UC1; compressedDepth png', text(rng))
    return CompressedImage(format=str(rng.choice(formats)), data=data)


@cache
def large_pictures() -> list[bytes]:
    """Small files of many pixels, the first four of which the node takes by default."""

    def encoded(kind: str, width: int, height: int, **how: Any) -> bytes:
        buffer = io.BytesIO()
        Picture.new('RGB', (width, height), (90, 80, 70)).save(buffer, kind, **how)
        return buffer.getvalue()

    def scans(data: bytes, most: int) -> bytes:
        last = data.rindex(b'\xff\xda')
        return data[:last] + data[last:-2] * (1 + most - data.count(b'\xff\xda')) + data[-2:]

    jpeg = encoded('JPEG', 6000, 5000, progressive=True)
    at = jpeg.index(b'\xff\xc2') + 5
    return [
        scans(jpeg, 20),
        encoded('JPEG', 6000, 5000),
        encoded('PNG', 6000, 5000),
        encoded('WEBP', 6000, 5000),
        scans(jpeg, 200),
        scans(encoded('JPEG', 4000, 3000, progressive=True), 180),
        *(jpeg[:at] + size.to_bytes(2, 'big') * 2 + jpeg[at + 4 :] for size in (10_000, 32_000)),
    ]


def value(rng: Rng) -> ParameterValue:
    made = ParameterValue(type=int(rng.integers(0, 10) if rng.random() < 0.9 else 77))
    made.bool_value = bool(rng.integers(0, 2))
    made.integer_value, made.double_value = integer(rng, 64), number(rng)
    made.string_value = text(rng)
    made.byte_array_value = [rng.bytes(1) for _ in range(3)]
    made.bool_array_value = [True, False]
    made.integer_array_value = [integer(rng, 64) for _ in range(int(rng.integers(0, 6)))]
    made.double_array_value = [number(rng) for _ in range(3)]
    made.string_array_value = [text(rng) for _ in range(int(rng.integers(0, 4)))]
    return made


class Hostile:
    """Sends one such message after the other to a node.

    Args:
        node: That sends them.
        namespace: Of the node that gets them.
        interfaces: The package's own messages.
        rng: Decides on all of them.

    Attributes:
        sent: Messages and requests by kind.
        calls: Requests that are to be answered.
    """

    def __init__(self, node: Any, namespace: str, interfaces: Any, rng: Rng) -> None:
        self._node, self._interfaces, self._rng = node, interfaces, rng
        self.sent: dict[str, int] = {}
        self.calls: list[tuple[str, Any]] = []
        large_pictures()  # Made once, and not while others wait.
        name = f'{namespace}/clipseg'
        topics: dict[str, tuple[Any, Callable[[Rng], Any]]] = {
            f'{namespace}/image': (Image, lambda rng: image(rng, _LARGE)),
            f'{namespace}/image/compressed': (CompressedImage, compressed),
            f'{namespace}/depth': (Image, image),
            f'{namespace}/camera_info': (CameraInfo, self._info),
            f'{name}/prompt': (String, lambda rng: String(data=text(rng))),
            f'{name}/prompt_image': (Image, image),
            f'{name}/prompt_mask': (Image, image),
            f'{name}/pick_point': (Point, lambda rng: Point(x=number(rng), y=number(rng))),
            f'{name}/pick_box': (RegionOfInterest, self._box),
        }
        self._publishers = [
            (topic, node.create_publisher(kind, topic, 10), make)
            for topic, (kind, make) in topics.items()
        ]
        services: dict[str, tuple[Any, Callable[[Rng], Any]]] = {
            'set_parameters': (SetParameters, self._parameters),
            'set_parameters_atomically': (SetParametersAtomically, self._atomically),
            'get_parameters': (GetParameters, lambda rng: GetParameters.Request(names=names(rng))),
            'describe_parameters': (
                DescribeParameters,
                lambda rng: DescribeParameters.Request(names=names(rng)),
            ),
            'list_parameters': (
                ListParameters,
                lambda rng: ListParameters.Request(prefixes=names(rng), depth=int(rng.integers(9))),
            ),
            # Those that this state has no transition for.
            'change_state': (ChangeState, self._transition),
            'enable': (SetBool, lambda rng: SetBool.Request(data=bool(rng.integers(0, 2)))),
            'save_prompts': (Trigger, lambda rng: Trigger.Request()),
            'load_prompts': (Trigger, lambda rng: Trigger.Request()),
        }
        if interfaces is not None:
            services |= {
                'get_masks': (interfaces.GetMasks, self._masks),
                'segment_once': (interfaces.SegmentOnce, self._once),
                'set_prompts': (interfaces.SetPrompts, self._prompts),
                'pick': (interfaces.PickPrompt, self._pick),
            }
        self._clients = [
            (service, node.create_client(kind, f'{name}/{service}'), make)
            for service, (kind, make) in services.items()
        ]

    def send(self) -> None:
        """Send one."""
        rng = self._rng
        if rng.random() < 0.75:
            topic, publisher, make = self._publishers[rng.integers(0, len(self._publishers))]
            message = make(rng)
            if rng.random() < 0.2:
                # Not what any program would write down.
                message = mutate_bytes(serialize_message(message), rng)
                topic = f'{topic} (bytes)'
            try:
                publisher.publish(message)
            except _rclpy.RCLError:
                topic = 'not sent, as the middleware refuses it'
            self._count(topic)
            return
        service, client, make = self._clients[rng.integers(0, len(self._clients))]
        if client.service_is_ready():
            self.calls.append((service, client.call_async(make(rng))))
            self._count(service)

    def fill(self) -> None:
        """Send a few of the largest images, whose memory the middleware keeps for later ones."""
        width, height = 6000, 5001
        largest = Image(height=height, width=width, encoding='mono8', step=width)
        largest.data = bytes(width * height)
        for _ in range(8):
            self._publishers[0][1].publish(largest)

    def _count(self, kind: str) -> None:
        self.sent[kind] = self.sent.get(kind, 0) + 1

    def unanswered(self) -> list[str]:
        """Return the services that have not answered, and forget the answers that came."""
        self.calls = [(service, future) for service, future in self.calls if not future.done()]
        return sorted(service for service, _ in self.calls)

    def _info(self, rng: Rng) -> CameraInfo:
        made = CameraInfo(width=int(rng.integers(0, 100)), height=int(rng.integers(0, 100)))
        made.distortion_model = text(rng)[:1000]
        made.d = [number(rng) for _ in range(int(rng.integers(0, 20)))]
        made.k = [number(rng) for _ in range(9)]
        made.p = [number(rng) for _ in range(12)]
        return made

    def _box(self, rng: Rng) -> RegionOfInterest:
        fields = ('x_offset', 'y_offset', 'width', 'height')
        return RegionOfInterest(**{name: abs(integer(rng, 33)) % 2**32 for name in fields})

    def _parameters(self, rng: Rng) -> Any:
        made = [
            Parameter(name=str(rng.choice(NAMES)), value=value(rng))
            for _ in range(int(rng.integers(0, 4)))
        ]
        return SetParameters.Request(parameters=made)

    def _atomically(self, rng: Rng) -> Any:
        return SetParametersAtomically.Request(parameters=self._parameters(rng).parameters)

    def _transition(self, rng: Rng) -> Any:
        request = ChangeState.Request()
        request.transition.id = int(rng.choice([1, 2, 3, 10, 30, 60, 97, 98, 99, 254, 255]))
        request.transition.label = text(rng)[:100] if request.transition.id > 3 else ''
        return request

    def _prompt(self, rng: Rng) -> Any:
        made = self._interfaces.Prompt(
            id=int(rng.integers(0, 256)),
            name=text(rng)[:2000],
            phrase=text(rng)[:2000],
            negative=bool(rng.integers(0, 2)),
            enabled=bool(rng.integers(0, 2)),
        )
        single = [x for x in NUMBERS if abs(x) < 1e38 or not np.isfinite(x)]
        made.threshold, made.presence_threshold, made.weight = (
            float(x) for x in rng.choice(single, 3)
        )
        if rng.random() < 0.4:
            made.image, made.mask = image(rng), image(rng)
        return made

    def _prompts(self, rng: Rng) -> Any:
        count = int(rng.choice([0, 1, 2, 5, 300], p=[0.2, 0.3, 0.3, 0.19, 0.01]))
        return self._interfaces.SetPrompts.Request(
            prompts=[self._prompt(rng) for _ in range(count)]
        )

    def _masks(self, rng: Rng) -> Any:
        wait = float(rng.choice([0.01, 0.1, -1.0, float('nan'), float('inf'), 3600.0]))
        return self._interfaces.GetMasks.Request(names=names(rng), wait=wait)

    def _once(self, rng: Rng) -> Any:
        made = self._interfaces.SegmentOnce.Request(wait=float(rng.choice([0.1, -1.0, 1.0])))
        made.prompts = [self._prompt(rng) for _ in range(int(rng.integers(0, 3)))]
        if rng.random() < 0.7:
            made.image = image(rng)
        if rng.random() < 0.3:
            made.depth, made.camera_info = image(rng), self._info(rng)
        return made

    def _pick(self, rng: Rng) -> Any:
        made = self._interfaces.PickPrompt.Request(name=text(rng)[:2000], phrase=text(rng)[:2000])
        made.x, made.y, made.width, made.height = (integer(rng, 32) for _ in range(4))
        return made


def names(rng: Rng) -> list[str]:
    return [text(rng)[:3000] if rng.random() < 0.5 else str(rng.choice(NAMES)) for _ in range(3)]
