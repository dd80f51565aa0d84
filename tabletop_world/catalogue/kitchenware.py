"""Builders of crockery, cookware and cutlery."""

from __future__ import annotations

import numpy as np

from tabletop_world.catalogue.making import (
    DARK,
    FLAME,
    LEAF,
    METAL,
    TIMBER,
    Finish,
    Maker,
    Opening,
    Shelf,
)
from tabletop_world.catalogue.shapes import (
    arc,
    box,
    cone,
    cylinder,
    lathe,
    prism,
    ring,
    rotation,
    sphere,
    tube,
)

_DRINKS = (
    Finish((0.20, 0.10, 0.05), specular=0.4),
    Finish((0.62, 0.30, 0.08), specular=0.4),
    Finish((0.94, 0.92, 0.86), specular=0.3),
)
_JUICES = (
    Finish((0.95, 0.55, 0.10)),
    Finish((0.75, 0.10, 0.10)),
    Finish((0.72, 0.83, 0.90)),
)
_WINES = (Finish((0.38, 0.03, 0.08)), Finish((0.90, 0.82, 0.42)))


def _side_handle(m: Maker, radius: float, middle: float, reach: float, height: float) -> None:
    """Build a handle on the +x side of a vessel."""
    path = arc(1.0, -1.75, 1.75, 10) * (reach, 1.0, height)
    m.add(tube(path, 0.0065, 8, flat=1.25).moved(radius - 0.002, 0, middle), m.body)


def mug(m: Maker) -> None:
    """Build a mug with a handle at +x, full of coffee, tea or milk, or empty."""
    r, h = m.between(0.037, 0.044), m.between(0.085, 0.105)
    foot = r * m.between(0.78, 1.0)
    w = 0.004
    m.add(lathe([(0, 0), (foot, 0), (r, h * 0.35), (r, h), (r - w, h), (r - w, h * 0.35)], 22, 6))
    m.add(lathe([(r - w, h * 0.35), (foot - w, 0.006), (0, 0.006)], 22), m.body)
    _side_handle(m, r, h * 0.52, r * 0.62, h * 0.32)
    m.opening = Opening(foot - w, r - w, 0.006, h)
    if m.chance(0.45):
        level = h * m.between(0.7, 0.88)
        m.add(cylinder(r - w, 0.001, 20).moved(z=level), _DRINKS[int(m.rng.integers(3))])
        m.states.add('full')
        m.opening = None
    else:
        m.states.add('empty')


def glass(m: Maker) -> None:
    """Build a tumbler, full of juice or water, or empty."""
    r, h = m.between(0.032, 0.039), m.between(0.10, 0.14)
    foot, w = r * m.between(0.75, 0.95), 0.003
    if m.chance(0.5):
        level = h * m.between(0.5, 0.85)
        wide = foot + (r - foot) * level / h - w
        m.add(
            cone(foot - w, wide, level - 0.008, 18).moved(z=0.008),
            _JUICES[int(m.rng.integers(3))],
        )
        m.states.add('full')
    else:
        m.states.add('empty')
    m.add(lathe([(0, 0), (foot, 0), (r, h), (r - w, h)], 20))


def wine_glass(m: Maker) -> None:
    """Build a stemmed glass, with red or white wine, or empty."""
    r, h = m.between(0.036, 0.044), m.between(0.17, 0.21)
    stem = h * 0.45
    bowl = [
        (0.004, stem),
        (r * 0.75, stem + h * 0.1),
        (r, stem + h * 0.24),
        (r * 0.92, stem + h * 0.4),
        (r * 0.8, h),
    ]
    foot = [(0, 0), (r * 0.85, 0), (r * 0.85, 0.003), (0.006, 0.008), (0.004, 0.02)]
    if m.chance(0.6):
        wine = [
            (0.0, stem + 0.004),
            (r * 0.7, stem + h * 0.1),
            (r * 0.9, stem + h * 0.22),
            (0, stem + h * 0.22),
        ]
        m.add(lathe(wine, 18), _WINES[int(m.rng.integers(2))])
        m.states.add('full')
    else:
        m.states.add('empty')
    m.add(lathe([*foot, *bowl, (r * 0.8 - 0.003, h)], 20))


def bowl(m: Maker) -> None:
    """Build a bowl on a narrow foot."""
    r, h, w = m.between(0.07, 0.085), m.between(0.05, 0.07), 0.005
    foot = r * 0.45
    outer = [(0, 0), (foot, 0), (r * 0.75, h * 0.3), (r * 0.94, h * 0.65), (r, h)]
    inner = [(r - w, h), (r * 0.94 - w, h * 0.65), (r * 0.75 - w, h * 0.33), (foot, w), (0, w)]
    m.add(lathe(outer, 26, 8))
    m.add(lathe([(r, h), *inner], 26, 8), m.main if m.chance(0.5) else m.body)
    m.opening = Opening(r * 0.55, r - w, w, h)


def plate(m: Maker) -> None:
    """Build a flat plate whose rim carries the pattern."""
    r, h = m.between(0.10, 0.125), 0.018
    under = [(0, 0), (r * 0.6, 0), (r, h - 0.004), (r, h)]
    m.add(lathe(under, 28), m.body)
    m.add(lathe([(r, h), (r * 0.68, 0.007)], 28, 12))
    m.add(lathe([(r * 0.68, 0.007), (r * 0.6, 0.005), (0, 0.005)], 28), m.body)
    m.shelves.append(Shelf(r * 0.45, r * 0.45, 0.005))


def bottle(m: Maker) -> None:
    """Build a bottle with a cap, most often with a label."""
    r, h = m.between(0.030, 0.038), m.between(0.21, 0.27)
    neck = r * m.between(0.32, 0.42)
    shoulder, throat = h * m.between(0.55, 0.65), h * 0.78
    profile = [
        (0, 0),
        (r * 0.95, 0),
        (r, 0.008),
        (r, shoulder),
        (r * 0.75, (shoulder + throat) / 2),
    ]
    m.add(lathe([*profile, (neck, throat), (neck, h - 0.01), (0, h - 0.01)], 20, 5))
    cap = DARK if m.chance(0.4) else m.accent
    m.add(cylinder(neck * 1.25, 0.022, 14).moved(z=h - 0.022), cap)
    if m.chance(0.6):
        low, high = h * 0.2, h * m.between(0.36, 0.45)
        m.add(lathe([(r + 0.0008, low), (r + 0.0008, high)], 20, 6), m.accent)


def can(m: Maker) -> None:
    """Build a drinks can with metal ends, at times with a band."""
    r, h = m.between(0.031, 0.036), m.between(0.10, 0.125)
    lid = [(r * 0.86, h), (r * 0.84, h - 0.004), (0, h - 0.004)]
    m.add(lathe([(0, 0), (r * 0.85, 0), (r, 0.008)], 20), METAL)
    m.add(lathe([(r, 0.008), (r, h - 0.01)], 20, 5))
    m.add(lathe([(r, h - 0.01), (r * 0.88, h), *lid], 20), METAL)
    m.add(box(0.016, 0.01, 0.0015).moved(0.006, 0, h - 0.004), METAL)
    if m.chance(0.5):
        m.add(lathe([(r + 0.0006, h * 0.35), (r + 0.0006, h * 0.6)], 20, 5), m.accent)


def vase(m: Maker) -> None:
    """Build a bellied vase, at times with flowers."""
    h = m.between(0.17, 0.24)
    r = h * m.between(0.24, 0.32)
    neck, lip = r * m.between(0.35, 0.55), r * m.between(0.6, 0.8)
    belly = m.between(0.3, 0.5)
    outer = [
        (0, 0),
        (r * 0.6, 0),
        (r * 0.9, h * belly * 0.5),
        (r, h * belly),
        (r * 0.85, h * (belly + 0.17)),
        (neck, h * 0.86),
        (lip, h),
    ]
    m.add(lathe([*outer, (lip - 0.004, h), (neck - 0.004, h * 0.86), (0, h * 0.8)], 22, 6))
    if m.chance(0.3):
        petals = Finish(
            ((0.95, 0.75, 0.1), (0.92, 0.92, 0.9), (0.85, 0.3, 0.5))[int(m.rng.integers(3))]
        )
        for _ in range(int(m.rng.integers(2, 5))):
            lean, turn = m.between(0.02, 0.05), m.between(0, 6.28)
            tip = np.array([lean * np.cos(turn), lean * np.sin(turn), h * m.between(1.25, 1.45)])
            stem = np.stack([np.array([0, 0, h * 0.82]), tip * (0.4, 0.4, 0.8), tip])
            m.add(tube(stem, 0.002, 5), LEAF)
            m.add(sphere(0.013, 10, 6).moved(*tip), petals)
        m.states.add('full')
    else:
        m.states.add('empty')


def pot(m: Maker) -> None:
    """Build a cooking pot with two dark handles, with or without its lid."""
    r, h, w = m.between(0.085, 0.105), m.between(0.09, 0.12), 0.004
    m.add(lathe([(0, 0), (r * 0.95, 0), (r, 0.01), (r, h)], 26, 8))
    m.add(lathe([(r, h), (r - w, h), (r - w, w), (0, w)], 26), METAL if m.chance(0.4) else m.body)
    for side in (-1, 1):
        path = arc(0.03, -1.57, 1.57, 8)[:, [2, 0, 1]] * (1, side, 1)
        m.add(tube(path, 0.006, 7).moved(0, side * (r - 0.003), h * 0.78), DARK)
    if m.chance(0.5):
        m.add(
            lathe([(r, h), (r * 1.02, h + 0.005), (r * 0.6, h + 0.018), (0, h + 0.022)], 24), m.body
        )
        m.add(lathe([(0.006, h + 0.02), (0.016, h + 0.04), (0, h + 0.043)], 12), DARK)
        m.states.add('closed')
    else:
        m.states.add('open')
        m.opening = Opening(r - w, r - w, w, h)


def pan(m: Maker) -> None:
    """Build a frying pan with a long handle towards +x."""
    r, h, w = m.between(0.095, 0.115), m.between(0.035, 0.045), 0.004
    m.add(lathe([(0, 0), (r * 0.84, 0), (r, h)], 28), m.body)
    m.add(lathe([(r, h), (r - w, h), (r * 0.84 - w, w), (0, w)], 28), m.body)
    path = [
        (r - 0.004, 0, h * 0.8),
        (r + 0.05, 0, h * 0.95),
        (r + m.between(0.14, 0.17), 0, h * 1.2),
    ]
    m.add(tube(path, (0.006, 0.009, 0.010), 8, flat=0.6), DARK if m.chance(0.5) else m.body)
    m.opening = Opening(r * 0.8, r - w, w, h)


def kettle(m: Maker) -> None:
    """Build a kettle with a spout, a handle over the top and a knob."""
    r, h = m.between(0.075, 0.088), m.between(0.11, 0.14)
    body = [(0, 0), (r * 0.9, 0), (r, h * 0.25), (r * 0.92, h * 0.6), (r * 0.6, h * 0.93), (0, h)]
    m.add(lathe(body, 24, 6))
    m.add(sphere(0.012, 12, 8).moved(z=h + 0.008), DARK)
    spout = [(r * 0.85, 0, h * 0.35), (r * 1.2, 0, h * 0.55), (r * 1.42, 0, h * 0.98)]
    m.add(tube(spout, (0.02, 0.014, 0.009), 10), m.body)
    handle = arc(1.0, 0.12, np.pi - 0.12, 12) * (r * 0.8, 1, h * 0.62)
    m.add(tube(handle, 0.007, 8).moved(0, 0, h * 0.75), DARK if m.chance(0.5) else m.body)


def jug(m: Maker) -> None:
    """Build a tall jug with a handle at +x and a lip opposite."""
    r, h, w = m.between(0.045, 0.055), m.between(0.17, 0.21), 0.004
    outer = [(0, 0), (r * 0.85, 0), (r, h * 0.3), (r * 0.75, h * 0.75), (r * 0.88, h)]
    m.add(lathe([*outer, (r * 0.88 - w, h), (r * 0.75 - w, h * 0.75)], 22, 6))
    m.add(lathe([(r * 0.75 - w, h * 0.75), (r - w, h * 0.3), (0, w)], 22), m.body)
    _side_handle(m, r * 0.86, h * 0.56, r * 0.8, h * 0.3)
    lip = prism([(-0.018, -0.022), (-0.018, 0.022), (0.018, 0.003), (0.018, -0.003)], 0.004)
    tilt = rotation('z', np.pi) @ rotation('y', -0.35)
    m.add(lip.turned(tilt).moved(-r * 0.88 - 0.006, 0, h - 0.008), m.body)


def _handle(m: Maker, start: float, end: float, height: float, width: float) -> None:
    """Build a flat handle along x."""
    path = [(start, 0, height), ((start + end) / 2, 0, height), (end, 0, height)]
    m.add(tube(path, (width * 0.7, width, width * 1.25), 8, flat=0.45), m.body)


def spoon(m: Maker) -> None:
    """Build a spoon, its bowl towards +x."""
    wooden = m.material == 'wood'
    length = m.between(0.20, 0.25) if wooden else m.between(0.15, 0.18)
    wide = 0.021 if not wooden else 0.026
    outer = [(0, 0), (0.55, 0.05), (0.85, 0.25), (1.0, 0.5)]
    inner = [(0.92, 0.5), (0.75, 0.28), (0.45, 0.12), (0, 0.08)]
    scoop = lathe([*outer, *inner], 18).scaled(wide * 1.45, wide, 0.017)
    m.add(scoop.moved(length / 2 - wide * 1.45), m.body)
    _handle(m, length / 2 - wide * 2.7, -length / 2, 0.008, 0.006 if wooden else 0.0055)


def fork(m: Maker) -> None:
    """Build a fork with four tines towards +x."""
    length = m.between(0.16, 0.19)
    _handle(m, length / 2 - 0.065, -length / 2, 0.006, 0.0055)
    neck = [
        (-0.012, -0.006),
        (0.0, -0.012),
        (0.018, -0.013),
        (0.018, 0.013),
        (0.0, 0.012),
        (-0.012, 0.006),
    ]
    m.add(prism(neck, 0.003).moved(length / 2 - 0.06, 0, 0.004), m.body)
    for k in range(4):
        tine = tube([(0, 0, 0), (0.025, 0, 0.001), (0.046, 0, 0.006)], (0.0024, 0.0024, 0.001), 5)
        m.add(tine.moved(length / 2 - 0.044, (k - 1.5) * 0.0072, 0.0055), m.body)


def knife(m: Maker) -> None:
    """Build a kitchen knife, its blade towards +x."""
    length = m.between(0.20, 0.26)
    tip = length / 2
    blade = [(-0.01, -0.014), (tip * 0.7, -0.014), (tip, 0.011), (-0.01, 0.014)]
    m.add(
        prism(blade, 0.003).moved(z=0.006),
        METAL if m.colour in ('black', 'brown', 'grey') else m.body,
    )
    m.add(box(length / 2 - 0.005, 0.024, 0.015).moved(-length / 4 - 0.003), m.body)
    for x in (-length * 0.16, -length * 0.34):
        m.add(cylinder(0.003, 0.016, 8).moved(x), METAL)


def spatula(m: Maker) -> None:
    """Build a slotted spatula, its blade towards +x."""
    length = m.between(0.26, 0.31)
    grip = TIMBER if m.chance(0.4) and m.material != 'wood' else m.body
    m.add(tube([(-length / 2, 0, 0.009), (length * 0.2, 0, 0.009)], 0.0085, 8), grip)
    front = length / 2
    slots = 3
    bar = 0.07 / (2 * slots + 1)
    for k in range(slots + 1):
        m.add(
            box(0.085, bar * 1.25, 0.005).moved(front - 0.0425, (k - slots / 2) * bar * 2, 0.005),
            m.body,
        )
    for x in (front - 0.085, front - 0.008):
        m.add(box(0.016, 0.07, 0.006).moved(x, 0, 0.0045), m.body)


def bucket(m: Maker) -> None:
    """Build a bucket with a wire handle, up or folded down."""
    r, h, w = m.between(0.12, 0.14), m.between(0.22, 0.27), 0.005
    foot = r * 0.75
    m.add(lathe([(0, 0), (foot, 0), (r, h), (r + 0.008, h), (r - w, h + 0.002)], 24, 6))
    m.add(lathe([(r - w, h + 0.002), (foot - w, w), (0, w)], 24), m.body)
    lying = m.chance(0.5)
    path = arc(r + 0.006, 0.0, np.pi, 14)[:, [1, 0, 2]]
    handle = tube(path, 0.005, 6)
    m.add(handle.turned(rotation('y', 1.15 if lying else 0.0)).moved(z=h - 0.01), METAL)
    m.opening = Opening(foot - w, r - w, w, h)


def basket(m: Maker) -> None:
    """Build a round wickerwork basket, most often with a handle over it."""
    r, h, w = m.between(0.10, 0.13), m.between(0.09, 0.13), 0.007
    foot = r * 0.8
    m.add(lathe([(0, 0), (foot, 0), (r, h)], 22, 10))
    m.add(lathe([(r - w, h), (foot - w, w), (0, w)], 22, 10))
    m.add(ring(r - w / 2, w, 24, 6).moved(z=h), m.body)
    if m.chance(0.7):
        path = arc(1.0, 0.0, np.pi, 14)[:, [1, 0, 2]] * (1, r, h * 1.05)
        m.add(tube(path, 0.007, 6).moved(0, 0, h), m.body)
    m.opening = Opening(foot - w, r - w, w, h)


def candle(m: Maker) -> None:
    """Build a candle, at times on a metal dish, at times lit."""
    r, h = m.between(0.018, 0.034), m.between(0.07, 0.15)
    base = 0.0
    if m.chance(0.4):
        base = 0.006
        m.add(
            lathe([(0, 0), (r * 1.7, 0), (r * 1.9, 0.012), (r * 1.5, base), (0, base)], 18), METAL
        )
    m.add(lathe([(0, 0), (r, 0), (r, h), (r * 0.8, h), (0, h - 0.005)], 18, 4).moved(z=base))
    m.add(cylinder(0.0018, 0.018, 6).moved(z=base + h - 0.006), DARK)
    if m.chance(0.5):
        flame = [(0, 0), (0.006, 0.008), (0.005, 0.016), (0, 0.032)]
        m.add(lathe(flame, 10).moved(z=base + h + 0.008), FLAME)
        m.states.add('lit')
