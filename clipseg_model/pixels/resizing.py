"""Antialiased bilinear resizing of uint8, bit for bit as torch does it on a CPU, without torch.

torch (as Pillow) computes each row, then each column, as weighted sums of the pixels that a
triangle covers, which is as wide as an output pixel where an image becomes smaller. Weights are
whole numbers of 16 bits, and each sum is rounded to a level. Here the sums are matrix products of
floating-point numbers: as long as these hold whole numbers exactly, so are the sums. A matrix is
cut into blocks along its diagonal, beside which it is zero.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

_BLOCK = 32
"""Output pixels of a block."""

_ROWS = 256
"""Rows that are numbers of floating point at a time: all of an image take more than a model."""

_EXACT = 1 << 24
"""Up to here float32 holds every whole number."""


class _Block(NamedTuple):
    """A part of the weights: which output pixels it makes of which input pixels.

    ``weights`` are (inputs, outputs), divided by what the sums are divided by.
    """

    outputs: slice
    inputs: slice
    weights: NDArray[Any]


def resize_antialiased(image: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize (H, W, 3) uint8 to (3, h, w) uint8, given (h, w).

    The same as ``torch.nn.functional.interpolate(mode='bilinear', antialias=True)``.
    """
    height, width = image.shape[:2]
    planes: NDArray[Any] = np.empty((3, height, width), np.uint8)
    cv2.split(np.ascontiguousarray(image), list(planes))
    if shape[1] != width:
        blocks = _blocks(width, shape[1])
        narrow = np.empty((3 * height, shape[1]), np.uint8)
        rows = planes.reshape(-1, width)
        for start in range(0, len(rows), _ROWS):
            part = slice(start, start + _ROWS)
            inputs = rows[part].astype(blocks[0].weights.dtype)
            sums = np.empty((len(inputs), shape[1]), inputs.dtype)
            for block in blocks:
                np.matmul(inputs[:, block.inputs], block.weights, out=sums[:, block.outputs])
            narrow[part] = _rounded(sums)
        planes = narrow.reshape(3, height, shape[1])
    if shape[0] != height:
        blocks = _blocks(height, shape[0])
        columns = planes.astype(blocks[0].weights.dtype)
        sums = np.empty((3, *shape), columns.dtype)
        for block in blocks:
            np.matmul(block.weights.T, columns[:, block.inputs], out=sums[:, block.outputs])
        planes = _rounded(sums)
    return planes


def _rounded(sums: NDArray[Any]) -> NDArray[np.uint8]:
    sums += 0.5
    # Weights that were rounded up may sum to a little more than 1.
    np.minimum(sums, 255, out=sums)
    return sums.astype(np.uint8)


@lru_cache(maxsize=32)
def _blocks(size: int, wanted: int) -> list[_Block]:
    """Return the weights of all output pixels along an axis of ``size`` input pixels."""
    scale = size / wanted
    support = max(scale, 1.0)
    centres = scale * (np.arange(wanted) + 0.5)
    first = np.maximum((centres - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centres + support + 0.5).astype(np.int64), size)
    taps = np.arange(int((last - first).max()))
    places = taps + first[:, None] - centres[:, None] + 0.5
    weights = np.maximum(0.0, 1 - np.abs(places / support))
    weights[taps >= (last - first)[:, None]] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    bits = 0
    while bits < 22 and int(0.5 + weights.max() * (1 << (bits + 1))) < 1 << 15:
        bits += 1
    whole = np.floor(0.5 + weights * (1 << bits))
    exact = whole.sum(axis=1).max() * 255 < _EXACT
    kind = np.float32 if exact else np.float64
    blocks = []
    for start in range(0, wanted, _BLOCK):
        stop = min(start + _BLOCK, wanted)
        low, high = int(first[start]), int(last[stop - 1])
        matrix = np.zeros((high - low, stop - start), kind)
        for number in range(start, stop):
            count = int(last[number] - first[number])
            begin = int(first[number]) - low
            matrix[begin : begin + count, number - start] = whole[number, :count] / (1 << bits)
        blocks.append(_Block(slice(start, stop), slice(low, high), matrix))
    return blocks
