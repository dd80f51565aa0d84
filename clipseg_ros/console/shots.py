"""A picture with what was found in it, and how it goes to a browser. No ROS in here.

A message is a 4-byte length (little endian), a header in JSON, and the parts that the header lists
with their sizes: the picture as JPEG, and layers of its size as PNG, which keeps every value.
"""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

LAYERS = ('labels', 'heat', 'instances', 'overlay')
"""What may be wanted beside the picture; ``overlay`` is the node's own drawing, in its place."""

QUALITIES = ((1.0, 80), (1.0, 60), (0.75, 55), (0.5, 50), (0.5, 30), (0.35, 25))
"""(Scale, quality of the JPEG), for ever slower browsers."""


@dataclass(frozen=True)
class Found:
    """What was found for one prompt.

    Attributes:
        id: Of the prompt.
        name: Of the prompt.
        score: 0…1.
        presence: Whether it counts as present.
        area: Of its mask, pixels.
    """

    id: int
    name: str
    score: float
    presence: bool
    area: int


@dataclass(frozen=True, eq=False)
class Shot:
    """One picture.

    Attributes:
        stamp: When it was taken, seconds since 1970 by this machine's clock.
        width: Pixels.
        height: Pixels.
        read: Returns the pixels, RGB uint8 (H, W, 3).
        layers: Encoded layers by name, each maybe made when it is asked for.
        found: What was found in it, or in the newest one before it.
        jpeg: The picture as it came, where it came as JPEG.
        segmented: Whether the layers are of this very picture.
        origin: Which model segmented it, of which camera: scores of others are not mixed with its.
    """

    stamp: float
    width: int
    height: int
    read: Callable[[], NDArray[np.uint8]]
    layers: Mapping[str, bytes | Callable[[], bytes]] = field(default_factory=dict)
    found: Sequence[Found] = ()
    jpeg: bytes | None = None
    segmented: bool = False
    origin: str = ''
    _made: dict[Any, Any] = field(default_factory=dict, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def pixels(self) -> NDArray[np.uint8]:
        """Return the picture, RGB uint8 (H, W, 3); raises what its reader raises."""
        return self._once('pixels', self.read)

    def picture(self, level: int) -> bytes:
        """Return the picture as JPEG, at one of :data:`QUALITIES`."""
        if self.jpeg is not None and level == 0:
            return self.jpeg
        return self._once(level, lambda: encode_picture(self.pixels(), *QUALITIES[level]))

    def layer(self, name: str) -> bytes | None:
        """Return an encoded layer; None where the shot has none of that name."""
        made = self.layers.get(name)
        if made is None or isinstance(made, bytes):
            return made
        return self._once(name, made)

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        # Several browsers may ask at once.
        with self._lock:
            if key not in self._made:
                self._made[key] = make()
            return self._made[key]


def message(
    shot: Shot, number: int, wanted: Sequence[str], level: int, more: Mapping[str, Any]
) -> bytes:
    """Return a shot as a message; ``more`` goes into its header."""
    parts = {name: data for name in wanted if (data := shot.layer(name)) is not None}
    if 'overlay' not in parts:
        parts['picture'] = shot.picture(level)
    header = {
        'number': number,
        'stamp': shot.stamp,
        'width': shot.width,
        'height': shot.height,
        'segmented': shot.segmented,
        'level': level,
        'found': [
            {'name': one.name, 'id': one.id, 'score': round(one.score, 4),
             'presence': one.presence, 'area': one.area}
            for one in shot.found
        ],
        'parts': [[name, len(data)] for name, data in parts.items()],
        **more,
    }  # fmt: skip
    text = json.dumps(header, ensure_ascii=False).encode()
    return b''.join((struct.pack('<I', len(text)), text, *parts.values()))


def encode_picture(rgb: NDArray[np.uint8], scale: float, quality: int) -> bytes:
    """Return a picture, RGB uint8 (H, W, 3), as JPEG, smaller by a scale up to 1."""
    if scale < 1:
        rgb = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes())


def encode_values(values: NDArray[np.uint8]) -> bytes:
    """Return values, uint8 (H, W), as PNG: few areas of one value take little time and room."""
    options = [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
    return bytes(cv2.imencode('.png', np.ascontiguousarray(values), options)[1].tobytes())


def encode_heat(probability: NDArray[np.float32]) -> bytes:
    """Return probabilities, float32 (H, W) in 0…1, as a grey JPEG: smooth values need no PNG."""
    grey = np.asarray(probability * 255.0 + 0.5, np.float32).astype(np.uint8)
    return bytes(cv2.imencode('.jpg', grey, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes())


def fold_instances(ids: NDArray[Any]) -> NDArray[np.uint8]:
    """Return ids of things (H, W), 0 for none, in a byte each: 1…254, over and over."""
    wide = ids.astype(np.int64)
    return np.where(wide > 0, (wide - 1) % 254 + 1, 0).astype(np.uint8)
