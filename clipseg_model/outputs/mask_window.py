"""Where in an image a prompt may be on, and its logits there: the rest need not be computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from clipseg_model.regions import Box
from clipseg_model.segmentation import PromptResult

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

_MARGIN = np.float32(1e-3)
"""Rounding may lift an interpolated logit above the highest of its neighbours, by much less."""

_LANES = 16
"""Values of the widest vector: OpenCV computes in vectors from the first column on."""


class Scratch:
    """Memory that one thread uses for every frame; not for two threads at once."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, type[np.generic]], NDArray[Any]] = {}

    def floats(self, name: str, shape: tuple[int, int]) -> Floats:
        """Return float32 memory (H, W) of a name, with whatever is in it."""
        return self._get(name, shape, np.float32)

    def bytes(self, name: str, shape: tuple[int, int]) -> Bytes:
        """Return uint8 memory (H, W) of a name, with whatever is in it."""
        return self._get(name, shape, np.uint8)

    def clear(self) -> None:
        """Forget all of it; what was returned stays. From any thread."""
        self._arrays = {}

    def _get(self, name: str, shape: tuple[int, int], kind: type[np.generic]) -> NDArray[Any]:
        array, size = self._arrays.get((name, kind)), shape[0] * shape[1]
        if array is None or array.size < size:
            self._arrays[name, kind] = array = np.empty(size, kind)
        return array[:size].reshape(shape)


def find_window(result: PromptResult) -> Box | None:
    """Return where a mask can be on; None where no pixel of it can."""
    if not result.presence:
        return None
    seen = _seen(result)
    if result.close_ups is not None:
        return seen
    # Interpolation never exceeds the highest of the logits that it takes from.
    on = result.logits > result.cut - _MARGIN
    x, y, width, height = cv2.boundingRect(on.view(np.uint8))
    if not width:
        return None
    rows, columns = result.logits.shape
    top, bottom = _stretch(y, height, rows, seen.top, seen.bottom)
    left, right = _stretch(x, width, columns, seen.left, seen.right)
    return Box(left, top, right, bottom)


def logits_in(result: PromptResult, window: Box, scratch: Scratch) -> Floats:
    """Return the logits in a window: those of ``resized_logits`` there, bit for bit.

    The window is in the part of the image that the model saw. The result, float32 of the window's
    size, lies in ``scratch`` until the next call.
    """
    if result.close_ups is not None:
        whole = scratch.floats('whole', (result.height, result.width))
        return result.resized_logits(whole)[window.slices]
    seen = _seen(result)
    top, left = window.top - seen.top, window.left - seen.left
    # As OpenCV does it: each row on its own, then each column on its own. What a column becomes
    # depends on its vector only, and what a row becomes on where it is: so all rows are made of
    # columns that begin with a vector, and those outside of the window are made of anything.
    first = left // _LANES * _LANES
    last = min(seen.width, math.ceil((left + window.width) / _LANES) * _LANES)
    source_height = len(result.logits)
    scale = source_height / seen.height
    low = max(0, math.floor((top + 0.5) * scale - 0.5) - 1)
    high = min(source_height, math.floor((top + window.height - 0.5) * scale - 0.5) + 3)
    wide = scratch.floats('wide', (source_height, seen.width))
    cv2.resize(result.logits[low:high], (seen.width, high - low), dst=wide[low:high])
    tall = scratch.floats('tall', (seen.height, last - first))
    cv2.resize(wide[:, first:last], (last - first, seen.height), dst=tall)
    return tall[top : top + window.height, left - first : left - first + window.width]


def meeting(windows: Sequence[Box]) -> NDArray[np.bool_]:
    """Return which of N windows have a pixel in common with another one: (N,) bool."""
    edges = [(box.left, box.top, box.right, box.bottom) for box in windows]
    left, top, right, bottom = np.array(edges, np.intp).reshape(-1, 4).T
    rows = (top[:, None] < bottom) & (top < bottom[:, None])
    columns = (left[:, None] < right) & (left < right[:, None])
    return np.asarray((rows & columns).sum(axis=1) > 1)


def _seen(result: PromptResult) -> Box:
    """Return the part of the image that the model saw."""
    return result.region or Box(0, 0, result.width, result.height)


def _stretch(first: int, count: int, of: int, start: int, stop: int) -> tuple[int, int]:
    """Find the pixels, ``start`` to ``stop``, that some rows or columns of logits can influence."""
    # Pixel y lies at (y - start + 1/2) · of / size - 1/2 between the logits, and takes from the two
    # next to it.
    scale = (stop - start) / of
    low = start + math.floor((first - 0.5) * scale - 0.5)
    high = start + math.ceil((first + count + 0.5) * scale - 0.5)
    return max(start, low), min(stop, high + 1)
