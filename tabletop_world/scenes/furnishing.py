"""Which items a scene has and where they stand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tabletop_world.catalogue.categories import CATEGORIES, HELD_OUT_PAIRS, SIZES, Category
from tabletop_world.catalogue.specimens import build
from tabletop_world.scenes.placement import Item, pose, put_in, put_on, rest_at, stand_free
from tabletop_world.scenes.rooms import Room

_FIRST_ITEM_ID = 4
_FOODS = ('apple', 'orange', 'lemon', 'banana', 'carrot')
_ON_FLAT = (
    *('mug', 'phone', 'candle', 'apple', 'book', 'block'),
    *('glass', 'remote', 'tape', 'can', 'clock'),
)
_FILLED_WITH = {'bowl': 'round', 'basket': 'round', 'pan': 'round', 'mug': 'long'}
_PAIRINGS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ('bowl', ()),
    ('basket', ()),
    ('mug', ()),
    ('book', _ON_FLAT),
    ('box', _ON_FLAT),
    ('plate', _FOODS),
    ('pan', ()),
)  # a thing that holds others, and what is put on it (if empty: whatever fills it)
_ON_PLATE = (*_FOODS, 'mug', 'candle', 'glass')
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
    rng: np.random.Generator,
    category: Category,
    held_out: bool,
    avoid: frozenset[str] = frozenset(),
) -> str:
    """Draw a colour of a category, not a held-out pair unless those are allowed."""
    allowed = [
        c
        for c in category.colours
        if c not in avoid and (held_out or (c, category.name) not in HELD_OUT_PAIRS)
    ]
    if not allowed:
        return _draw_colour(rng, category, held_out)
    return allowed[int(rng.integers(len(allowed)))]


def _material(rng: np.random.Generator, category: Category, colour: str) -> str:
    """Return the materials that go with the colour: grey cutlery is metal, brown is wood."""
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
    built = build(wish.name, rng, colour=wish.colour, look=look, material=material, scale=scale)
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
    """Draw what a group of items shall be, with look-alikes among them."""
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


def _try_on_or_in(rng: np.random.Generator, item: Item, placed: list[Item], chance: float) -> bool:
    """Put an item into or onto one that stands already, if chance and room allow."""
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


def furnish_tabletop(
    rng: np.random.Generator,
    room: Room,
    towards: float,
    split: str,
    first: tuple[str, str] | None,
) -> list[Item]:
    """Choose three to nine things and put them on the big table.

    Args:
        rng: Source of everything drawn.
        room: The room, made for this kind of scene.
        towards: Azimuth of the viewers, radians; fronts are turned to them.
        split: Held-out pairs may be drawn in ``unseen_pairs`` alone.
        first: (colour, category) of an item that must be there and in front, or None.

    Returns:
        The items that found a place, the one asked for first.
    """
    names = [c.name for c in CATEGORIES.values() if 'tabletop' in c.places]
    count = int(rng.integers(3, 10))
    held_out = split == 'unseen_pairs'
    wishes = _wishes(rng, names, count, held_out, first)
    guided = count >= 4 and first is None and bool(rng.random() < 0.65)
    if guided:
        host, guests = _PAIRINGS[int(rng.integers(len(_PAIRINGS)))]
        fitting = list(guests) or [n for n in names if CATEGORIES[n].fills == _FILLED_WITH[host]]
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
        chance = 1.0 if guided and k == count - 1 else 0.6
        if not forced and _try_on_or_in(rng, item, items, chance):
            items.append(item)
            continue
        centre = (0.0, 0.0)
        if forced:  # in front of the others, as seen from the cameras
            near = spread * 0.55
            centre = (near * float(np.cos(towards)), near * float(np.sin(towards)))
            rest_at(item, *centre, level)
            items.append(item)
            on_top.append(item)
            continue
        if stand_free(item, on_top, (spread * 1.15, spread), centre, level, rng):
            items.append(item)
            on_top.append(item)
    return items


def furnish_floor(
    rng: np.random.Generator,
    room: Room,
    towards: float,
    split: str,
    first: tuple[str, str] | None,
) -> list[Item]:
    """Choose furniture, things on the floor and small things on and in them.

    It takes and returns what :func:`furnish_tabletop` does.
    """
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
