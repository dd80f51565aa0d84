"""Videos of a few frames, made by OpenCV: at times of one's choice, or in several containers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray


def picture(number: int, width: int = 120, height: int = 90) -> NDArray[np.uint8]:
    noise = np.random.default_rng(number).integers(0, 40, (height, width, 3), dtype=np.uint8)
    noise[height // 4 : height // 2, width // 4 : width // 2] += np.uint8(10 * (number % 20))
    return noise


def write_at(
    path: Path, ticks: Sequence[int], size: tuple[int, int] = (120, 90), rate: int = 1000
) -> list[float]:
    """Write JPEGs at times of so many ticks a second, in an .mp4 or .mkv; return the seconds."""
    raw = [cv2.VIDEOWRITER_PROP_RAW_VIDEO, 1, cv2.VIDEOWRITER_PROP_KEY_INTERVAL, 1]
    codec = cv2.VideoWriter.fourcc(*'MJPG')
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, codec, rate, size, raw)
    assert writer.isOpened()
    for number, time in enumerate(ticks):
        writer.set(cv2.VIDEOWRITER_PROP_PTS, time)
        writer.write(cv2.imencode('.jpg', picture(number, *size))[1].reshape(1, -1))
    writer.release()
    return [time / rate for time in ticks]


def write(path: Path, codec: str, frames: int = 20, size: tuple[int, int] = (120, 90)) -> Path:
    """Write frames at 10 per second."""
    code = cv2.VideoWriter.fourcc(*codec)
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, 10, size)
    assert writer.isOpened()
    for number in range(frames):
        writer.write(picture(number, *size))
    writer.release()
    return path


def read(path: Path) -> list[tuple[float, tuple[int, ...]]]:
    """Return the time, seconds, and the shape of every frame."""
    reader, found = cv2.VideoCapture(str(path)), []
    while True:
        more, frame = reader.read()
        if not more:
            return found
        found.append((round(reader.get(cv2.CAP_PROP_POS_MSEC) / 1000, 3), frame.shape))
