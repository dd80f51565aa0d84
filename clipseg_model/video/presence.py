"""Whether the thing is in the picture at all: thresholds, hysteresis and least area."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from clipseg_model.prompts import Prompt
from clipseg_model.segmentation import PromptResult, Segmentation
from clipseg_model.video.smoothing import MAX_GAP


class PresenceGate:
    """Decides on presence over the frames of one camera; the mask of what is absent is empty."""

    def __init__(self) -> None:
        self._stamp: float | None = None
        self._present: set[Prompt] = set()

    def forget(self) -> None:
        """Start anew: nothing has been present."""
        self._stamp = None
        self._present = set()

    def decide(
        self,
        found: Segmentation,
        stamp: float,
        threshold: float,
        hysteresis: float = 0.0,
        min_area: int = 0,
    ) -> Segmentation:
        """Decide for each prompt of a frame, whose ``stamp`` is in seconds.

        A prompt without a threshold of its own is present from a score of ``threshold``, and stays
        so while its score is lower by no more than ``hysteresis``. A mask of less than ``min_area``
        pixels is absent. What was present is forgotten after a gap of more than 1 s, and where
        stamps go back.
        """
        if self._stamp is not None and not 0 <= stamp - self._stamp <= MAX_GAP:
            self._present = set()
        self._stamp = stamp
        results = []
        for result in found.results:
            limit = result.prompt.present_from(threshold)
            if result.prompt in self._present:
                limit -= hysteresis
            result = _with_presence(result, result.score >= limit)
            if result.presence and min_area > 0 and np.count_nonzero(result.mask) < min_area:
                result = _with_presence(result, False)
            results.append(result)
        self._present = {result.prompt for result in results if result.presence}
        return replace(found, results=results)


def _with_presence(result: PromptResult, presence: bool) -> PromptResult:
    return result if result.presence == presence else replace(result, presence=presence)
