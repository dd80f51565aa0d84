"""Less flicker from frame to frame: the probabilities of each prompt, averaged over time.

    p̄ ← p̄ + (1 − exp(−Δt / τ)) · (p − p̄)

with Δt from the images' stamps, so that τ means the same at every frame rate. The average starts
anew where the picture has changed by more than a limit (the camera moved, a cut), where stamps jump
or go back, and for every prompt that is new or changed.
"""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from clipseg_model.calibration import sigmoid, top_scores
from clipseg_model.prompts import Prompt
from clipseg_model.segmentation import PromptResult, Segmentation

MAX_GAP = 1.0
"""Seconds between stamps after which a frame does not continue what was before it."""

THUMBNAIL = (32, 24)
"""Width and height of the pictures that are compared."""

_LEAST = np.float32(1e-6)

Floats = NDArray[np.float32]


def thumbnail(image: NDArray[np.uint8]) -> Floats:
    """Return the brightness, float32 (24, 32) in 0…1, of an RGB image (H, W, 3) uint8 made tiny."""
    step = max(1, min(image.shape[:2]) // (4 * THUMBNAIL[1]))
    grey = cv2.cvtColor(np.ascontiguousarray(image[::step, ::step]), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, THUMBNAIL, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32) / np.float32(255)


def picture_change(one: Floats, other: Floats) -> float:
    """Compare two thumbnails: the mean difference in 0…1, overall brightness aside."""
    difference = one - other
    difference -= difference.mean()
    return float(np.abs(difference).mean())


class TemporalSmoother:
    """Averages what is found for each prompt over the frames of one camera.

    ``restarts`` counts how often averages began anew, by reason: ``gap``, ``back`` (stamps that do
    not advance), ``size`` and ``motion``.
    """

    def __init__(self) -> None:
        self.restarts = {'gap': 0, 'back': 0, 'size': 0, 'motion': 0}
        self._stamp: float | None = None
        self._shape: tuple[int, ...] = ()
        self._picture: Floats | None = None
        self._kept: dict[Prompt, Floats] = {}

    def forget(self) -> None:
        """Start anew with the next frame."""
        self._stamp = self._picture = None
        self._kept = {}

    def smooth(
        self,
        found: Segmentation,
        stamp: float,
        image: NDArray[np.uint8],
        time_constant: float,
        max_change: float,
    ) -> Segmentation:
        """Replace logits by those of the averages, and scores by those of the new logits.

        Results of a closer look (zoom) and presence are left as they are. The frame has a ``stamp``
        in seconds and an ``image`` (H, W, 3) uint8 RGB. ``time_constant`` is τ above, seconds; 0
        changes nothing. ``max_change`` is the limit of :func:`picture_change` between the frame and
        the average of those before; 1 is no limit.
        """
        if time_constant <= 0:
            self.forget()
            return found
        share = self._share(stamp, image, time_constant, max_change)
        kept: dict[Prompt, Floats] = {}
        results = []
        for result in found.results:
            before = self._kept.get(result.prompt)
            now = sigmoid(result.logits)
            if share < 1 and before is not None and before.shape == now.shape:
                now = before + np.float32(share) * (now - before)
                if result.close_ups is None:
                    result = _with_probabilities(result, now)
            kept[result.prompt] = now
            results.append(result)
        self._kept = kept
        return replace(found, results=results)

    def _share(
        self, stamp: float, image: NDArray[np.uint8], time_constant: float, max_change: float
    ) -> float:
        """Return the share of this frame in the averages: 1 where they begin anew."""
        picture, last = thumbnail(image), self._stamp
        shape, self._shape, self._stamp = self._shape, image.shape, stamp
        if last is None or self._picture is None:
            self._picture = picture
            return 1.0
        elapsed = stamp - last
        reason = ''
        if elapsed <= 0:
            reason = 'back'
        elif elapsed > MAX_GAP:
            reason = 'gap'
        elif shape != image.shape:
            reason = 'size'
        # Against the average, not against the last frame: what slow motion adds up to counts, and
        # the same motion is found at every frame rate.
        elif picture_change(picture, self._picture) > max_change:
            reason = 'motion'
        if reason:
            self.restarts[reason] += 1
            self._picture = picture
            return 1.0
        share = -math.expm1(-elapsed / time_constant)
        self._picture = self._picture + np.float32(share) * (picture - self._picture)
        return share


def _with_probabilities(result: PromptResult, probabilities: Floats) -> PromptResult:
    inside = np.clip(probabilities, _LEAST, 1 - _LEAST)
    logits = np.log(inside) - np.log1p(-inside)
    [score] = top_scores(logits[None])
    return replace(result, logits=logits, score=score)
