"""Sources of pictures for the node ``camera``: the simulated world, files, or a real camera."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from clipseg_model.errors import ImageError
from clipseg_model.files.user_folders import expanded
from clipseg_model.images import IMAGE_SUFFIXES, MAX_PIXELS, native_name, read_image
from clipseg_ros.errors import SourceError

TABLETOP = 'tabletop'
MOTIONS = ('still', 'orbit')
_TABLETOP_SIZE = (640, 480)


@dataclass(frozen=True)
class CameraFrame:
    """One picture.

    Attributes:
        rgb: RGB uint8 (H, W, 3).
        depth: float32 metres (H, W), 0 where unknown; None where the source has none.
        intrinsics: 3 × 3 matrix K, pixels; None where the camera is not calibrated.
        instances: Id of the object at each pixel, uint8 (H, W), 0 for none; None where unknown.
    """

    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32] | None = None
    intrinsics: NDArray[np.float64] | None = None
    instances: NDArray[np.uint8] | None = None


class Source(Protocol):
    """A source of pictures."""

    def frame(self, elapsed: float) -> CameraFrame | None:
        """Return the picture ``elapsed`` seconds after the start; None after the last one.

        Raises:
            SourceError: This picture failed; the next call may succeed.
        """

    def close(self) -> None:
        """Free its resources."""


class TabletopSource:
    """The simulated household, rendered live; raises a SourceError without MuJoCo or a renderer."""

    def __init__(self, seed: int, width: int, height: int, motion: str) -> None:
        try:
            from tabletop_world.render.live import LiveWorld

            self._world: Any = LiveWorld(
                seed=seed,
                width=width or _TABLETOP_SIZE[0],
                height=height or _TABLETOP_SIZE[1],
                motion=motion,
            )
        except ImportError as error:
            raise SourceError(
                f'the tabletop world needs MuJoCo, and it cannot be imported ({error}): '
                "pip install 'clipseg_ros[world]', or give another source"
            ) from error
        except RuntimeError as error:
            raise SourceError(f'the tabletop world cannot be rendered: {error}') from error

    def frame(self, elapsed: float) -> CameraFrame:
        """Render the scene; see :class:`Source`."""
        try:
            frame = self._world.frame(elapsed)
        except RuntimeError as error:
            raise SourceError(f'the tabletop world cannot be rendered: {error}') from error
        return CameraFrame(frame.rgb, frame.depth, frame.intrinsics, frame.instances)

    def close(self) -> None:
        """Free the renderer."""
        self._world.close()


class FolderSource:
    """The pictures of a folder in the order of their names, or a single picture.

    They are resized to (width, height); a 0 keeps the picture's own. Raises a SourceError where
    there is none.
    """

    def __init__(self, path: Path, size: tuple[int, int], loop: bool) -> None:
        files = [path] if path.is_file() else sorted(path.iterdir())
        self._files = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
        if not self._files:
            raise SourceError(
                f'{path} holds no picture ({", ".join(sorted(IMAGE_SUFFIXES))}): '
                'give another folder'
            )
        self._size, self._loop, self._next = size, loop, 0

    def frame(self, elapsed: float) -> CameraFrame | None:
        """Read the next picture; see :class:`Source`."""
        if self._next == len(self._files):
            if not self._loop:
                return None
            self._next = 0
        file = self._files[self._next]
        self._next += 1
        try:
            picture = read_image(file)
        except ImageError as error:
            raise SourceError(
                f'{file} cannot be decoded: remove or replace it ({error})'
            ) from error
        return CameraFrame(_resized(picture, self._size))

    def close(self) -> None:
        """Do nothing: files are closed after each picture."""


class CaptureSource:
    """A video file, or a camera of this machine: ``/dev/videoN`` or its number.

    Pictures are resized to (width, height), which a camera is asked for; a 0 keeps its own. Raises
    a SourceError where it cannot be opened, or states more than :data:`MAX_PIXELS` pixels.
    """

    def __init__(self, device: str, size: tuple[int, int], loop: bool) -> None:
        self._device, self._size = device, size
        self._live = bool(re.fullmatch(r'\d+|/dev/.*', device))
        self._loop = loop and not self._live
        try:
            self._capture = cv2.VideoCapture(
                int(device) if device.isdecimal() else native_name(device)
            )
        except ImageError as error:
            raise SourceError(str(error)) from error
        if not self._capture.isOpened():
            kind = 'a camera (plugged in? in use? yours to read?)' if self._live else 'a video'
            raise SourceError(f'{device} cannot be opened as {kind}')
        if self._live and all(size):
            self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, size[0])
            self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size[1])
        # Before the first is decoded.
        told = (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        self._check(*(self._capture.get(side) for side in told))

    def frame(self, elapsed: float) -> CameraFrame | None:
        """Read the next frame; see :class:`Source`."""
        good, picture = self._capture.read()
        if not good and self._loop:
            self._capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
            good, picture = self._capture.read()
        if not good:
            if self._live or self._loop:
                raise SourceError(f'{self._device} gives no picture')
            return None
        # What a driver gives may be other than it states.
        self._check(picture.shape[1], picture.shape[0])
        rgb = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
        return CameraFrame(_resized(np.asarray(rgb, dtype=np.uint8), self._size))

    def _check(self, width: float, height: float) -> None:
        if width * height > MAX_PIXELS:
            raise SourceError(
                f'{self._device} has pictures of {width:.0f} × {height:.0f} pixels, and at most '
                f'{MAX_PIXELS} are read: convert it to a smaller one'
            )

    def close(self) -> None:
        """Release the device or file."""
        self._capture.release()


def open_source(
    name: str,
    *,
    width: int = 0,
    height: int = 0,
    seed: int = 0,
    motion: str = 'still',
    loop: bool = True,
) -> Source:
    """Open ``tabletop``; a folder, picture or video; ``/dev/videoN`` or its number N.

    Sizes are pixels, 0 for the source's own; seed and motion (``still`` or ``orbit``) are those of
    the tabletop world. ``loop`` starts files again after the last. Raises a SourceError.
    """
    if name == TABLETOP:
        return TabletopSource(seed, width, height, motion)
    size = (width, height)
    path = expanded(name)
    if name.isdigit() or name.startswith('/dev/'):
        return CaptureSource(name, size, loop)
    if path.is_dir() or (path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES):
        return FolderSource(path, size, loop)
    if path.is_file():
        # Absolute: FFmpeg takes a:b.mp4 for an address.
        return CaptureSource(str(path.absolute()), size, loop)
    raise SourceError(
        f'source {name!r} is neither {TABLETOP!r} nor a folder, picture, video or camera '
        '(/dev/video0, or 0) of this machine'
    )


def _resized(rgb: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize a picture; where only one side is given, the other keeps the proportions."""
    height, width = rgb.shape[:2]
    wanted_width, wanted_height = size
    if not wanted_width and not wanted_height:
        return rgb
    wanted_width = wanted_width or max(1, round(width * wanted_height / height))
    wanted_height = wanted_height or max(1, round(height * wanted_width / width))
    if (wanted_width, wanted_height) == (width, height):
        return rgb
    shrinks = wanted_width * wanted_height < width * height
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized = cv2.resize(rgb, (wanted_width, wanted_height), interpolation=method)
    return np.asarray(resized, dtype=np.uint8)
