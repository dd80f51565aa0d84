"""A support image and its mask, which come on two topics in either order. No ROS in here.

Their stamps say what belongs together. An image without a mask is a whole example, so it takes
effect at once, and a mask that comes later refines it. A mask that comes first waits for its image.
A message without a stamp (all zero, as typed by hand) fits whatever came last.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipseg_model.errors import PromptError

NO_STAMP = 0
"""Stamp of messages without one, nanoseconds."""


@dataclass(frozen=True, eq=False)
class SupportImage:
    """An example, (H, W, 3) uint8 RGB, and its mask, (H, W) bool, or None for the whole image."""

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_] | None = None


class SupportPair:
    """Joins images and masks as they come."""

    def __init__(self) -> None:
        self._image: tuple[int, NDArray[np.uint8]] | None = None
        self._mask: tuple[int, NDArray[np.bool_]] | None = None

    def add_image(self, image: NDArray[np.uint8], stamp: int) -> SupportImage:
        """Take an image, with the mask that waits for it, and return the example of now.

        Args:
            image: (H, W, 3) uint8 RGB.
            stamp: Of the message, nanoseconds; :data:`NO_STAMP` for none. In :meth:`add_mask` too.

        Raises:
            PromptError: The waiting mask is not of its size. Both are dropped; the image of before
                stays.
        """
        waiting, self._mask = self._mask, None
        mask = None
        if waiting is not None and _fits(waiting[0], stamp):
            mask = waiting[1]
            _check_size(mask, image)
        self._image = (stamp, image)
        return SupportImage(image, mask)

    def add_mask(self, mask: NDArray[np.bool_], stamp: int) -> SupportImage | None:
        """Take a mask; return the example, None if the mask waits for its image.

        ``mask`` is bool (H, W), true on the example.

        Raises:
            PromptError: It is empty, or not of the size of its image. It is dropped.
        """
        if not mask.any():
            raise PromptError('the mask is empty: it must be non-zero on the example object')
        if self._image is not None and _fits(self._image[0], stamp):
            _check_size(mask, self._image[1])
            return SupportImage(self._image[1], mask)
        self._mask = (stamp, mask)
        return None

    def forget(self) -> None:
        """Drop both."""
        self._image = self._mask = None


def _fits(one: int, other: int) -> bool:
    return one == other or NO_STAMP in (one, other)


def _check_size(mask: NDArray[np.bool_], image: NDArray[np.uint8]) -> None:
    if mask.shape != image.shape[:2]:
        raise PromptError(
            f'the mask is {mask.shape[1]} px wide and {mask.shape[0]} px high, and its image '
            f'{image.shape[1]} and {image.shape[0]}: resize it, with nearest-neighbour '
            'interpolation'
        )
