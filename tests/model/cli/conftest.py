"""Inputs of the command line, in a folder of their own that is the working folder."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from clipseg_command import CODEC
from numpy.typing import NDArray
from PIL import Image


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / 'work'
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def photo(work: Path, image: NDArray[np.uint8]) -> Path:
    Image.fromarray(image).save(work / 'photo.png')
    return work / 'photo.png'


@pytest.fixture
def video(work: Path, image: NDArray[np.uint8]) -> Path:
    path = work / 'walk.mp4'
    writer = cv2.VideoWriter(str(path), CODEC, 10, (120, 90))
    for number in range(4):
        writer.write(np.roll(image, 5 * number, axis=1))
    writer.release()
    return path
