"""Texts and groups of samples as arrays, which take a small part of what Python's objects take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import overload

import numpy as np
from numpy.typing import NDArray


class Texts(Sequence[str]):
    """Texts in a mapped file: UTF-8, end to end, and where each begins."""

    def __init__(self, content: NDArray[np.uint8], starts: NDArray[np.int64]) -> None:
        self._content, self._starts = content, starts

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        return self._content[self._starts[place] : self._starts[place + 1]].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        starts = self._starts.tolist()
        content = self._content.tobytes()
        for start, end in pairwise(starts):
            yield content[start:end].decode()


class SamplePhrases(Sequence[str]):
    """The phrase of each sample."""

    def __init__(self, phrases: Sequence[str], numbers: NDArray[np.int32]) -> None:
        self._phrases, self._numbers = phrases, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._phrases[number] for number in self._numbers[index].tolist()]
        return self._phrases[int(self._numbers[index])]


@dataclass(frozen=True, eq=False)
class Groups:
    """Samples by a number that they share, as arrays; lists of Python would take 20 times more."""

    values: NDArray[np.int64]  #: (G,), the numbers, sorted
    group: NDArray[np.int32]  #: (N,), place in ``values``, by sample
    order: NDArray[np.int32]  #: (N,), samples, those of a group together, ascending
    firsts: NDArray[np.int64]  #: (G + 1,), where each group begins in ``order``

    @classmethod
    def of(cls, numbers: NDArray[np.integer]) -> Groups:
        """Group samples by their numbers (N,)."""
        values, group, counts = np.unique(numbers, return_inverse=True, return_counts=True)
        order = np.argsort(group, kind='stable').astype(np.int32)
        firsts = np.cumsum([0, *counts.tolist()], dtype=np.int64)
        return cls(values.astype(np.int64), group.astype(np.int32), order, firsts)

    def members(self, group: int) -> NDArray[np.int32]:
        """Return the samples of a group, ascending."""
        found: NDArray[np.int32] = self.order[self.firsts[group] : self.firsts[group + 1]]
        return found

    def sizes(self) -> NDArray[np.int64]:
        """Return how many samples each group has."""
        return np.diff(self.firsts)
