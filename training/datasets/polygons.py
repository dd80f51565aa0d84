"""Polygons to masks, as PhraseCut's code and as CLIPSeg's does it, and checks of polygons."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil
from operator import itemgetter
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

#: ``points``: a pixel is on where its point (column, row) is inside or on an edge, as in CLIPSeg's
#: code, which takes scikit-image for it.
#: ``pillow``: corners are cut to whole pixels and outlines are on, as PhraseCut's code has it.
Rasteriser = Literal['points', 'pillow']

#: Distance from an edge, in pixels, below which a point is on it.
ON_EDGE = 1e-9


def polygon_mask(
    polygons: Iterable[NDArray[np.float64]],
    height: int,
    width: int,
    rasteriser: Rasteriser = 'points',
) -> NDArray[np.bool_]:
    """Return the union of polygons, bool (height, width).

    Each is float (N, 2), x and y in pixels; (0, 0) is the centre of the first pixel. It is filled
    by the even-odd rule: a part that a self-crossing polygon encloses twice is out.
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
            mask |= _points_inside(np.asarray(points, np.float64), height, width)
    return mask


def shows_pixel(polygons: Iterable[NDArray[np.float64]], height: int, width: int) -> bool:
    """Return whether :func:`polygon_mask` (``points``) would be on anywhere, mostly in less time.

    One row through the middle of a polygon nearly always says so; if none does, all are filled.
    """
    listed = list(polygons)
    return any(_row_shows(points, height, width) for points in listed) or bool(
        polygon_mask(listed, height, width).any()
    )


def _row_shows(points: NDArray[np.float64], height: int, width: int) -> bool:
    """Return whether a polygon has a pixel on in the row through its middle."""
    # Python: arrays of some tens of corners would take ten times as long.
    corners = points.tolist()
    if not corners:
        return False
    levels = [y for _, y in corners]
    row = min(max(round((min(levels) + max(levels)) / 2), 0), height - 1)
    reached = []
    x, y = corners[-1]
    for next_x, next_y in corners:
        if (y <= row) != (next_y <= row):
            (top_x, top), (low_x, low) = sorted(((x, y), (next_x, next_y)), key=itemgetter(1))
            crossing = top_x + (row - top) / (low - top) * (low_x - top_x)
            reached.append(min(max(ceil(crossing), 0), width))
        x, y = next_x, next_y
    reached.sort()
    return any(end > start for start, end in zip(reached[::2], reached[1::2], strict=True))


def _points_inside(points: NDArray[np.float64], height: int, width: int) -> NDArray[np.bool_]:
    """Fill one polygon as scikit-image's polygon2mask does, which is too slow for training."""
    ends = np.roll(points, -1, axis=0)
    upper = np.where((points[:, 1] <= ends[:, 1])[:, None], points, ends)
    lower = np.where((points[:, 1] <= ends[:, 1])[:, None], ends, points)
    y = np.arange(height)
    # Rows that each edge meets, its ends included; (edges, rows).
    meets = (y >= upper[:, 1:]) & (y <= lower[:, 1:])
    edge, row = np.nonzero(meets)
    drop = (lower - upper)[edge]
    slanted = drop[:, 1] > 0
    share = (row - upper[edge, 1]) / np.where(slanted, drop[:, 1], 1)
    x = upper[edge, 0] + share * drop[:, 0]
    # An end that two edges share counts for one of them.
    crosses = slanted & (row < lower[edge, 1])
    reach = np.clip(np.ceil(x[crosses]).astype(np.int64), 0, width)
    turns = np.zeros((height, width + 1), np.int64)
    np.add.at(turns, (row[crosses], reach), 1)
    to_the_right = turns[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    mask: NDArray[np.bool_] = to_the_right % 2 == 1
    # Points on edges are in.
    column = np.round(x).astype(np.int64)
    on = slanted & (np.abs(x - column) < ON_EDGE) & (column >= 0) & (column < width)
    mask[row[on], column[on]] = True
    for index in np.flatnonzero(~slanted):
        left, right = sorted((upper[edge[index], 0], lower[edge[index], 0]))
        mask[row[index], max(int(np.ceil(left)), 0) : max(int(np.floor(right)) + 1, 0)] = True
    return mask


def polygon_fault(points: NDArray[np.float64]) -> str | None:
    """Say what is wrong with a polygon, float (N, 2): few corners, no area, crossings; or None."""
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
