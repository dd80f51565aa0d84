"""What a model found in one image, at that image's own height and width.

The mask of a prompt is defined as resize(logits) > logit(threshold), which equals thresholding the
probability and needs no full-size sigmoid. All full-size arrays are made when they are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from clipseg_model.calibration import logit, sigmoid
from clipseg_model.errors import PromptError, RegionError
from clipseg_model.instances import Instance, find_instances
from clipseg_model.prompts import MAX_PROMPTS, Prompt
from clipseg_model.regions import Box, CloseUps


def probabilities(
    logits: NDArray[np.float32], region: Box | None, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Return the probabilities of logits (H, W) float32: exactly 0 outside of the region.

    They are written to ``out``; to a new array where None.
    """
    if region is None:
        return sigmoid(logits, out=out)
    if out is None:
        out = np.empty_like(logits)
    inside = region.slices
    seen = sigmoid(logits[inside])
    out.fill(0)
    out[inside] = seen
    return out


@dataclass(frozen=True, eq=False)
class PromptResult:
    """What was found for one prompt.

    Attributes:
        prompt: What was looked for.
        threshold: Probability in (0, 1) above which a pixel is on.
        score: How sure the model is that the thing is there at all, 0…1: the mean of its highest
            probabilities (:func:`clipseg_model.calibration.top_scores`).
        presence: Whether the score reaches the model's presence threshold; where it does not, the
            mask is empty.
        logits: (h, w) float32 of what the model saw, at its resolution.
        height: Of the input image, pixels.
        width: Of the input image, pixels.
        close_ups: What was found in parts of the image (:mod:`clipseg_model.zoom.refinement`).
        region: The part of the image that the model saw, None for the whole; outside of it the
            probability is 0.
    """

    prompt: Prompt
    threshold: float
    score: float
    presence: bool
    logits: NDArray[np.float32]
    height: int
    width: int
    close_ups: CloseUps | None = None
    region: Box | None = None

    def resized_logits(self, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Return the logits (H, W) float32 at the image's own size, bilinear, in new memory.

        Outside of the region they are minus infinity. They are put into ``out``, C-contiguous, if
        given.
        """
        if out is None:
            # Arrays of this size come from the kernel, page by page: one is enough.
            out = np.empty((self.height, self.width), np.float32)
        seen = out
        if self.region is not None:
            out.fill(-np.inf)
            seen = out[self.region.slices]
        cv2.resize(self.logits, seen.shape[::-1], dst=seen, interpolation=cv2.INTER_LINEAR)
        if self.close_ups is not None:
            self.close_ups.paste(seen)
        return out

    def instances(self, min_area: int = 1) -> list[Instance]:
        """Return the connected parts of the mask, the largest first; none of an absent prompt.

        Raises:
            RegionError: ``min_area``, in pixels, is less than 1, or no whole number.
        """
        return find_instances(self.mask, self.probability, min_area)

    @cached_property
    def probability(self) -> NDArray[np.float32]:
        """Probability (H, W) float32 in 0…1, of an absent prompt too."""
        return probabilities(self.resized_logits(), self.region)

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """Mask (H, W) bool: where the probability is above the threshold; empty if absent."""
        if not self.can_be_on:
            return np.zeros((self.height, self.width), bool)
        return self.resized_logits() > self.cut

    @cached_property
    def can_be_on(self) -> bool:
        """Whether the mask may have a pixel on, from the model's own resolution.

        Bilinear interpolation invents nothing above what it interpolates, up to rounding.
        """
        if not self.presence:
            return False
        peak, cut = float(self.logits.max()), float(self.cut)
        return self.close_ups is not None or peak > cut - 1e-5 * max(1.0, abs(peak), abs(cut))

    @property
    def cut(self) -> np.float32:
        """The logit that a pixel must exceed to be on."""
        return np.float32(logit(self.threshold))


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What was found in one image.

    Where masks overlap, the prompt with the highest probability wins, the earlier one of equals.

    Attributes:
        height: Of the input image, pixels.
        width: Of the input image, pixels.
        results: One for each prompt, in their order.
        model: Name of the model that made it.
        reused: Whether this is an approximation, made of the encoding of an earlier image
            (:mod:`clipseg_model.video.still`).
    """

    height: int
    width: int
    results: list[PromptResult]
    model: str
    reused: bool = False

    @property
    def region(self) -> Box | None:
        """The part of the image that the model saw, None for the whole."""
        return self.results[0].region if self.results else None

    def within(self, region: Box, height: int, width: int) -> Segmentation:
        """Return what was found in a region as found in the whole image, of this height and width.

        Raises:
            RegionError: The region reaches out of the image, or is not of this size.
        """
        if (region.bottom - region.top, region.right - region.left) != (self.height, self.width):
            raise RegionError(
                f'What was found in {self.width} × {self.height} px is not of the size of {region}'
            )
        if region.right > width or region.bottom > height:
            raise RegionError(f'{region} reaches out of an image of {width} × {height} px')
        results = [
            replace(result, height=height, width=width, region=region) for result in self.results
        ]
        return replace(self, height=height, width=width, results=results)

    def mask(self) -> NDArray[np.uint8]:
        """Return where any prompt matches: (H, W) uint8, 0 or 255."""
        if '_winner' in self.__dict__:
            # Where any mask is on, some prompt has won.
            return (self._winner[0] > 0).view(np.uint8) * np.uint8(255)
        shape = (self.height, self.width)
        union, one = np.zeros(shape, bool), np.empty(shape, bool)
        scratch = np.empty(shape, np.float32)
        for result in self.results:
            if 'mask' in result.__dict__:
                union |= result.mask
            elif result.can_be_on:
                np.greater(result.resized_logits(scratch), result.cut, out=one)
                union |= one
        whole = union.view(np.uint8)
        return np.multiply(whole, np.uint8(255), out=whole)

    def labels(self, ids: Sequence[int] | None = None) -> NDArray[np.uint8]:
        """Return which prompt matches: (H, W) uint8, 0 for none, else the winning prompt's id.

        Ids are 1…254, one a prompt; 1, 2, 3 and so on where None.

        Raises:
            PromptError: There are not as many ids as prompts, or one is out of range.
        """
        index, _ = self._winner
        if ids is None:
            return index.copy()
        if len(ids) != len(self.results):
            raise PromptError(f'{len(self.results)} prompts need as many ids, not {len(ids)}')
        if not all(1 <= value <= MAX_PROMPTS for value in ids):
            raise PromptError(f'The ids of prompts must be in 1…{MAX_PROMPTS}, not {list(ids)}')
        table = np.zeros(256, np.uint8)
        table[1 : 1 + len(ids)] = ids
        return np.asarray(cv2.LUT(index, table))

    def confidence(self) -> NDArray[np.uint8]:
        """Return the winner's probability: (H, W) uint8, round(255 · p), 0 where no label is."""
        _, best = self._winner
        scaled = sigmoid(best)
        scaled *= 255
        return np.rint(scaled, out=scaled).astype(np.uint8)

    def probability(self) -> NDArray[np.float32]:
        """Return the probability of the winning prompt everywhere: (H, W) float32.

        Where no mask is on, that is the highest probability of all prompts.
        """
        index, best = self._winner
        return probabilities(np.where(index > 0, best, self.highest_logits()), self.region)

    def highest_logits(self, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Return the highest logit of all prompts, present or not: (H, W) float32, in new memory.

        They are put into ``out`` as :meth:`PromptResult.resized_logits` does.
        """
        first, *others = self.results
        highest = first.resized_logits(out)
        scratch = np.empty_like(highest)
        for result in others:
            cv2.max(highest, result.resized_logits(scratch), dst=highest)
        return highest

    @cached_property
    def _winner(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Number of the winning prompt from 1, or 0, and its logit, or -inf: each (H, W)."""
        shape = (self.height, self.width)
        index = np.zeros(shape, np.uint8)
        best = np.full(shape, -np.inf, np.float32)
        scratch = np.empty(shape, np.float32)
        wins, better = np.empty(shape, bool), np.empty(shape, bool)
        for number, result in enumerate(self.results, start=1):
            if not result.can_be_on:
                continue
            logits = result.resized_logits(scratch)
            np.greater(logits, result.cut, out=wins)
            np.greater(logits, best, out=better)
            wins &= better
            on = wins.view(np.uint8)
            cv2.copyTo(logits, on, best)
            on *= np.uint8(number)
            # Numbers ascend, so the latest winner is also the highest.
            np.maximum(index, on, out=index)
        return index, best
