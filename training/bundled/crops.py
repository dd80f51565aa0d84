"""Training crops of photographs: scaled, mirrored, with other objects pasted in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from training.datasets.photographs import Photograph
from training.datasets.samples import read_pixels

LEAST_SHARE = 0.0015
"""Share of a crop below which a thing counts neither as shown nor as absent."""


def crop(
    photo: Photograph, size: int, rng: np.random.Generator, scales: tuple[float, float]
) -> Photograph:
    """Cut out a part, squeezed a little to a square, perhaps mirrored.

    Args:
        photo: A photograph.
        size: Side of the square, pixels.
        rng: Source of the draws.
        scales: Least and largest side of the part, relative to the photograph's.
    """
    height, width = photo.image.shape[:2]
    scale = rng.uniform(*scales)
    squeeze = np.exp(rng.uniform(-0.15, 0.15))
    w = min(width, max(32, round(width * scale * squeeze)))
    h = min(height, max(32, round(height * scale / squeeze)))
    # Around a thing that is there, in most crops: photographs are full of nothing in particular.
    x, y = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
    if photo.masks and rng.random() < 0.7:
        mask = photo.masks[list(photo.masks)[rng.integers(len(photo.masks))]]
        rows, columns = np.nonzero(mask)
        if len(rows):
            pick = rng.integers(len(rows))
            x = int(np.clip(columns[pick] - rng.uniform(0.25, 0.75) * w, 0, width - w))
            y = int(np.clip(rows[pick] - rng.uniform(0.25, 0.75) * h, 0, height - h))
    flip = rng.random() < 0.5
    part = (slice(y, y + h), slice(x, x + w))

    def square(pixels: NDArray[Any]) -> NDArray[Any]:
        shrunk = cv2.resize(pixels[part], (size, size), interpolation=cv2.INTER_AREA)
        return shrunk[:, ::-1] if flip else shrunk

    masks, unknown = {}, set(photo.unknown)
    for name, mask in photo.masks.items():
        small = square(mask.astype(np.uint8) * 255) >= 128
        if small.mean() >= LEAST_SHARE:
            masks[name] = small
        elif mask[part].any():
            unknown.add(name)
    image = np.ascontiguousarray(square(photo.image))
    return Photograph(image, masks, photo.vocabulary, unknown, photo.source, photo.name)


def paste(photo: Photograph, other: Photograph, rng: np.random.Generator) -> bool:
    """Paste an object of another photograph, with all of it that is known, into a crop.

    Returns:
        Whether there was something to paste.
    """
    size = photo.image.shape[0]
    fitting = [pair for pair in other.objects if 0.006 < pair[1].mean() < 0.5]
    if not fitting:
        return False
    name, mask = fitting[rng.integers(len(fitting))]
    rows, columns = np.nonzero(mask)
    box = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    cut = mask[box].astype(np.float32)
    pixels: NDArray[Any] = other.image[box]
    side = size * rng.uniform(0.18, 0.6) / max(cut.shape)
    shape = max(8, round(cut.shape[1] * side)), max(8, round(cut.shape[0] * side))
    alpha = cv2.resize(cut, shape, interpolation=cv2.INTER_AREA)
    pixels = cv2.resize(pixels, shape, interpolation=cv2.INTER_AREA)
    if rng.random() < 0.5:
        alpha, pixels = alpha[:, ::-1], pixels[:, ::-1]
    alpha = cv2.GaussianBlur(np.ascontiguousarray(alpha), (0, 0), 0.7)
    x = int(rng.integers(-shape[0] // 6, size - shape[0] * 5 // 6))
    y = int(rng.integers(-shape[1] // 6, size - shape[1] * 5 // 6))
    left, top = max(0, x), max(0, y)
    right, bottom = min(size, x + shape[0]), min(size, y + shape[1])
    inner = (slice(top - y, bottom - y), slice(left - x, right - x))
    place = (slice(top, bottom), slice(left, right))
    blend, pixels = alpha[inner][..., None], pixels[inner]
    image = photo.image.copy()
    image[place] = (blend * pixels + (1 - blend) * image[place]).round().astype(np.uint8)
    photo.image = image
    covered = np.zeros((size, size), bool)
    covered[place] = alpha[inner] >= 0.5
    kept = {}
    for known, there in photo.masks.items():
        left_over = there & ~covered
        if left_over.mean() >= LEAST_SHARE:
            kept[known] = left_over
        else:
            photo.unknown.add(known)
    # What lies on an object (a hand on a tool) may have come along.
    photo.unknown |= {n for n in other.unknown if n != name}
    for also, there in other.masks.items():
        if also != name and (there & mask).any():
            photo.unknown.add(also)
            kept.pop(also, None)
    if name not in photo.unknown or name in kept:
        kept[name] = kept[name] | covered if name in kept else covered
    photo.masks = {n: m for n, m in kept.items() if n not in photo.unknown}
    return True


def background(path: Path, size: int, rng: np.random.Generator) -> Photograph:
    """Read a photograph of which nothing is known, to paste into."""
    image = read_pixels(path, 'a pasted object')
    photo = Photograph(image, {}, (), set(), 'captioned', path.name)
    return crop(photo, size, rng, (0.6, 1.0))
