"""Where things stand: beside each other, on each other and in each other, without touching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tabletop_world.catalogue.categories import CATEGORIES
from tabletop_world.catalogue.making import Shelf
from tabletop_world.catalogue.shapes import Array, rotation
from tabletop_world.catalogue.specimens import Built


@dataclass(eq=False)
class Item:
    """A specimen with its place in the world.

    Attributes:
        name: Category.
        colour: Name of the dominant colour.
        pattern: Name of the pattern.
        material: Name of the material.
        size: ``small``, ``medium`` or ``large``.
        built: Its geometry.
        id: Id in the scene.
        turn: 3 × 3 rotation from its own frame to the world.
        yaw: Rotation about the vertical, radians.
        place: World position of its frame's origin.
        support: Id of what it rests on or in.
        relation: ``on`` or ``in``.
        states: What shows.
        guests: Items that stand on it or in it.
    """

    name: str
    colour: str
    pattern: str
    material: str
    size: str
    built: Built
    id: int = 0
    turn: Array = field(default_factory=lambda: np.eye(3))
    yaw: float = 0.0
    place: Array = field(default_factory=lambda: np.zeros(3))
    support: int = 0
    relation: str = 'on'
    states: set[str] = field(default_factory=set)
    guests: list[Item] = field(default_factory=list)

    def bounds(self) -> tuple[Array, Array]:
        """Return the lower and upper corner of its axis-aligned bounding box in the world."""
        points = [mesh.vertices @ self.turn.T for mesh, _ in self.built.parts]
        low = np.min([p.min(axis=0) for p in points], axis=0) + self.place
        high = np.max([p.max(axis=0) for p in points], axis=0) + self.place
        return low, high

    def footprint(self) -> Array:
        """Return the corners (4, 2) of the rectangle that it covers on its support."""
        low, high = np.array(self.built.low), np.array(self.built.high)
        xs, ys, zs = ([low[k], high[k]] for k in range(3))
        corners = np.array([(x, y, z) for x in xs for y in ys for z in zs]) @ self.turn.T
        flat = rotation('z', -self.yaw)[:2, :2]
        own = corners[:, :2] @ flat.T
        lo, hi = own.min(axis=0), own.max(axis=0)
        rectangle = np.array([lo, (hi[0], lo[1]), hi, (lo[0], hi[1])])
        return rectangle @ flat + self.place[:2]


def collide(first: Array, second: Array, margin: float) -> bool:
    """Return whether two rectangles (4, 2) of corners are closer than a margin, metres.

    The distance is measured along the rectangles' edges (separating axes).
    """
    for rectangle in (first, second):
        for k in (0, 1):
            edge = rectangle[k + 1] - rectangle[k]
            axis = np.array([-edge[1], edge[0]])
            axis = axis / max(float(np.hypot(*axis)), 1e-9)
            a, b = first @ axis, second @ axis
            if a.max() + margin < b.min() or b.max() + margin < a.min():
                return False
    return True


def pose(item: Item, yaw: float, lying: bool = False) -> None:
    """Turn an item about the vertical, after laying it on its side if asked to."""
    turn = rotation('z', yaw)
    if lying:
        turn = turn @ rotation('y', np.pi / 2)
        item.states.add('lying')
    item.turn, item.yaw = turn, yaw


def rest_at(item: Item, x: float, y: float, z: float) -> None:
    """Put the item's lowest point at height ``z`` and its frame at (x, y)."""
    lowest = min(float((mesh.vertices @ item.turn[2]).min()) for mesh, _ in item.built.parts)
    item.place = np.array([x, y, z - lowest])


def stand_free(
    item: Item,
    others: Sequence[Item],
    spread: tuple[float, float],
    centre: tuple[float, float],
    level: float,
    rng: np.random.Generator,
    *,
    margin: float = 0.012,
    tries: int = 40,
) -> bool:
    """Find a free place near a centre; nearer places are tried first.

    Args:
        item: What to place; already turned.
        others: Items that stand on the same surface.
        spread: Half sizes of the region, metres.
        centre: Middle of the region.
        level: Height of the surface.
        rng: Source of the places.
        margin: Free room between items, metres.
        tries: Number of places tried.

    Returns:
        Whether a place was found.
    """
    taken = [other.footprint() for other in others]
    for attempt in range(tries):
        reach = 0.35 + 0.65 * (attempt + 1) / tries
        x = centre[0] + float(rng.uniform(-1, 1)) * spread[0] * reach
        y = centre[1] + float(rng.uniform(-1, 1)) * spread[1] * reach
        rest_at(item, x, y, level)
        mine = item.footprint()
        if np.any(np.abs(mine - centre) > np.array(spread) + 0.12):
            continue
        if not any(collide(mine, other, margin) for other in taken):
            return True
    return False


def put_on(
    item: Item, support: Item, shelf: Shelf, rng: np.random.Generator, tries: int = 8
) -> bool:
    """Put an item on a level place of another one, beside what stands there already.

    Returns:
        Whether it fits.
    """
    low, high = item.bounds()
    if float(high[2] - low[2]) > shelf.headroom:
        return False
    if not CATEGORIES[item.name].faces and 'lying' not in item.states:
        quarter = int(rng.integers(4)) * np.pi / 2
        pose(item, support.yaw + quarter + float(rng.normal(0.0, 0.15)))
    level = float(support.place[2]) + shelf.height
    same = [g for g in support.guests if abs(float(g.bounds()[0][2]) - level) < 1e-6]
    flat = support.turn[:2, :2]
    for _ in range(tries):
        local = np.array(shelf.centre) + rng.uniform(-1, 1, 2) * (shelf.x, shelf.y) * 0.7
        if CATEGORIES[item.name].support:
            local = np.array(shelf.centre) + rng.uniform(-1, 1, 2) * (shelf.x, shelf.y) * 0.12
        spot = flat @ local + support.place[:2]
        rest_at(item, float(spot[0]), float(spot[1]), level)
        corners = (item.footprint() - support.place[:2]) @ flat - shelf.centre
        if np.any(np.abs(corners) > np.array([shelf.x, shelf.y]) * 1.06):
            continue
        if any(collide(item.footprint(), g.footprint(), 0.008) for g in same):
            continue
        item.support, item.relation = support.id, 'on'
        support.guests.append(item)
        return True
    return False


def _inner_radius(support: Item, height: float) -> float:
    opening = support.built.opening
    assert opening is not None
    share = (height - opening.floor) / max(opening.rim - opening.floor, 1e-6)
    return opening.bottom + (opening.top - opening.bottom) * float(np.clip(share, 0.0, 1.0))


def _drop_round(item: Item, support: Item, rng: np.random.Generator) -> bool:
    """Lay a roundish thing into a container, beside or on top of what lies there."""
    opening = support.built.opening
    if opening is None:
        return False
    low, high = np.array(item.built.low), np.array(item.built.high)
    radius = float(np.max(high - low)) / 2
    if radius > opening.top * 0.8:
        return False
    guests = [(g.place[:2] - support.place[:2], g) for g in support.guests]
    best: tuple[float, float, float] | None = None
    for _ in range(24):
        room = max(opening.top - radius, 0.0)
        angle = float(rng.uniform(0, 2 * np.pi))
        away = room * (float(rng.uniform(0.3, 0.95)) if guests else float(rng.uniform(0, 0.4)))
        x, y = away * np.cos(angle), away * np.sin(angle)
        height = opening.floor
        while _inner_radius(support, height + radius) < away + radius and height < opening.rim:
            height += 0.004
        for where, guest in guests:
            reach = radius + float(np.max(np.array(guest.built.high) - guest.built.low)) / 2
            flat = float(np.hypot(x - where[0], y - where[1]))
            if flat < reach:
                middle = float(guest.bounds()[0][2] + guest.bounds()[1][2]) / 2
                above = middle - float(support.place[2]) + np.sqrt(reach**2 - flat**2) - radius
                height = max(height, above)
        if height + radius < opening.rim + radius * 0.9 and (best is None or height < best[2]):
            best = (x, y, height)
    if best is None:
        return False
    rest_at(
        item,
        float(support.place[0]) + best[0],
        float(support.place[1]) + best[1],
        float(support.place[2]) + best[2],
    )
    return True


def _lean_long(item: Item, support: Item, rng: np.random.Generator) -> bool:
    """Stand a long thing in a vessel, leaning on its rim."""
    opening = support.built.opening
    if opening is None or any(CATEGORIES[g.name].fills != 'long' for g in support.guests):
        return False
    low, high = np.array(item.built.low), np.array(item.built.high)
    length = float(high[0] - low[0])
    thick = float(high[1] - low[1]) / 2
    deep = opening.rim - opening.floor
    if length < deep * 1.25 or thick > opening.bottom * 0.7:
        return False
    angle = float(rng.uniform(0, 2 * np.pi))
    if support.guests:
        angle = support.guests[-1].yaw + float(rng.uniform(0.9, 1.6))
    start = -(opening.bottom - thick) * 0.8
    end = opening.top - 0.008
    lean = float(np.arctan2(end - start, deep))
    # Cutlery stands on its handle (its -x end), pens on their -x end as well.
    turn = rotation('z', angle) @ rotation('y', lean - np.pi / 2)
    foot = np.array([low[0], 0.0, (low[2] + high[2]) / 2])
    base = rotation('z', angle) @ np.array([start, 0.0, opening.floor + thick * np.sin(lean)])
    item.turn, item.yaw = turn, angle
    item.place = support.place + base - turn @ foot
    bottom = float(item.bounds()[0][2]) - float(support.place[2]) - opening.floor
    if bottom < 0:
        item.place = item.place - (0, 0, bottom)
    return True


def put_in(item: Item, support: Item, rng: np.random.Generator) -> bool:
    """Put an item into a container.

    Returns:
        Whether it fits.
    """
    fills = CATEGORIES[item.name].fills
    vessel = support.name == 'mug'
    if fills == 'round' and not vessel:
        done = _drop_round(item, support, rng)
    elif fills == 'long' and vessel:
        done = _lean_long(item, support, rng)
    else:
        done = False
    if done:
        item.support, item.relation = support.id, 'in'
        support.guests.append(item)
        support.states.discard('empty')
    return done
