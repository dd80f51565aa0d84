"""Videos on disk: every frame with its time, and overlays at the same times.

OpenCV passes names to FFmpeg, which takes some for addresses (``a:b.mp4``), and not all that a
file may have: so it gets a link with a plain name.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from clipseg_model.errors import ImageError
from clipseg_model.images import MAX_PIXELS

# What is wrong with a file is said here, once; OpenCV and FFmpeg say more, for their makers.
os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')
# OpenCV 4 has it at the one place, and OpenCV 5 at the other.
_set_log_level = getattr(cv2, 'setLogLevel', None) or cv2.utils.logging.setLogLevel
_set_log_level(0)

_USUAL_RATE = 25.0
"""Frames per second where a container tells none."""

_COUNTING = (b'ftyp', b'moov', b'mdat', b'wide', b'free', b'skip')
"""Bytes 4 to 8 of files, beside AVI, whose header counts the frames; in others it is a guess."""


class Video:
    """Frames of a video file, to be read once.

    Attributes:
        rate: Frames per second, as far as they are regular.
        regular: Whether they are.
        expected: How many frames there are by the header and by the packets of the file.

    Raises:
        ImageError: It is no video, or its frames are too large.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with _plain_name(path) as link:
            self._reader = cv2.VideoCapture(str(link))
            packets = packet_times(link)
        width = self._reader.get(cv2.CAP_PROP_FRAME_WIDTH)
        height = self._reader.get(cv2.CAP_PROP_FRAME_HEIGHT)
        if width * height > MAX_PIXELS:
            self.close()
            raise ImageError(
                f'The frames of {path} have {width:.0f} × {height:.0f} pixels, and at most '
                f'{MAX_PIXELS} are read: convert it to a smaller size first'
            )
        read, self._first = self._reader.read()
        if not read or self._first is None:
            self.close()
            raise ImageError(f'{path} cannot be read as a video: it is none, or damaged')
        rate = self._reader.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 0 < rate < 1e4 else _USUAL_RATE
        places = packets * self.rate
        self.regular = bool(np.all(np.abs(places - np.arange(len(places))) < 0.5))
        self.expected = self._expect(packets)

    def _expect(self, packets: NDArray[np.float64]) -> int:
        told = self._reader.get(cv2.CAP_PROP_FRAME_COUNT)
        counted = int(told) if 0 < told < 1e9 else 0
        with self._path.open('rb') as opened:
            start = opened.read(8)
        if start[4:] in _COUNTING or start[:4] == b'RIFF':
            return max(counted, len(packets))
        # The header tells no more than how long it lasts.
        gaps = np.diff(packets)
        usual = float(np.median(gaps)) if len(gaps) else 1 / self.rate
        steady = len(gaps) == 0 or np.mean(np.abs(gaps - 1 / self.rate) < 0.1 * usual) > 0.8
        missing = counted / self.rate - float(packets[-1] if len(packets) else 0)
        if steady or missing > 2 * max(usual, float(gaps.max(initial=0))):
            return counted if steady else max(counted, len(packets) + 1)
        return len(packets)

    def frames(self) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        """Yield the time of each frame, seconds, and the frame, (H, W, 3) uint8 RGB.

        Times are those of the container, as far as they grow.
        """
        seconds, read, frame = 0.0, True, self._first
        number = 0
        while read:
            told = self._reader.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if number:
                seconds = told if told > seconds else seconds + 1 / self.rate
            yield seconds, np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), dtype=np.uint8)
            read, frame = self._reader.read()
            number += 1

    def close(self) -> None:
        """Close the file."""
        self._reader.release()


class OverlayWriter:
    """An MP4 file of frames of one size at given times.

    Frames at a constant rate and of even sides are MPEG-4. Others are Motion JPEG, which is larger:
    the encoder of OpenCV cuts odd sides and knows one rate alone.
    """

    def __init__(self, target: Path, rate: float, regular: bool) -> None:
        self.target = target
        self._rate = rate if regular else 1000.0
        self._regular = regular
        self._writer: cv2.VideoWriter | None = None
        self._jpeg = False
        self._written = 0
        self._stack = ExitStack()

    def write(self, seconds: float, frame: NDArray[np.uint8]) -> None:
        """Add a frame, (H, W, 3) uint8 RGB.

        Raises:
            ImageError: No video can be made there.
        """
        pixels = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        if self._writer is None:
            self._writer = self._open(frame.shape[1], frame.shape[0])
        if self._jpeg:
            place = self._written if self._regular else round(seconds * self._rate)
            self._writer.set(cv2.VIDEOWRITER_PROP_PTS, place)
            pixels = cv2.imencode('.jpg', pixels, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].reshape(1, -1)
        self._writer.write(pixels)
        self._written += 1

    def _open(self, width: int, height: int) -> cv2.VideoWriter:
        self._jpeg = not self._regular or width % 2 > 0 or height % 2 > 0
        link = self._stack.enter_context(_plain_name(self.target))
        codec = cv2.VideoWriter.fourcc(*('MJPG' if self._jpeg else 'mp4v'))
        raw = [cv2.VIDEOWRITER_PROP_RAW_VIDEO, 1, cv2.VIDEOWRITER_PROP_KEY_INTERVAL, 1]
        size = (width, height)
        options = raw if self._jpeg else []
        writer = cv2.VideoWriter(str(link), cv2.CAP_FFMPEG, codec, self._rate, size, options)
        if not writer.isOpened():
            raise ImageError(
                f'{self.target} cannot be written as a video of {width} × {height} pixels: is the '
                'folder writable, and is there room?'
            )
        return writer

    def close(self) -> None:
        """Complete the file.

        Raises:
            ImageError: Not every frame got into it. OpenCV itself reports nothing.
        """
        with self._stack:
            if self._writer is None:
                return
            self._writer.release()
            with _plain_name(self.target) as link:
                found = len(packet_times(link))
            if found != self._written:
                raise ImageError(
                    f'{self.target} is incomplete, {found} of {self._written} frames: is the disk '
                    'full, or does the size of the frames change?'
                )


def packet_times(path: Path) -> NDArray[np.float64]:
    """Return when the packets of a video are shown, seconds, sorted; nothing is decoded."""
    reader = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
    times = []
    while reader.grab():
        times.append(reader.get(cv2.CAP_PROP_POS_MSEC) / 1000)
    reader.release()
    return np.sort(np.array(times, dtype=np.float64))


def count_frames(path: Path) -> int:
    """Return how many frames the header of a video tells of, 1 at least."""
    with _plain_name(path) as link:
        reader = cv2.VideoCapture(str(link))
        told = reader.get(cv2.CAP_PROP_FRAME_COUNT)
        reader.release()
    return int(told) if 1 < told < 1e9 else 1


@contextmanager
def _plain_name(path: Path) -> Iterator[Path]:
    """Yield a link with a plain name and the same suffix to a file, which need not exist."""
    with tempfile.TemporaryDirectory(prefix='clipseg-') as folder:
        link = Path(folder) / f'video{path.suffix.lower()}'
        link.symlink_to(path.absolute())
        yield link
