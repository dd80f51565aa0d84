"""Depth by compressedDepth, against an encoder written from the paper, one nibble at a time."""

from __future__ import annotations

import array
import struct
import time
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage

from clipseg_ros.errors import ImageConversionError
from clipseg_ros.images.compressed_depth import compressed_depth_to_metres

CONFIG = struct.pack('<iff', 0, 0.0, 0.0)


def rvl(values: NDArray[np.uint16]) -> bytes:
    """Wilson's encoder."""
    nibbles: list[int] = []

    def write(number: int) -> None:
        while True:
            nibble, number = number & 7, number >> 3
            nibbles.append(nibble | (8 if number else 0))
            if not number:
                return

    pixels, at, previous = values.ravel().tolist(), 0, 0
    while at < len(pixels):
        start = at
        while at < len(pixels) and pixels[at] == 0:
            at += 1
        write(at - start)
        start = at
        while at < len(pixels) and pixels[at] != 0:
            at += 1
        write(at - start)
        for value in pixels[start:at]:
            difference = value - previous
            write((difference << 1) ^ (difference >> 31))
            previous = value
    nibbles += [0] * (-len(nibbles) % 8)
    words = [
        int(''.join(f'{n:x}' for n in nibbles[i : i + 8]), 16) for i in range(0, len(nibbles), 8)
    ]
    height, width = values.shape
    return struct.pack(f'<II{len(words)}I', width, height, *words)


def png(values: NDArray[Any]) -> bytes:
    return cv2.imencode('.png', values)[1].tobytes()


def message(data: bytes, form: str = '16UC1; compressedDepth png') -> CompressedImage:
    return CompressedImage(format=form, data=array.array('B', data))


def scene(height: int = 48, width: int = 64, holes: float = 0.2) -> NDArray[np.uint16]:
    """Slopes, steps and holes, the first pixel known and the last unknown."""
    random = np.random.default_rng(3)
    values = (np.linspace(300, 9000, height * width).reshape(height, width)).astype(np.uint16)
    values[height // 3 :, width // 2 :] = 65_535
    values[random.random(values.shape) < holes] = 0
    values[0, 0], values[-1, -1] = 1, 0
    return values


EDGES: dict[str, NDArray[np.uint16]] = {
    'scene': scene(),
    'all unknown': np.zeros((3, 5), np.uint16),
    'all known': np.full((3, 5), 700, np.uint16),
    'one pixel': np.array([[9]], np.uint16),
    'noise': np.random.default_rng(0).integers(0, 65_536, (20, 31), dtype=np.uint16),
}


@pytest.mark.parametrize('form', ['16UC1; compressedDepth', '16UC1; compressedDepth png',
                                  '16UC1; compressedDepth rvl', 'mono16; compressedDepth rvl',
                                  '16UC1;compressedDepth  png '])  # fmt: skip
@pytest.mark.parametrize('values', EDGES.values(), ids=list(EDGES))
def test_millimetres_are_exact(values: NDArray[np.uint16], form: str) -> None:
    encode = rvl if 'rvl' in form else png
    metres = compressed_depth_to_metres(message(CONFIG + encode(values), form))
    assert metres.dtype == np.float32
    np.testing.assert_array_equal(metres, values.astype(np.float32) * np.float32(0.001))


def test_known_bytes() -> None:
    # By hand: 1 zero, 3 values: 10, 9, 12 (differences 10, -1, 3 are 20, 1, 6); then nothing.
    # Nibbles: 1 | 3 | 4+8, 2 | 1 | 6 | 0 0, so the word is 0x13c21600.
    data = struct.pack('<III', 2, 2, 0x13C21600)
    metres = compressed_depth_to_metres(message(CONFIG + data, '16UC1; compressedDepth rvl'))
    np.testing.assert_allclose(metres, [[0.0, 0.010], [0.009, 0.012]], atol=1e-9)


@pytest.mark.parametrize('form', ['png', 'rvl'])
def test_metres_are_quantised_as_the_plugin_does(form: str) -> None:
    depth_max, quantisation = 10.0, 100.0
    scale = quantisation * (quantisation + 1.0)
    shift = 1.0 - scale / depth_max
    metres = np.linspace(0.4, 9.9, 30 * 40, dtype=np.float32).reshape(30, 40)
    coded = (scale / metres + shift).astype(np.uint16)
    coded[5:9, 3:8] = 0
    config = struct.pack('<iff', 0, scale, shift)
    data = config + (rvl if form == 'rvl' else png)(coded)
    read = compressed_depth_to_metres(message(data, f'32FC1; compressedDepth {form}'))
    assert (read[5:9, 3:8] == 0).all()
    known = coded > 0
    assert np.abs(read - metres)[known & (metres < 1)].max() < 2e-3
    assert np.abs(read - metres)[known].max() < 0.02


RVL, PNG = CONFIG + rvl(scene()), CONFIG + png(scene())
AS_RVL, AS_PNG = '16UC1; compressedDepth rvl', '16UC1; compressedDepth png'


@pytest.mark.parametrize(
    ('data', 'form', 'kind', 'words'),
    [
        (PNG, 'rgb8; jpeg compressed bgr8', 'format', ['rgb8; jpeg', '16UC1']),
        (PNG, '16UC1; png compressed ', 'format', ['compressedDepth']),
        (PNG, 'bgr8; compressedDepth png', 'format', ['bgr8']),
        (b'', AS_PNG, 'data', ['0 bytes']),
        (CONFIG, AS_PNG, 'data', ['12 bytes']),
        (PNG[: len(PNG) // 2], AS_PNG, 'data', ['truncated']),
        (PNG[12:], AS_PNG, 'data', ['truncated or damaged']),
        (CONFIG + png(scene().astype(np.uint8)), AS_PNG, 'format', ['uint8', '16 bits']),
        (RVL[: len(RVL) // 2], AS_RVL, 'data', ['64 × 48']),
        (RVL[:18], AS_RVL, 'data', ['RVL']),
        (CONFIG + struct.pack('<II', 2**31, 2**31), AS_RVL, 'size', ['2147483648']),
        (CONFIG + struct.pack('<III', 2, 2, 0xFFFFFFFF) + b'\xff' * 40, AS_RVL, 'data', ['RVL']),
        (CONFIG + struct.pack('<II', 5_000, 5_000) + bytes(64), AS_RVL, 'data', ['5000']),
        (PNG, '32FC1; compressedDepth png', 'data', ['parameters 0 and 0']),
        (struct.pack('<iff', 0, np.nan, 0) + PNG[12:], '32FC1; compressedDepth', 'data', ['nan']),
    ],
)  # fmt: skip
def test_what_cannot_be_read(data: bytes, form: str, kind: str, words: Sequence[str]) -> None:
    with pytest.raises(ImageConversionError) as caught:
        compressed_depth_to_metres(message(data, form))
    assert caught.value.kind == kind
    for word in words:
        assert word in str(caught.value)


def test_damage_anywhere_is_an_error_or_a_picture_and_nothing_else() -> None:
    random = np.random.default_rng(1)
    for number in range(300):
        form, data = (AS_RVL, bytearray(RVL)) if number % 2 else (AS_PNG, bytearray(PNG))
        for place in random.integers(0, len(data), 5):
            data[place] = random.integers(0, 256)
        try:
            metres = compressed_depth_to_metres(message(bytes(data), form))
        except ImageConversionError:
            continue
        assert metres.dtype == np.float32
        assert (metres >= 0).all()


def test_a_camera_s_picture_takes_a_fraction_of_its_period() -> None:
    data = message(CONFIG + rvl(scene(480, 640, holes=0.02)), AS_RVL)
    started = time.process_time()
    compressed_depth_to_metres(data)
    assert time.process_time() - started < 0.5, 'a loop over nibbles takes longer'
