"""Frames put together by hand: objects as rectangles, without a renderer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tabletop_world.scenes.scene import Camera, Frame, Scene, SceneObject

FLOOR, WALL, TABLE = 1, 2, 3
HEIGHT, WIDTH = 120, 160


@dataclass(frozen=True)
class Thing:
    """An object and the rectangle (x0, y0, x1, y1) in which it shows, None if it is hidden."""

    object: SceneObject
    box: tuple[int, int, int, int] | None


def thing(
    object_id: int,
    category: str,
    box: tuple[int, int, int, int] | None,
    *,
    colour: str = 'brown',
    pattern: str = 'plain',
    material: str = 'ceramic',
    size: str = 'medium',
    support: int = TABLE,
    relation: str = 'on',
    position: tuple[float, float, float] = (0.0, 0.0, 0.75),
    extent: tuple[float, float, float] = (0.1, 0.1, 0.1),
    states: Iterable[str] = (),
) -> Thing:
    """Returns an item on the table."""
    return Thing(
        SceneObject(
            object_id,
            category,
            colour,
            pattern,
            material,
            size,
            position,
            extent,
            support=support,
            relation=relation,
            states=frozenset(states),
        ),
        box,
    )


def frame_of(*things: Thing, split: str = 'train', surfaces: bool = True, seed: int = 0) -> Frame:
    """Returns a frame of 120 × 160 pixels: wall above, table below, things painted in order.

    The camera stands at y = -2 and looks along +y; x is to the right in the picture.
    """
    instances = np.zeros((HEIGHT, WIDTH), np.uint8)
    objects = []
    if surfaces:
        instances[: HEIGHT // 4] = WALL
        instances[HEIGHT // 4 :] = TABLE
        for object_id, category, colour in (
            (FLOOR, 'floor', 'purple'),
            (WALL, 'wall', 'grey'),
            (TABLE, 'tabletop', 'black'),
        ):
            objects.append(
                SceneObject(
                    object_id,
                    category,
                    colour,
                    'plain',
                    '',
                    'medium',
                    (0.0, 0.0, 0.0),
                    (2.0, 2.0, 0.75),
                    surface=True,
                )
            )
    for one in things:
        objects.append(one.object)
        if one.box is not None:
            x0, y0, x1, y1 = one.box
            instances[y0:y1, x0:x1] = one.object.id
    pose = np.eye(4)
    pose[:3, :3] = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    pose[:3, 3] = (0.0, -2.0, 1.0)
    camera = Camera((0.0, -2.0, 1.0), (0.0, 0.0, 1.0))
    rng = np.random.default_rng(seed)
    return Frame(
        Scene(seed, split, 'tabletop', tuple(objects), (camera,)),
        camera,
        rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8),
        instances,
        np.ones((HEIGHT, WIDTH), np.float32),
        np.eye(3),
        pose,
    )
