"""Random scenes of the household world, the same ones for the same seed and split."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np

from tabletop_world.catalogue.categories import CATEGORIES, HELD_OUT_PAIRS
from tabletop_world.scenes.blueprint import Blueprint, Part
from tabletop_world.scenes.furnishing import furnish_floor, furnish_tabletop
from tabletop_world.scenes.placement import Item
from tabletop_world.scenes.rooms import build_room
from tabletop_world.scenes.scene import Scene, SceneObject
from tabletop_world.scenes.variation import texture_blueprint, vary_blueprint, vary_camera
from tabletop_world.scenes.viewpoints import as_vector, draw_cameras, draw_lights

SPLITS = ('train', 'textured', 'val', 'test', 'unseen_pairs', 'varied')
KINDS = ('tabletop', 'floor')


def _describe(item: Item) -> SceneObject:
    low, high = item.bounds()
    return SceneObject(
        id=item.id,
        category=item.name,
        colour=item.colour,
        pattern=item.pattern,
        material=item.material,
        size=item.size,
        position=(float(low[0] + high[0]) / 2, float(low[1] + high[1]) / 2, float(low[2])),
        extent=as_vector(high - low),
        yaw=float(np.arctan2(np.sin(item.yaw), np.cos(item.yaw))),
        support=item.support,
        relation=item.relation,
        states=frozenset(item.states),
    )


def generate_scene(seed: int, split: str = 'train', kind: str | None = None) -> Scene:
    """Make a scene; the same arguments make the same scene in every process.

    Args:
        seed: Any integer from 0.
        split: ``train``, ``val``, ``test``, ``textured`` and ``varied`` (see
            :mod:`tabletop_world.scenes.variation`), or ``unseen_pairs``: the last one has at least
            one of :data:`~tabletop_world.catalogue.categories.HELD_OUT_PAIRS` in every scene, the
            others never.
        kind: ``tabletop`` or ``floor``; drawn (three to one) if None.

    Raises:
        ValueError: If the seed is negative, or there is no such split or kind.
    """
    if split not in SPLITS:
        raise ValueError(f'no split is called {split!r}; there are {", ".join(SPLITS)}')
    if kind is not None and kind not in KINDS:
        raise ValueError(f'no kind of scene is called {kind!r}; there are {", ".join(KINDS)}')
    if seed < 0:
        raise ValueError(f'a seed must be 0 or more, not {seed}')
    rng = np.random.default_rng([seed, zlib.crc32(split.encode())])
    drawn = 'tabletop' if rng.random() < 0.75 else 'floor'
    kind = kind or drawn
    first = None
    if split == 'unseen_pairs':
        fitting = [p for p in sorted(HELD_OUT_PAIRS) if kind in CATEGORIES[p[1]].places]
        first = fitting[int(rng.integers(len(fitting)))]
    towards = float(rng.uniform(-np.pi, np.pi))
    room = build_room(rng, kind)
    furnish = furnish_tabletop if kind == 'tabletop' else furnish_floor
    items = furnish(rng, room, towards, split, first)
    cameras = draw_cameras(rng, items, room, towards, kind, first is not None)
    lights, ambient = draw_lights(rng, towards)
    parts = list(room.parts)
    for item in items:
        for mesh, finish in item.built.parts:
            x, y, z = item.place
            parts.append(Part(item.id, mesh.turned(item.turn).moved(x, y, z), finish))
    parts.sort(key=lambda part: part.finish.alpha < 1.0)
    blueprint = Blueprint(
        parts=tuple(parts),
        lights=lights,
        ambient=(ambient, ambient, ambient),
        centre=(0.0, 0.0, room.level + 0.1),
        reach=1.7 if kind == 'tabletop' else 3.0,
    )
    surfaces = room.objects
    if split in ('textured', 'varied'):
        change = texture_blueprint if split == 'textured' else vary_blueprint
        blueprint = change(rng, blueprint, [surface.id for surface in surfaces])
        if split == 'varied':
            cameras = tuple(vary_camera(rng, camera, room.half) for camera in cameras)
        # Their new pictures have neither a colour with a name nor a material.
        surfaces = tuple(replace(s, colour='', pattern='plain', material='') for s in surfaces)
    objects = (*surfaces, *(_describe(item) for item in items))
    return Scene(seed, split, kind, objects, cameras, blueprint)
