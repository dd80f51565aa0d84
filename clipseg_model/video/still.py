"""Whether a camera still sees what was encoded last, so that its encoding serves once more.

Two pictures differ by the largest mean difference that any tile of them has in any channel:

    change(a, b) = max over tiles T and channels c of  mean over pixels p in T of |a_pc − b_pc|

in levels of 255. Tiles are a fraction of a patch, so that something small is not averaged away. The
noise of a camera adds a floor of about 1.13 times its standard deviation. Each picture is compared
with the one that was *encoded*, so that what drifts adds up, and in no tile is the model's input
off by ``below`` levels or more on average. docs/performance.md, section Approximations, measures
what that does to masks.
"""

from __future__ import annotations

from collections import deque

import cv2
import numpy as np
from numpy.typing import NDArray

from clipseg_model.errors import ReuseError

TILE = 8
"""Side of a tile, pixels of the model's input: half of the usual patch."""

MAX_REUSES = 30
"""Frames in a row that an encoding serves after its own: a second of most cameras."""

_WINDOW = 100

Picture = NDArray[np.uint8]


def picture_difference(one: Picture, other: Picture, tile: int = TILE) -> float:
    """Compare two pictures (3, H, W) uint8, in levels 0…255; see the top of this module.

    Tiles, of ``tile`` pixels a side, are made a little smaller where H or W is no multiple.

    Raises:
        ValueError: The shapes differ.
    """
    if one.shape != other.shape:
        raise ValueError(f'pictures of one shape are compared, not {one.shape} and {other.shape}')
    height, width = one.shape[1:]
    size = (-(-width // tile), -(-height // tile))
    return max(
        float(
            cv2.resize(
                cv2.absdiff(before, after).astype(np.float32), size, interpolation=cv2.INTER_AREA
            ).max()
        )
        for before, after in zip(one, other, strict=True)
    )


def check_reuse(below: float, at_most: int) -> None:
    """Make sure that the settings of reuse are in range.

    Args:
        below: The bound, levels of 255: a picture that differs by less is still. 0 is off. About
            twice the standard deviation of the camera's noise lets none of it through.
        at_most: How many frames in a row may be still; the next is encoded whatever it looks like.

    Raises:
        ReuseError: ``below`` is not in 0…255, or ``at_most`` is less than 1.
    """
    if not 0 <= below <= 255:
        raise ReuseError(
            f'reuse_below is a difference in levels, 0 (off) to 255, not {below}: 2 to 6 suit '
            'most cameras'
        )
    if at_most < 1:
        raise ReuseError(
            f'reuse_frames is a number of frames from 1, not {at_most}: reuse is switched off '
            'by reuse_below 0'
        )


def describe_reuse(below: float, at_most: int) -> str:
    """Describe the approximation in a sentence, for people; arguments as :func:`check_reuse`."""
    times = 'once' if at_most == 1 else f'{at_most} times in a row'
    return (
        f'while no {TILE} × {TILE} tile of its input changes by {below:g} levels or '
        f'more, an image is not encoded but an earlier encoding reused, at most {times}'
    )


class StillDetector:
    """Compares the frames of one camera, one after the other. Keep one for each camera.

    ``frames`` counts those compared, ``reused`` those of them that were still.
    """

    def __init__(self) -> None:
        self.frames = self.reused = 0
        self._recent: deque[bool] = deque(maxlen=_WINDOW)
        self._encoded: Picture | None = None
        self._uses = 0

    @property
    def share(self) -> float:
        """The share of the last 100 frames that were still; 0 before the first."""
        recent = tuple(self._recent)
        return sum(recent) / len(recent) if recent else 0.0

    def forget(self) -> None:
        """Make the next picture not still, as after a failure to encode the one before."""
        self._encoded = None

    def is_still(self, picture: Picture, below: float, at_most: int = MAX_REUSES) -> bool:
        """Decide whether the encoding at hand serves for a frame, which must be encoded if not.

        The picture is (3, H, W) uint8, as the model sees it before it is normalised, and copied if
        kept; for ``below`` and ``at_most`` see :func:`check_reuse`.
        """
        if not below:
            self.forget()
            return False
        before = self._encoded
        still = (
            before is not None
            and self._uses < at_most
            and before.shape == picture.shape
            and picture_difference(before, picture) < below
        )
        self._uses = self._uses + 1 if still else 0
        if not still:
            self._encoded = np.array(picture, order='C')
        self.frames += 1
        self.reused += still
        self._recent.append(still)
        return still
