"""The household: which things there are, and in which colours, patterns, materials and sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import furniture, kitchenware, things
from .making import Finish, Maker, Opening, Shelf
from .shapes import Mesh, merge
from .textures import PATTERNS, RGB, pattern, weave, wood

__all__ = [
    'CATEGORIES',
    'COLOURS',
    'HELD_OUT_PAIRS',
    'PATTERNS',
    'SIZES',
    'Built',
    'Category',
    'build',
    'draw_rgb',
]

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
_FURNITURE = ('brown', 'brown', 'white', 'black', 'grey', 'red', 'blue', 'green', 'yellow', 'orange', 'pink', 'purple')
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


@dataclass(frozen=True, eq=False)
class Built:
    """A specimen in its own frame: base on z = 0, front towards +x.

    Attributes:
        parts: One mesh for each finish.
        states: What shows.
        opening: Room inside, or None.
        shelves: Level places on which things can stand.
        low: Lower corner of the bounding box, metres.
        high: Upper corner of the bounding box, metres.
    """

    parts: tuple[tuple[Mesh, Finish], ...]
    states: frozenset[str]
    opening: Opening | None
    shelves: tuple[Shelf, ...]
    low: tuple[float, float, float]
    high: tuple[float, float, float]


_TABLE = frozenset({'tabletop', 'furniture'})
_BOTH = frozenset({'tabletop', 'furniture', 'floor'})
_TABLE_ONLY = frozenset({'tabletop'})
_FLOOR = frozenset({'floor'})
_CERAMIC = ('ceramic',)

_LIST = (
    Category('mug', kitchenware.mug, _TABLEWARE, _CERAMIC, _PATTERNED, container=True, weight=1.6),
    Category('glass', kitchenware.glass, ('', '', '', 'blue', 'green', 'red', 'purple'), ('glass',), weight=1.2),
    Category('wine_glass', kitchenware.wine_glass, ('', '', 'blue', 'green', 'pink'), ('glass',), weight=1.1),
    Category('bowl', kitchenware.bowl, _TABLEWARE, ('ceramic', 'plastic'), _PATTERNED, container=True, weight=1.6),
    Category('plate', kitchenware.plate, _TABLEWARE, _CERAMIC, _PATTERNED, support=True, weight=1.3),
    Category('bottle', kitchenware.bottle, ('green', 'blue', 'brown', 'red', 'white', 'yellow', 'orange', 'purple', 'pink', 'black', 'grey'), ('plastic', 'glass', 'metal'), weight=1.4),
    Category('can', kitchenware.can, _TABLEWARE, ('metal',), _PATTERNED, weight=1.2),
    Category('vase', kitchenware.vase, _TABLEWARE, _CERAMIC, _PATTERNED),
    Category('pot', kitchenware.pot, ('red', 'blue', 'green', 'grey', 'black', 'white', 'orange', 'yellow'), ('metal',), container=True),
    Category('pan', kitchenware.pan, ('black', 'black', 'grey', 'red', 'blue', 'green', 'orange'), ('metal',), container=True),
    Category('kettle', kitchenware.kettle, ('red', 'blue', 'green', 'yellow', 'grey', 'white', 'black', 'pink', 'purple', 'orange'), ('metal', 'ceramic'), _PATTERNED),
    Category('jug', kitchenware.jug, _TABLEWARE, ('ceramic', 'plastic'), _PATTERNED),
    Category('spoon', kitchenware.spoon, (*_CUTLERY, 'brown', 'brown'), ('metal',), fills='long'),
    Category('fork', kitchenware.fork, _CUTLERY, ('metal',), fills='long'),
    Category('knife', kitchenware.knife, (*_CUTLERY, 'brown', 'purple', 'orange'), ('metal',)),
    Category('spatula', kitchenware.spatula, (*_HUES, 'black', 'grey', 'brown'), ('plastic',)),
    Category('ball', things.ball, _ALL, ('plastic',), _PATTERNED, _BOTH, fills='round', floor_scale=2.6, weight=1.3),
    Category('apple', things.apple, ('red', 'green', 'yellow'), ('food',), fills='round', weight=1.2),
    Category('orange', things.orange, ('orange',), ('food',), fills='round', weight=0.9),
    Category('lemon', things.lemon, ('yellow',), ('food',), fills='round', weight=0.9),
    Category('banana', things.banana, ('yellow', 'yellow', 'yellow', 'green'), ('food',), weight=0.9),
    Category('carrot', things.carrot, ('orange',), ('food',), weight=0.8),
    Category('book', things.book, _ALL, ('paper',), ('plain', 'plain', 'striped', 'dotted'), support=True, weight=2.2),
    Category('box', things.carton, (*_ALL, 'brown', 'brown', 'brown'), ('paper',), _PATTERNED, _BOTH, True, True, floor_scale=2.6, weight=1.8),
    Category('block', things.block, _ALL, ('wood', 'plastic'), support=True, weight=1.1),
    Category('laptop', things.laptop, ('grey', 'grey', 'black', 'white', 'pink', 'blue', 'red'), ('metal',), faces=True),
    Category('keyboard', things.keyboard, ('black', 'white', 'grey', 'pink', 'blue'), ('plastic',), faces=True, places=_TABLE_ONLY, weight=0.7),
    Category('phone', things.phone, ('black', 'black', *_GADGET[1:], 'yellow', 'orange'), ('plastic',)),
    Category('remote', things.remote, ('black', 'black', 'white', 'grey', 'red', 'blue', 'yellow'), ('plastic',)),
    Category('scissors', things.scissors, (*_HUES, 'black'), ('metal',)),
    Category('hammer', things.hammer, ('brown', 'red', 'blue', 'yellow', 'black', 'green', 'orange'), ('wood',)),
    Category('screwdriver', things.screwdriver, (*_HUES, 'black'), ('plastic',)),
    Category('pen', things.pen, (*_HUES, 'black', 'white', 'grey'), ('plastic',), fills='long'),
    Category('lamp', things.lamp, ('white', 'yellow', 'red', 'blue', 'green', 'pink', 'orange', 'black', 'purple', 'grey'), ('fabric', 'metal'), ('plain', 'plain', 'striped', 'dotted'), _BOTH, floor_scale=3.2),
    Category('plant', things.plant, ('green',), ('plant',), places=_BOTH, floor_scale=2.6),
    Category('candle', kitchenware.candle, (*_HUES, 'white', 'white', 'black', 'brown'), ('wax',)),
    Category('tape', things.tape, (*_ALL,), ('plastic',)),
    Category('clock', things.clock, ('red', 'blue', 'green', 'yellow', 'black', 'white', 'grey', 'pink', 'orange', 'brown', 'purple'), ('metal', 'plastic'), faces=True, weight=1.1),
    Category('bucket', kitchenware.bucket, (*_HUES, 'grey', 'black', 'white'), ('plastic', 'metal'), places=_FLOOR, container=True, floor_scale=1.15, weight=1.2),
    Category('basket', kitchenware.basket, ('brown', 'brown', 'brown', 'white', 'grey', 'red', 'blue', 'green', 'yellow', 'pink', 'orange'), ('wood',), places=_BOTH, container=True, floor_scale=1.8, weight=1.1),
    Category('chair', furniture.chair, _FURNITURE, ('wood', 'plastic'), places=_FLOOR, support=True, faces=True, weight=1.7),
    Category('stool', furniture.stool, _FURNITURE, ('wood', 'metal'), places=_FLOOR, support=True, weight=1.4),
    Category('table', furniture.table, _FURNITURE, ('wood',), places=_FLOOR, support=True, weight=1.5),
    Category('shelf', furniture.shelf, _FURNITURE, ('wood',), places=_FLOOR, support=True, faces=True, weight=1.3),
    Category('cabinet', furniture.cabinet, _FURNITURE, ('wood',), places=_FLOOR, support=True, faces=True, weight=1.3),
    Category('bin', furniture.bin_, (*_HUES, 'grey', 'black', 'white'), ('plastic', 'metal'), places=_FLOOR, container=True, weight=1.2),
)  # fmt: skip

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


def draw_rgb(colour: str, rng: np.random.Generator) -> RGB:
    """Returns a shade that goes by the name of this colour.

    Raises:
        KeyError: If ``colour`` is not in :data:`COLOURS`.
    """
    base = np.array(COLOURS[colour])
    if colour == 'brown' and rng.random() < 0.35:
        base = np.array((0.52, 0.31, 0.16))
    if colour in ('white', 'black', 'grey'):
        tone = {'white': (0.94, 1.04), 'black': (0.5, 1.5), 'grey': (0.8, 1.2)}[colour]
        rgb = base * rng.uniform(*tone) + rng.uniform(-0.012, 0.012, 3)
    else:
        rgb = base * rng.uniform(0.86, 1.08) + rng.uniform(-0.035, 0.035, 3)
    red, green, blue = (float(v) for v in np.clip(rgb, 0.015, 1.0))
    return red, green, blue


_GLOSS = {
    'ceramic': (0.55, 0.6),
    'metal': (0.9, 0.7),
    'plastic': (0.35, 0.45),
    'glass': (0.9, 0.9),
    'wood': (0.12, 0.2),
    'paper': (0.06, 0.1),
    'fabric': (0.03, 0.1),
    'food': (0.25, 0.35),
    'plant': (0.15, 0.2),
    'wax': (0.2, 0.2),
}


def _maker(category: Category, colour: str, look: str, material: str, rng: np.random.Generator) -> Maker:
    specular, shininess = _GLOSS[material]
    rgb = draw_rgb(colour, rng) if colour else (0.80, 0.88, 0.90)
    see_through = material == 'glass'
    if see_through:
        alpha = 0.34 if not colour else 0.62
        if category.name == 'bottle':
            alpha = 0.8
    else:
        alpha = 1.0
    body = Finish(rgb, alpha, None, specular, shininess)
    second = ('white', 'white', 'white', 'black', 'yellow')[int(rng.integers(5))]
    if second == colour or colour in ('yellow', 'white') and second != 'black':
        second = 'black' if colour == 'white' else 'white'
    if look != 'plain':
        second = 'black' if colour in ('white', 'grey', 'yellow') else 'white'
    accent_rgb = draw_rgb(second, rng)
    if category.name == 'plant':
        accent_rgb = draw_rgb(('brown', 'white', 'grey', 'black', 'orange')[int(rng.integers(5))], rng)
    accent = Finish(accent_rgb, 1.0, None, specular * 0.6, shininess)
    shade = np.array(rgb)
    dark_rgb = shade * 0.7 if shade.mean() > 0.12 else shade + 0.08
    dark = Finish((float(dark_rgb[0]), float(dark_rgb[1]), float(dark_rgb[2])), alpha, None, specular, shininess)
    main = body
    if look != 'plain':
        image = pattern(look, rgb, accent_rgb, bool(rng.random() < 0.5))
        main = Finish((1.0, 1.0, 1.0), alpha, image, specular, shininess)
    elif category.name == 'basket':
        image = weave(rgb, (rgb[0] * 0.45, rgb[1] * 0.45, rgb[2] * 0.45))
        main = Finish((1.0, 1.0, 1.0), 1.0, image, 0.05, 0.1)
    elif material == 'wood' and colour == 'brown' and category.places == _FLOOR:
        main = Finish((1.0, 1.0, 1.0), 1.0, wood(rng, rgb, 32), specular, shininess)
    return Maker(rng, colour, material, main, body, accent, dark)


def build(
    name: str,
    rng: np.random.Generator,
    *,
    colour: str,
    look: str,
    material: str,
    scale: float,
) -> Built:
    """Builds one specimen.

    Args:
        name: Category.
        rng: Source of the variations of shape and shade.
        colour: Name of its dominant colour, or ``''`` for clear glass.
        look: Pattern.
        material: Material.
        scale: Factor on the usual size.

    Raises:
        KeyError: If there is no such category, colour or material.
    """
    category = CATEGORIES[name]
    maker = _maker(category, colour, look, material, rng)
    category.build(maker)
    groups: dict[Finish, list[Mesh]] = {}
    for mesh, finish in maker.parts:
        groups.setdefault(finish, []).append(mesh)
    merged = [(merge(meshes), finish) for finish, meshes in groups.items()]
    low = np.min([mesh.vertices.min(axis=0) for mesh, _ in merged], axis=0)
    high = np.max([mesh.vertices.max(axis=0) for mesh, _ in merged], axis=0)
    drop = -float(low[2])
    parts = tuple((mesh.moved(z=drop).scaled(scale), finish) for mesh, finish in merged)
    low, high = (low + (0, 0, drop)) * scale, (high + (0, 0, drop)) * scale
    opening = maker.opening
    if opening is not None:
        opening = Opening(
            opening.bottom * scale,
            opening.top * scale,
            (opening.floor + drop) * scale,
            (opening.rim + drop) * scale,
        )
    shelves = tuple(
        Shelf(
            s.x * scale,
            s.y * scale,
            (s.height + drop) * scale,
            (s.centre[0] * scale, s.centre[1] * scale),
            s.headroom * scale,
        )
        for s in maker.shelves
    )
    return Built(
        parts,
        frozenset(maker.states),
        opening,
        shelves,
        (float(low[0]), float(low[1]), float(low[2])),
        (float(high[0]), float(high[1]), float(high[2])),
    )
