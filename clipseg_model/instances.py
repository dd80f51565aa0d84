"""The single things in a mask: its connected parts."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from clipseg_model.errors import RegionError


@dataclass(frozen=True)
class Instance:
    """One connected part of a mask.

    Attributes:
        area: Pixels.
        box: (x, y, width, height) of the smallest box around it, pixels.
        centroid: (x, y), the mean of its pixels' indices.
        probability: Mean probability of its pixels, 0…1.
        mask: (height, width) bool, which pixels of the box are its own.
    """

    area: int
    box: tuple[int, int, int, int]
    centroid: tuple[float, float]
    probability: float
    mask: NDArray[np.bool_] = field(repr=False, compare=False)


def find_instances(
    mask: NDArray[np.bool_], probability: NDArray[np.float32], min_area: int = 1
) -> list[Instance]:
    """Take a mask apart; pixels that touch at a corner belong together.

    Args:
        mask: (H, W) bool.
        probability: (H, W) float32, 0…1.
        min_area: Least area of what is returned, pixels.

    Returns:
        The parts, the largest first; of equals the upper, then the left one.

    Raises:
        RegionError: ``min_area`` is less than 1, or no whole number.
    """
    check_min_area(min_area)
    pixels = np.ascontiguousarray(mask).view(np.uint8)
    count, labels, statistics, centroids = cv2.connectedComponentsWithStats(pixels, connectivity=8)
    found = []
    for label in range(1, count):
        left, top, width, height, area = (int(value) for value in statistics[label])
        if area < min_area:
            continue
        part = (slice(top, top + height), slice(left, left + width))
        own = labels[part] == label
        found.append(
            Instance(
                area=area,
                box=(left, top, width, height),
                centroid=(float(centroids[label][0]), float(centroids[label][1])),
                probability=float(probability[part][own].mean(dtype=np.float64)),
                mask=own,
            )
        )
    return sorted(found, key=lambda one: (-one.area, one.box[1], one.box[0]))


def check_min_area(min_area: object) -> None:
    """Raise RegionError unless a least area is a whole number of pixels from 1."""
    whole = isinstance(min_area, (int, np.integer)) and not isinstance(min_area, bool)
    if not whole or min_area < 1:  # type: ignore[operator]
        raise RegionError(
            f'The least area of an instance must be a whole number of pixels from 1, not '
            f'{min_area!r}'
        )
