"""What the console looks at without ROS: pictures, a video, a camera of this machine, a bag."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from clipseg_model.errors import ClipsegError, ImageError
from clipseg_model.images import IMAGE_SUFFIXES, MAX_PIXELS, native_name, read_image
from clipseg_ros.camera.sources import CaptureSource
from clipseg_ros.console.back_ends.base import ConsoleError
from clipseg_ros.errors import ImageConversionError, SourceError

Picture = NDArray[np.uint8]

LONGEST_SIDE = 1280
"""Larger pictures are shown and segmented smaller, pixels: models see less anyhow."""

MOST_DROPPED = 32
"""Dropped pictures that are kept, the newest; they live in memory only."""

_SECONDS_A_PICTURE = 2.0


class Feed(Protocol):
    """A source of pictures.

    Attributes:
        title: What people call it.
        problem: Why there is no picture now; empty where there is.
        failed: Whether there will be none any more, unless the source is opened again.
    """

    title: str
    problem: str
    failed: bool

    @property
    def steps(self) -> int:
        """Number of pictures to step through; 0 for what moves by itself."""

    @property
    def at(self) -> int:
        """Number of the current one."""

    @property
    def playing(self) -> bool:
        """Whether they go on by themselves."""

    def newest(self, after: int, timeout: float) -> tuple[int, float, Picture] | None:
        """Wait for a picture of a number above ``after``: its number, stamp (s) and pixels."""

    def step(self, by: int, playing: bool | None) -> None:
        """Step, or begin or end playing."""

    def wake(self) -> None:
        """Let who waits for a picture go on without one."""

    def pause(self, wish: bool) -> None:
        """Rest while nobody looks, or go on."""

    def close(self) -> None:
        """Free the source."""


class Stills:
    """Pictures that stay until another is chosen: those of a folder, and those dropped."""

    def __init__(self, title: str, loaders: list[tuple[str, Callable[[], Picture]]]) -> None:
        self.title, self.problem, self.failed = title, '', False
        self.playing = False
        self.at = 0
        self._loaders = loaders
        self._number, self._due = 1, 0.0
        self._awake = False
        self._changed = threading.Condition()

    @property
    def steps(self) -> int:
        """Number of pictures."""
        return len(self._loaders)

    @property
    def name(self) -> str:
        """Name of the current picture; empty without any."""
        return self._loaders[self.at][0] if self._loaders else ''

    def newest(self, after: int, timeout: float) -> tuple[int, float, Picture] | None:
        """Wait for another picture; see :class:`Feed`."""
        with self._changed:
            rest = self._due - time.monotonic()
            goes_on = self.playing and len(self._loaders) > 1 and rest <= timeout
            wait = max(0.0, rest) if goes_on else timeout
            if not self._changed.wait_for(lambda: self._awake or self._is_newer(after), wait):
                self._go(1 if goes_on else 0)
            self._awake = False
            if not self._is_newer(after):
                return None
            number, load = self._number, self._loaders[self.at][1]
        try:
            picture = fitted(load())
        except ImageError as error:
            self.problem = f'{self.name} is left out: {error}'
            picture = np.full((240, 320, 3), 64, np.uint8)
        else:
            self.problem = ''
        return number, time.time(), picture

    def step(self, by: int, playing: bool | None) -> None:
        """Show another picture; see :class:`Feed`."""
        with self._changed:
            if playing is not None:
                self.playing = playing
                self._due = time.monotonic() + _SECONDS_A_PICTURE
            self._go(by)
            self._changed.notify_all()

    def wake(self) -> None:
        """See :class:`Feed`."""
        with self._changed:
            self._awake = True
            self._changed.notify_all()

    def add(self, name: str, picture: Picture) -> None:
        """Add a picture, and show it."""
        with self._changed:
            self._loaders.append((name, lambda: picture))
            del self._loaders[:-MOST_DROPPED]
            self.at, self.playing = len(self._loaders) - 1, False
            self._number += 1
            self._changed.notify_all()

    def pause(self, wish: bool) -> None:
        """Do nothing: pictures are read when they are asked for."""

    def close(self) -> None:
        """Wake who waits."""
        with self._changed:
            self._changed.notify_all()

    def _is_newer(self, after: int) -> bool:
        return bool(self._loaders) and self._number > after

    def _go(self, by: int) -> None:
        if self._loaders and by:
            self.at = (self.at + by) % len(self._loaders)
            self._number += 1
            self._due = time.monotonic() + _SECONDS_A_PICTURE


class Moving:
    """Pictures that come by themselves, of which the newest is kept.

    Args:
        title: What people call it.
        pictures: Yields a picture with the seconds from the first one to it; those that are late
            are left out. It may raise a SourceError or BagError, which ends it.
        close: Frees the source.
        live: Whether pictures come at the source's own pace.
    """

    steps = at = 0
    playing = True

    def __init__(
        self,
        title: str,
        pictures: Iterator[tuple[float, Callable[[], Picture]]],
        close: Callable[[], None],
        live: bool,
    ) -> None:
        self.title, self.problem, self.failed = title, '', False
        self._pictures, self._free, self._live = pictures, close, live
        self._changed = threading.Condition()
        self._slot: tuple[int, float, Picture] | None = None
        self._closed = self._paused = self._awake = False
        self._thread = threading.Thread(target=self._run, name='console feed', daemon=True)
        self._thread.start()

    def newest(self, after: int, timeout: float) -> tuple[int, float, Picture] | None:
        """Wait for a newer picture; see :class:`Feed`."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_newer(after) or self._awake or self._closed, timeout
            )
            self._awake = False
            return self._slot if self._is_newer(after) else None

    def step(self, by: int, playing: bool | None) -> None:
        """Refuse: there is nothing to step through."""
        raise ConsoleError('there is nothing to step through: this source moves by itself')

    def wake(self) -> None:
        """See :class:`Feed`."""
        with self._changed:
            self._awake = True
            self._changed.notify_all()

    def pause(self, wish: bool) -> None:
        """Rest while nobody looks, or go on; see :class:`Feed`."""
        with self._changed:
            self._paused = wish
            self._changed.notify_all()

    def close(self) -> None:
        """End the thread, and free the source."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(5.0)

    def _is_newer(self, after: int) -> bool:
        return self._slot is not None and self._slot[0] > after

    def _run(self) -> None:
        number, begin = 0, time.monotonic()
        try:
            for due, load in self._pictures:
                if self._paused:
                    rested = time.monotonic()
                    with self._changed:
                        self._changed.wait_for(lambda: self._closed or not self._paused)
                    begin += time.monotonic() - rested
                if self._closed:
                    break
                wait = 0.0 if self._live else due - (time.monotonic() - begin)
                if wait < -0.1:
                    continue
                with self._changed:
                    self._changed.wait_for(lambda: self._closed, max(0.0, wait))
                try:
                    picture = fitted(load())
                except (ImageError, ImageConversionError) as error:
                    self.problem = f'a picture of {self.title} is left out: {error}'
                    continue
                number += 1
                with self._changed:
                    self.problem = ''
                    self._slot = (number, time.time(), picture)
                    self._changed.notify_all()
            else:
                self.problem = f'{self.title} is at its end'
        except (SourceError, ClipsegError) as error:
            self.problem, self.failed = str(error), True
        finally:
            self._free()


def open_pictures(path: Path) -> Stills:
    """Return the pictures of a folder, or one; raises a ConsoleError where there is none."""
    if not path.exists():
        raise ConsoleError(f'{path}: there is no such picture or folder')
    files = [path] if path.is_file() else sorted(path.iterdir())
    files = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        raise ConsoleError(
            f'{path} holds no picture ({", ".join(sorted(IMAGE_SUFFIXES))}): give another folder, '
            'or drop pictures onto the page'
        )
    return Stills(path.name or 'pictures', [(file.name, _reader(file)) for file in files])


def open_video(path: Path) -> Moving:
    """Return a video, which begins again after its end; raises a SourceError or ConsoleError."""
    if not path.is_file():
        raise ConsoleError(f'{path}: there is no such video')
    capture = CaptureSource(str(path.absolute()), (0, 0), loop=True)
    probe = cv2.VideoCapture(native_name(str(path.absolute())))
    rate = probe.get(cv2.CAP_PROP_FPS)
    probe.release()
    rate = rate if 0 < rate <= 240 else 25.0
    return Moving(path.name, _captured(capture, rate), capture.close, live=False)


def open_camera(device: str) -> Moving:
    """Return a camera of this machine, ``N`` or ``/dev/videoN``; raises a SourceError."""
    capture = CaptureSource(device, (640, 480), loop=False)
    return Moving(f'camera {device}', _captured(capture, 30.0), capture.close, live=True)


def open_bag(path: Path, topic: str | None) -> Moving:
    """Return an image topic of a bag, which begins again after its end; raises a BagError."""
    from clipseg_ros.bag.reading import CONVERTERS
    from clipseg_ros.bag.reading import open_camera as open_topic

    with open_topic(path, topic) as tried:
        name = tried.topic

    def pictures() -> Generator[tuple[float, Callable[[], Picture]]]:
        # In the thread that reads: SQLite hands a file that is open to no other one.
        with open_topic(path, name) as camera:
            shift = 0.0
            while True:
                first = due = None
                for stamp, kind, data in camera.messages():
                    first = stamp if first is None else first
                    due = shift + (stamp - first) / 1e9

                    def load(kind: str = kind, data: object = data) -> Picture:
                        return np.array(CONVERTERS[kind](camera.read(kind, data), MAX_PIXELS))

                    yield due, load
                if due is None:
                    return
                shift = due + 0.1

    reading = pictures()
    return Moving(f'{path.name} {name}', reading, reading.close, live=False)


def machine_cameras() -> list[tuple[str, str]]:
    """Return the cameras of this machine that Linux knows: (``/dev/videoN``, name)."""
    found = []
    for entry in sorted(Path('/sys/class/video4linux').glob('video*')):
        try:
            name, index = (entry / 'name').read_text().strip(), (entry / 'index').read_text()
        except OSError:
            continue
        # Further devices of a camera are its metadata.
        if index.strip() == '0':
            found.append((f'/dev/{entry.name}', name))
    return found


def fitted(rgb: Picture) -> Picture:
    """Return a picture of at most :data:`LONGEST_SIDE`, in its proportions."""
    height, width = rgb.shape[:2]
    scale = LONGEST_SIDE / max(height, width)
    if scale >= 1:
        return rgb
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


def _reader(file: Path) -> Callable[[], Picture]:
    return lambda: read_image(file)


def _captured(capture: CaptureSource, rate: float) -> Iterator[tuple[float, Callable[[], Picture]]]:
    number = 0
    while (frame := capture.frame(number / rate)) is not None:
        rgb = frame.rgb
        yield number / rate, lambda rgb=rgb: rgb  # type: ignore[misc]
        number += 1
