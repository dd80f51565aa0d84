"""The region of interest: the part of every image that is segmented."""

from __future__ import annotations

from typing import Any

from clipseg_model.errors import RegionError
from clipseg_model.regions import Box

WHOLE = [0, 0, 0, 0]
"""Value of the parameter ``roi`` for the whole image."""

_LARGEST = 1_000_000

Roi = tuple[int, int, int, int]
"""(x, y, width, height), pixels of the image."""


def read_roi(value: Any) -> Roi | None:
    """Read the parameter ``roi``; return None for the whole image, an empty list or four zeros.

    Raises:
        RegionError: It is something else, has no pixel, or begins outside of any image.
    """
    numbers = None if isinstance(value, (str, bytes)) else _numbers(value)
    if numbers is None or len(numbers) not in (0, 4):
        raise RegionError(
            f'{_shown(value)} is not x, y, width and height in pixels, four whole numbers '
            '([0, 0, 0, 0] for the whole image)'
        )
    if not any(numbers):
        return None
    x, y, width, height = numbers
    if min(x, y) < 0 or min(width, height) < 1 or max(numbers) > _LARGEST:
        raise RegionError(
            f'x {x}, y {y}, width {width}, height {height} is no region: x and y from 0, width and '
            f'height from 1, none above {_LARGEST:,}; [0, 0, 0, 0] is the whole image'
        )
    return x, y, width, height


def find_region(roi: Roi | None, height: int, width: int) -> Box | None:
    """Return the region of an image that is segmented, None for all of it.

    Raises:
        RegionError: The region reaches out of the image.
    """
    if roi is None:
        return None
    x, y, across, down = roi
    if x + across > width or y + down > height:
        raise RegionError(
            f'the region of interest, {across} × {down} px at ({x}, {y}), reaches out of the '
            f'image of {width} × {height} px: set the parameter roi within it, or to '
            '[0, 0, 0, 0] for the whole image'
        )
    return Box(x, y, x + across, y + down)


def _shown(value: Any) -> str:
    return repr(value if isinstance(value, (str, bytes, int, float)) or value is None else [*value])


def _numbers(value: Any) -> list[int] | None:
    try:
        items = list(value)
    except TypeError:
        return None
    whole = all(isinstance(item, int) and not isinstance(item, bool) for item in items)
    return [int(item) for item in items] if whole else None
