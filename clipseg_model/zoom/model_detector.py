"""A model of this project as a detector of any names: what it needs is in the repository.

It sees what the model sees in the whole picture, and with ``tiles`` also what it sees in parts of
it: things that are too small for the model's input in the whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clipseg_model.errors import RegionError
from clipseg_model.regions import Box
from clipseg_model.segmentation import Segmentation
from clipseg_model.zoom.detectors import Detection

SAME = 0.5
"""Share of the smaller of two boxes of a name, from which on they are the same thing."""


class Segments(Protocol):
    """What segments, such as :class:`clipseg_model.segmenter.Segmenter`."""

    def segment(self, image: NDArray[np.uint8], prompts: Sequence[str]) -> Segmentation:
        """Segment an RGB image (H, W, 3) uint8."""


class ModelDetector:
    """Detects the connected parts of what a model finds, by name.

    Args:
        segmenter: The model.
        min_share: Least area of a part, as a share of what is shown, 0…1.
        tiles: Parts of the picture that are looked at besides, in a row and in a column, each half
            over its neighbour; 1 for none. An image costs 1 + tiles² passes.

    Raises:
        RegionError: ``tiles`` is less than 1.
    """

    def __init__(self, segmenter: Segments, min_share: float = 2e-4, tiles: int = 1) -> None:
        if tiles < 1:
            raise RegionError(f'The tiles of a detector must be 1 or more, not {tiles}')
        self.segmenter, self.min_share, self.tiles = segmenter, min_share, tiles

    def __call__(self, image: NDArray[np.uint8], names: Sequence[str]) -> list[Detection]:
        """Return the parts of the mask of each name, with their mean probability."""
        if not names:
            return []
        height, width = image.shape[:2]
        detections = list(self._seen(image, names))
        for view in views(height, width, self.tiles):
            for one in self._seen(image[view.slices], names):
                if _is_whole(one.box, view, height, width):
                    left, top, right, bottom = one.box
                    moved = (left + view.left, top + view.top, right + view.left, bottom + view.top)
                    detections.append(Detection(one.category, one.score, moved))
        return _distinct(detections) if self.tiles > 1 else detections

    def _seen(self, image: NDArray[np.uint8], names: Sequence[str]) -> Iterator[Detection]:
        least = max(1, round(self.min_share * image.shape[0] * image.shape[1]))
        found = self.segmenter.segment(np.ascontiguousarray(image), list(names))
        for name, result in zip(names, found.results, strict=True):
            for one in result.instances(least):
                x, y, width, height = one.box
                box = (float(x), float(y), float(x + width), float(y + height))
                yield Detection(name, min(one.probability, 1.0), box)


def views(height: int, width: int, tiles: int) -> list[Box]:
    """Return the parts of an image, tiles × tiles, that overlap by half; none of one tile."""
    if tiles == 1:
        return []
    rows, columns = (_stretches(side, tiles) for side in (height, width))
    return [Box(left, top, right, bottom) for top, bottom in rows for left, right in columns]


def _stretches(side: int, tiles: int) -> list[tuple[int, int]]:
    ends = np.linspace(0, side, tiles + 2).round().astype(int)
    return [(int(ends[place]), int(ends[place + 2])) for place in range(tiles)]


def _is_whole(box: tuple[float, ...], view: Box, height: int, width: int) -> bool:
    """Tell whether the thing in a box of a view is not cut by an edge inside of the image."""
    left, top, right, bottom = box
    return not (
        (left <= 0 < view.left)
        or (top <= 0 < view.top)
        or (right >= view.right - view.left and view.right < width)
        or (bottom >= view.bottom - view.top and view.bottom < height)
    )


def _distinct(detections: Sequence[Detection]) -> list[Detection]:
    """Leave out what lies in a box of the same name that came before; larger views come first."""
    kept: list[Detection] = []
    for one in detections:
        others = (other for other in kept if other.category == one.category)
        if all(_overlap(one.box, other.box) < SAME for other in others):
            kept.append(one)
    return kept


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Return the intersection of two boxes as a share of the smaller one."""
    (a, b), (c, d) = ((np.array(box[:2]), np.array(box[2:])) for box in (one, other))
    common: Any = np.clip(np.minimum(b, d) - np.maximum(a, c), 0, None).prod()
    return float(common / min((b - a).prod(), (d - c).prod()))
