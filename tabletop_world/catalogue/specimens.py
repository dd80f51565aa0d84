"""Makes single specimens of the catalogue's categories: shade, finish, geometry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tabletop_world.catalogue.categories import CATEGORIES, COLOURS, FLOOR_ONLY, Category
from tabletop_world.catalogue.making import Finish, Maker, Opening, Shelf
from tabletop_world.catalogue.shapes import Mesh, merge
from tabletop_world.catalogue.textures import RGB, pattern, weave, wood


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


def draw_rgb(colour: str, rng: np.random.Generator) -> RGB:
    """Return a shade that goes by the name of this colour.

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


def _maker(
    category: Category, colour: str, look: str, material: str, rng: np.random.Generator
) -> Maker:
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
    if second == colour or (colour in ('yellow', 'white') and second != 'black'):
        second = 'black' if colour == 'white' else 'white'
    if look != 'plain':
        second = 'black' if colour in ('white', 'grey', 'yellow') else 'white'
    accent_rgb = draw_rgb(second, rng)
    if category.name == 'plant':
        accent_rgb = draw_rgb(
            ('brown', 'white', 'grey', 'black', 'orange')[int(rng.integers(5))], rng
        )
    accent = Finish(accent_rgb, 1.0, None, specular * 0.6, shininess)
    shade = np.array(rgb)
    dark_rgb = shade * 0.7 if shade.mean() > 0.12 else shade + 0.08
    dark = Finish(
        (float(dark_rgb[0]), float(dark_rgb[1]), float(dark_rgb[2])),
        alpha,
        None,
        specular,
        shininess,
    )
    main = body
    if look != 'plain':
        image = pattern(look, rgb, accent_rgb, bool(rng.random() < 0.5))
        main = Finish((1.0, 1.0, 1.0), alpha, image, specular, shininess)
    elif category.name == 'basket':
        image = weave(rgb, (rgb[0] * 0.45, rgb[1] * 0.45, rgb[2] * 0.45))
        main = Finish((1.0, 1.0, 1.0), 1.0, image, 0.05, 0.1)
    elif material == 'wood' and colour == 'brown' and category.places == FLOOR_ONLY:
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
    """Build one specimen.

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
    lift = np.array([0.0, 0.0, drop])
    parts = tuple((mesh.moved(z=drop).scaled(scale), finish) for mesh, finish in merged)
    low, high = (low + lift) * scale, (high + lift) * scale
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
