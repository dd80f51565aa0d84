"""All outputs of one segmented frame in one pass over its pixels.

They are those of :class:`~clipseg_model.segmentation.Segmentation`, bit for bit, which resizes the
logits for each output. Here they are resized once and only where they can matter. The probability,
which needs them everywhere, is left until it is asked for: a mask does not wait for it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import compress
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from clipseg_model.calibration import sigmoid
from clipseg_model.errors import PromptError
from clipseg_model.outputs.mask_window import Scratch, find_window, logits_in, meeting
from clipseg_model.prompts import MAX_PROMPTS
from clipseg_model.regions import Box
from clipseg_model.segmentation import PromptResult, Segmentation, probabilities

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

_WHOLE = 0.5
"""Share of the image from which on looking at the whole of it is cheaper than at windows."""


class _Entry(NamedTuple):
    """A prompt that may be on somewhere: what was found, its id, and where in the image."""

    result: PromptResult
    identity: int
    window: Box


class FrameOutputs:
    """Mask, labels, confidence and probability of one frame.

    Where masks overlap, the prompt with the highest probability wins, the earlier one of equals.
    ``ids`` of prompts are 1…254. What only outputs need that are not in ``wanted`` is left out.
    ``scratch`` is the memory of the thread that makes this object.

    Raises:
        PromptError: There are not as many ids as prompts, or one is out of range.
    """

    def __init__(
        self,
        segmentation: Segmentation,
        ids: Sequence[int],
        wanted: Collection[str],
        scratch: Scratch,
    ) -> None:
        results = segmentation.results
        if len(ids) != len(results):
            raise PromptError(f'{len(results)} prompts need as many ids, not {len(ids)}')
        if not all(1 <= value <= MAX_PROMPTS for value in ids):
            raise PromptError(f'The ids of prompts must be in 1…{MAX_PROMPTS}, not {list(ids)}')
        self.shape = (segmentation.height, segmentation.width)
        self._winner: Bytes = np.zeros(self.shape, np.uint8)
        # Logits of the winners, and the highest of all prompts, where they are known.
        self._best: Floats | None = None
        self._peak: Floats | None = None
        self._segmentation, self._alike = segmentation, _alike(results)
        if not wanted:
            return
        everywhere = 'probability' in wanted
        keep = 'confidence' in wanted or (everywhere and not self._alike)
        entries = [
            _Entry(result, identity, window)
            for result, identity in zip(results, ids, strict=True)
            if (window := find_window(result)) is not None
        ]
        if not keep and 'labels' not in wanted:
            if 'mask' in wanted:
                self._find_union(entries, scratch)
            return
        areas = sum(entry.window.width * entry.window.height for entry in entries)
        large = areas > _WHOLE * segmentation.height * segmentation.width * len(entries)
        if large and everywhere and self._alike:
            self._find_highest(list(zip(results, ids, strict=True)), scratch)
            self._peak = self._best
        elif large and not everywhere and _alike([entry.result for entry in entries]):
            self._find_highest([(entry.result, entry.identity) for entry in entries], scratch)
        else:
            self._find_winner(entries, keep, scratch)

    def mask(self, out: Bytes) -> None:
        """Write 255 where any prompt matches, 0 elsewhere, into uint8 (H, W)."""
        cv2.threshold(self._winner, 0, 255, cv2.THRESH_BINARY, dst=out)

    def labels(self, out: Bytes | None = None) -> Bytes:
        """Return the id of the winning prompt, 0 where none matches, uint8 (H, W).

        It is written to ``out``; where that is None, what is returned must not be written to.
        """
        if out is None:
            return self._winner
        np.copyto(out, self._winner)
        return out

    def confidence(self, out: Bytes) -> None:
        """Write round(255 · probability of the winning prompt), 0 where there is none."""
        if self._best is None:
            out.fill(0)
            return
        scaled = sigmoid(self._best)
        scaled *= 255
        np.rint(scaled, out=scaled)
        np.copyto(out, scaled, casting='unsafe')
        np.multiply(out, self._winner > 0, out=out)

    def probability(self, out: Floats) -> None:
        """Write the winner's probability, or the highest where none wins, to float32 (H, W).

        ``out`` is C-contiguous.
        """
        highest = self._peak
        if highest is None:
            highest = self._segmentation.highest_logits(out)
            if not self._alike:
                assert self._best is not None, "'probability' was not among what is wanted"
                cv2.copyTo(self._best, self._winner, highest)
        probabilities(highest, self._segmentation.region, out=out)

    def probability_at(self, index: NDArray[np.intp]) -> Floats:
        """Return the winners' probability, float32 (N,), at flat indices (N,) that have one."""
        best = self._best
        assert best is not None or not len(index), "'confidence' was not wanted"
        return sigmoid(best.ravel()[index]) if best is not None else np.empty(0, np.float32)

    def _find_union(self, entries: Sequence[_Entry], scratch: Scratch) -> None:
        """Find where any prompt is on; which one is left open."""
        on = scratch.bytes('on', self.shape)
        for entry in entries:
            window = entry.window.slices
            here, winner = on[window], self._winner[window]
            close = logits_in(entry.result, entry.window, scratch)
            np.greater(close, entry.result.cut, out=here.view(bool))
            np.bitwise_or(winner, here, out=winner)

    def _find_highest(self, entries: Sequence[tuple[PromptResult, int]], scratch: Scratch) -> None:
        """Find the winners where all prompts are present and share one threshold.

        The highest logit of all wins then, if it is above the threshold: one comparison a prompt.
        """
        logits, wins = scratch.floats('logits', self.shape), scratch.bytes('wins', self.shape)
        number = scratch.bytes('number', self.shape)
        self._best = best = entries[0][0].resized_logits(np.empty(self.shape, np.float32))
        self._winner.fill(entries[0][1])
        for result, identity in entries[1:]:
            result.resized_logits(logits)
            cv2.compare(logits, best, cv2.CMP_GT, dst=wins)
            number.fill(identity)
            cv2.copyTo(number, wins, self._winner)
            cv2.max(best, logits, dst=best)
        np.greater(best, entries[0][0].cut, out=wins.view(bool))
        np.multiply(self._winner, wins, out=self._winner)

    def _find_winner(self, entries: Sequence[_Entry], keep: bool, scratch: Scratch) -> None:
        """Find the winners where thresholds differ, prompts are absent, or masks are small.

        ``keep`` says whether the winners' logits are needed afterwards.
        """
        wins, on = scratch.bytes('wins', self.shape), scratch.bytes('on', self.shape)
        number = scratch.bytes('number', self.shape)
        if keep:
            self._best = best = np.full(self.shape, -np.inf, np.float32)
        else:
            best = scratch.floats('best', self.shape)
            entries = self._find_undisputed(entries, scratch)
        cuts = {entry.result.cut for entry in entries}
        # What is to be exceeded: what has won so far, and where nothing has, the only threshold.
        start = cuts.pop() if len(cuts) == 1 else -np.inf
        for entry in entries:
            best[entry.window.slices].fill(start)
        for entry in entries:
            window = entry.window.slices
            close, won = logits_in(entry.result, entry.window, scratch), wins[window]
            cv2.compare(close, best[window], cv2.CMP_GT, dst=won)
            if cuts:
                np.greater(close, entry.result.cut, out=on[window].view(bool))
                np.multiply(won, on[window], out=won)
            number[window].fill(entry.identity)
            cv2.copyTo(number[window], won, self._winner[window])
            cv2.copyTo(close, won, best[window])

    def _find_undisputed(self, entries: Sequence[_Entry], scratch: Scratch) -> Sequence[_Entry]:
        """Find the winners in windows that no other window meets; return the other entries."""
        on = scratch.bytes('on', self.shape)
        meet = meeting([entry.window for entry in entries])
        for entry in compress(entries, ~meet):
            window = entry.window.slices
            here, close = on[window], logits_in(entry.result, entry.window, scratch)
            np.greater(close, entry.result.cut, out=here.view(bool))
            np.multiply(here, np.uint8(entry.identity), out=self._winner[window])
        return list(compress(entries, meet))


def _alike(results: Sequence[PromptResult]) -> bool:
    """Return whether all have one threshold, and none is absent."""
    one = len({result.cut for result in results}) == 1
    return one and all(result.presence for result in results)
