"""Where in an image to look closely: the model's own hints, a caller's boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from clipseg_model.calibration import logit
from clipseg_model.errors import RegionError
from clipseg_model.prompts import check_probability
from clipseg_model.regions import Box, check_rectangle
from clipseg_model.segmentation import PromptResult, Segmentation


@dataclass(frozen=True)
class Proposal:
    """A part of an image that is worth a closer look, ``box``, where its answer will count.

    ``prompt`` is its number in the segmentation, from 0; None for all. ``confidence`` orders the
    proposals of a prompt, on any scale.
    """

    box: Box
    prompt: int | None = None
    confidence: float = 0.0


class Proposer(Protocol):
    """Anything that proposes regions."""

    def propose(self, image: NDArray[np.uint8], found: Segmentation) -> list[Proposal]:
        """Propose where to look closely in an RGB image (H, W, 3) uint8.

        Raises:
            RegionError: A region is not usable for this image.
        """


@dataclass(frozen=True)
class CoarseProposals:
    """Regions where the model itself, looking at the whole image, finds a prompt possible.

    They are the connected parts of where the probability exceeds a low threshold, those that fill
    much of the image excepted: a closer look would show little more of them.

    Attributes:
        low: Probability in (0, 1) from which a pixel is possible; the prompt's threshold where
            that is lower.
        margin: How far the answer counts beyond a part, in longer sides of the part, 0…10; at
            least one pixel of the model.
        largest: Side above which a part is not looked at, as a share of the image's, 0…1.

    Raises:
        PromptError: ``low`` is not in (0, 1).
        RegionError: Another value is out of range.
    """

    low: float = 0.1
    margin: float = 0.1
    largest: float = 0.35

    def __post_init__(self) -> None:
        check_probability(self.low, 'The low threshold of proposals')
        check_share(self.largest, 'The largest side of proposals')
        if not 0 <= self.margin <= 10:
            raise RegionError(f'The margin of proposals must be in 0…10, not {self.margin!r}')

    def propose(self, image: NDArray[np.uint8], found: Segmentation) -> list[Proposal]:
        """Propose the possible parts of each prompt, the most probable first."""
        return [
            Proposal(box, number, peak)
            for number, result in enumerate(found.results)
            for peak, box in self._parts(result)
        ]

    def _parts(self, result: PromptResult) -> list[tuple[float, Box]]:
        logits = result.logits
        rows, columns = logits.shape
        possible = logits > logit(min(self.low, result.threshold))
        _count, labels, statistics, _centroids = cv2.connectedComponentsWithStats(
            possible.view(np.uint8), connectivity=8
        )
        wide = statistics[:, cv2.CC_STAT_WIDTH] > self.largest * columns
        high = statistics[:, cv2.CC_STAT_HEIGHT] > self.largest * rows
        left_alone = wide | high
        left_alone[0] = False
        parts = []
        for label in np.flatnonzero(~left_alone[1:]) + 1:
            x, y, width, height, _ = (int(value) for value in statistics[label])
            near = max(1, round(self.margin * max(width, height)))
            top, bottom = max(0, y - near), min(rows, y + height + near)
            left, right = max(0, x - near), min(columns, x + width + near)
            around = labels[top:bottom, left:right]
            # What is large is seen best as a whole, so nothing is pasted over it.
            if left_alone[around].any():
                continue
            peak = float(logits[top:bottom, left:right][around == label].max())
            sizes = result.width / columns, result.height / rows
            rectangle = (
                left * sizes[0],
                top * sizes[1],
                (right - left) * sizes[0],
                (bottom - top) * sizes[1],
            )
            parts.append((peak, Box.around(rectangle, result.height, result.width)))
        return sorted(parts, reverse=True)


class GivenBoxes:
    """Boxes that the caller has: from a detector in another process, a tracker, a person.

    Each is (x, y, width, height), pixels of the image; fractions are rounded outwards, and what
    reaches beyond the image is cut off. ``confidences`` order them, the highest first.

    Raises:
        RegionError: A box has no area or is not of four finite numbers, or there are not as many
            confidences as boxes. A box outside an image is found when that is segmented.
    """

    def __init__(
        self, boxes: Sequence[Sequence[float | str]], confidences: Sequence[float] | None = None
    ) -> None:
        # A box that is wrong by itself is refused here, before there is an image.
        self.boxes = [
            check_rectangle(box, f'Box {number}') for number, box in enumerate(boxes, start=1)
        ]
        if confidences is None:
            confidences = [-float(number) for number in range(len(self.boxes))]
        if len(confidences) != len(self.boxes):
            raise RegionError(
                f'{len(self.boxes)} boxes need as many confidences, not {len(confidences)}'
            )
        self.confidences = list(confidences)

    def propose(self, image: NDArray[np.uint8], found: Segmentation) -> list[Proposal]:
        """Propose every box, for every prompt."""
        return [
            Proposal(Box.around(box, found.height, found.width, f'Box {number}'), None, confidence)
            for number, (box, confidence) in enumerate(
                zip(self.boxes, self.confidences, strict=True), start=1
            )
        ]


def check_share(value: float, what: str) -> None:
    """Make sure that a share of the image lies in (0, 1].

    Raises:
        RegionError: It does not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise RegionError(f'{what} must be a share of the image above 0, up to 1, not {value!r}')
