"""Where the cameras and the lights of a scene are."""

from __future__ import annotations

import numpy as np

from tabletop_world.catalogue.shapes import Array
from tabletop_world.scenes.blueprint import Light
from tabletop_world.scenes.placement import Item
from tabletop_world.scenes.rooms import Room
from tabletop_world.scenes.scene import Camera, Vector


def draw_cameras(
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
    """Draw one camera.

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
    return Camera(as_vector(position), as_vector(target), fovy)


def as_vector(values: Array) -> Vector:
    """Return three numbers as a tuple of floats."""
    return float(values[0]), float(values[1]), float(values[2])


def draw_lights(rng: np.random.Generator, towards: float) -> tuple[tuple[Light, ...], float]:
    """Draw a key light with shadows, a weaker one without, and the ambient strength."""
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
        lights.append(Light(down, as_vector(tint * strength), shadows))
    return tuple(lights), float(rng.uniform(0.40, 0.52))
