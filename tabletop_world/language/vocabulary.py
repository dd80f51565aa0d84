"""The words of the tabletop world: names, hypernyms, colours, materials and held-back words.

A name stands for a set of categories, so its truth in a scene is exact by construction. Where
people disagree whether a word covers a category (is a bottle a "drinking vessel"?), that category
is *doubtful*: a phrase is never used, neither as true nor as absent, while a doubtful thing is in
view (:mod:`tabletop_world.language.queries`).

:data:`UNSEEN_WORDS` never occur in a phrase that :mod:`tabletop_world.language.phrases` makes.
They measure what a model understands beyond the grammar that it was trained on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tabletop_world.yaml_files import read_yaml


@dataclass(frozen=True, slots=True)
class Name:
    """A noun and the categories that it stands for.

    Attributes:
        singular: The noun for one thing (``coffee mug``).
        plural: The noun for several, or ``''`` where none is natural.
        categories: Category keys that the noun certainly covers.
        doubtful: Category keys that some people would count in and others would not.
        hypernym: Whether it names a family (``fruit``) and not a category.
        pair: Whether it has no singular form of its own (``scissors``): no article "a".
        mass: Whether it is uncountable (``cutlery``): no article "a".
    """

    singular: str
    plural: str
    categories: frozenset[str]
    doubtful: frozenset[str] = frozenset()
    hypernym: bool = False
    pair: bool = False
    mass: bool = False


_IRREGULAR = {'knife': 'knives', 'shelf': 'shelves'}


def pluralise(noun: str) -> str:
    """Return the plural of an English noun phrase whose head is its last word.

    The head of ``roll of tape`` or ``plant in a pot`` is the word before the preposition.
    """
    words = noun.split(' ')
    head = next(
        (i - 1 for i, word in enumerate(words) if i and word in _PREPOSITIONS), len(words) - 1
    )
    word = words[head]
    if word in _IRREGULAR:
        plural = _IRREGULAR[word]
    elif word.endswith(('s', 'x', 'sh', 'ch')):
        plural = word + 'es'
    elif word.endswith('y') and word[-2] not in 'aeiou':
        plural = word[:-1] + 'ies'
    else:
        plural = word + 's'
    return ' '.join([*words[:head], plural, *words[head + 1 :]])


_PREPOSITIONS = frozenset({'of', 'in', 'with', 'for', 'on', 'to'})


def _read_names(
    groups: Sequence[Mapping[str, Any]], hypernym: bool = False, key: str = ''
) -> tuple[Name, ...]:
    return tuple(
        Name(
            noun,
            '' if 'form' in group else pluralise(noun),
            frozenset(group.get('covers', [key])),
            frozenset(group.get('doubtful', ())),
            hypernym,
            group.get('form') == 'pair',
            group.get('form') == 'mass',
        )
        for group in groups
        for noun in group['nouns']
    )


_WORDS = read_yaml(__package__, 'names.yaml')

# The first name of a category is its plainest one; it is drawn most often.
CATEGORY_NAMES: dict[str, tuple[Name, ...]] = {
    key: _read_names(groups, key=key) for key, groups in _WORDS['categories'].items()
}

HYPERNYMS: tuple[Name, ...] = _read_names(_WORDS['hypernyms'], hypernym=True)

UNSEEN_WORDS: dict[str, tuple[str, ...]] = {
    word: tuple(categories) for word, categories in _WORDS['unseen'].items()
}

SURFACES: tuple[str, ...] = ('tabletop', 'floor', 'wall')

# Adjectives by colour key; the first is the plainest.
COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    'red': ('red', 'red coloured'),
    'orange': ('orange', 'orange coloured'),
    'yellow': ('yellow', 'yellow coloured'),
    'green': ('green', 'green coloured'),
    'blue': ('blue', 'blue coloured'),
    'purple': ('purple', 'violet'),
    'pink': ('pink', 'rosy'),
    'brown': ('brown', 'brown coloured'),
    'black': ('black', 'black coloured'),
    'white': ('white', 'white coloured'),
    'grey': ('grey', 'gray'),
}

# Words of an attribute: (before the noun, after the noun).
Wording = tuple[tuple[str, ...], tuple[str, ...]]

MATERIAL_WORDS: dict[str, Wording] = {
    'ceramic': (('ceramic',), ('made of ceramic',)),
    'metal': (('metal', 'metallic'), ('made of metal', 'made from metal')),
    'wood': (('wooden',), ('made of wood', 'made from wood')),
    'plastic': (('plastic',), ('made of plastic', 'made from plastic')),
    'glass': (('glass',), ('made of glass', 'made from glass')),
}

PATTERN_WORDS: dict[str, Wording] = {
    'striped': (('striped', 'stripy'), ('with stripes', 'that is striped')),
    'dotted': (('dotted', 'spotted', 'polka dot'), ('with dots', 'with spots')),
    'checked': (('checked', 'checkered', 'chequered'), ('with checks', 'with a check pattern')),
}

SIZE_WORDS: dict[str, Wording] = {
    'small': (('small', 'little'), ('that is small',)),
    'large': (('large', 'big'), ('that is large', 'that is big')),
}

_LIDDED: dict[str, Wording] = {
    'open': (('open',), ('without a lid', 'that is open')),
    'closed': (('closed', 'covered'), ('with a lid', 'that is closed')),
}
_OPENED: dict[str, Wording] = {
    'open': (('open', 'opened'), ('that is open',)),
    'closed': (('closed', 'shut'), ('that is closed',)),
}
_FILLED: dict[str, Wording] = {
    'full': (('full', 'filled'), ('with a drink in it', 'that is full', 'with liquid in it')),
    'empty': (('empty',), ('that is empty', 'with nothing in it')),
}

_LYING: dict[str, Wording] = {
    'lying': (('toppled', 'fallen'), ('lying on its side', 'on its side', 'lying down')),
}

# States worth saying, by category: those that a picture shows and that differ between specimens.
STATE_WORDS: dict[str, dict[str, Wording]] = {
    'mug': _FILLED,
    'glass': _FILLED,
    'wine_glass': _FILLED,
    'vase': {
        'full': ((), ('with flowers', 'with flowers in it', 'holding flowers')),
        'empty': (('empty',), ('without flowers', 'with nothing in it')),
    },
    'bottle': _LYING,
    'can': _LYING,
    'pot': _LIDDED,
    'bin': _LIDDED,
    'book': _OPENED,
    'box': _OPENED,
    'laptop': {'on': ((), ('that is on', 'that is switched on', 'with its screen on'))},
    'candle': {'lit': (('lit', 'burning'), ('that is lit', 'that is burning', 'with a flame'))},
    'lamp': {'lit': (('lit', 'glowing'), ('that is on', 'that is lit', 'that is switched on'))},
}


def names_of(category: str) -> tuple[Name, ...]:
    """Return the names of one category, the plainest first.

    Raises:
        KeyError: If the category has no names.
    """
    if category not in CATEGORY_NAMES:
        raise KeyError(
            f'no names for category {category!r}; add it to tabletop_world/language/names.yaml '
            f'(known: {", ".join(sorted(CATEGORY_NAMES))})'
        )
    return CATEGORY_NAMES[category]


def all_names() -> Iterable[Name]:
    """Yield every name, those of families last."""
    for names in CATEGORY_NAMES.values():
        yield from names
    yield from HYPERNYMS
