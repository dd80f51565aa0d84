"""The models that can be chosen on the page: those whose weights are here."""

from __future__ import annotations

import threading
from functools import lru_cache
from pathlib import Path

from clipseg_model.errors import ClipsegError
from clipseg_model.registry import create_model, get_card, list_models
from clipseg_model.segmenter import Segmenter
from clipseg_ros.console.back_ends.base import Choice, ConsoleError

OWN = 'own'
"""Key of the model that the command line names by a path."""


@lru_cache(maxsize=8)
def model_choices(current: str = '') -> tuple[Choice, ...]:
    """Return the models that need no download, and the current one, by whatever name."""
    found = {}
    for name in list_models():
        try:
            card = get_card(name)
        except ClipsegError:
            # Damaged: it would be an error to load it.
            continue
        if card.weights is not None and Path(card.weights).is_file():
            found[name] = Choice(name, name)
    if current and current not in found:
        # A path: its folder is no business of who looks at the page.
        found[OWN] = Choice(OWN, Path(current).name)
    return tuple(found.values())


class SpareModel:
    """A second model, to compare with; loaded when it is first asked for, and one at a time.

    Args:
        device: What it runs on.
        threads: Of it on a CPU.
    """

    def __init__(self, device: str = 'auto', threads: int | None = None) -> None:
        self._device, self._threads, self._name = device, threads, ''
        self._segmenter: Segmenter | None = None
        self.lock = threading.Lock()

    def get(self, name: str) -> Segmenter:
        """Return the model of a name, while :attr:`lock` is held.

        Raises:
            ClipsegError: It is none of :func:`model_choices`, or cannot be loaded.
        """
        if name not in {choice.key for choice in model_choices()}:
            raise ConsoleError(f'there is no model {name[:60]!r} here to compare with')
        if self._segmenter is None or name != self._name:
            self._segmenter = None
            self._segmenter, self._name = create_model(name, self._device, self._threads), name
        return self._segmenter
