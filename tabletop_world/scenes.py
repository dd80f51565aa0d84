"""Random scenes of the household world, the same ones for the same seed and split."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from .blueprint import Blueprint, Light, Part
from .catalogue import (
    CATEGORIES,
    HELD_OUT_PAIRS,
    SIZES,
    Category,
    build,
)
from .placement import Item, pose, put_in, put_on, rest_at, stand_free
from .rooms import Room, build_room
from .scene import Camera, Scene, SceneObject
from .shapes import Array

SPLITS = ('train', 'val', 'test', 'unseen_pairs')
KINDS = ('tabletop', 'floor')

_FIRST_ITEM_ID = 4
_TOP_FOODS = ('apple', 'orange', 'lemon', 'banana', 'carrot')
_ON_PLATE = (*_TOP_FOODS, 'mug', 'candle', 'glass')
_WOODEN = ('spoon', 'spatula')
_LYING = ('bottle', 'can')


@dataclass(frozen=True)
class _Wish:
    """An item that is to be made."""

    name: str
    colour: str
    pattern: str = ''


def _draw_category(rng: np.random.Generator, names: list[str]) -> str:
    weights = np.array([CATEGORIES[n].weight for n in names])
    return names[int(rng.choice(len(names), p=weights / weights.sum()))]


def _draw_colour(
    rng: np.random.Generator, category: Category, held_out: bool, avoid: frozenset[str] = frozenset()
) -> str:
    """Draws a colour of a category, not a held-out pair unless those are allowed."""
    allowed = [
        c
        for c in category.colours
        if c not in avoid and (held_out or (c, category.name) not in HELD_OUT_PAIRS)
    ]
    if not allowed:
        return _draw_colour(rng, category, held_out)
    return allowed[int(rng.integers(len(allowed)))]


def _material(rng: np.random.Generator, category: Category, colour: str) -> str:
    """Materials that go with the colour: grey cutlery is of metal, brown of wood."""
    if category.name in ('spoon', 'fork', 'spatula'):
        if colour == 'brown':
            return 'wood'
        return 'metal' if colour == 'grey' else 'plastic'
    if category.name in ('chair', 'stool', 'hammer') and colour == 'brown':
        return 'wood'
    return category.materials[int(rng.integers(len(category.materials)))]


def _make(rng: np.random.Generator, wish: _Wish, on_floor: bool) -> Item:
    category = CATEGORIES[wish.name]
    look = wish.pattern or 'plain'
    if not wish.pattern and len(set(category.patterns)) > 1 and rng.random() < 0.42:
        look = category.patterns[int(rng.integers(len(category.patterns)))]
    if look == 'checked' and wish.colour in ('black', 'white', 'grey'):
        look = 'striped'  # half black and half white would go by either name
    size = ('small', 'medium', 'medium', 'large')[int(rng.integers(4))]
    scale = float(rng.uniform(*SIZES[size]))
    if 'floor' in category.places and len(category.places) == 1:
        scale = 1.0 + (scale - 1.0) * 0.6  # furniture varies less
    if on_floor:
        scale *= category.floor_scale
    material = _material(rng, category, wish.colour)
    built = build(
        wish.name, rng, colour=wish.colour, look=look, material=material, scale=scale
    )
    item = Item(wish.name, wish.colour, look, material, size, built)
    item.states.update(built.states)
    return item


def _wishes(
    rng: np.random.Generator,
    names: list[str],
    count: int,
    held_out: bool,
    first: tuple[str, str] | None,
) -> list[_Wish]:
    """Draws what a group of items shall be, with look-alikes among them."""
    wishes: list[_Wish] = []
    if first is not None:
        wishes.append(_Wish(first[1], first[0]))
    twins, same_colour = bool(rng.random() < 0.38), bool(rng.random() < 0.3)
    while len(wishes) < count:
        name = _draw_category(rng, names)
        wishes.append(_Wish(name, _draw_colour(rng, CATEGORIES[name], held_out)))
    if twins and count >= 2:
        name = wishes[0].name
        if len(set(CATEGORIES[name].colours)) == 1:
            several = [n for n in names if len(set(CATEGORIES[n].colours)) > 2]
            name = _draw_category(rng, several)
            if first is None:
                wishes[0] = _Wish(name, _draw_colour(rng, CATEGORIES[name], held_out))
        avoid = frozenset({wishes[0].colour})
        for k in range(1, 3 if count > 4 and rng.random() < 0.35 else 2):
            colour = _draw_colour(rng, CATEGORIES[name], held_out, avoid)
            wishes[k] = _Wish(name, colour)
            avoid |= {colour}
    if same_colour and count >= 2:
        colour = wishes[0].colour
        fitting = [
            n
            for n in names
            if n != wishes[0].name
            and colour in CATEGORIES[n].colours
            and (held_out or (colour, n) not in HELD_OUT_PAIRS)
        ]
        if fitting and colour:
            wishes[-1] = _Wish(_draw_category(rng, fitting), colour)
    return wishes


def _yaw(rng: np.random.Generator, category: Category, towards: float) -> float:
    if category.faces:
        return towards + float(rng.uniform(-0.75, 0.75))
    return float(rng.uniform(-np.pi, np.pi))


def _try_on_or_in(
    rng: np.random.Generator, item: Item, placed: list[Item], chance: float
) -> bool:
    """Puts an item into or onto one that stands already, if chance and room allow."""
    fills = CATEGORIES[item.name].fills
    if fills and rng.random() < max(chance, 0.7):
        hosts = [p for p in placed if p.built.opening is not None]
        for k in rng.permutation(len(hosts)):
            if put_in(item, hosts[k], rng):
                return True
    if rng.random() < chance:
        hosts = [p for p in placed if p.built.shelves]
        for k in rng.permutation(len(hosts)):
            host = hosts[k]
            if host.name == 'plate' and item.name not in _ON_PLATE:
                continue
            if host.name == 'block' and item.name != 'block':
                continue
            shelves = host.built.shelves
            if put_on(item, host, shelves[int(rng.integers(len(shelves)))], rng):
                return True
    return False


def _furnish_tabletop(
    rng: np.random.Generator,
    room: Room,
    towards: float,
    split: str,
    first: tuple[str, str] | None,
) -> list[Item]:
    names = [c.name for c in CATEGORIES.values() if 'tabletop' in c.places]
    count = int(rng.integers(3, 10))
    held_out = split == 'unseen_pairs'
    wishes = _wishes(rng, names, count, held_out, first)
    guided = count >= 4 and first is None and bool(rng.random() < 0.65)
    if guided:
        host, guest = (
            ('bowl', 'round'), ('basket', 'round'), ('mug', 'long'), ('book', ''), ('box', ''),
            ('plate', 'food'), ('pan', 'round'),
        )[int(rng.integers(7))]  # fmt: skip
        fitting = [n for n in names if guest and CATEGORIES[n].fills == guest]
        if guest == 'food':
            fitting = list(_TOP_FOODS)
        elif not guest:
            fitting = ['mug', 'phone', 'candle', 'apple', 'book', 'block', 'glass', 'remote', 'tape', 'can', 'clock']
        wishes[-2] = _Wish(host, _draw_colour(rng, CATEGORIES[host], held_out))
        guest_name = _draw_category(rng, fitting)
        wishes[-1] = _Wish(guest_name, _draw_colour(rng, CATEGORIES[guest_name], held_out))
    spread = 0.11 + 0.022 * count
    level = room.level
    items: list[Item] = []
    on_top: list[Item] = []
    for k, wish in enumerate(wishes):
        category = CATEGORIES[wish.name]
        item = _make(rng, wish, False)
        lying = wish.name in _LYING and rng.random() < 0.12
        pose(item, _yaw(rng, category, towards), lying)
        item.id = _FIRST_ITEM_ID + len(items)
        item.support = room.top_id
        forced = k == 0 and first is not None
        if not forced and _try_on_or_in(rng, item, items, 1.0 if guided and k == count - 1 else 0.6):
            items.append(item)
            continue
        centre = (0.0, 0.0)
        if forced:  # in front of the others, as seen from the cameras
            near = spread * 0.55
            centre = (near * float(np.cos(towards)), near * float(np.sin(towards)))
            item.place = np.array([*centre, level])
            rest_at(item, *centre, level)
            items.append(item)
            on_top.append(item)
            continue
        if stand_free(item, on_top, (spread * 1.15, spread), centre, level, rng):
            items.append(item)
            on_top.append(item)
    return items


def _furnish_floor(
    rng: np.random.Generator,
    room: Room,
    towards: float,
    split: str,
    first: tuple[str, str] | None,
) -> list[Item]:
    held_out = split == 'unseen_pairs'
    names = [c.name for c in CATEGORIES.values() if 'floor' in c.places]
    pieces = [n for n in names if CATEGORIES[n].support and len(CATEGORIES[n].places) == 1]
    others = [n for n in names if n not in pieces]
    small = [
        c.name for c in CATEGORIES.values() if 'furniture' in c.places and c.name not in ('laptop',)
    ]
    first_piece = first if first is not None and first[1] in pieces else None
    first_other = first if first is not None and first_piece is None else None
    wishes = _wishes(rng, pieces, int(rng.integers(1, 4)), held_out, first_piece)
    loose = _wishes(rng, others, int(rng.integers(1, 4)), held_out, first_other)
    wishes = wishes + loose if first_other is None else loose + wishes
    spread = 0.42 + 0.12 * len(wishes)
    items: list[Item] = []
    for k, wish in enumerate(wishes):
        category = CATEGORIES[wish.name]
        item = _make(rng, wish, True)
        pose(item, _yaw(rng, category, towards))
        item.id = _FIRST_ITEM_ID + len(items)
        item.support = room.floor_id
        if k == 0 and first is not None:
            near = spread * 0.5
            rest_at(item, near * float(np.cos(towards)), near * float(np.sin(towards)), 0.0)
            items.append(item)
        elif _try_on_or_in(rng, item, items, 0.1) or stand_free(
            item, items, (spread, spread), (0.0, 0.0), 0.0, rng, margin=0.03
        ):
            items.append(item)
    for wish in _wishes(rng, small, int(rng.integers(1, 5)), held_out, None):
        item = _make(rng, wish, False)
        pose(item, _yaw(rng, CATEGORIES[wish.name], towards))
        item.id = _FIRST_ITEM_ID + len(items)
        if _try_on_or_in(rng, item, items, 1.0):
            items.append(item)
    return items


def _cameras(
    rng: np.random.Generator, items: list[Item], room: Room, towards: float, kind: str, star: bool
) -> tuple[Camera, ...]:
    """Two cameras: one that takes in the group, one that may be a close-up."""
    boxes = np.array([item.bounds() for item in items])
    middles, sizes = boxes.mean(axis=1), np.linalg.norm(boxes[:, 1] - boxes[:, 0], axis=1)
    cameras = []
    for k in range(2):
        camera = _camera(rng, boxes, middles, sizes, room, towards, kind, k == 1, star)
        for _ in range(40 if star else 8):
            if not _blocked(camera, boxes) and (not star or _sees(camera, boxes, 0)):
                break
            camera = _camera(rng, boxes, middles, sizes, room, towards, kind, k == 1, star)
        cameras.append(camera)
    return tuple(cameras)


def _blocked(camera: Camera, boxes: Array) -> bool:
    """Whether some item stands right before the camera."""
    position, target = np.array(camera.position), np.array(camera.target)
    nearest = np.clip(position, boxes[:, 0], boxes[:, 1])
    closest = float(np.linalg.norm(nearest - position, axis=1).min())
    return closest < 0.45 * float(np.linalg.norm(target - position))


def _sees(camera: Camera, boxes: Array, index: int) -> bool:
    """Whether an item is large, near the middle of the view and behind no other item's box."""
    position, target = np.array(camera.position), np.array(camera.target)
    forward = (target - position) / np.linalg.norm(target - position)
    middle, size = boxes[index].mean(axis=0), np.linalg.norm(boxes[index, 1] - boxes[index, 0])
    ray = middle - position
    along = float(ray @ forward)
    half = along * float(np.tan(np.radians(camera.fovy) / 2))
    if along <= 0 or np.linalg.norm(ray - along * forward) > 0.75 * half:
        return False
    if size < 0.24 * half:
        return False
    with np.errstate(divide='ignore', invalid='ignore'):
        slabs = (boxes - position[None, None]) / ray  # where the ray enters and leaves each slab
    enter, leave = slabs.min(axis=1).max(axis=1), slabs.max(axis=1).min(axis=1)
    before = (enter < leave) & (leave > 0) & (enter < 0.95)
    before[index] = False
    return not before.any()


def _camera(
    rng: np.random.Generator,
    boxes: Array,
    middles: Array,
    sizes: Array,
    room: Room,
    towards: float,
    kind: str,
    close: bool,
    star: bool,
) -> Camera:
    """Draws one camera.

    Args:
        rng: Source of the view.
        boxes: The items' bounding boxes (N, 2, 3).
        middles: Their middles (N, 3).
        sizes: Their diagonals (N,).
        room: The room to stay in.
        towards: Azimuth about which cameras are drawn, radians.
        kind: Kind of the scene.
        close: Whether it may be a close-up.
        star: Whether a close-up must show the first item.
    """
    fovy = float(rng.uniform(35, 60))
    azimuth = towards + float(rng.uniform(-0.9, 0.9))
    low, high = (20, 70) if kind == 'tabletop' else (12, 50)
    elevation = np.radians(rng.uniform(low, high))
    narrow = float(np.tan(np.radians(fovy) / 2))
    if close and rng.random() < 0.6:
        chosen = 0 if star else int(rng.integers(len(boxes)))
        target = middles[chosen].copy()
        radius = max(float(sizes[chosen]) * float(rng.uniform(0.75, 1.5)), 0.09)
    else:
        target = 0.25 * (boxes[:, 0].min(axis=0) + boxes[:, 1].max(axis=0))
        target = target + 0.5 * middles.mean(axis=0)
        radius = float(np.linalg.norm(middles[:, :2] - target[:2], axis=1).max())
        radius = (radius + 0.3 * float(np.median(sizes))) * float(rng.uniform(0.75, 1.0))
    nearest, farthest = (0.42, 1.3) if kind == 'tabletop' else (1.1, 3.2)
    distance = float(np.clip(radius / narrow, nearest, farthest))
    target = target + rng.normal(0, 0.09, 3) * distance * narrow
    away = np.array(
        [
            np.cos(azimuth) * np.cos(elevation),
            np.sin(azimuth) * np.cos(elevation),
            np.sin(elevation),
        ]
    )
    position = target + away * distance
    position[:2] = np.clip(position[:2], -room.half + 0.15, room.half - 0.15)
    return Camera(_vector(position), _vector(target), fovy)


def _vector(values: Array) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])


def _lights(rng: np.random.Generator, towards: float) -> tuple[tuple[Light, ...], float]:
    """A key light with shadows and a weaker one without; and the ambient strength."""
    tint = 1.0 + rng.uniform(-0.05, 0.05) * np.array([1.0, 0.1, -1.0])
    lights = []
    for strength, shadows in ((rng.uniform(0.34, 0.48), True), (rng.uniform(0.18, 0.28), False)):
        azimuth = towards + float(rng.uniform(-2.4, 2.4) if shadows else rng.uniform(-0.8, 0.8))
        elevation = float(rng.uniform(0.75, 1.35) if shadows else rng.uniform(0.25, 0.7))
        down = (
            -float(np.cos(azimuth) * np.cos(elevation)),
            -float(np.sin(azimuth) * np.cos(elevation)),
            -float(np.sin(elevation)),
        )
        lights.append(Light(down, _vector(tint * strength), shadows))
    return tuple(lights), float(rng.uniform(0.40, 0.52))


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
        extent=_vector(high - low),
        yaw=float(np.arctan2(np.sin(item.yaw), np.cos(item.yaw))),
        support=item.support,
        relation=item.relation,
        states=frozenset(item.states),
    )


def generate_scene(seed: int, split: str = 'train', kind: str | None = None) -> Scene:
    """Makes a scene; the same arguments make the same scene in every process.

    Args:
        seed: Any integer from 0.
        split: ``train``, ``val``, ``test``, or ``unseen_pairs``: the last one has at least one
            of :data:`~tabletop_world.catalogue.HELD_OUT_PAIRS` in every scene, the others never.
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
    furnish = _furnish_tabletop if kind == 'tabletop' else _furnish_floor
    items = furnish(rng, room, towards, split, first)
    cameras = _cameras(rng, items, room, towards, kind, first is not None)
    lights, ambient = _lights(rng, towards)
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
    objects = (*room.objects, *(_describe(item) for item in items))
    return Scene(seed, split, kind, objects, cameras, blueprint)
