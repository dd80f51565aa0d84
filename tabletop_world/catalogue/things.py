"""Builders of food, toys, tools, stationery and electronics."""

from __future__ import annotations

import numpy as np

from tabletop_world.catalogue.making import (
    CREAM,
    DARK,
    LEAF,
    METAL,
    PAPER,
    RUBBER,
    SCREEN,
    STALK,
    TIMBER,
    Finish,
    Maker,
    Opening,
    Shelf,
)
from tabletop_world.catalogue.shapes import (
    Mesh,
    box,
    cylinder,
    lathe,
    prism,
    ring,
    rotation,
    sphere,
    tube,
)
from tabletop_world.catalogue.textures import keys


def ball(m: Maker) -> None:
    """Build a ball."""
    r = m.between(0.032, 0.042)
    m.add(sphere(r, 22, 13, 4).turned(rotation('x', m.between(0, 1.5))).moved(z=r))


def apple(m: Maker) -> None:
    """Build an apple with a stalk, at times with a leaf."""
    r = m.between(0.036, 0.042)
    path = [
        (0, 0.12), (0.35, 0.0), (0.75, 0.25), (0.97, 0.75), (1.0, 1.1), (0.85, 1.5), (0.5, 1.72),
        (0.2, 1.66), (0, 1.5),
    ]  # fmt: skip
    m.add(lathe([(x * r, z * r) for x, z in path], 20), m.body)
    m.add(tube([(0, 0, r * 1.5), (0.002, 0, r * 1.75), (0.006, 0, r * 2.0)], 0.002, 5), STALK)
    if m.chance(0.5):
        leaf = sphere(1.0, 8, 6).scaled(0.012, 0.006, 0.0015)
        m.add(leaf.turned(rotation('y', -0.4)).moved(0.016, 0, r * 1.9), LEAF)


def orange(m: Maker) -> None:
    """Build an orange."""
    r = m.between(0.036, 0.042)
    m.add(sphere(r, 20, 12).scaled(1, 1, 0.95).moved(z=r * 0.95), m.body)
    m.add(cylinder(0.004, 0.002, 8).moved(z=r * 1.89), LEAF)


def lemon(m: Maker) -> None:
    """Build a lemon lying on its side."""
    r = m.between(0.025, 0.030)
    path = [
        (0, -1.5),
        (0.22, -1.4),
        (0.4, -1.15),
        (0.85, -0.6),
        (1, 0),
        (0.85, 0.6),
        (0.4, 1.15),
        (0.22, 1.4),
        (0, 1.5),
    ]
    m.add(
        lathe([(x * r, z * r) for x, z in path], 18).turned(rotation('y', 1.571)).moved(z=r), m.body
    )


def banana(m: Maker) -> None:
    """Build a bent banana lying flat."""
    angle = np.linspace(-0.95, 0.95, 11)
    bend = m.between(0.075, 0.09)
    path = np.stack([bend * np.sin(angle), bend * np.cos(angle) - bend * 0.8, np.zeros(11)], 1)
    radius = np.array(
        [0.004, 0.006, 0.013, 0.016, 0.0175, 0.018, 0.0175, 0.016, 0.013, 0.007, 0.004]
    )
    m.add(tube(path, radius, 7).moved(z=0.0175), m.body)
    ends = tube(path[-2:] * 1.0, (0.0075, 0.0045), 6)
    m.add(ends.moved(z=0.0175), STALK)


def carrot(m: Maker) -> None:
    """Build a carrot with its greens towards +x."""
    length, r = m.between(0.14, 0.18), m.between(0.016, 0.020)
    root = lathe(
        [(0, 0), (r * 0.25, 0.01), (r * 0.7, length * 0.5), (r, length * 0.92), (0, length)], 12
    )
    m.add(root.turned(rotation('y', 1.571)).moved(-length / 2, 0, r), m.body)
    for k in range(5):
        turn = (k - 2) * 0.35
        tip = (length / 2 + 0.045 * np.cos(turn), 0.045 * np.sin(turn), r + 0.006 * (k % 3))
        m.add(tube([(length / 2 - 0.004, 0, r), tip], (0.0025, 0.006), 5), LEAF)


def book(m: Maker) -> None:
    """Build a book lying flat, closed with a title, or open."""
    x, y, h = m.between(0.13, 0.17), m.between(0.19, 0.24), m.between(0.018, 0.045)
    if m.chance(0.15):
        for side in (-1, 1):
            cover = box(x, y, 0.004).moved(side * x / 2)
            m.add(cover.turned(rotation('y', -side * 0.06)).moved(z=0.006), m.main)
            pages = box(x - 0.026, y - 0.044, h * 0.4).moved(side * (x / 2 - 0.013), 0, 0.004)
            m.add(pages.turned(rotation('y', -side * 0.06)).moved(z=0.006), PAPER)
        m.states.add('open')
        return
    c = 0.0035
    m.add(box(x, y, c))
    m.add(box(x, y, c).moved(z=h - c))
    m.add(box(c, y, h).moved(-x / 2 + c / 2))
    m.add(box(x - 0.012, y - 0.012, h - 2 * c).moved(z=c), PAPER)
    m.add(box(x * 0.6, y * 0.14, 0.0006).moved(0, y * 0.22, h), m.accent)
    m.add(box(x * 0.4, y * 0.05, 0.0006).moved(0, -y * 0.1, h), m.accent)
    m.shelves.append(Shelf(x * 0.47, y * 0.47, h))
    m.states.add('closed')


def carton(m: Maker) -> None:
    """Build a cardboard box, closed with a band of tape, or open with its flaps up."""
    x, y, h = m.between(0.10, 0.16), m.between(0.08, 0.12), m.between(0.06, 0.12)
    if m.chance(0.4):
        w = 0.004
        for sx, sy, px, py in (
            (x, w, 0, y / 2),
            (x, w, 0, -y / 2),
            (w, y, x / 2, 0),
            (w, y, -x / 2, 0),
        ):
            m.add(box(sx, sy, h).moved(px, py))
        m.add(box(x, y, w), m.body)
        for side in (-1, 1):
            flap = box(x, y * 0.45, 0.003).moved(0, side * y * 0.225)
            m.add(flap.turned(rotation('x', side * 0.5)).moved(0, side * y / 2, h - 0.002), m.body)
        m.states.add('open')
        inside = min(x, y) / 2 - w
        m.opening = Opening(inside, inside, w, h)
        return
    m.add(box(x, y, h))
    m.add(box(x * 1.001, y * 0.16, h * 1.002), m.accent if m.chance(0.5) else m.body)
    m.shelves.append(Shelf(x * 0.48, y * 0.48, h * 1.002))
    m.states.add('closed')


def block(m: Maker) -> None:
    """Build a toy block: a cube, a brick or a slab."""
    s = m.between(0.038, 0.05)
    style = int(m.rng.integers(3))
    if style == 0:
        m.add(box(s, s, s))
    elif style == 1:
        m.add(box(s * 1.9, s, s))
    else:
        m.add(box(s * 1.6, s * 0.8, s * 0.6))
    top = max(v[0].vertices[:, 2].max() for v in m.parts)
    m.shelves.append(Shelf(s * 0.5, s * 0.4, float(top)))


def _keys(m: Maker, columns: int, rows: int) -> Finish:
    base = np.array(m.body.rgb)
    light = base.mean() < 0.3
    key = base * 0.6 + 0.25 if light else base
    gap = base * 0.4
    return Finish((1.0, 1.0, 1.0), image=keys(tuple(key), tuple(gap), columns, rows), specular=0.1)


def laptop(m: Maker) -> None:
    """Build an open laptop, its keys towards +x, its screen dark or on."""
    x, y, t = m.between(0.20, 0.24), m.between(0.29, 0.34), 0.014
    m.add(box(x, y, t), m.body)
    m.add(box(x * 0.5, y * 0.9, 0.0012, fit=True).moved(-x * 0.14, 0, t), _keys(m, 6, 14))
    m.add(box(x * 0.24, y * 0.3, 0.0008).moved(x * 0.32, 0, t), m.dark)
    lean = rotation('y', -m.between(0.15, 0.5))
    lid = box(0.008, y, x)
    m.add(lid.turned(lean).moved(-x / 2, 0, t * 0.6), m.body)
    glow = m.chance(0.5)
    tint = (0.25, 0.45, 0.75) if m.chance(0.5) else (0.75, 0.82, 0.88)
    screen = Finish(tint, emission=0.5, specular=0.1) if glow else SCREEN
    panel = box(0.002, y * 0.88, x * 0.82).moved(0.0045, 0, x * 0.09)
    m.add(panel.turned(lean).moved(-x / 2, 0, t * 0.6), screen)
    m.states.update({'open', 'on'} if glow else {'open'})


def keyboard(m: Maker) -> None:
    """Build a keyboard, its near side towards +x."""
    x, y = m.between(0.12, 0.14), m.between(0.34, 0.42)
    m.add(box(x, y, 0.016), m.body)
    m.add(box(x * 0.88, y * 0.96, 0.006, fit=True).moved(0, 0, 0.015), _keys(m, 5, 16))


def phone(m: Maker) -> None:
    """Build a phone lying on its face, showing its back and cameras; a black one lies face up."""
    x, y, t = m.between(0.145, 0.165), m.between(0.070, 0.078), 0.009
    corner = [(x / 2, y / 2 - 0.008), (x / 2 - 0.008, y / 2)]
    outline = [*corner, *[(-a, b) for a, b in corner[::-1]], *[(-a, -b) for a, b in corner]]
    outline += [(a, -b) for a, b in corner[::-1]]
    m.add(prism(outline, t), m.body)
    if m.colour == 'black':
        glow = m.chance(0.3)
        face = Finish((0.10, 0.12, 0.2), emission=0.3) if glow else SCREEN
        m.add(box(x * 0.92, y * 0.9, 0.0008).moved(0, 0, t), face)
        if glow:
            m.states.add('on')
    else:
        m.add(box(0.03, 0.03, 0.0025).moved(x * 0.36, y * 0.2, t), m.dark)
        for dx, dy in ((0.007, 0.007), (-0.007, -0.007), (0.007, -0.007)):
            m.add(cylinder(0.005, 0.0035, 10).moved(x * 0.36 + dx, y * 0.2 + dy, t), DARK)


def remote(m: Maker) -> None:
    """Build a remote control with rows of buttons."""
    x, y, t = m.between(0.16, 0.20), m.between(0.044, 0.052), 0.018
    m.add(box(x, y, t, taper=0.94), m.body)
    light = np.mean(m.body.rgb) < 0.35
    button = CREAM if light else RUBBER
    m.add(cylinder(0.0055, 0.003, 10).moved(x * 0.40, y * 0.25, t), Finish((0.8, 0.1, 0.1)))
    for row in range(5):
        for column in range(3):
            spot = box(0.009, 0.008, 0.003)
            m.add(spot.moved(x * (0.28 - row * 0.1), (column - 1) * y * 0.27, t), button)
    m.add(cylinder(0.014, 0.003, 14).moved(-x * 0.34, 0, t), button)


def scissors(m: Maker) -> None:
    """Build a pair of scissors, its points towards +x."""
    length = m.between(0.15, 0.19)
    cross = 0.14
    for side in (-1, 1):
        blade = prism(
            [(0, -0.007), (length * 0.48, -0.001), (length * 0.52, 0.004), (0, 0.007)], 0.0025
        )
        grip = tube([(0.004, 0, 0.004), (-length * 0.22, 0, 0.004)], 0.005, 6, flat=0.8)
        loop = ring(1.0, 0.26, 16, 6).scaled(length * 0.155, length * 0.105, length * 0.07)
        turn = rotation('z', side * cross)
        level = 0.003 + side * 0.0013
        flip = blade if side > 0 else blade.scaled(1, -1, 1)
        m.add(flip.turned(turn).moved(0, 0, level), METAL)
        m.add(grip.turned(turn).moved(0, 0, 0.002), m.body)
        m.add(loop.turned(turn).moved(-length * 0.36, -side * length * 0.115, 0.006), m.body)
    m.add(cylinder(0.005, 0.003, 10).moved(0, 0, 0.006), METAL)


def hammer(m: Maker) -> None:
    """Build a claw hammer, its head towards +x."""
    length = m.between(0.24, 0.29)
    path = [(-length / 2, 0, 0.014), (0, 0, 0.014), (length * 0.46, 0, 0.014)]
    m.add(tube(path, (0.0165, 0.0145, 0.0125), 10), m.body)
    head = cylinder(0.015, 0.035, 14).turned(rotation('x', -1.571))
    m.add(head.moved(length * 0.44, 0.01, 0.015), METAL)
    m.add(box(0.024, 0.03, 0.024).moved(length * 0.44, 0.0, 0.003), METAL)
    claw = [
        (length * 0.44, -0.01, 0.018),
        (length * 0.43, -0.035, 0.017),
        (length * 0.40, -0.055, 0.01),
    ]
    m.add(tube(claw, (0.012, 0.009, 0.003), 8, flat=0.9), METAL)


def screwdriver(m: Maker) -> None:
    """Build a screwdriver, its tip towards +x."""
    length = m.between(0.19, 0.23)
    r = 0.0155
    grip = [
        (0, 0),
        (r * 0.8, 0.004),
        (r, 0.03),
        (r * 0.85, 0.055),
        (r, 0.08),
        (r * 0.6, 0.1),
        (0, 0.1),
    ]
    lay = rotation('y', 1.571)
    m.add(lathe(grip, 12).turned(lay).moved(-length / 2, 0, r), m.body)
    m.add(cylinder(0.0038, length - 0.1, 8).turned(lay).moved(-length / 2 + 0.1, 0, r), METAL)
    m.add(box(0.014, 0.009, 0.002).moved(length / 2, 0, r - 0.001), METAL)


def pen(m: Maker) -> None:
    """Build a ballpoint pen, its tip towards +x."""
    length, r = m.between(0.13, 0.15), m.between(0.0055, 0.0075)
    lay = rotation('y', 1.571)
    shaft = [
        (0, 0),
        (r * 0.9, 0.001),
        (r, 0.006),
        (r, length - 0.018),
        (r * 0.25, length),
        (0, length),
    ]
    m.add(lathe(shaft, 10).turned(lay).moved(-length / 2, 0, r), m.body)
    m.add(cylinder(r * 1.06, 0.004, 10).turned(lay).moved(length * 0.1, 0, r), m.dark)
    m.add(box(length * 0.28, 0.003, 0.0025).moved(-length * 0.34, 0, r * 1.9), m.dark)


def tape(m: Maker) -> None:
    """Build a roll of tape lying flat."""
    r, h = m.between(0.04, 0.052), m.between(0.02, 0.035)
    inner = r * m.between(0.6, 0.7)
    m.add(lathe([(inner + 0.003, 0), (r, 0), (r, h), (inner + 0.003, h)], 26), m.body)
    m.add(lathe([(inner + 0.003, h), (inner, h), (inner, 0)], 26), TIMBER)


def clock(m: Maker) -> None:
    """Build a round clock on two feet, its face towards +x, at times with bells."""
    r, depth = m.between(0.055, 0.075), m.between(0.035, 0.05)
    up = rotation('y', 1.571)
    lift = r + 0.012
    face = r * 0.72

    def place(mesh: Mesh, forward: float, finish: Finish) -> None:
        m.add(mesh.turned(up).moved(forward, 0, lift), finish)

    rim = [(0, 0), (r * 0.9, 0), (r, 0.008), (r, depth), (face, depth), (face, depth - 0.004)]
    place(lathe(rim, 26), -depth / 2, m.body)
    place(cylinder(face, 0.003, 26), depth / 2 - 0.005, CREAM)
    front = depth / 2 - 0.0015
    for k in range(12):
        a = k * np.pi / 6
        tick = box(0.0015, 0.0035, face * 0.14).moved(0, 0, face * 0.8)
        m.add(tick.turned(rotation('x', a)).moved(front, 0, lift), DARK)
    for reach, width in ((0.5, 0.006), (0.74, 0.004)):
        hand = box(0.0015, width, face * reach)
        m.add(hand.turned(rotation('x', m.between(0, 6.28))).moved(front + 0.0008, 0, lift), DARK)
    for side in (-1, 1):
        leg = tube([(0, side * r * 0.75, 0), (0, side * r * 0.5, r * 0.4)], 0.006, 6)
        m.add(leg.moved(z=0.003), m.body)
    if m.chance(0.5):
        for side in (-1, 1):
            bell = sphere(0.017, 12, 8).moved(0, side * r * 0.5, lift + r * 0.92)
            m.add(bell, METAL)


def lamp(m: Maker) -> None:
    """Build a lamp with a shade on a stem, at times lit."""
    h, r = m.between(0.32, 0.40), m.between(0.075, 0.095)
    base = m.dark if m.chance(0.5) else METAL
    m.add(lathe([(0, 0), (0.06, 0), (0.058, 0.012), (0.012, 0.022), (0, 0.022)], 20), base)
    m.add(cylinder(0.007, h * 0.72, 10).moved(z=0.02), base)
    low, tall = h * 0.62, h * 0.38
    lit = m.chance(0.5)
    shade = m.main
    if lit:
        shade = Finish(shade.rgb, 1.0, shade.image, 0.05, 0.1, 0.35)
        m.states.add('lit')
    top = r * m.between(0.55, 0.75)
    m.add(lathe([(r, low), (top, low + tall)], 22, 6), shade)
    m.add(lathe([(top - 0.002, low + tall), (r - 0.002, low)], 22, 6), shade)
    m.add(
        sphere(0.022, 12, 8).moved(z=low + 0.04),
        Finish((1, 0.95, 0.75), emission=0.9 if lit else 0.0),
    )


def plant(m: Maker) -> None:
    """Build a potted plant with upright or spreading leaves."""
    r, h = m.between(0.045, 0.06), m.between(0.07, 0.09)
    soil = Finish((0.18, 0.11, 0.06), specular=0.0)
    m.add(lathe([(0, 0), (r * 0.72, 0), (r, h), (r * 1.06, h), (r * 0.9, h)], 20), m.accent)
    m.add(cylinder(r * 0.93, 0.002, 18).moved(z=h - 0.012), soil)
    upright = m.chance(0.4)
    count = int(m.rng.integers(9, 15))
    reach = m.between(0.09, 0.13)
    for k in range(count):
        turn = k * 2.4 + m.between(-0.3, 0.3)
        lean = m.between(0.1, 0.4) if upright else m.between(0.4, 1.25)
        length = reach * m.between(0.8, 1.2)
        leaf = lathe([(0, -1), (0.7, -0.6), (1, 0), (0.7, 0.6), (0, 1)], 8).scaled(
            0.006, 0.014 if upright else 0.023, length / 2
        )
        leaf = leaf.moved(z=length / 2).turned(rotation('z', turn) @ rotation('y', lean))
        m.add(leaf.moved(z=h - 0.01), m.body)
