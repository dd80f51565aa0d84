"""Builders of furniture and other things that stand on the floor."""

from __future__ import annotations

import numpy as np

from tabletop_world.catalogue.making import DARK, METAL, RUBBER, Maker, Opening, Shelf
from tabletop_world.catalogue.shapes import box, cylinder, lathe, rotation, sphere, tube


def _legs(m: Maker, x: float, y: float, height: float, radius: float, splay: float = 0.0) -> None:
    for sx in (-1, 1):
        for sy in (-1, 1):
            foot = (sx * (x + splay), sy * (y + splay), 0.0)
            m.add(tube([foot, (sx * x, sy * y, height)], radius, 8), m.body)


def chair(m: Maker) -> None:
    """Build a chair, its seat open towards +x."""
    x, seat, back = m.between(0.19, 0.22), m.between(0.42, 0.46), m.between(0.82, 0.92)
    _legs(m, x - 0.02, x - 0.02, seat, 0.016, m.between(0.0, 0.03))
    m.add(box(2 * x, 2 * x, 0.035, period=0.12).moved(z=seat))
    for side in (-1, 1):
        post = [(-x + 0.02, side * (x - 0.02), seat), (-x - 0.03, side * (x - 0.02), back)]
        m.add(tube(post, 0.015, 8), m.body)
    lean = rotation('y', -0.11)
    tall = back - seat - 0.04
    if m.chance(0.5):
        panel = box(0.02, 2 * x - 0.03, tall * 0.6, period=0.12)
        m.add(panel.turned(lean).moved(-x - 0.004, 0, seat + tall * 0.42))
    else:
        for k in range(3):
            slat = box(0.018, 2 * x - 0.03, 0.06, period=0.12)
            forward = -x + 0.01 - 0.012 * k
            m.add(slat.turned(lean).moved(forward, 0, seat + tall * (0.3 + 0.28 * k)))
    m.shelves.append(Shelf(x * 0.75, x * 0.75, seat + 0.035, headroom=0.35))


def stool(m: Maker) -> None:
    """Build a round stool with three or four legs."""
    r, h = m.between(0.15, 0.18), m.between(0.42, 0.62)
    m.add(cylinder(r, 0.04, 24).moved(z=h - 0.04))
    count = 3 if m.chance(0.4) else 4
    for k in range(count):
        a = 2 * np.pi * (k + 0.5) / count
        c, s = np.cos(a), np.sin(a)
        m.add(tube([(r * c, r * s, 0), (r * 0.65 * c, r * 0.65 * s, h - 0.03)], 0.015, 8), m.body)
    if m.chance(0.5):
        angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
        around = np.stack([np.cos(angle), np.sin(angle), np.zeros(16)], 1) * r * 0.85
        m.add(tube(around, 0.01, 6, closed=True).moved(z=h * 0.35), m.body)
    m.shelves.append(Shelf(r * 0.6, r * 0.6, h))


def table(m: Maker) -> None:
    """Build a small table: round on a column, or rectangular on four legs."""
    h = m.between(0.45, 0.72)
    if m.chance(0.4):
        r = m.between(0.26, 0.34)
        m.add(cylinder(r, 0.03, 30, 6).moved(z=h - 0.03))
        m.add(cylinder(0.03, h - 0.04, 12).moved(z=0.015), m.body)
        m.add(lathe([(0, 0), (r * 0.6, 0), (r * 0.58, 0.015), (0.03, 0.03), (0, 0.03)], 20), m.body)
        m.shelves.append(Shelf(r * 0.65, r * 0.65, h))
        return
    x, y = m.between(0.22, 0.3), m.between(0.28, 0.42)
    m.add(box(2 * x, 2 * y, 0.03, period=0.2).moved(z=h - 0.03))
    _legs(m, x - 0.03, y - 0.03, h - 0.03, 0.02)
    m.shelves.append(Shelf(x * 0.9, y * 0.9, h))


def shelf(m: Maker) -> None:
    """Build a bookcase, open towards +x."""
    depth, y, h = m.between(0.24, 0.3), m.between(0.5, 0.75), m.between(0.7, 1.15)
    t = 0.022
    boards = int(m.rng.integers(3, 5))
    for side in (-1, 1):
        m.add(box(depth, t, h, period=0.25).moved(0, side * (y / 2 - t / 2)))
    m.add(box(0.008, y - t, h - 0.03, period=0.25).moved(-depth / 2 + 0.004, 0, 0.03), m.dark)
    gap = (h - t - 0.04) / (boards - 1)
    for k in range(boards):
        level = 0.04 + k * gap
        m.add(box(depth, y - t, t, period=0.25).moved(z=level))
        room = gap - t if k + 1 < boards else 10.0
        m.shelves.append(Shelf(depth * 0.4, y * 0.42, level + t, headroom=room))


def cabinet(m: Maker) -> None:
    """Build a cabinet with drawers or two doors towards +x."""
    depth, y, h = m.between(0.35, 0.42), m.between(0.42, 0.7), m.between(0.55, 0.85)
    m.add(box(depth, y, h - 0.07, period=0.3).moved(z=0.05))
    m.add(box(depth * 0.9, y * 0.95, 0.05), DARK)
    m.add(box(depth + 0.02, y + 0.02, 0.02, period=0.3).moved(z=h - 0.02), m.body)
    knob = METAL if m.chance(0.6) else DARK
    front = depth / 2
    if m.chance(0.5):
        count = int(m.rng.integers(2, 5))
        tall = (h - 0.1) / count
        for k in range(count):
            z = 0.065 + k * tall
            m.add(box(0.012, y - 0.04, tall - 0.018, period=0.3).moved(front + 0.006, 0, z))
            grip = box(0.02, y * 0.3, 0.014).moved(front + 0.02, 0, z + tall * 0.55)
            m.add(grip, knob)
    else:
        for side in (-1, 1):
            door = box(0.012, y / 2 - 0.03, h - 0.11, period=0.3)
            m.add(door.moved(front + 0.006, side * y / 4, 0.065))
            m.add(sphere(0.014, 10, 7).moved(front + 0.024, side * 0.035, h * 0.55), knob)
    m.shelves.append(Shelf(depth * 0.42, y * 0.42, h))
    m.states.add('closed')


def bin_(m: Maker) -> None:
    """Build a waste bin: open, or with a lid and a pedal."""
    r, h = m.between(0.12, 0.15), m.between(0.28, 0.40)
    foot, w = r * m.between(0.75, 0.95), 0.006
    if m.chance(0.45):
        m.add(lathe([(0, 0), (foot, 0), (r, h)], 24, 6))
        lid = [
            (r + 0.006, h),
            (r + 0.006, h + 0.02),
            (r * 0.85, h + 0.05),
            (r * 0.5, h + 0.07),
            (0, h + 0.075),
        ]
        m.add(lathe(lid, 24), m.dark)
        m.add(box(0.06, 0.08, 0.02).moved(foot + 0.01, 0, 0.0), RUBBER)
        m.states.add('closed')
        return
    m.add(lathe([(0, 0), (foot, 0), (r, h), (r + 0.006, h + 0.004), (r - w, h)], 24, 6))
    m.add(lathe([(r - w, h), (foot - w, w), (0, w)], 24), m.dark)
    m.states.add('open')
    m.opening = Opening(foot - w, r - w, w, h)
