"""Polygons to masks, in the two ways that matter for PhraseCut, and what is wrong with some."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from skimage.draw import polygon as polygon_pixels

#: ``skimage``: a pixel is on where its point (column, row) is inside, as CLIPSeg's code has it.
#: ``pillow``: corners are cut to whole pixels and outlines are on, as PhraseCut's code has it.
Rasteriser = Literal['skimage', 'pillow']


def polygon_mask(
    polygons: Iterable[NDArray[np.float64]],
    height: int,
    width: int,
    rasteriser: Rasteriser = 'skimage',
) -> NDArray[np.bool_]:
    """Returns the union of polygons, bool (height, width).

    Each is filled by the even-odd rule, so a part that a self-crossing polygon encloses twice is
    out. Polygons of less than two points cover nothing.

    Args:
        polygons: float (N, 2) each, x and y in pixels; the point (0, 0) is the centre of the
            first pixel.
        height: Of the picture.
        width: Of the picture.
        rasteriser: Which pixels are in.
    """
    if rasteriser == 'pillow':
        image = Image.new('1', (width, height))
        draw = ImageDraw.Draw(image)
        for points in polygons:
            if len(points) >= 2:
                draw.polygon([(int(x), int(y)) for x, y in points], outline=1, fill=1)
        return np.array(image)
    mask = np.zeros((height, width), bool)
    for points in polygons:
        if len(points):
            mask[polygon_pixels(points[:, 1], points[:, 0], (height, width))] = True
    return mask


def polygon_fault(points: NDArray[np.float64]) -> str | None:
    """Says what is wrong with a polygon: too few corners, no area, or edges that cross.

    Args:
        points: float (N, 2).

    Returns:
        What is wrong, in words, or None.
    """
    if not np.isfinite(points).all():
        return 'has corners that are no numbers'
    distinct = points[np.any(points != np.roll(points, 1, axis=0), axis=1)]
    if len(distinct) < 3:
        return f'has {len(distinct)} different corners, and three are the fewest'
    if _edges_cross(distinct):
        return 'crosses itself'
    x, y = distinct.T
    twice_area = np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))
    return None if twice_area else 'has no area'


def _edges_cross(points: NDArray[np.float64]) -> bool:
    """Whether two edges cross properly: each has its ends on both sides of the other."""
    start, end = points, np.roll(points, -1, axis=0)

    def side(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        # Of the points of b from the lines through edge i: sign of the cross product, (N, N).
        run = (end - start)[:, None]
        to = b[None] - a[:, None]
        return np.sign(run[..., 0] * to[..., 1] - run[..., 1] * to[..., 0])

    apart = side(start, start) * side(start, end) < 0
    return bool((apart & apart.T).any())
