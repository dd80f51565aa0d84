"""The prompts as the page shows and edits them, one card each. No ROS in here.

A card is what both back ends have in common: the node of ROS tells all of a prompt but its picture,
so a card may say that there is a picture without having it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from clipseg_model.errors import PromptError
from clipseg_model.outputs.palette import PALETTE, colour_of
from clipseg_model.prompts import MAX_PROMPTS, Prompt
from clipseg_ros.prompts.set import EXAMPLE, PromptRequest, key_of
from clipseg_ros.prompts.support_pair import SupportImage
from clipseg_ros.prompts.text import check_written, read_prompts


@dataclass(frozen=True, eq=False)
class Card:
    """One prompt.

    Attributes:
        name: What consumers match.
        phrase: Words; empty where the prompt is a picture only.
        id: Its value in a label image; 0 until the back end has given it one.
        threshold: Its own, of pixels; None for that of all.
        presence: Its own, of scores; None for that of all.
        weight: Share of the words, where there are words and a picture; 0.5 unless somebody chose
            another.
        example: Its picture, where this process has it.
        pictured: Whether there is a picture, here or at the node.
    """

    name: str
    phrase: str = ''
    id: int = 0
    threshold: float | None = None
    presence: float | None = None
    enabled: bool = True
    negative: bool = False
    weight: float = 0.5
    example: SupportImage | None = None
    pictured: bool = False

    @property
    def key(self) -> str:
        """What its name is compared by."""
        return key_of(self.name)

    def request(self) -> PromptRequest:
        """Return it as the nodes' prompts are asked for; raises a PromptError or ImageError."""
        image = self.example
        prompt = Prompt(
            text=self.phrase or None,
            image=None if image is None else image.image,
            mask=None if image is None else image.mask,
            name=None if self.name == self.phrase else self.name,
            threshold=self.threshold,
            weight=self.weight,
            presence_threshold=self.presence,
            negative=self.negative,
        )
        return PromptRequest(prompt, self.enabled)


Cards = tuple[Card, ...]

LEAST_PRESENCE = 1e-3
"""Lowest presence threshold of a prompt: in messages of the node, 0 stands for none of its own."""

_NUMBERS = {'threshold': (1e-3, 0.999), 'presence': (LEAST_PRESENCE, 1.0), 'weight': (0.0, 1.0)}
_SWITCHES = ('enabled', 'negative')
_WORDS = ('name', 'phrase')


def filled(
    cards: Sequence[Card], threshold: float | None = None, presence: float | None = None
) -> Cards:
    """Return cards with these thresholds where they have none of their own."""
    return tuple(
        replace(
            card,
            threshold=threshold if card.threshold is None else card.threshold,
            presence=presence if card.presence is None else card.presence,
        )
        for card in cards
    )


def find(cards: Sequence[Card], name: str) -> Card:
    """Return the card of a name; raises a PromptError where there is none (any more)."""
    for card in cards:
        if card.key == key_of(name):
            return card
    raise PromptError(f'there is no prompt {name!r} any more: another browser may have removed it')


def added(cards: Sequence[Card], text: str) -> Cards:
    """Return cards with the prompts of a text (``mug; grass: short green grass; !plate``) added.

    One whose name is there already gets the phrase of the text, and keeps everything else.

    Raises:
        PromptError: The text cannot be read, says nothing, or would make too many.
    """
    found = read_prompts(text)
    if not found:
        raise PromptError('nothing is written: type what to look for, such as "the mug"')
    by_key = {card.key: card for card in cards}
    for prompt in found:
        key = key_of(prompt.label)
        old = by_key.get(key, Card(prompt.label))
        by_key[key] = replace(old, phrase=prompt.text or '', negative=prompt.negative, enabled=True)
    return _checked(by_key.values())


def edited(cards: Sequence[Card], name: str, changes: dict[str, Any]) -> Cards:
    """Return cards with fields of one changed.

    Raises:
        PromptError: There is no such card or field, or a value is out of range.
    """
    card = find(cards, name)
    values: dict[str, Any] = {}
    for field, value in changes.items():
        if field in _NUMBERS:
            values[field] = _number(field, value)
        elif field in _SWITCHES:
            if not isinstance(value, bool):
                raise PromptError(f'{field} is true or false, not {value!r}')
            values[field] = value
        elif field in _WORDS:
            if not isinstance(value, str):
                raise PromptError(f'{field} is a text, not {value!r}')
            values[field] = value.strip()
        else:
            raise PromptError(f'a prompt has no field {field[:40]!r}')
    if 'name' in values or 'phrase' in values:
        words = {'name': card.name, 'phrase': card.phrase, **values}
        kept_at_node = card.pictured and card.example is None
        if card.name == card.phrase and 'name' not in values and not kept_at_node:
            words['name'] = words['phrase']
        own, phrase = check_written(words['name'], words['phrase'])
        values['name'] = own or phrase or EXAMPLE
        values['phrase'] = phrase or ''
        if values['name'] != card.name:
            values['id'] = 0
        if kept_at_node and key_of(values['name']) != card.key:
            raise PromptError(
                f'the picture of {card.name!r} is at the node alone, which knows it by this name: '
                'give its picture here ("Other picture…"), and rename it then'
            )
        if not values['phrase'] and not card.pictured:
            raise PromptError(f'{card.name!r} has no picture: it needs words')
    return _checked(replace(one, **values) if one is card else one for one in cards)


def without(cards: Sequence[Card], name: str) -> Cards:
    """Return cards without one; raises a PromptError where there is none."""
    card = find(cards, name)
    return tuple(one for one in cards if one is not card)


def pictured(cards: Sequence[Card], name: str, example: SupportImage, phrase: str = '') -> Cards:
    """Return cards of which one has a picture; it is added where there is none of that name."""
    own, words = check_written(name, phrase)
    label = own or words or EXAMPLE
    old = next((card for card in cards if card.key == key_of(label)), None)
    if old is None:
        new = Card(label, words or '', example=example, pictured=True)
        return _checked((*cards, new))
    new = replace(old, example=example, pictured=True, phrase=words or old.phrase, enabled=True)
    return _checked(new if one is old else one for one in cards)


def ordered(cards: Sequence[Card], names: Sequence[str]) -> Cards:
    """Return cards in the order of some names; those that are not named come last."""
    places = {key_of(name): place for place, name in enumerate(names)}
    return tuple(sorted(cards, key=lambda card: places.get(card.key, len(places))))


def colour(card: Card, chosen: dict[str, str]) -> str:
    """Return the colour of a card as ``#rrggbb``: the one chosen for its name, or the palette's."""
    given = chosen.get(card.key)
    return given or '#{:02x}{:02x}{:02x}'.format(*colour_of(card.id, PALETTE))


def _checked(cards: Any) -> Cards:
    made = tuple(cards)
    keys = [card.key for card in made]
    double = next((card.name for card in made if keys.count(card.key) > 1), None)
    if double is not None:
        raise PromptError(f'two prompts would be called {double!r}: choose another name')
    if len(made) > MAX_PROMPTS:
        raise PromptError(f'{len(made)} prompts, and at most {MAX_PROMPTS} are possible')
    return made


def _number(field: str, value: Any) -> float | None:
    if value is None and field != 'weight':
        return None
    low, high = _NUMBERS[field]
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not known or not low <= value <= high:
        raise PromptError(f'{field} is a number from {low:g} to {high:g}, not {value!r}')
    return float(value)
