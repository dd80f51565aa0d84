"""What the page needs of a back end, be it a node of ROS or a model in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clipseg_model.errors import ClipsegError
from clipseg_ros.console.cards import Card, Cards
from clipseg_ros.console.shots import Found, Shot


class ConsoleError(ClipsegError):
    """The console cannot do what was asked; the message says what to do instead."""


@dataclass(frozen=True)
class Trouble:
    """Why the page does not show what one expects.

    Attributes:
        text: What is wrong, and what to do.
        level: ``error`` where nothing can be seen, else ``warning`` or ``note``.
    """

    text: str
    level: str = 'error'


@dataclass(frozen=True)
class Choice:
    """Something to choose on the page: a camera, a source or a model."""

    key: str
    text: str


@dataclass(frozen=True)
class Status:
    """How a back end is.

    Attributes:
        title: What is looked at: the node's name, or the source.
        model: Name of the model; empty while none is loaded.
        device: What it runs on.
        values: Further facts for people: frame rate, latency and so on, as texts.
        troubles: What is wrong now, the worst first.
        sources: What can be looked at instead.
        source: Key of what is looked at now.
        models: Models to choose from; none where the back end's model is fixed.
        steps: Number of pictures to step through; 0 for what moves by itself.
        step: Number of the one shown, from 0.
        playing: Whether pictures go on by themselves.
        takes_pictures: Whether pictures may be dropped as something to look at.
        threshold: Of pixels, for prompts without one of their own.
        presence: Of scores likewise.
        colours: Chosen colours, ``#rrggbb`` by the key of a name.
    """

    title: str = ''
    model: str = ''
    device: str = ''
    values: dict[str, str] = field(default_factory=dict)
    troubles: tuple[Trouble, ...] = ()
    sources: tuple[Choice, ...] = ()
    source: str = ''
    models: tuple[Choice, ...] = ()
    steps: int = 0
    step: int = 0
    playing: bool = False
    takes_pictures: bool = False
    threshold: float = 0.5
    presence: float = 0.5
    colours: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Answer:
    """What was found in a picture that stands still.

    Attributes:
        labels: Ids (H, W) uint8.
        found: The scores.
        layers: Further layers, as those of a shot.
    """

    labels: NDArray[np.uint8]
    found: tuple[Found, ...]
    layers: Mapping[str, bytes | Callable[[], bytes]] = field(default_factory=dict)


class BackEnd(Protocol):
    """Where pictures and answers come from. Its methods may be called from any thread, and block.

    Attributes:
        kind: ``ros`` or ``alone``.
        cards: The prompts that are active now.
    """

    kind: str
    cards: Cards

    def start(self, show: Callable[[Shot], None], tell: Callable[[], None]) -> None:
        """Begin; ``show`` gets every new picture, ``tell`` says that status or cards changed."""

    def close(self) -> None:
        """End, and free everything."""

    def watch(self, layers: frozenset[str] | None) -> None:
        """Say which layers browsers show now; None while there is no browser."""

    def status(self) -> Status:
        """Return how it is."""

    def change(self, cards: Sequence[Card]) -> str:
        """Make these the active prompts; return that in words, or raise a ClipsegError."""

    def cards_to_save(self) -> Cards:
        """Return the prompts for a file or script: with what nobody but this back end keeps."""

    def set_values(self, values: dict[str, Any]) -> str:
        """Change ``threshold``, ``presence`` or ``colours`` of all; raises a ClipsegError."""

    def choose(self, what: str, key: str) -> str:
        """Choose a ``source`` or ``model`` by its key; raises a ClipsegError."""

    def step(self, by: int, playing: bool | None = None) -> str:
        """Step through pictures, or let them play; raises a ClipsegError."""

    def take_picture(self, rgb: NDArray[np.uint8], name: str) -> str:
        """Look at a picture; raises a ClipsegError where it cannot."""

    def answer(self, rgb: NDArray[np.uint8], cards: Sequence[Card]) -> Answer:
        """Segment a picture that stands still by some prompts; raises a ClipsegError."""
