"""Videos on disk: every frame with its time, and overlays at the same times."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from clipseg_model.cli.edit_list import hidden_seconds
from clipseg_model.errors import ImageError
from clipseg_model.images import MAX_PIXELS, VIDEO_SUFFIXES, check_pixels, native_name

# What is wrong with a file is said here, once; OpenCV and FFmpeg say more, for their makers.
os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')
(getattr(cv2, 'setLogLevel', None) or cv2.utils.logging.setLogLevel)(0)  # OpenCV 4, or 5.

# Bytes 4 to 8 of containers, beside AVI, that count their frames; others tell their length only.
_COUNTING = (b'ftyp', b'moov', b'mdat', b'wide', b'free', b'skip')
_MJPEG = [cv2.VIDEOWRITER_PROP_RAW_VIDEO, 1, cv2.VIDEOWRITER_PROP_KEY_INTERVAL, 1]


class Video:
    """Frames of a video file, to be read once.

    Attributes:
        rate: Frames per second, as far as they are regular.
        regular: Whether they are.
        expected: How many frames there are to show by the header and the packets of the file.

    Raises:
        ImageError: It is no video, or its frames have more than ``max_pixels`` pixels.
    """

    def __init__(self, path: Path, max_pixels: int = MAX_PIXELS) -> None:
        with _plain_name(path) as link:
            self._reader = cv2.VideoCapture(native_name(link))
            packets = _packet_times(link)
        get = self._reader.get
        width, height = get(cv2.CAP_PROP_FRAME_WIDTH), get(cv2.CAP_PROP_FRAME_HEIGHT)
        rate, told = get(cv2.CAP_PROP_FPS), get(cv2.CAP_PROP_FRAME_COUNT)
        if width > 0 and height > 0:
            check_pixels(int(width), int(height), max_pixels, f'A frame of {path}')
        read, self._first = self._reader.read()
        if not read:
            raise ImageError(f'{path} cannot be read as a video: it is none, or damaged')
        # Where the header does not tell. Later frames are scaled to the size of the first.
        check_pixels(self._first.shape[1], self._first.shape[0], max_pixels, f'A frame of {path}')
        self.rate = rate if 0 < rate < 1e4 else 25.0
        off = np.abs(packets * self.rate - np.arange(len(packets)))
        self.regular = bool((off < 0.5).all())
        with path.open('rb') as opened:
            start = opened.read(8)
        counts = start[4:] in _COUNTING or start[:4] == b'RIFF'
        self.expected = _expect(int(told) if 0 < told < 1e9 else 0, counts, packets, self.rate)
        # Decoders need these frames for the next, and do not show them.
        self.expected -= int(np.sum(packets < hidden_seconds(path) - 1e-3))

    def frames(self) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        """Yield the time of each frame, seconds, and the frame, (H, W, 3) uint8 RGB.

        Times are those of the container, as far as they grow.
        """
        seconds, read, frame = 0.0, True, self._first
        while read:
            yield seconds, np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), dtype=np.uint8)
            read, frame = self._reader.read()
            told = self._reader.get(cv2.CAP_PROP_POS_MSEC) / 1000
            seconds = told if told > seconds else seconds + 1 / self.rate

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

    def write(self, seconds: float, frame: NDArray[np.uint8]) -> None:
        """Add a frame, (H, W, 3) uint8 RGB; raises ImageError where no video can be made."""
        pixels = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        if self._writer is None:
            height, width = frame.shape[:2]
            self._jpeg = not self._regular or width % 2 > 0 or height % 2 > 0
            code = cv2.VideoWriter.fourcc(*('MJPG' if self._jpeg else 'mp4v'))
            how = (cv2.CAP_FFMPEG, code, self._rate, (width, height), _MJPEG if self._jpeg else [])
            with _plain_name(self.target) as link:
                self._writer = cv2.VideoWriter(native_name(link), *how)
            if not self._writer.isOpened():
                self._writer = None
                raise ImageError(
                    f'{self.target} cannot be written as a video of {width} × {height} pixels: is '
                    'the folder writable, and is there room?'
                )
        if self._jpeg:
            place = self._written if self._regular else round(seconds * self._rate)
            self._writer.set(cv2.VIDEOWRITER_PROP_PTS, place)
            pixels = cv2.imencode('.jpg', pixels, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].reshape(1, -1)
        self._writer.write(pixels)
        self._written += 1

    def close(self) -> None:
        """Complete the file; raises ImageError if not every frame got into it."""
        if self._writer is None:
            return
        self._writer.release()
        # OpenCV drops what it cannot write, and reports nothing.
        with _plain_name(self.target) as link:
            found = len(_packet_times(link))
        if found != self._written:
            raise ImageError(
                f'{self.target} is incomplete, {found} of {self._written} frames: is the disk '
                'full, or does the size of the frames change?'
            )


def count_frames(path: Path) -> int:
    """Return the frames of a file by its header: 1 for an image, at least 1 for a video."""
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        return 1
    with _plain_name(path) as link:
        told = cv2.VideoCapture(native_name(link)).get(cv2.CAP_PROP_FRAME_COUNT)
    return int(told) if 1 < told < 1e9 else 1


def _expect(told: int, counts: bool, packets: NDArray[np.float64], rate: float) -> int:
    """Return how many frames a video has by what is told, which is a guess unless it counts."""
    if counts:
        return max(told, len(packets))
    gaps = np.diff(packets) if len(packets) > 1 else np.array([1 / rate])
    if np.mean(np.abs(gaps - 1 / rate) < 0.1 * np.median(gaps)) > 0.8:
        return told
    ended = len(packets) == 0 or told / rate - packets[-1] > 2 * gaps.max()
    return max(told, len(packets) + 1) if ended else len(packets)


def _packet_times(path: Path) -> NDArray[np.float64]:
    """Return when the packets of a video are shown, seconds, sorted; nothing is decoded."""
    reader = cv2.VideoCapture(native_name(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
    times = []
    while reader.grab():
        times.append(reader.get(cv2.CAP_PROP_POS_MSEC) / 1000)
    return np.sort(np.array(times, dtype=np.float64))


@contextmanager
def _plain_name(path: Path) -> Iterator[Path]:
    """Yield a link of the same suffix to a file, since FFmpeg takes ``a:b.mp4`` for an address."""
    with ExitStack() as stack:
        link = path.absolute()  # Good for nearly all names where no temporary file can be made.
        with suppress(OSError):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix='clipseg-'))
            link = Path(folder, f'video{path.suffix.lower()}')
            link.symlink_to(path.absolute())
        yield link
