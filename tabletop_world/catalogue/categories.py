"""The household: which things there are, and in which colours, patterns, materials and sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tabletop_world.catalogue import furniture, kitchenware, things
from tabletop_world.catalogue.making import Maker
from tabletop_world.catalogue.textures import PATTERNS, RGB

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

_ALL = tuple(COLOURS)
_HUES = ('red', 'orange', 'yellow', 'green', 'blue', 'purple', 'pink')
_TABLEWARE = (*_HUES, 'white', 'black', 'grey', 'brown')
_CUTLERY = ('grey', 'grey', 'grey', 'red', 'blue', 'green', 'yellow', 'black', 'white', 'pink')
_GADGET = ('black', 'grey', 'white', 'red', 'blue', 'pink', 'purple', 'green')
_FURNITURE = (
    *('brown', 'brown', 'white', 'black', 'grey'),
    *('red', 'blue', 'green', 'yellow', 'orange', 'pink', 'purple'),
)
_PATTERNED = PATTERNS
_PLAIN = ('plain',)


@dataclass(frozen=True)
class Category:
    """One kind of thing.

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


_TABLE = frozenset({'tabletop', 'furniture'})
_BOTH = frozenset({'tabletop', 'furniture', 'floor'})
_TABLE_ONLY = frozenset({'tabletop'})
FLOOR_ONLY = frozenset({'floor'})
_CERAMIC = ('ceramic',)

# fmt: off
_LIST = (
    Category('mug', kitchenware.mug, _TABLEWARE, _CERAMIC, _PATTERNED, container=True, weight=1.6),
    Category(
        'glass', kitchenware.glass, ('', '', '', 'blue', 'green', 'red', 'purple'), ('glass',),
        weight=1.2,
    ),
    Category(
        'wine_glass', kitchenware.wine_glass, ('', '', 'blue', 'green', 'pink'), ('glass',),
        weight=1.1,
    ),
    Category(
        'bowl', kitchenware.bowl, _TABLEWARE, ('ceramic', 'plastic'), _PATTERNED, container=True,
        weight=1.6,
    ),
    Category(
        'plate', kitchenware.plate, _TABLEWARE, _CERAMIC, _PATTERNED, support=True, weight=1.3,
    ),
    Category(
        'bottle', kitchenware.bottle, ('green', 'blue', 'brown', 'red', 'white', 'yellow',
        'orange', 'purple', 'pink', 'black', 'grey'), ('plastic', 'glass', 'metal'), weight=1.4,
    ),
    Category('can', kitchenware.can, _TABLEWARE, ('metal',), _PATTERNED, weight=1.2),
    Category('vase', kitchenware.vase, _TABLEWARE, _CERAMIC, _PATTERNED),
    Category(
        'pot', kitchenware.pot, ('red', 'blue', 'green', 'grey', 'black', 'white', 'orange',
        'yellow'), ('metal',), container=True,
    ),
    Category(
        'pan', kitchenware.pan, ('black', 'black', 'grey', 'red', 'blue', 'green', 'orange'),
        ('metal',), container=True,
    ),
    Category(
        'kettle', kitchenware.kettle, ('red', 'blue', 'green', 'yellow', 'grey', 'white', 'black',
        'pink', 'purple', 'orange'), ('metal', 'ceramic'), _PATTERNED,
    ),
    Category('jug', kitchenware.jug, _TABLEWARE, ('ceramic', 'plastic'), _PATTERNED),
    Category('spoon', kitchenware.spoon, (*_CUTLERY, 'brown', 'brown'), ('metal',), fills='long'),
    Category('fork', kitchenware.fork, _CUTLERY, ('metal',), fills='long'),
    Category('knife', kitchenware.knife, (*_CUTLERY, 'brown', 'purple', 'orange'), ('metal',)),
    Category('spatula', kitchenware.spatula, (*_HUES, 'black', 'grey', 'brown'), ('plastic',)),
    Category(
        'ball', things.ball, _ALL, ('plastic',), _PATTERNED, _BOTH, fills='round',
        floor_scale=2.6, weight=1.3,
    ),
    Category(
        'apple', things.apple, ('red', 'green', 'yellow'), ('food',), fills='round', weight=1.2,
    ),
    Category('orange', things.orange, ('orange',), ('food',), fills='round', weight=0.9),
    Category('lemon', things.lemon, ('yellow',), ('food',), fills='round', weight=0.9),
    Category(
        'banana', things.banana, ('yellow', 'yellow', 'yellow', 'green'), ('food',), weight=0.9,
    ),
    Category('carrot', things.carrot, ('orange',), ('food',), weight=0.8),
    Category(
        'book', things.book, _ALL, ('paper',), ('plain', 'plain', 'striped', 'dotted'),
        support=True, weight=2.2,
    ),
    Category(
        'box', things.carton, (*_ALL, 'brown', 'brown', 'brown'), ('paper',), _PATTERNED, _BOTH,
        True, True, floor_scale=2.6, weight=1.8,
    ),
    Category('block', things.block, _ALL, ('wood', 'plastic'), support=True, weight=1.1),
    Category(
        'laptop', things.laptop, ('grey', 'grey', 'black', 'white', 'pink', 'blue', 'red'),
        ('metal',), faces=True,
    ),
    Category(
        'keyboard', things.keyboard, ('black', 'white', 'grey', 'pink', 'blue'), ('plastic',),
        faces=True, places=_TABLE_ONLY, weight=0.7,
    ),
    Category(
        'phone', things.phone, ('black', 'black', *_GADGET[1:], 'yellow', 'orange'), ('plastic',),
    ),
    Category(
        'remote', things.remote, ('black', 'black', 'white', 'grey', 'red', 'blue', 'yellow'),
        ('plastic',),
    ),
    Category('scissors', things.scissors, (*_HUES, 'black'), ('metal',)),
    Category(
        'hammer', things.hammer, ('brown', 'red', 'blue', 'yellow', 'black', 'green', 'orange'),
        ('wood',),
    ),
    Category('screwdriver', things.screwdriver, (*_HUES, 'black'), ('plastic',)),
    Category('pen', things.pen, (*_HUES, 'black', 'white', 'grey'), ('plastic',), fills='long'),
    Category(
        'lamp', things.lamp, ('white', 'yellow', 'red', 'blue', 'green', 'pink', 'orange',
        'black', 'purple', 'grey'), ('fabric', 'metal'), ('plain', 'plain', 'striped', 'dotted'),
        _BOTH, floor_scale=3.2,
    ),
    Category('plant', things.plant, ('green',), ('plant',), places=_BOTH, floor_scale=2.6),
    Category('candle', kitchenware.candle, (*_HUES, 'white', 'white', 'black', 'brown'), ('wax',)),
    Category('tape', things.tape, (*_ALL,), ('plastic',)),
    Category(
        'clock', things.clock, ('red', 'blue', 'green', 'yellow', 'black', 'white', 'grey',
        'pink', 'orange', 'brown', 'purple'), ('metal', 'plastic'), faces=True, weight=1.1,
    ),
    Category(
        'bucket', kitchenware.bucket, (*_HUES, 'grey', 'black', 'white'), ('plastic', 'metal'),
        places=FLOOR_ONLY, container=True, floor_scale=1.15, weight=1.2,
    ),
    Category(
        'basket', kitchenware.basket, ('brown', 'brown', 'brown', 'white', 'grey', 'red', 'blue',
        'green', 'yellow', 'pink', 'orange'), ('wood',), places=_BOTH, container=True,
        floor_scale=1.8, weight=1.1,
    ),
    Category(
        'chair', furniture.chair, _FURNITURE, ('wood', 'plastic'), places=FLOOR_ONLY,
        support=True, faces=True, weight=1.7,
    ),
    Category(
        'stool', furniture.stool, _FURNITURE, ('wood', 'metal'), places=FLOOR_ONLY, support=True,
        weight=1.4,
    ),
    Category(
        'table', furniture.table, _FURNITURE, ('wood',), places=FLOOR_ONLY, support=True,
        weight=1.5,
    ),
    Category(
        'shelf', furniture.shelf, _FURNITURE, ('wood',), places=FLOOR_ONLY, support=True,
        faces=True, weight=1.3,
    ),
    Category(
        'cabinet', furniture.cabinet, _FURNITURE, ('wood',), places=FLOOR_ONLY, support=True,
        faces=True, weight=1.3,
    ),
    Category(
        'bin', furniture.bin_, (*_HUES, 'grey', 'black', 'white'), ('plastic', 'metal'),
        places=FLOOR_ONLY, container=True, weight=1.2,
    ),
)
# fmt: on

CATEGORIES: dict[str, Category] = {category.name: category for category in _LIST}
"""All categories by name."""

HELD_OUT_PAIRS: frozenset[tuple[str, str]] = frozenset({
    ('red', 'mug'), ('purple', 'bowl'), ('orange', 'vase'), ('blue', 'book'), ('green', 'can'),
    ('yellow', 'box'), ('pink', 'plate'), ('black', 'ball'), ('white', 'bottle'),
    ('green', 'apple'), ('brown', 'block'), ('blue', 'pot'), ('grey', 'jug'), ('yellow', 'kettle'),
    ('orange', 'scissors'), ('white', 'phone'), ('green', 'clock'), ('purple', 'candle'),
    ('red', 'lamp'), ('grey', 'tape'), ('pink', 'spatula'), ('red', 'chair'), ('green', 'stool'),
    ('yellow', 'bucket'), ('blue', 'basket'),
})  # fmt: skip
"""Pairs of a colour and a category that appear in the split ``unseen_pairs`` alone."""
