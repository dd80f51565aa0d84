"""Other looks than a household's: the split ``textured``, to train on, and ``varied``, to test.

A model may learn its renderer instead of things. The scenes of this split hold the same things,
by the same names, but stand outside of what ``train`` draws: other surfaces under the things,
glossier or duller and grainier finishes, harder, dimmer and coloured lights, wider and narrower
lenses from lower, higher, nearer and farther, and pictures as a cheap sensor takes them.

``textured`` loosens what ``train`` draws without reaching there: lights and lenses stay those of
``train``, surfaces show gradients and stripes, and finishes move less.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tabletop_world.catalogue.making import Finish
from tabletop_world.scenes.blueprint import Blueprint, Light, Part
from tabletop_world.scenes.scene import Camera
from tabletop_world.scenes.viewpoints import as_vector

SURFACE_SIDE = 128
"""Side of the pictures on surfaces, pixels."""


def vary_blueprint(
    rng: np.random.Generator, blueprint: Blueprint, surfaces: Collection[int]
) -> Blueprint:
    """Change finishes and lights.

    Args:
        rng: Source of the draws.
        blueprint: Of the scene.
        surfaces: Ids of what is no item: table, floor, walls. They get new pictures; items keep
            their colours, since phrases name them.
    """
    changed: dict[tuple[Finish, bool], Finish] = {}
    parts = []
    for part in blueprint.parts:
        key = part.finish, part.object_id in surfaces
        if key not in changed:
            changed[key] = _surface(rng, part.finish) if key[1] else _item(rng, part.finish)
        parts.append(Part(part.object_id, part.mesh, changed[key]))
    lights, ambient = _lights(rng)
    return replace(blueprint, parts=tuple(parts), lights=lights, ambient=ambient)


def texture_blueprint(
    rng: np.random.Generator, blueprint: Blueprint, surfaces: Collection[int]
) -> Blueprint:
    """Change finishes alone, less than :func:`vary_blueprint` and in other ways.

    Arguments are those of :func:`vary_blueprint`.
    """
    changed: dict[tuple[Finish, bool], Finish] = {}
    parts = []
    for part in blueprint.parts:
        key = part.finish, part.object_id in surfaces
        if key not in changed:
            if key[1]:
                changed[key] = _striped(rng, part.finish)
            else:
                changed[key] = _item(rng, part.finish, (0.88, 1.1), (0.0, 0.03), 0.5)
        parts.append(Part(part.object_id, part.mesh, changed[key]))
    return replace(blueprint, parts=tuple(parts))


def _striped(rng: np.random.Generator, finish: Finish) -> Finish:
    """A gradient between two colours, with stripes over it half of the time, and a little grain."""
    rows, columns = np.mgrid[0 : 1 : SURFACE_SIDE * 1j, 0 : 1 : SURFACE_SIDE * 1j]
    angle = rng.uniform(-np.pi, np.pi)
    along = (np.cos(angle) * rows + np.sin(angle) * columns)[..., None]
    base, other = rng.uniform(0.15, 0.95, 3), rng.uniform(0.15, 0.95, 3)
    # Most floors and walls are near grey.
    base = base.mean() + rng.uniform(0.1, 0.6) * (base - base.mean())
    picture = base + rng.uniform(0, 0.4) * along * (other - base)
    if rng.random() < 0.5:
        stripes = np.sin(2 * np.pi * (rng.uniform(2, 14) * along + rng.random()))
        picture = picture + rng.uniform(0.02, 0.12) * (stripes > rng.uniform(-0.8, 0.8))
    picture = picture + rng.normal(0, rng.uniform(0.0, 0.03), picture.shape)
    return Finish(
        (1.0, 1.0, 1.0),
        finish.alpha,
        (np.clip(picture, 0.05, 0.98) * 255).astype(np.uint8),
        specular=float(rng.uniform(0.0, 0.4)),
        shininess=float(rng.uniform(0.1, 0.6)),
        emission=finish.emission,
    )


def _surface(rng: np.random.Generator, finish: Finish) -> Finish:
    """Blotches of two colours at two scales: neither the wood nor the tiles of training."""
    coarse = rng.random((int(rng.integers(3, 12)), int(rng.integers(3, 12))))
    blotches = Image.fromarray((coarse * 255).astype(np.uint8)).resize(
        (SURFACE_SIDE, SURFACE_SIDE), Image.Resampling.BICUBIC
    )
    fine = rng.normal(0, rng.uniform(0.02, 0.12), (SURFACE_SIDE, SURFACE_SIDE))
    share = np.clip(np.asarray(blotches) / 255 + fine, 0, 1)[..., None]
    base = rng.uniform(0.3, 0.9) + rng.uniform(-0.08, 0.08, 3)
    other = base + rng.uniform(-0.25, 0.25) + rng.uniform(-0.06, 0.06, 3)
    picture = np.clip((1 - share) * base + share * other, 0.05, 0.98)
    return Finish(
        (1.0, 1.0, 1.0),
        finish.alpha,
        (picture * 255).astype(np.uint8),
        specular=float(rng.uniform(0.0, 0.8)),
        shininess=float(rng.uniform(0.1, 0.9)),
        emission=finish.emission,
    )


def _item(
    rng: np.random.Generator,
    finish: Finish,
    shades: tuple[float, float] = (0.8, 1.15),
    grains: tuple[float, float] = (0.03, 0.12),
    glossiest: float = 0.9,
) -> Finish:
    """Another gloss, a shade lighter or darker, and grain; the hue stays."""
    shade = float(rng.uniform(*shades))
    grain = rng.normal(1.0, rng.uniform(*grains), (64, 64, 1))
    image = np.full((64, 64, 3), 255.0) if finish.image is None else finish.image.astype(float)
    if finish.image is not None:
        rows, columns = image.shape[:2]
        grain = np.resize(grain, (rows, columns, 1))
    red, green, blue = (min(1.0, c * shade) for c in finish.rgb)
    return Finish(
        (red, green, blue),
        finish.alpha,
        np.ascontiguousarray(np.clip(image * grain, 0, 255).astype(np.uint8)),
        specular=float(rng.uniform(0.0, glossiest)),
        shininess=float(rng.uniform(0.1, 0.95)),
        emission=finish.emission,
    )


def _lights(rng: np.random.Generator) -> tuple[tuple[Light, ...], tuple[float, float, float]]:
    """One to three lights from anywhere above, each with a tint of its own, and the ambient."""
    lights = []
    for index in range(int(rng.integers(1, 4))):
        azimuth, elevation = float(rng.uniform(-np.pi, np.pi)), float(rng.uniform(0.2, 1.45))
        tint = 1.0 + rng.uniform(-0.14, 0.14) * np.array([1.0, 0.2, -1.0])
        strength = float(rng.uniform(0.35, 0.65) if index == 0 else rng.uniform(0.05, 0.3))
        down = (
            -float(np.cos(azimuth) * np.cos(elevation)),
            -float(np.sin(azimuth) * np.cos(elevation)),
            -float(np.sin(elevation)),
        )
        lights.append(Light(down, as_vector(tint * strength), shadows=index == 0))
    ambient = float(rng.uniform(0.25, 0.55))
    return tuple(lights), (ambient, ambient, ambient)


def vary_camera(rng: np.random.Generator, camera: Camera, half: float) -> Camera:
    """Use another lens, from lower or higher, nearer or farther, about the same target.

    Args:
        rng: Source of the draws.
        camera: Of the scene.
        half: Half the side of the room, metres; the camera stays inside.
    """
    fovy = float(rng.uniform(26, 34) if rng.random() < 0.5 else rng.uniform(62, 76))
    offset = np.subtract(camera.position, camera.target)
    distance = float(np.linalg.norm(offset))
    azimuth = float(np.arctan2(offset[1], offset[0])) + float(rng.uniform(-0.3, 0.3))
    elevation = float(np.arcsin(offset[2] / distance)) + float(rng.uniform(-0.15, 0.2))
    elevation = float(np.clip(elevation, 0.12, 1.4))
    # As large in the picture as before, give or take a quarter.
    distance *= float(np.tan(np.radians(camera.fovy) / 2) / np.tan(np.radians(fovy) / 2))
    distance *= float(rng.uniform(0.8, 1.25))
    away = np.array(
        [
            np.cos(azimuth) * np.cos(elevation),
            np.sin(azimuth) * np.cos(elevation),
            np.sin(elevation),
        ]
    )
    position = np.asarray(camera.target) + away * distance
    position[:2] = np.clip(position[:2], -half + 0.15, half - 0.15)
    return Camera(as_vector(position), camera.target, fovy)


def sensor(rng: np.random.Generator, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture as a cheap camera takes it: balance, gamma, vignette, noise, JPEG.

    Args:
        rng: Source of the draws.
        rgb: uint8 (H, W, 3).
    """
    height, width = rgb.shape[:2]
    picture = (rgb / 255.0) ** rng.uniform(0.8, 1.25)
    picture = picture * (1.0 + rng.uniform(-0.08, 0.08, 3)) * rng.uniform(0.85, 1.1)
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    picture = picture * (1 - rng.uniform(0, 0.25) * (rows**2 + columns**2) / 2)[..., None]
    picture = picture + rng.normal(0, rng.uniform(0.005, 0.03), picture.shape)
    file = BytesIO()
    taken = Image.fromarray((np.clip(picture, 0, 1) * 255).round().astype(np.uint8))
    taken.save(file, 'JPEG', quality=int(rng.integers(45, 85)))
    return np.asarray(Image.open(file).convert('RGB'))
