"""Frames of a camera on this machine, the newest only."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from clipseg_model.errors import ImageError
from clipseg_model.images import MAX_PIXELS, check_pixels, native_name


class NewestFrames:
    """A camera that is read as fast as it gives frames, of which the newest is kept.

    Args:
        device: Number of a camera, or the path of a video device.
        max_pixels: Most of a frame.

    Attributes:
        dropped: Frames that came and went while another was worked on.

    Raises:
        ImageError: There is no such camera, or it gives no picture, or one of more pixels.
    """

    def __init__(self, device: str, max_pixels: int = MAX_PIXELS) -> None:
        self.name = f'camera{device}' if device.isdecimal() else Path(device).stem
        self.dropped = 0
        self._endless = not Path(device).is_file()
        self._reader = cv2.VideoCapture(int(device) if device.isdecimal() else native_name(device))
        try:
            self._first(device, max_pixels)
        except ImageError:
            self._reader.release()
            raise
        self.began = time.monotonic()
        self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, name='camera', daemon=True)
        self._thread.start()

    def _first(self, device: str, max_pixels: int) -> None:
        what = f'A frame of the camera {device!r}'
        width = int(self._reader.get(cv2.CAP_PROP_FRAME_WIDTH))
        height = int(self._reader.get(cv2.CAP_PROP_FRAME_HEIGHT))
        if width > 0 and height > 0:
            check_pixels(width, height, max_pixels, what)
        read, frame = self._reader.read()
        if not read:
            raise ImageError(
                f'The camera {device!r} gives no picture: is it plugged in, free and readable '
                '(on Linux: ls /dev/video*)?'
            )
        check_pixels(frame.shape[1], frame.shape[0], max_pixels, what)
        self._frame: NDArray[np.uint8] | None = np.asarray(frame, dtype=np.uint8)

    def _read(self) -> None:
        read = True
        while read and not self._ended:
            read, frame = self._reader.read()
            with self._changed:
                if read:
                    self.dropped += self._frame is not None
                    self._frame = np.asarray(frame, dtype=np.uint8)
                self._ended = self._ended or not read
                self._changed.notify()

    def frames(self) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        """Yield seconds since the start and the newest frame (H, W, 3) RGB, until it ends.

        Raises:
            ImageError: It ended though it is no file: it was unplugged, or something took it.
        """
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._frame is not None or self._ended)
                frame, self._frame = self._frame, None
            if frame is None and self._endless:
                raise ImageError(
                    f'The camera {self.name!r} gives no more pictures after '
                    f'{time.monotonic() - self.began:.0f} s: was it unplugged?'
                )
            if frame is None:
                return
            seconds = time.monotonic() - self.began
            yield seconds, np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), dtype=np.uint8)

    def close(self) -> None:
        """Let the camera go."""
        self._ended = True
        self._thread.join(5)
        self._reader.release()
