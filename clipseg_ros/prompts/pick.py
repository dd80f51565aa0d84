"""Cutting an example out of a frame, by a box or a point. No ROS in here."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from clipseg_model.errors import PromptError
from clipseg_model.prompting.visual_prompt import box_mask
from clipseg_ros.prompts.support_pair import SupportImage

POINT_SHARE = 0.2
"""Side of the square around a point, as a share of the frame's shorter side."""


@dataclass(frozen=True)
class Place:
    """A box in a frame, or, of width and height 0, a point; pixels from the upper left."""

    x: int
    y: int
    width: int = 0
    height: int = 0

    @property
    def is_point(self) -> bool:
        """Whether it is a point."""
        return self.width == 0 and self.height == 0


@dataclass(frozen=True)
class Picked:
    """The frame with the mask of the part, its box (x, y, width, height), and words on it."""

    example: SupportImage
    box: tuple[int, int, int, int]
    how: str


def pick(place: Place, image: NDArray[np.uint8], labels: NDArray[np.uint8] | None = None) -> Picked:
    """Cut an example out of a frame, (H, W, 3) uint8 RGB. A box is clipped to the frame.

    ``labels``, (H, W) uint8, are those of this frame, if they are known. For a point, the connected
    part of the label under it is the example.

    Raises:
        PromptError: Point or box lies outside of the frame, or the box has no area.
    """
    height, width = image.shape[:2]
    if not place.is_point:
        mask = box_mask((place.x, place.y, place.width, place.height), height, width)
        return _picked(image, mask, 'the box')
    if not (0 <= place.x < width and 0 <= place.y < height):
        raise PromptError(
            f'the point ({place.x}, {place.y}) lies outside of the frame, which is {width} px wide '
            f'and {height} px high'
        )
    if labels is not None and labels[place.y, place.x]:
        same = np.equal(labels, labels[place.y, place.x])
        _, parts = cv2.connectedComponents(same.view(np.uint8), connectivity=8)
        mask = parts == parts[place.y, place.x]
        return _picked(image, mask, 'the part of the mask under the point')
    side = max(1, round(POINT_SHARE * min(height, width)))
    left, top = place.x - side // 2, place.y - side // 2
    mask = box_mask((left, top, side, side), height, width)
    return _picked(image, mask, f'a square of {side} px around the point, where no mask is')


def _picked(image: NDArray[np.uint8], mask: NDArray[np.bool_], how: str) -> Picked:
    x, y, across, down = (int(value) for value in cv2.boundingRect(mask.view(np.uint8)))
    return Picked(SupportImage(image, mask), (x, y, across, down), how)
