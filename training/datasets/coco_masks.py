"""Masks of COCO's instance format: polygons and run lengths, and checks of both."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as run_lengths

#: Corners farther out than this, in pixels, would make COCO's code reserve gigabytes.
FARTHEST = 100_000


def coco_mask(
    segmentation: list[list[float]] | dict[str, Any], height: int, width: int
) -> NDArray[np.bool_]:
    """Return the bool (height, width) mask of polygons or run lengths; ValueError if neither."""
    return np.asarray(run_lengths.decode(coco_runs(segmentation, height, width))).astype(bool)


def coco_runs(
    segmentation: list[list[float]] | dict[str, Any], height: int, width: int
) -> dict[str, Any]:
    """Return COCO's compressed run lengths of polygons or run lengths; ValueError if neither."""
    encoded: dict[str, Any]
    if isinstance(segmentation, list):
        check_polygons(segmentation)
        encoded = run_lengths.merge(run_lengths.frPyObjects(segmentation, height, width))
        return encoded
    check_runs(segmentation, height, width)
    if not isinstance(segmentation['counts'], list):
        return segmentation
    encoded = run_lengths.frPyObjects(segmentation, height, width)
    return encoded


def check_runs(segmentation: dict[str, Any], height: int, width: int) -> None:
    """Raise ValueError, TypeError or KeyError unless run lengths are for a picture of this size.

    COCO's own code fills a mask with whatever they are.
    """
    if list(segmentation['size']) != [height, width]:
        raise ValueError(f'run lengths are for {segmentation["size"]}, not {[height, width]}')
    counts = segmentation['counts']
    lengths = np.asarray(counts) if isinstance(counts, list) else decompressed(counts)
    if lengths.ndim != 1 or lengths.dtype.kind not in 'iu':
        raise TypeError(f'run lengths are no whole numbers but {counts!r:.60}')
    if lengths.min(initial=0) < 0 or lengths.sum() != height * width:
        raise ValueError(f'run lengths add up to {lengths.sum()} pixels, or some are negative')


def decompressed(counts: str | bytes) -> NDArray[np.int64]:
    """Return the run lengths that COCO's compressed form stands for.

    A character holds five bits and whether more follow, lowest first; the last one's highest bit is
    the sign. From the fourth number on, each is the difference to the one before the last.

    Raises:
        ValueError, TypeError: It is no such text.
    """
    text = counts.encode() if isinstance(counts, str) else bytes(counts)
    values = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    if not values.size or values.min() < 0 or values.max() > 63 or values[-1] & 32:
        raise ValueError(f'run lengths are no compressed text: {counts!r:.60}')
    last = values & 32 == 0
    first = np.concatenate([[True], last[:-1]])
    starts = np.flatnonzero(first)
    place = np.arange(len(values)) - np.repeat(starts, np.diff([*starts, len(values)]))
    if place.max() > 6:
        raise ValueError(f'run lengths are beyond any picture: {counts!r:.60}')
    numbers = np.add.reduceat((values & 31) << 5 * place, starts)
    numbers -= (values[last] >> 4 & 1) << 5 * (place[last] + 1)
    for odd in (1, 2):
        numbers[odd::2] = numbers[odd::2].cumsum()
    return numbers


def check_polygons(segmentation: list[list[float]]) -> None:
    """Raise ValueError or TypeError unless these are lists of three x, y or more, all numbers."""
    short = [points for points in segmentation if len(points) < 6 or len(points) % 2]
    if short or not segmentation:
        raise ValueError(f'{(short or segmentation)!r:.60} is no polygon of three x, y or more')
    for points in segmentation:
        # A file has a million of these: a sum is finite only if all numbers in it are.
        if not math.isfinite(sum(points)):
            raise ValueError('a polygon has corners that are no numbers')
        if not -FARTHEST < min(points) <= max(points) < FARTHEST:
            raise ValueError(f'a polygon has corners beyond {FARTHEST:,} pixels')
