"""The room around the items: floor, walls and, in tabletop scenes, the big table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tabletop_world.catalogue.making import Finish
from tabletop_world.catalogue.shapes import box, merge, sheet
from tabletop_world.catalogue.specimens import draw_rgb
from tabletop_world.catalogue.textures import RGB, bands, pattern, speckle, tiles, wood
from tabletop_world.scenes.blueprint import Part
from tabletop_world.scenes.scene import SceneObject

FLOOR_ID, WALL_ID, TOP_ID = 1, 2, 3
_WALL_HEIGHT = 2.8


@dataclass(frozen=True, eq=False)
class Room:
    """The surfaces of a scene.

    Attributes:
        objects: Their records.
        parts: Their meshes.
        half: Half the side of the square room, metres.
        level: Height on which items stand, metres.
        floor_id: Id of the floor.
        top_id: Id of the table top, or 0 where there is none.
    """

    objects: tuple[SceneObject, ...]
    parts: tuple[Part, ...]
    half: float
    level: float
    floor_id: int
    top_id: int


def _pick(rng: np.random.Generator, *names: str) -> str:
    return names[int(rng.integers(len(names)))]


def _soft(rgb: RGB, amount: float) -> RGB:
    """Mix a colour with white, as paint on a wall."""
    red, green, blue = ((1 - amount) * v + amount * 0.95 for v in rgb)
    return red, green, blue


def _picture(image: np.ndarray, gloss: float = 0.05) -> Finish:
    return Finish((1.0, 1.0, 1.0), image=image, specular=gloss, shininess=0.2)


def _floor(rng: np.random.Generator) -> tuple[str, str, str, Finish]:
    """Draw colour, pattern, material and finish of a floor."""
    draw = rng.random()
    if draw < 0.45:
        rgb = (0.52, 0.34, 0.19) if rng.random() < 0.5 else draw_rgb('brown', rng)
        return 'brown', 'plain', 'wood', _picture(wood(rng, rgb), 0.1)
    if draw < 0.6:
        colour = _pick(rng, 'grey', 'white', 'grey', 'brown')
        rgb = draw_rgb(colour, rng)
        joint = (rgb[0] * 0.7, rgb[1] * 0.7, rgb[2] * 0.7)
        return colour, 'plain', 'ceramic', _picture(tiles(rgb, rgb, joint), 0.2)
    if draw < 0.7:
        dark = draw_rgb(_pick(rng, 'black', 'grey', 'brown', 'blue', 'red'), rng)
        light = draw_rgb('white', rng)
        return '', 'checked', 'ceramic', _picture(tiles(light, dark, dark), 0.2)
    colour = _pick(rng, 'grey', 'grey', 'blue', 'green', 'red', 'brown', 'purple', 'yellow', 'pink')
    return colour, 'plain', 'fabric', _picture(speckle(rng, draw_rgb(colour, rng), 0.05), 0.0)


def _wall(rng: np.random.Generator) -> tuple[str, str, Finish]:
    """Draw colour, pattern and finish of the walls."""
    draw = rng.random()
    if draw < 0.35:
        return 'white', 'plain', Finish(draw_rgb('white', rng), specular=0.02)
    if draw < 0.5:
        return 'grey', 'plain', Finish(draw_rgb('grey', rng), specular=0.02)
    if draw < 0.62:
        beige = (0.86, 0.80, 0.68)
        return '', 'plain', _picture(speckle(rng, beige, 0.03), 0.0)
    colour = _pick(
        rng, 'yellow', 'blue', 'green', 'pink', 'purple', 'orange', 'red', 'blue', 'green'
    )
    rgb = _soft(draw_rgb(colour, rng), float(rng.uniform(0.1, 0.35)))
    if draw < 0.75:
        return colour, 'striped', _picture(bands(rgb, draw_rgb('white', rng), 0.35), 0.0)
    return colour, 'plain', Finish(rgb, specular=0.02)


def _top(rng: np.random.Generator) -> tuple[str, str, str, Finish]:
    """Draw colour, pattern, material and finish of a table top."""
    draw = rng.random()
    if draw < 0.45:
        rgb = (0.60, 0.40, 0.23) if rng.random() < 0.5 else draw_rgb('brown', rng)
        return 'brown', 'plain', 'wood', _picture(wood(rng, rgb), 0.15)
    if draw < 0.7:
        colour = _pick(rng, 'white', 'grey', 'black', 'white', 'grey')
        rgb = draw_rgb(colour, rng)
        return colour, 'plain', 'plastic', Finish(rgb, specular=0.25, shininess=0.4)
    colour = _pick(rng, 'blue', 'green', 'red', 'yellow', 'pink', 'purple', 'orange')
    rgb = draw_rgb(colour, rng)
    if draw < 0.8:
        look = _pick(rng, 'striped', 'checked', 'dotted')
        image = pattern(look, rgb, draw_rgb('white', rng), bool(rng.random() < 0.5), 64)
        return colour, look, 'fabric', _picture(image, 0.0)
    if draw < 0.9:
        return colour, 'plain', 'fabric', _picture(speckle(rng, rgb, 0.04), 0.0)
    return colour, 'plain', 'plastic', Finish(rgb, specular=0.2, shininess=0.4)


def build_room(rng: np.random.Generator, kind: str) -> Room:
    """Draw a room for a scene of this kind (``tabletop`` or ``floor``)."""
    half = float(rng.uniform(2.0, 2.8)) if kind == 'tabletop' else float(rng.uniform(2.4, 3.4))
    floor_colour, floor_pattern, floor_material, floor_finish = _floor(rng)
    wall_colour, wall_pattern, wall_finish = _wall(rng)
    period = float(rng.uniform(0.5, 1.0))
    h, side = half, 2 * half
    ground = sheet((-h, -h, 0), (side, 0, 0), (0, side, 0), 14, period)
    up = (0.0, 0.0, _WALL_HEIGHT)
    walls = merge(
        [
            sheet((-h, h, 0), (side, 0, 0), up, 8, 0.25),
            sheet((h, -h, 0), (-side, 0, 0), up, 8, 0.25),
            sheet((-h, -h, 0), (0, side, 0), up, 8, 0.25),
            sheet((h, h, 0), (0, -side, 0), up, 8, 0.25),
        ]
    )
    parts = [Part(FLOOR_ID, ground, floor_finish), Part(WALL_ID, walls, wall_finish)]
    objects = [
        SceneObject(
            FLOOR_ID, 'floor', floor_colour, floor_pattern, floor_material, 'medium',
            (0.0, 0.0, 0.0), (side, side, 0.0), surface=True,
        ),
        SceneObject(
            WALL_ID, 'wall', wall_colour, wall_pattern,
            'paper' if wall_pattern == 'striped' else '', 'medium',
            (0.0, 0.0, 0.0), (side, side, _WALL_HEIGHT), surface=True,
        ),
    ]  # fmt: skip
    if kind == 'floor':
        return Room(tuple(objects), tuple(parts), half, 0.0, FLOOR_ID, 0)
    x, y, z = float(rng.uniform(1.1, 1.7)), float(rng.uniform(0.9, 1.2)), 0.74
    thick = 0.04
    colour, look, material, finish = _top(rng)
    repeat = 0.12 if look != 'plain' else 0.5
    slab = box(x, y, thick, period=repeat).moved(z=z - thick)
    level = z + 1e-4  # a finer sheet over the slab, so that light varies over the top
    lid = sheet((-x / 2, -y / 2, level), (x, 0, 0), (0, y, 0), 10, repeat)
    legs = [
        box(0.06, 0.06, z - thick, period=0.5).moved(sx * (x / 2 - 0.06), sy * (y / 2 - 0.06))
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]
    parts.append(Part(TOP_ID, merge([slab, lid, *legs]), finish))
    objects.append(
        SceneObject(
            TOP_ID, 'tabletop', colour, look, material, 'medium',
            (0.0, 0.0, 0.0), (x, y, level), support=FLOOR_ID, surface=True,
        )
    )  # fmt: skip
    return Room(tuple(objects), tuple(parts), half, level, FLOOR_ID, TOP_ID)
