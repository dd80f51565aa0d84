"""The back end without ROS: a model in this process, on a source of pictures.

As in the node, the newest picture wins: one slot, one worker, nothing queues. A picture that stands
still is encoded once, and segmented again when prompts or settings change.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipseg_model.errors import ClipsegError, PromptError
from clipseg_model.registry import create_model
from clipseg_model.segmentation import Segmentation
from clipseg_model.segmenter import Segmenter
from clipseg_ros.console.back_ends.base import Answer, Choice, ConsoleError, Status, Trouble
from clipseg_ros.console.back_ends.feeds import Feed, Stills, fitted
from clipseg_ros.console.back_ends.models import OWN, model_choices
from clipseg_ros.console.back_ends.rates import Rates
from clipseg_ros.console.cards import Card, Cards, filled
from clipseg_ros.console.shots import Found, Shot, encode_heat, encode_values, fold_instances
from clipseg_ros.errors import BagError, SourceError
from clipseg_ros.prompts.set import PromptSet, key_of

Picture = NDArray[np.uint8]
OpenFeed = Callable[[], Feed]

DROPPED = 'dropped'
"""Key of the source that dropped pictures are."""

_TRY_AGAIN = 5.0
"""Seconds after which a source that failed is opened again: a camera may have been plugged in."""


class AloneBackEnd:
    """See :class:`~clipseg_ros.console.back_ends.base.BackEnd`.

    Args:
        sources: (key, text, how to open it); the first is looked at first.
        model: Name or path of the model.
        device: What it runs on.
        threads: Of the model on a CPU.
    """

    kind = 'alone'

    def __init__(
        self,
        sources: Sequence[tuple[str, str, OpenFeed]],
        model: str,
        device: str = 'auto',
        threads: int | None = None,
    ) -> None:
        self.cards: Cards = ()
        self._dropped = Stills('dropped pictures', [])
        self._sources = [*sources, (DROPPED, 'dropped pictures', lambda: self._dropped)]
        self._source = self._sources[0][0]
        self._feed: Feed | None = None
        self._feed_problem = self._opened = ''
        self._tried = 0.0
        self._own = self._model = model
        self._device, self._threads = device, threads
        self._model_problem, self._segmenter_name = '', ''
        self._segmenter: Segmenter | None = None
        # What the segmenter has encoded: answers to other questions leave theirs in it.
        self._encoded: Picture | None = None
        # The segmenter is no use to two threads at once.
        self._at_model = threading.Lock()
        self._prompts = PromptSet()
        self._threshold: float | None = None
        self._presence: float | None = None
        self._colours: dict[str, str] = {}
        self._rates = Rates()
        self._layers: frozenset[str] | None = None
        self._wake = threading.Condition()
        self._dirty = self._closed = False
        self._fault = ''
        self._show: Callable[[Shot], None] = lambda _: None
        self._tell: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name='console model', daemon=True)

    def start(self, show: Callable[[Shot], None], tell: Callable[[], None]) -> None:
        """Begin to load the model, and to segment; see :class:`BackEnd`."""
        self._show, self._tell = show, tell
        self._thread.start()

    def close(self) -> None:
        """End the worker and the source."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        self._dropped.close()
        if self._feed is not None:
            self._feed.close()
        self._thread.join(20.0)

    def watch(self, layers: frozenset[str] | None) -> None:
        """See :class:`BackEnd`; nothing is read and nothing segmented while nobody looks."""
        with self._wake:
            changed = layers != self._layers
            self._layers = layers
            if changed:
                self._dirty = True
                self._wake.notify_all()
        if self._feed is not None:
            self._feed.pause(layers is None)

    def status(self) -> Status:
        """Return how it is."""
        feed, segmenter = self._feed, self._segmenter
        card = None if segmenter is None else segmenter.card
        return Status(
            title=self._title(),
            model='' if card is None else card.name,
            device='' if segmenter is None else str(segmenter.device),
            values=self._rates.texts(),
            troubles=tuple(self._troubles()),
            sources=tuple(Choice(key, text) for key, text, _ in self._sources),
            source=self._source,
            models=model_choices(self._own),
            steps=0 if feed is None else feed.steps,
            step=0 if feed is None else feed.at,
            playing=feed is not None and feed.playing,
            takes_pictures=True,
            threshold=self._threshold or (0.5 if card is None else card.threshold),
            presence=self._presence_now(),
            colours=dict(self._colours),
        )

    def change(self, cards: Sequence[Card]) -> str:
        """Make these the active prompts; see :class:`BackEnd`."""
        requests = [card.request() for card in cards]
        segmenter = self._segmenter
        if segmenter is not None and requests:
            with self._at_model:
                segmenter.prepare([request.prompt for request in requests])
        active = self._prompts.replace(requests)
        ids = {key_of(entry.name): entry.id for entry in active}
        self.cards = tuple(replace(card, id=ids[card.key]) for card in cards)
        self._again()
        return f'{len(cards)} prompt(s) active'

    def cards_to_save(self) -> Cards:
        """Return the prompts with the thresholds of all, where they were changed.

        No node keeps those, so without them the masks of the file would be others.
        """
        return filled(self.cards, self._threshold, self._presence)

    def set_values(self, values: dict[str, Any]) -> str:
        """Change thresholds or colours of all; see :class:`BackEnd`."""
        if 'threshold' in values:
            self._threshold = values['threshold']
        if 'presence' in values:
            self._presence = values['presence']
        if 'colours' in values:
            self._colours = dict(values['colours'])
        self._again()
        return 'changed'

    def choose(self, what: str, key: str) -> str:
        """Choose a source or model; see :class:`BackEnd`."""
        if what == 'model':
            if key not in {choice.key for choice in model_choices(self._own)}:
                raise ConsoleError(f'there is no model {key[:60]!r} to choose')
            self._model = self._own if key == OWN else key
        elif what == 'source' and key in {name for name, _, _ in self._sources}:
            self._source = key
        else:
            raise ConsoleError(f'there is no {what[:20]} {key[:60]!r} to choose')
        self._again()
        return f'{self._title()} is looked at' if what == 'source' else f'{key} is being loaded'

    def step(self, by: int, playing: bool | None = None) -> str:
        """Step through pictures; see :class:`BackEnd`."""
        if self._feed is None:
            raise ConsoleError('there is no source to step through')
        self._feed.step(by, playing)
        self._again()
        return f'picture {self._feed.at + 1} of {self._feed.steps}'

    def take_picture(self, rgb: Picture, name: str) -> str:
        """Look at a picture that was dropped; see :class:`BackEnd`."""
        self._dropped.add(name, fitted(rgb))
        self._source = DROPPED
        self._again()
        return f'{name} is looked at'

    def answer(self, rgb: Picture, cards: Sequence[Card]) -> Answer:
        """Segment a picture that stands still; see :class:`BackEnd`."""
        segmenter = self._segmenter
        if segmenter is None:
            raise ConsoleError('there is no model yet: wait until it is loaded')
        with self._at_model:
            self._encoded = None
            return answer_of(segmenter, rgb, cards, self._threshold, self._presence)

    def _title(self) -> str:
        return next(text for key, text, _ in self._sources if key == self._source)

    def _again(self) -> None:
        with self._wake:
            self._dirty = True
            self._wake.notify_all()
        if self._feed is not None:
            self._feed.wake()
        self._tell()

    def _presence_now(self) -> float:
        if self._presence is not None:
            return self._presence
        return 0.5 if self._segmenter is None else self._segmenter.card.presence_threshold

    def _troubles(self) -> list[Trouble]:
        feed = self._feed
        found = []
        if self._model_problem:
            text = f'{self._model_problem} Choose another model above the picture.'
            found.append(Trouble(text))
        elif self._segmenter is None:
            found.append(Trouble(f'the model {self._model} is being loaded', 'note'))
        if self._opened != self._source:
            found.append(Trouble(f'{self._title()} is being opened', 'note'))
        elif self._feed_problem:
            text = f'{self._feed_problem}. Choose another source, or drop a picture onto the page.'
            found.append(Trouble(text))
        elif feed is not None and feed.problem:
            found.append(Trouble(feed.problem, 'error' if feed.failed else 'warning'))
        elif self._source == DROPPED and not self._dropped.steps:
            found.append(Trouble('drop a picture onto the page, or choose a source', 'note'))
        if self._fault:
            found.append(Trouble(self._fault))
        if not any(card.enabled and not card.negative for card in self.cards):
            found.append(Trouble('no prompt yet: type what to look for, such as "the mug"', 'note'))
        return found

    def _run(self) -> None:
        number, at, picture = 0, 0.0, None
        while not self._closed:
            if self._segmenter_name != self._model:
                self._load()
            if self._layers is not None and self._is_to_be_opened():
                self._open(self._source)
                number, picture = 0, None
            feed = self._feed
            if self._layers is None or feed is None:
                with self._wake:
                    if not self._dirty:
                        self._wake.wait(1.0)
                    self._dirty = False
                continue
            new = feed.newest(number, 0.02 if self._dirty else 0.25)
            if new is None and (picture is None or not self._dirty):
                continue
            with self._wake:
                self._dirty = False
            if new is not None:
                number, at, picture = new
            assert picture is not None, 'there is a picture to segment'
            self._segment(picture, at if feed.steps == 0 else time.time())

    def _load(self) -> None:
        name = self._model
        self._tell()
        try:
            made = create_model(name, self._device, self._threads)
            made.segment(np.zeros((64, 64, 3), np.uint8), ['anything'])
        except (ClipsegError, OSError, RuntimeError) as error:
            self._model_problem = f'the model {name} cannot be loaded: {error}.'
            self._segmenter = None
        else:
            self._model_problem = ''
            with self._at_model:
                self._segmenter, self._encoded = made, None
        self._segmenter_name = name
        self._dirty = True
        self._tell()

    def _is_to_be_opened(self) -> bool:
        if self._opened != self._source:
            return True
        failed = self._feed_problem or (self._feed is not None and self._feed.failed)
        return bool(failed) and time.monotonic() - self._tried > _TRY_AGAIN

    def _open(self, key: str) -> None:
        if self._feed is not None and self._feed is not self._dropped:
            self._feed.close()
        self._feed = None
        try:
            self._feed = next(open_ for name, _, open_ in self._sources if name == key)()
            self._feed_problem = ''
        except (SourceError, BagError, ClipsegError, OSError) as error:
            self._feed_problem = str(error)
        self._opened, self._tried = key, time.monotonic()
        self._tell()

    def _segment(self, picture: Picture, stamp: float) -> None:
        cards = [card for card in self.cards if card.enabled]
        segmenter, begin = self._segmenter, time.monotonic()
        height, width = picture.shape[:2]
        shot = Shot(stamp, width, height, lambda: picture)
        if segmenter is not None and any(not card.negative for card in cards):
            try:
                with self._at_model:
                    if self._encoded is not picture:
                        self._encoded = None
                        segmenter.set_image(picture)
                        self._encoded = picture
                    found = _predict(segmenter, picture, cards, self._threshold, self._presence)
                shot = self._shot(picture, stamp, found, cards)
                self._set_fault('')
            except (ClipsegError, RuntimeError) as error:
                self._set_fault(f'the picture is not segmented: {error}')
        self._rates.add(time.monotonic() - begin, time.time() - stamp)
        self._show(shot)

    def _set_fault(self, fault: str) -> None:
        if fault != self._fault:
            self._fault = fault
            self._tell()

    def _shot(
        self, picture: Picture, stamp: float, found: Segmentation, cards: Sequence[Card]
    ) -> Shot:
        told = [card for card in cards if not card.negative]
        labels = found.labels([card.id for card in told])
        png: Callable[[], bytes] = partial(encode_values, labels)
        layers = {**_layers(found), 'labels': png}
        height, width = picture.shape[:2]
        listed = listed_of(found, told)
        origin = f'{self._opened} {found.model}'
        return Shot(stamp, width, height, lambda: picture, layers, listed, None, True, origin)


def answer_of(
    segmenter: Segmenter,
    rgb: Picture,
    cards: Sequence[Card],
    threshold: float | None,
    presence: float | None,
) -> Answer:
    """Segment a picture by cards that are enabled; raises a ClipsegError.

    ``threshold`` and ``presence`` are for cards without their own; the model's where None.
    """
    on = [card for card in cards if card.enabled]
    told = [card for card in on if not card.negative]
    if not told:
        raise PromptError('there is nothing to look for: add a prompt, or enable one')
    segmenter.set_image(rgb)
    found = _predict(segmenter, rgb, on, threshold, presence)
    ids = [card.id or number for number, card in enumerate(told, start=1)]
    return Answer(found.labels(ids), listed_of(found, told), _layers(found))


def _predict(
    segmenter: Segmenter,
    rgb: Picture,
    cards: Sequence[Card],
    threshold: float | None,
    presence: float | None,
) -> Segmentation:
    # A prompt's own presence threshold is the only one that a segmenter takes with a call.
    prompts = [card.request().prompt for card in filled(cards, presence=presence)]
    return segmenter.predict(prompts, threshold)


def listed_of(found: Segmentation, cards: Sequence[Card]) -> tuple[Found, ...]:
    """Return what was found for each card, in the order of the results."""
    return tuple(
        Found(card.id, card.name, result.score, result.presence, int(result.mask.sum()))
        for card, result in zip(cards, found.results, strict=True)
    )


def _layers(found: Segmentation) -> dict[str, Callable[[], bytes]]:
    """Return what takes time to make, for when it is wanted."""
    return {
        'heat': lambda: encode_heat(found.probability()),
        'instances': lambda: encode_values(_instances(found)),
    }


def _instances(found: Segmentation) -> NDArray[np.uint8]:
    ids = np.zeros((found.height, found.width), np.int32)
    number = 0
    for result in found.results:
        for one in result.instances(min_area=20):
            number += 1
            x, y, width, height = one.box
            ids[y : y + height, x : x + width][one.mask] = number
    return fold_instances(ids)
