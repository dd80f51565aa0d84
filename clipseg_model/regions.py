"""Parts of an image that are segmented by themselves, and how their answers are put back.

A box is made of whole pixels, so a part that is cut out, resized, segmented and resized back lies
exactly where it was: both resizings map corner to corner.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from clipseg_model.errors import RegionError

COMBINATIONS = ('mean', 'replace', 'max', 'or', 'regions')
"""How the answer to a part and the answer to the whole image become one; see :class:`CloseUps`."""

OUTSIDE = np.float32(-30)
"""Logit where no region answers, of ``regions``: a probability of 1e-13."""


@dataclass(frozen=True, order=True)
class Box:
    """A rectangle of whole pixels; ``right`` and ``bottom`` come after its last column and row.

    Raises:
        RegionError: It holds no pixel, or begins before the image does.
    """

    left: int
    top: int
    right: int
    bottom: int

    def __post_init__(self) -> None:
        if min(self.left, self.top) < 0 or self.left >= self.right or self.top >= self.bottom:
            raise RegionError(
                f'A box must have left < right, top < bottom and none below 0, unlike '
                f'{(self.left, self.top, self.right, self.bottom)}'
            )

    @classmethod
    def around(
        cls, rectangle: Sequence[float | str], height: int, width: int, what: str = 'The box'
    ) -> Box:
        """Return the pixels that a rectangle touches, cut off at the border of an image.

        Args:
            rectangle: (x, y, width, height) in pixels; x and y of the upper left corner.
            height: Of the image.
            width: Of the image.
            what: How a message calls it.

        Raises:
            RegionError: It is not four finite numbers, has no area, or lies outside the image.
        """
        x, y, wide, high = check_rectangle(rectangle, what)
        left, top = max(0, math.floor(x)), max(0, math.floor(y))
        right, bottom = min(width, math.ceil(x + wide)), min(height, math.ceil(y + high))
        if left >= right or top >= bottom:
            raise RegionError(
                f'{what} ({_written(x, y, wide, high)}) lies outside the image of {width} × '
                f'{height} pixels: give it in pixels of this image, at its own size'
            )
        return cls(left, top, right, bottom)

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, to index an array of the image's size."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def holds(self, other: Box) -> bool:
        """Return whether every pixel of another box is in this one."""
        return (
            self.left <= other.left
            and self.top <= other.top
            and self.right >= other.right
            and self.bottom >= other.bottom
        )

    def view(self, height: int, width: int, context: float, least: float) -> Box:
        """Return what to show a model of the surroundings of this box, in an image of this size.

        It has the proportions of the image (the model knows images of those, and all views make one
        batch), the box in its middle as far as the border allows, and lies in the image. It reaches
        ``context`` sides of the box beyond it on each side, and is at least ``least`` of the image
        high.
        """
        share = max(self.width / width, self.height / height) * (1 + 2 * context)
        share = min(1.0, max(share, least))
        left, right = _centred((self.left + self.right) / 2, share * width, width)
        top, bottom = _centred((self.top + self.bottom) / 2, share * height, height)
        return Box(
            min(left, self.left),
            min(top, self.top),
            max(right, self.right),
            max(bottom, self.bottom),
        )


def check_rectangle(
    rectangle: Sequence[float | str], what: str = 'The box'
) -> tuple[float, float, float, float]:
    """Return the numbers of a rectangle (x, y, width, height), which may be written out.

    Raises RegionError, which calls it ``what``, if they are not four finite numbers or have no
    area.
    """
    try:
        x, y, width, height = (float(value) for value in rectangle)
    except (TypeError, ValueError):
        raise RegionError(
            f'{what} must be four numbers x, y, width, height, not {rectangle!r}'
        ) from None
    seen = _written(x, y, width, height)
    if not all(map(math.isfinite, (x, y, width, height))):
        raise RegionError(f'{what} must be of finite numbers, not {seen}')
    if width <= 0 or height <= 0:
        raise RegionError(
            f'{what} has no area ({seen}): give x, y, width, height in pixels, '
            'width and height above 0'
        )
    return x, y, width, height


def _written(x: float, y: float, width: float, height: float) -> str:
    return f'x {x:g}, y {y:g}, width {width:g}, height {height:g}'


def _centred(middle: float, length: float, limit: int) -> tuple[int, int]:
    """Return the first pixel and the one after the last of a stretch around a point."""
    pixels = min(limit, max(1, round(length)))
    start = min(max(round(middle - pixels / 2), 0), limit - pixels)
    return start, start + pixels


@dataclass(frozen=True, eq=False)
class CloseUp:
    """What a model answered to one part of an image.

    Attributes:
        view: What it was shown.
        boxes: Where in the view its answer counts.
        logits: (h, w) float32 of the view, at the model's resolution.
    """

    view: Box
    boxes: tuple[Box, ...]
    logits: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class CloseUps:
    """Answers to parts of an image, and how they join the answer to the whole.

    Attributes:
        parts: The parts; where they overlap, the highest of their logits counts.
        combination: What becomes of the two answers' logits where a part counts:

            - ``mean``: their mean, the geometric mean of the odds;
            - ``replace``: the part's;
            - ``max``: the higher, so the more probable;
            - ``or``: a pixel is on if either has it on, and its logit is then the higher; else it
              keeps that of the whole. At one threshold it gives the same mask as ``max``, and
              decides about presence part by part besides;
            - ``regions``: a pixel is on if a part has it on (Wu et al. 2023, eq. 9); the whole
              does not count, so that nothing is on where there is no part.
        cut: Logit above which a pixel is on; for ``or``.

    Raises:
        RegionError: There is no such combination.
    """

    parts: tuple[CloseUp, ...]
    combination: str
    cut: float = 0.0

    def __post_init__(self) -> None:
        check_combination(self.combination)

    def paste(self, logits: NDArray[np.float32]) -> None:
        """Put the parts' answers into those of the whole image: logits (H, W) float32, in place."""
        stretches: list[tuple[Box, NDArray[np.float32]]] = []
        for part in self.parts:
            left, top, size = part.view.left, part.view.top, (part.view.width, part.view.height)
            resized = cv2.resize(part.logits, size, interpolation=cv2.INTER_LINEAR)
            close: NDArray[np.float32] = np.asarray(resized, np.float32)
            for box in part.boxes:
                inside = np.s_[box.top - top : box.bottom - top, box.left - left : box.right - left]
                stretches.append((box, close[inside]))
        if self.combination == 'regions':
            logits[:] = OUTSIDE
        if self.combination in ('max', 'or', 'regions'):
            for box, close in stretches:
                here = logits[box.slices]
                if self.combination == 'or':
                    close = np.where(close > self.cut, close, -np.inf)
                np.maximum(here, close, out=here)
            return
        whole = [logits[box.slices].copy() for box, _ in stretches]
        for box, _ in stretches:
            logits[box.slices] = -np.inf
        for (box, close), before in zip(stretches, whole, strict=True):
            here = logits[box.slices]
            joined = close if self.combination == 'replace' else (close + before) / 2
            np.maximum(here, joined, out=here)

    def paste_small(self, logits: NDArray[np.float32], height: int, width: int) -> None:
        """Do the same at a lower resolution, sampled at the centres of its pixels.

        ``logits`` (h, w) float32, of the whole image of this height and width, change in place.
        """
        rows, columns = logits.shape
        stretched = CloseUps(
            tuple(
                CloseUp(grid, (grid,), _sample(part, grid, (rows, columns), (height, width)))
                for part in self.parts
                for grid in (_on_grid(box, (rows, columns), (height, width)) for box in part.boxes)
                if grid is not None
            ),
            self.combination,
            self.cut,
        )
        stretched.paste(logits)


def check_combination(name: str) -> None:
    """Raise RegionError unless there is a combination of that name."""
    if name not in COMBINATIONS:
        raise RegionError(
            f'Close-ups are combined by one of {", ".join(COMBINATIONS)}, not by {name!r}'
        )


def _on_grid(box: Box, grid: tuple[int, int], size: tuple[int, int]) -> Box | None:
    """Return the pixels of a coarser grid whose centres lie in a box; None where there are none."""
    (rows, columns), (height, width) = grid, size
    left = math.ceil(box.left * columns / width - 0.5)
    right = math.ceil(box.right * columns / width - 0.5)
    top = math.ceil(box.top * rows / height - 0.5)
    bottom = math.ceil(box.bottom * rows / height - 0.5)
    return Box(left, top, right, bottom) if left < right and top < bottom else None


def _sample(
    part: CloseUp, cells: Box, grid: tuple[int, int], size: tuple[int, int]
) -> NDArray[np.float32]:
    """Return a part's logits at the centres of some pixels of a coarser grid of the whole image."""
    (rows, columns), (height, width) = grid, size
    own_rows, own_columns = part.logits.shape
    # From a pixel's index there to the position in the image, then to the index in the part.
    x = (np.arange(cells.left, cells.right) + 0.5) * width / columns
    y = (np.arange(cells.top, cells.bottom) + 0.5) * height / rows
    x = (x - part.view.left) * own_columns / part.view.width - 0.5
    y = (y - part.view.top) * own_rows / part.view.height - 0.5
    columns_of, rows_of = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
    return np.asarray(
        cv2.remap(
            part.logits, columns_of, rows_of, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
    )
