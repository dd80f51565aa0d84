"""What a browser may ask for, beside looking. Each command is a name and a JSON object."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from clipseg_model.errors import PromptError
from clipseg_ros.console import cards as editing
from clipseg_ros.console.back_ends.base import Answer, BackEnd, ConsoleError
from clipseg_ros.console.back_ends.models import SpareModel
from clipseg_ros.console.hub import Hub
from clipseg_ros.console.shots import Shot, encode_values
from clipseg_ros.prompts.pick import Picked, Place, pick
from clipseg_ros.prompts.set import EXAMPLE, key_of
from clipseg_ros.prompts.support_pair import SupportImage

Body = dict[str, Any]

# What belongs to a point: pixels above this probability, whatever the score; as shares of the
# picture, less than the least is noise, and more than the most is the background.
_CUT, _ANY, _LEAST, _MOST = 0.5, 0.001, 0.0005, 0.6

MOST_EXAMPLE_BYTES = 64_000_000
"""Pixels of the pictures of all prompts together: a node gets them all with each change."""


class Commands:
    """The commands that change something; each blocks, and returns what it did in words.

    Errors are ClipsegErrors; nothing has changed then.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub, self._back_end = hub, hub.back_end
        # Each runs in a thread of its own, and must not write over what another has just changed.
        self._editing = threading.Lock()
        self.all: dict[str, Callable[[Body], str]] = {
            'add': self._add,
            'edit': self._edit,
            'remove': self._remove,
            'order': self._order,
            'clear': self._clear,
            'colour': self._colour,
            'values': self._values,
            'choose': self._choose,
            'step': self._step,
            'pick': self._pick,
            'mark': self._mark,
            'forget_marks': self._forget_marks,
        }

    def _add(self, body: Body) -> str:
        text = _text(body, 'text')
        with self._editing:
            return self._back_end.change(editing.added(self._back_end.cards, text))

    def _edit(self, body: Body) -> str:
        name = _text(body, 'name')
        changes = body.get('changes')
        if not isinstance(changes, dict):
            raise ConsoleError('an edit needs changes')
        with self._editing:
            before = self._back_end.cards
            cards = editing.edited(before, name, changes)
            old = editing.find(before, name)
            # A name may follow the words. Cards keep their places.
            new = cards[before.index(old)]
            if new.name == old.name:
                return self._back_end.change(cards)
            colours = self._back_end.status().colours
            if new.key != old.key and old.key in colours:
                self._back_end.set_values({'colours': {**colours, new.key: colours[old.key]}})
            with self._hub.history.renaming(old.name, new.name):
                return self._back_end.change(cards)

    def _remove(self, body: Body) -> str:
        name = _text(body, 'name')
        with self._editing:
            return self._back_end.change(editing.without(self._back_end.cards, name))

    def _order(self, body: Body) -> str:
        names = body.get('names')
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ConsoleError('an order is a list of names')
        with self._editing:
            return self._back_end.change(editing.ordered(self._back_end.cards, names))

    def _clear(self, body: Body) -> str:
        with self._editing:
            return self._back_end.change(())

    def _colour(self, body: Body) -> str:
        name, colour = _text(body, 'name'), _text(body, 'colour')
        if not re.fullmatch('#[0-9a-fA-F]{6}', colour):
            raise ConsoleError(f'a colour is #rrggbb, not {colour[:20]!r}')
        with self._editing:
            editing.find(self._back_end.cards, name)
            chosen = {**self._back_end.status().colours, key_of(name): colour.lower()}
            return self._back_end.set_values({'colours': chosen})

    def _values(self, body: Body) -> str:
        values: Body = {key: body[key] for key in ('threshold', 'presence') if key in body}
        for key, value in values.items():
            known = isinstance(value, (int, float)) and not isinstance(value, bool)
            inside = value is None or (known and 0 <= value <= 1)
            if not inside or (key == 'threshold' and value is not None and not 0 < value < 1):
                raise ConsoleError(f'{key} is a number between 0 and 1, not {value!r}')
        if not values:
            raise ConsoleError('give threshold or presence')
        return self._back_end.set_values(values)

    def _choose(self, body: Body) -> str:
        return self._back_end.choose(_text(body, 'what'), _text(body, 'key'))

    def _step(self, body: Body) -> str:
        by, playing = body.get('by', 0), body.get('playing')
        if not isinstance(by, int) or abs(by) > 1000 or not isinstance(playing, (bool, type(None))):
            raise ConsoleError('a step is a whole number of pictures')
        return self._back_end.step(by, playing)

    def _pick(self, body: Body) -> str:
        shot = self.shot(body)
        place = Place(*(_whole(body, key) for key in ('x', 'y', 'width', 'height')))
        name, phrase = _text(body, 'name', ''), _text(body, 'phrase', '')
        image = shot.pixels()
        picked = self.picked(shot, place)
        with self._editing:
            name = name or self._free_name()
            cards = editing.pictured(self._back_end.cards, name, picked.example, phrase)
            self._back_end.change(_within_limit(cards))
        height, width = image.shape[:2]
        return f'{name!r} is {picked.how}: box {picked.box} of {width} × {height} px'

    def picked(self, shot: Shot, place: Place) -> Picked:
        """Return what is cut out of a shot at a place; raises a PromptError.

        For a point where no mask is, the model says what belongs to it: a square around the point
        is asked for in the picture itself, and the part of the answer under the point counts.
        """
        image = shot.pixels()
        labels = None
        if place.is_point and shot.segmented and (png := shot.layer('labels')) is not None:
            labels = decode_values(png)
        first = pick(place, image, labels)
        if not place.is_point or (labels is not None and labels[place.y, place.x]):
            return first
        asked = editing.Card(
            EXAMPLE, id=1, threshold=_CUT, presence=_ANY, example=first.example, pictured=True
        )
        answer = self._back_end.answer(image, (asked,)).labels
        share = 0.0
        if answer[place.y, place.x]:
            second = pick(place, image, answer)
            assert second.example.mask is not None, 'a pick has a mask'
            share = float(second.example.mask.mean())
        if not _LEAST < share < _MOST:
            return first
        return replace(second, how='what the model takes for one thing around the point')

    def _free_name(self) -> str:
        names = {card.key for card in self._back_end.cards}
        candidates = [EXAMPLE, *(f'{EXAMPLE} {number}' for number in range(2, 255))]
        return next((name for name in candidates if key_of(name) not in names), EXAMPLE)

    def _mark(self, body: Body) -> str:
        name, right = _text(body, 'name'), body.get('right')
        if not isinstance(right, bool):
            raise ConsoleError('a mark is right or wrong')
        # What is shown may be frozen, or a slow browser's: its number says what that is.
        shot = self.shot(body)
        found = next((one for one in shot.found if key_of(one.name) == key_of(name)), None)
        if found is None:
            raise ConsoleError(f'nothing is shown of {name!r} yet')
        if shot.origin != self._hub.history.origin:
            raise ConsoleError('that picture is of another model or camera: mark a newer one')
        said = self._hub.history.mark(found, right)
        self._hub.change_soon()
        return said

    def _forget_marks(self, body: Body) -> str:
        self._hub.history.clear_marks(_text(body, 'name'))
        self._hub.change_soon()
        return 'marks are forgotten'

    def add_example(self, name: str, phrase: str, example: SupportImage) -> str:
        """Make a picture the example of a prompt; raises a ClipsegError."""
        with self._editing:
            label = name or phrase or self._free_name()
            cards = editing.pictured(self._back_end.cards, label, example, phrase)
            self._back_end.change(_within_limit(cards))
        return f'{label!r} looks for what the picture shows'

    def set_mask(self, name: str, mask: Any) -> str:
        """Say what of its picture a prompt means, bool (H, W); raises a ClipsegError."""
        with self._editing:
            cards = self._back_end.cards
            card = editing.find(cards, name)
            if card.example is None:
                raise PromptError(f'{name!r} has no picture here: pick or drop one first')
            example = SupportImage(card.example.image, mask)
            return self._back_end.change(editing.pictured(cards, name, example))

    def shot(self, body: Body) -> Shot:
        """Return the shot that a request names by its number; raises a ConsoleError."""
        shot = self._hub.find(_whole(body, 'number'))
        if shot is None:
            raise ConsoleError('that picture is no longer kept: freeze it before, or try again')
        return shot


def compared(
    back_end: BackEnd, spare: SpareModel, shot: Shot, model: str, threshold: float | None
) -> Shot:
    """Return a shot segmented once more, by another model or threshold where they are given.

    Raises:
        ConsoleError: There is no such model, or threshold.
        ClipsegError: It cannot be segmented so.
    """
    if threshold is not None and not 0 < threshold < 1:
        raise ConsoleError(f'threshold is a number between 0 and 1, not {threshold!r}')
    rgb = shot.pixels()
    cards = back_end.cards
    if threshold is not None:
        cards = tuple(replace(card, threshold=threshold) for card in cards)
    if model:
        # Imported here: without a comparison, a console of ROS needs no torch.
        from clipseg_ros.console.back_ends.alone import answer_of

        ours = tuple(card for card in cards if card.example is not None or card.phrase)
        with spare.lock:
            # Thresholds of prompts belong to the model that they were chosen for.
            if threshold is None:
                ours = tuple(replace(card, threshold=None, presence=None) for card in ours)
            answer: Answer = answer_of(spare.get(model), rgb, ours, None, None)
    else:
        answer = back_end.answer(rgb, cards)
    ids = {card.key: card.id for card in back_end.cards}
    found = tuple(replace(one, id=ids.get(key_of(one.name), one.id)) for one in answer.found)
    layers = {**answer.layers, 'labels': encode_values(answer.labels)}
    size = rgb.shape[1], rgb.shape[0]
    return Shot(shot.stamp, *size, lambda: rgb, layers, found, None, True, shot.origin)


def _within_limit(cards: editing.Cards) -> editing.Cards:
    total = sum(card.example.image.nbytes for card in cards if card.example is not None)
    if total > MOST_EXAMPLE_BYTES:
        raise ConsoleError(
            f'the pictures of all prompts would take {total / 1e6:.0f} MB of memory, and '
            f'{MOST_EXAMPLE_BYTES / 1e6:.0f} MB are possible: remove a prompt that is a picture, '
            'or give a smaller one'
        )
    return cards


def decode_values(png: bytes) -> Any:
    """Return the values of a layer, uint8 (H, W)."""
    import cv2
    import numpy as np

    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)


def _text(body: Body, key: str, default: str | None = None) -> str:
    value = body.get(key, default)
    if not isinstance(value, str) or len(value) > 100_000:
        raise ConsoleError(f'{key} is a text')
    return value


def _whole(body: Body, key: str) -> int:
    value = body.get(key, 0)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > 2**53:
        raise ConsoleError(f'{key} is a whole number')
    return value
