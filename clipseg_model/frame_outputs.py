"""All outputs of one segmented frame in one pass over its pixels.

:class:`~clipseg_model.segmentation.Segmentation` answers each question by itself, and resizes the
logits for each. A node is asked for several outputs of every frame: here the logits of each prompt
are resized once, the winner per pixel is found once, and what is asked for is written where it is
wanted, such as into a message. The results are those of ``Segmentation``, bit for bit.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from clipseg_model.calibration import sigmoid
from clipseg_model.errors import PromptError
from clipseg_model.prompts import MAX_PROMPTS
from clipseg_model.segmentation import PromptResult, Segmentation

__all__ = ['FrameOutputs', 'Scratch']

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

_MARGIN = 1e-3
"""Rounding may lift an interpolated logit above the highest of its neighbours, by much less."""


class Scratch:
    """Memory that one thread uses for every frame, so that no frame has to ask the system for it.

    Not for use by two threads at once.
    """

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[np.generic]] = {}

    def floats(self, name: str, shape: tuple[int, int]) -> Floats:
        """Returns float32 memory (H, W) of a name, with whatever is in it."""
        return self._get(name, shape, np.dtype(np.float32))

    def bytes(self, name: str, shape: tuple[int, int]) -> Bytes:
        """Returns uint8 memory (H, W) of a name, with whatever is in it."""
        return self._get(name, shape, np.dtype(np.uint8))

    def _get(
        self, name: str, shape: tuple[int, int], dtype: np.dtype[np.generic]
    ) -> NDArray[np.generic]:
        array = self._arrays.get(name)
        if array is None or array.shape != shape:
            array = self._arrays[name] = np.empty(shape, dtype)
        return array


class FrameOutputs:
    """Mask, labels, confidence and probability of one frame.

    Where masks overlap, the prompt with the highest probability wins, the earlier one of equals.

    Args:
        segmentation: What was found.
        ids: Id of each prompt, 1…254.
        wanted: Names of the outputs that will be asked for; what only others need is left out.
        scratch: Memory of the thread that makes this object.

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
        self._best: Floats | None = None
        self._peak: Floats | None = None
        if not wanted:
            return
        entries = list(zip(results, ids, strict=True))
        everywhere = 'probability' in wanted
        if not everywhere:
            entries = [entry for entry in entries if _may_be_on(entry[0])]
        if set(wanted) == {'mask'}:
            self._find_union(entries, scratch)
        elif (
            len({result.cut for result, _ in entries}) == 1
            and all(result.presence for result, _ in entries)
        ):  # fmt: skip
            self._find_highest(entries, scratch)
        else:
            self._find_winner(entries, scratch)
            if everywhere:
                self._find_peak(results, scratch)

    def mask(self, out: Bytes) -> None:
        """Writes 255 where any prompt matches, 0 elsewhere, into uint8 (H, W)."""
        cv2.threshold(self._winner, 0, 255, cv2.THRESH_BINARY, dst=out)

    def labels(self, out: Bytes | None = None) -> Bytes:
        """Returns the id of the winning prompt, 0 where none matches.

        Args:
            out: uint8 (H, W) to write to; where None, what is returned must not be written to.
        """
        if out is None:
            return self._winner
        np.copyto(out, self._winner)
        return out

    def confidence(self, out: Bytes) -> None:
        """Writes round(255 · probability of the winning prompt), 0 where there is none."""
        if self._best is None:
            out.fill(0)
            return
        scaled = sigmoid(self._best)
        scaled *= 255
        np.rint(scaled, out=scaled)
        np.copyto(out, scaled, casting='unsafe')
        np.multiply(out, self._winner > 0, out=out)

    def probability(self, out: Floats) -> None:
        """Writes the probability of the winning prompt, of the highest where none wins.

        Args:
            out: float32 (H, W).
        """
        assert self._best is not None, "'probability' was not among what is wanted"
        if self._peak is not None:
            cv2.copyTo(self._best, self._winner, self._peak)
            self._best, self._peak = self._peak, None
        sigmoid(self._best, out=out)

    def probability_at(self, index: NDArray[np.intp]) -> Floats:
        """Returns the probability of the winning prompt at some pixels where there is one.

        Args:
            index: Flat index (row · width + column) of each, (N,).

        Returns:
            float32 (N,).
        """
        best = self._best
        assert best is not None or not len(index), "'labels' were not among what is wanted"
        return sigmoid(best.ravel()[index]) if best is not None else np.empty(0, np.float32)

    def _find_union(self, entries: Sequence[tuple[PromptResult, int]], scratch: Scratch) -> None:
        """Finds where any prompt is on; which one is left open."""
        logits, on = scratch.floats('logits', self.shape), scratch.bytes('on', self.shape)
        for result, _ in entries:
            np.greater(_resize(result, logits), result.cut, out=on.view(bool))
            cv2.bitwise_or(self._winner, on, dst=self._winner)

    def _find_highest(self, entries: Sequence[tuple[PromptResult, int]], scratch: Scratch) -> None:
        """Finds the winners where all prompts are present and share one threshold.

        The highest logit of all wins then, if it is above the threshold: one comparison a prompt.
        """
        logits, wins = scratch.floats('logits', self.shape), scratch.bytes('wins', self.shape)
        number = scratch.bytes('number', self.shape)
        self._best = best = _resize(entries[0][0], np.empty(self.shape, np.float32))
        self._winner.fill(entries[0][1])
        for result, identity in entries[1:]:
            _resize(result, logits)
            cv2.compare(logits, best, cv2.CMP_GT, dst=wins)
            number.fill(identity)
            cv2.copyTo(number, wins, self._winner)
            cv2.max(best, logits, dst=best)
        np.greater(best, entries[0][0].cut, out=wins.view(bool))
        np.multiply(self._winner, wins, out=self._winner)

    def _find_winner(self, entries: Sequence[tuple[PromptResult, int]], scratch: Scratch) -> None:
        """Finds the winners where thresholds differ or prompts are absent."""
        logits, wins = scratch.floats('logits', self.shape), scratch.bytes('wins', self.shape)
        number, on = scratch.bytes('number', self.shape), scratch.bytes('on', self.shape)
        self._best = best = np.full(self.shape, -np.inf, np.float32)
        for result, identity in entries:
            if not _may_be_on(result):
                continue
            _resize(result, logits)
            np.greater(logits, result.cut, out=on.view(bool))
            cv2.compare(logits, best, cv2.CMP_GT, dst=wins)
            cv2.bitwise_and(wins, on, dst=wins)
            number.fill(identity)
            cv2.copyTo(number, wins, self._winner)
            cv2.copyTo(logits, wins, best)

    def _find_peak(self, results: Sequence[PromptResult], scratch: Scratch) -> None:
        """Finds the highest logit of all prompts, present or not."""
        logits = scratch.floats('logits', self.shape)
        self._peak = peak = _resize(results[0], np.empty(self.shape, np.float32))
        for result in results[1:]:
            cv2.max(peak, _resize(result, logits), dst=peak)


def _may_be_on(result: PromptResult) -> bool:
    """Whether any pixel of the mask can be on: interpolation never exceeds its highest corner."""
    if not result.presence:
        return False
    return result.close_ups is not None or bool(result.logits.max() + _MARGIN > result.cut)


def _resize(result: PromptResult, out: Floats) -> Floats:
    """:meth:`PromptResult.resized_logits` into given memory."""
    size = (result.width, result.height)
    cv2.resize(result.logits, size, dst=out, interpolation=cv2.INTER_LINEAR)
    if result.close_ups is not None:
        result.close_ups.paste(out)
    return out
