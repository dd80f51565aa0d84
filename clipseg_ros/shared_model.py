"""One model for several nodes of a process: in memory once, and at work for one after the other."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clipseg_model.model_card import ModelCard
from clipseg_model.prompts import Prompt
from clipseg_model.registry import create_model
from clipseg_model.runtime.base import Runtime
from clipseg_model.segmentation import Segmentation
from clipseg_model.segmenter import Segmenter


class Turns:
    """A lock that is given to who has waited for longest, so that nobody starves.

    Python's own locks may go to the same thread again and again.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self._taken = False

    @contextmanager
    def mine(self) -> Iterator[None]:
        """Waits for the turn, and passes it on at the end."""
        turn = threading.Event()
        with self._guard:
            if self._taken:
                self._waiting.append(turn)
            else:
                self._taken = True
                turn.set()
        turn.wait()
        try:
            yield
        finally:
            with self._guard:
                if self._waiting:
                    self._waiting.popleft().set()
                else:
                    self._taken = False


class SharedSegmenter(Segmenter):
    """A segmenter of its own on a model that others use as well.

    Args:
        turns: Of the model.
        words: As :class:`~clipseg_model.segmenter.Segmenter`.
    """

    def __init__(self, turns: Turns, *words: Any) -> None:
        super().__init__(*words)
        self._turns = turns

    def segment(
        self,
        image: NDArray[np.uint8],
        prompts: Sequence[str | Prompt],
        threshold: float | None = None,
    ) -> Segmentation:
        """As the method of :class:`~clipseg_model.segmenter.Segmenter`, when it is its turn."""
        with self._turns.mine():
            return super().segment(image, prompts, threshold)

    def infer(self, pixels: Tensor | None, prompts: Sequence[Prompt]) -> Tensor:
        """As the method of :class:`~clipseg_model.segmenter.Segmenter`, when it is its turn."""
        with self._turns.mine():
            return super().infer(pixels, prompts)


class SharedModels:
    """Loads a model for the first who asks, and hands it to all others.

    It is freed when the last of them has let go of it.
    """

    def __init__(self) -> None:
        # The segmenters of the nodes keep a model alive, and nothing else does.
        self._runtimes: WeakValueDictionary[tuple[Any, ...], Runtime] = WeakValueDictionary()
        self._rest: dict[tuple[Any, ...], tuple[ModelCard, Turns]] = {}

    def load(self, *words: Any) -> Segmenter:
        """Loads a model, or takes the one that is there.

        Args:
            words: As :func:`~clipseg_model.registry.create_model` takes them. Nodes that give the
                same have one model.

        Returns:
            A segmenter for one node.

        Raises:
            ClipsegError: As :func:`~clipseg_model.registry.create_model`.
        """
        runtime = self._runtimes.get(words)
        if runtime is None:
            first = create_model(*words)
            runtime = first.runtime
            self._runtimes[words] = runtime
            self._rest[words] = (first.card, Turns())
        card, turns = self._rest[words]
        return SharedSegmenter(turns, runtime, card)
