"""The household: which things there are, and in which colours, patterns, materials and sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from tabletop_world.catalogue import furniture, kitchenware, things
from tabletop_world.catalogue.making import Maker
from tabletop_world.catalogue.textures import PATTERNS, RGB
from tabletop_world.yaml_files import read_yaml

__all__ = ['CATEGORIES', 'COLOURS', 'FLOOR_ONLY', 'HELD_OUT_PAIRS', 'PATTERNS', 'SIZES', 'Category']

COLOURS: dict[str, RGB] = {
    'red': (0.80, 0.07, 0.06),
    'orange': (0.95, 0.42, 0.03),
    'yellow': (0.95, 0.80, 0.08),
    'green': (0.10, 0.52, 0.14),
    'blue': (0.08, 0.22, 0.74),
    'purple': (0.43, 0.12, 0.60),
    'pink': (0.95, 0.48, 0.66),
    'brown': (0.38, 0.20, 0.09),
    'black': (0.05, 0.05, 0.055),
    'white': (0.93, 0.93, 0.92),
    'grey': (0.48, 0.48, 0.49),
}
"""Names of colours with their typical linear red, green and blue, 0…1."""

SIZES: dict[str, tuple[float, float]] = {
    'small': (0.74, 0.84),
    'medium': (0.95, 1.06),
    'large': (1.18, 1.32),
}
"""Range of the factor on the usual size, by the name of the size."""

# Names that stand for several colours in categories.yaml.
_HUES = ('red', 'orange', 'yellow', 'green', 'blue', 'purple', 'pink')
_PALETTES = {
    'all': tuple(COLOURS),
    'hues': _HUES,
    'tableware': (*_HUES, 'white', 'black', 'grey', 'brown'),
    'cutlery': (*['grey'] * 3, 'red', 'blue', 'green', 'yellow', 'black', 'white', 'pink'),
    'furniture': (
        *('brown', 'brown', 'white', 'black', 'grey'),
        *('red', 'blue', 'green', 'yellow', 'orange', 'pink', 'purple'),
    ),
}


FLOOR_ONLY = frozenset({'floor'})
_PLAIN = ('plain',)


@dataclass(frozen=True)
class Category:
    """One kind of thing; ``categories.yaml`` lists them.

    Attributes:
        name: Key in :data:`CATEGORIES`.
        build: Adds the parts of one specimen to a maker.
        colours: Names it may have; a name listed twice is drawn twice as often. Empty string
            for colourless (clear glass).
        materials: Materials it may have.
        patterns: Patterns it may have.
        places: Where it may stand: ``tabletop``, ``floor``, and ``furniture`` for things small
            enough to stand on furniture in a floor scene.
        container: Whether things may be put into it.
        support: Whether things may be put on it.
        faces: Whether it has a front that should be turned to the viewer.
        fills: Whether it is put into containers: ``round`` (lies inside), ``long`` (stands
            inside, leaning on the rim) or ``''`` (is not).
        floor_scale: Factor on its size where it stands on the floor.
        weight: How often it is drawn, relative to the others.
        held_out: Colour in which it appears in the split ``unseen_pairs`` alone, if any.
        hard_to_tell: Materials that a picture of it cannot tell apart, or that it has as well.
        also_shown: Colours that it shows beside its own (the blade of a red knife).
    """

    name: str
    build: Callable[[Maker], None]
    colours: tuple[str, ...]
    materials: tuple[str, ...]
    patterns: tuple[str, ...] = _PLAIN
    places: frozenset[str] = frozenset({'tabletop', 'furniture'})
    container: bool = False
    support: bool = False
    faces: bool = False
    fills: str = ''
    floor_scale: float = 1.0
    weight: float = 1.0
    held_out: str = ''
    hard_to_tell: frozenset[str] = frozenset()
    also_shown: frozenset[str] = frozenset()


def _category(name: str, entry: Mapping[str, Any]) -> Category:
    module, function = entry['build'].split('.')
    builders: dict[str, ModuleType] = {
        'furniture': furniture,
        'kitchenware': kitchenware,
        'things': things,
    }
    sets: dict[str, Any] = {
        key: frozenset(entry[key])
        for key in ('places', 'hard_to_tell', 'also_shown')
        if key in entry
    }
    plain = ('container', 'support', 'faces', 'fills', 'floor_scale', 'weight', 'held_out')
    patterns = entry.get('patterns', _PLAIN)
    return Category(
        name,
        getattr(builders[module], function),
        tuple(colour for word in entry['colours'] for colour in _PALETTES.get(word, (word,))),
        tuple(entry['materials']),
        PATTERNS if patterns == 'all' else tuple(patterns),
        **sets,
        **{key: entry[key] for key in plain if key in entry},
    )


CATEGORIES: dict[str, Category] = {
    name: _category(name, entry)
    for name, entry in read_yaml(__package__, 'categories.yaml').items()
}
"""All categories by name."""

HELD_OUT_PAIRS: frozenset[tuple[str, str]] = frozenset(
    (category.held_out, category.name) for category in CATEGORIES.values() if category.held_out
)
"""Pairs of a colour and a category that appear in the split ``unseen_pairs`` alone."""
