"""How things are put into words: modifiers, nouns and the words they are said with."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from tabletop_world.catalogue.categories import COLOURS
from tabletop_world.language.affordances import AFFORDANCES, Affordance
from tabletop_world.language.queries import (
    Anything,
    Coloured,
    InState,
    MadeOf,
    Named,
    Patterned,
    Query,
    Sized,
    all_of,
)
from tabletop_world.language.relations import RELATIONS
from tabletop_world.language.vocabulary import (
    COLOUR_WORDS,
    MATERIAL_WORDS,
    PATTERN_WORDS,
    SIZE_WORDS,
    STATE_WORDS,
    Name,
    Wording,
    all_names,
)

KINDS = ('name', 'colour', 'attribute', 'relation', 'affordance', 'surface')


@dataclass(frozen=True)
class Structure:
    """How a phrase is built, in PhraseCut's terms.

    Attributes:
        name: The noun, or the whole phrase where it has no noun of its own.
        attributes: Colours and other attributes.
    """

    name: str
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Phrase:
    """A phrase and the objects of one frame for which it is true.

    Attributes:
        text: The phrase, in lower case but for "I".
        kind: One of :data:`KINDS`.
        object_ids: Ids of *all* visible objects for which it is true; empty if it is absent.
        structure: How it is built; None for a phrase from elsewhere.
    """

    text: str
    kind: str
    object_ids: frozenset[int]
    structure: Structure | None = None


@dataclass(frozen=True)
class Modifier:
    """An attribute with its words and its question."""

    kind: str
    label: str
    query: Query
    words: Wording


@dataclass(frozen=True)
class Noun:
    """What a phrase is about: a name (or anything), with modifiers, and its question."""

    name: Name | None
    modifiers: tuple[Modifier, ...]
    query: Query

    @property
    def kind(self) -> str:
        """``attribute`` where it has one, else ``colour`` where it has one, else ``name``."""
        kinds = {modifier.kind for modifier in self.modifiers}
        if 'attribute' in kinds:
            return 'attribute'
        return 'colour' if kinds else 'name'


COLOUR_MODIFIERS: dict[str, Modifier] = {
    colour: Modifier(
        'colour',
        colour,
        Coloured(colour),
        (
            COLOUR_WORDS[colour],
            tuple(f'that is {word}' for word in COLOUR_WORDS[colour])
            + tuple(f'which is {word}' for word in COLOUR_WORDS[colour]),
        ),
    )
    for colour in COLOURS
}
PATTERN_MODIFIERS = {
    key: Modifier('attribute', key, Patterned(key), words) for key, words in PATTERN_WORDS.items()
}
MATERIAL_MODIFIERS = {
    key: Modifier('attribute', key, MadeOf(key), words) for key, words in MATERIAL_WORDS.items()
}
SIZE_MODIFIERS = {
    key: Modifier('attribute', key, Sized(key), words) for key, words in SIZE_WORDS.items()
}
STATE_MODIFIERS = {
    category: {
        state: Modifier('attribute', state, InState(state), words)
        for state, words in states.items()
    }
    for category, states in STATE_WORDS.items()
}
_GENERIC = ('thing', 'object', 'item')
EXTREMES = {
    'largest': ('largest', 'biggest'),
    'smallest': ('smallest',),
    'leftmost': ('leftmost',),
    'rightmost': ('rightmost',),
    'nearest': ('nearest', 'closest'),
}
_FUNCTION_WORDS = (
    *_GENERIC,
    *(f'{word}s' for word in _GENERIC),
    *('a', 'an', 'the', 'all', 'are', 'something', 'anything', 'everything'),
)
_POSTMODIFIERS = frozenset({'in', 'with', 'of', 'for'})


def noun_of(name: Name | None, modifiers: Sequence[Modifier] = ()) -> Noun:
    """Return a name (None: anything) with modifiers, and the question that they make."""
    head: Query = Anything() if name is None else Named(name)
    return Noun(name, tuple(modifiers), all_of([head, *(m.query for m in modifiers)]))


def with_article(text: str) -> str:
    """Return a text with "a" or "an" before it."""
    sounds_vowel = text[0] in 'aeiou' and not text.startswith('utensil')
    return f'an {text}' if sounds_vowel else f'a {text}'


def _takes_clause(name: Name | None) -> bool:
    """Whether a clause after the noun would be understood ("plant in a pot that is red")."""
    return name is None or not _POSTMODIFIERS.intersection(name.singular.split())


def _split_modifiers(
    modifiers: Sequence[Modifier], draw: random.Random, *, clause: bool
) -> tuple[list[str], str]:
    """Put words before the noun and at most one clause after it (if ``clause`` or needed)."""
    before: list[str] = []
    after = ''
    for modifier in modifiers:
        first, last = modifier.words
        if last and not after and (not first or (clause and draw.random() < 0.2)):
            after = draw.choice(last)
        elif first:
            before.append(first[0] if draw.random() < 0.75 else draw.choice(first))
        else:
            after = f'{after} {draw.choice(last)}'.strip()
    return before, after


def word_noun(noun: Noun, draw: random.Random, count: int, *, definite: bool = False) -> str:
    """Word a noun with its modifiers.

    Args:
        noun: What to word.
        draw: Source of the variation.
        count: How many things it is true of; plurals are used only above one.
        definite: Whether to use "the" or "a" always, as a reference in a relation needs.
    """
    name = noun.name
    before, after = _split_modifiers(noun.modifiers, draw, clause=_takes_clause(name))
    if name is None:
        if noun.modifiers and not definite and draw.random() < 0.45:
            lead = draw.choice(('something', 'something', 'anything'))
            return ' '.join(filter(None, (lead, *before, after)))
        head, plural = draw.choice(_GENERIC), count > 1 and draw.random() < 0.4
        head = head + 's' if plural else head
    else:
        plural = bool(name.plural) and count > 1 and draw.random() < 0.25
        head = name.plural if plural else name.singular
    text = ' '.join(filter(None, (*before, head, after)))
    luck = draw.random()
    if plural:
        text = text.replace('that is', 'that are').replace('which is', 'which are')
        if luck < 0.35 or definite:
            return f'the {text}'
        return f'all the {text}' if luck < 0.42 else text
    uncountable = name is not None and (name.pair or name.mass)
    if luck < 0.45 or (definite and (uncountable or luck < 0.85)):
        return f'the {text}'
    bare_is_unclear = text == 'orange'
    if not uncountable and (luck < 0.65 or definite or bare_is_unclear):
        return with_article(text)
    return text


def structure_of(noun: Noun) -> Structure:
    """Return how a noun is built in PhraseCut's terms."""
    name = 'object' if noun.name is None else noun.name.singular
    return Structure(name, tuple(m.label for m in noun.modifiers))


def is_uncountable(noun: Noun) -> bool:
    """Return whether a noun takes no "a"."""
    return noun.name is not None and (noun.name.pair or noun.name.mass)


def word_affordance(affordance: Affordance, draw: random.Random) -> str:
    """Draw a wording of an affordance, its plainest more often than any other."""
    phrases = affordance.phrases
    return phrases[0] if draw.random() < 0.3 else draw.choice(phrases)


def grammar_words() -> frozenset[str]:
    """Return every word that a phrase can contain, in lower case.

    No word of :data:`tabletop_world.language.vocabulary.UNSEEN_WORDS` is among them.
    """
    texts = list(_FUNCTION_WORDS)
    for name in all_names():
        texts += [name.singular, name.plural]
    modifiers: list[Modifier] = [
        *COLOUR_MODIFIERS.values(),
        *PATTERN_MODIFIERS.values(),
        *MATERIAL_MODIFIERS.values(),
        *SIZE_MODIFIERS.values(),
    ]
    for states in STATE_MODIFIERS.values():
        modifiers += states.values()
    for modifier in modifiers:
        texts += [*modifier.words[0], *modifier.words[1]]
    for relation in RELATIONS:
        texts += [word.replace('{}', '') for word in relation.words]
    for affordance in AFFORDANCES:
        texts += affordance.phrases
    for words in EXTREMES.values():
        texts += words
    return frozenset(' '.join(texts).lower().split())
