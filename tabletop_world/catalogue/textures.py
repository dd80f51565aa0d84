"""Small pictures that are wrapped around objects and surfaces, made from random numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
RGB = tuple[float, float, float]

PATTERNS = ('plain', 'striped', 'dotted', 'checked')


def _to_bytes(image: NDArray[np.float64]) -> Image:
    return np.ascontiguousarray(np.clip(image * 255.0 + 0.5, 0, 255), dtype=np.uint8)


def _mix(amount: NDArray[np.float64], low: RGB, high: RGB) -> Image:
    weight = amount[..., None]
    return _to_bytes((1 - weight) * np.array(low) + weight * np.array(high))


def pattern(name: str, main: RGB, accent: RGB, upright: bool, side: int = 32) -> Image:
    """One repetition of a pattern in which the main colour covers more than the accent.

    Args:
        name: ``striped``, ``dotted`` or ``checked``.
        main: Dominant colour, 0…1.
        accent: Second colour, 0…1.
        upright: Whether stripes run along the second texture coordinate.
        side: Width and height in pixels.

    Raises:
        ValueError: If there is no such pattern.
    """
    grid = (np.arange(side) + 0.5) / side
    u, v = np.meshgrid(grid, grid)
    if name == 'striped':
        across = u if upright else v
        chosen = across < 0.38
    elif name == 'dotted':
        chosen = (u - 0.5) ** 2 + (v - 0.5) ** 2 < 0.29**2
    elif name == 'checked':
        chosen = (u < 0.47) ^ (v < 0.53)
        chosen &= ~((u > 0.96) | (v > 0.96))
    else:
        raise ValueError(f'no pattern is called {name!r}; there are {PATTERNS[1:]}')
    return _mix(chosen.astype(np.float64), main, accent)


def wood(rng: np.random.Generator, base: RGB, side: int = 64) -> Image:
    """Grain along the first texture coordinate, with the seams of a few boards."""
    boards = int(rng.integers(1, 5))
    rows = np.repeat(rng.normal(0.0, 0.05, boards), side // boards + 1)[:side]
    grain = rng.normal(0.0, 1.0, (side, 1)) * 0.04 + rng.normal(
        0.0, 0.02, (side, side // 8)
    ).repeat(8, axis=1)
    tone = 1.0 + rows[:, None] + grain
    if boards > 1:
        tone[:: max(side // boards, 1)] *= 0.75
    return _to_bytes(np.array(base) * tone[..., None])


def speckle(rng: np.random.Generator, base: RGB, strength: float, side: int = 64) -> Image:
    """Fine noise, as of stone, carpet or paper."""
    tone = 1.0 + rng.normal(0.0, strength, (side, side))
    return _to_bytes(np.array(base) * tone[..., None])


def tiles(base: RGB, other: RGB, joint: RGB, side: int = 64) -> Image:
    """Two by two tiles with joints."""
    half = side // 2
    image = np.empty((side, side, 3))
    image[:] = base
    image[:half, :half] = other
    image[half:, half:] = other
    image[[0, 1, half, half + 1]] = joint
    image[:, [0, 1, half, half + 1]] = joint
    return _to_bytes(image)


def bands(base: RGB, other: RGB, share: float, side: int = 32) -> Image:
    """Upright bands, as of wallpaper."""
    chosen = np.broadcast_to((np.arange(side) + 0.5) / side < share, (side, side))
    return _mix(chosen.astype(np.float64), base, other)


def keys(key: RGB, gap: RGB, columns: int, rows: int, cell: int = 8) -> Image:
    """Build a block of rectangular keys, as of a keyboard or a remote control."""
    image = np.empty((rows * cell, columns * cell, 3))
    image[:] = gap
    for row in range(rows):
        y = row * cell
        for column in range(columns):
            x = column * cell
            image[y + 1 : y + cell - 1, x + 1 : x + cell - 1] = key
    return _to_bytes(image)


def weave(main: RGB, shade: RGB, side: int = 32) -> Image:
    """Over-and-under wickerwork."""
    grid = np.arange(side)
    u, v = np.meshgrid(grid, grid)
    block = ((u // (side // 2)) + (v // (side // 2))) % 2
    position = np.where(block == 0, u, v) % (side // 2)
    edge = np.abs(position / (side / 2 - 1) - 0.5) * 2
    return _mix(0.75 * edge**2, main, shade)
