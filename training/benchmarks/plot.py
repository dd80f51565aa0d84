"""Line charts as SVG: text that browsers and GitHub show, and no package to install for it."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 40, 50
# Okabe and Ito's colours, told apart by all eyes.
COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000')


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        name: In the legend.
        x: Ascending.
        y: At each x.
        low: Lower ends of the spread at each x.
        high: Upper ends.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def ticks(most: float) -> list[float]:
    """Four to eight round numbers from 0 to a positive number, or just beyond it."""
    rough = most / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = min((1.0, 2.0, 2.5, 5.0, 10.0), key=lambda one: abs(one * unit - rough)) * unit
    return [number * step for number in range(math.ceil(most / step - 1e-9) + 1)]


def line_chart(title: str, x_label: str, y_label: str, lines: Sequence[Line]) -> str:
    """Returns a chart with both axes from zero, and the spread of each line as a band."""
    x_ticks = ticks(max(max(line.x) for line in lines))
    y_ticks = ticks(max(max(line.high) for line in lines))

    def across(value: float) -> float:
        return round(LEFT + value / x_ticks[-1] * (WIDTH - LEFT - RIGHT), 1)

    def up(value: float) -> float:
        return round(HEIGHT - BOTTOM - value / y_ticks[-1] * (HEIGHT - TOP - BOTTOM), 1)

    def points(pairs: Sequence[tuple[float, float]]) -> str:
        return ' '.join(f'{across(x)},{up(y)}' for x, y in pairs)

    root = ET.Element(
        'svg',
        {
            'xmlns': 'http://www.w3.org/2000/svg',
            'viewBox': f'0 0 {WIDTH} {HEIGHT}',
            'font-family': 'sans-serif',
            'font-size': '12',
        },
    )

    def add(tag: str, text: str = '', **attributes: object) -> None:
        names = {name.replace('_', '-'): str(value) for name, value in attributes.items()}
        ET.SubElement(root, tag, names).text = text or None

    add('rect', width=WIDTH, height=HEIGHT, fill='white')
    add('text', title, x=WIDTH / 2, y=20, text_anchor='middle', font_size=14)
    for tick in x_ticks:
        x = across(tick)
        add('line', x1=x, x2=x, y1=TOP, y2=HEIGHT - BOTTOM, stroke='#dddddd')
        add('text', f'{tick:g}', x=x, y=HEIGHT - BOTTOM + 16, text_anchor='middle')
    for tick in y_ticks:
        y = up(tick)
        add('line', x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, stroke='#dddddd')
        add('text', f'{tick:g}', x=LEFT - 6, y=y + 4, text_anchor='end')
    add('text', x_label, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 12, text_anchor='middle')
    add('text', y_label, x=14, y=TOP - 10)
    for number, line in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        there = list(zip(line.x, line.high, strict=True))
        back = list(zip(line.x, line.low, strict=True))[::-1]
        add('polygon', points=points(there + back), fill=colour, fill_opacity=0.2)
        middle = list(zip(line.x, line.y, strict=True))
        add('polyline', points=points(middle), fill='none', stroke=colour, stroke_width=2)
        for x, y in middle:
            add('circle', cx=across(x), cy=up(y), r=3, fill=colour)
        y_legend = TOP + 16 + 18 * number
        add('rect', x=LEFT + 12, y=y_legend - 9, width=14, height=10, fill=colour)
        add('text', line.name, x=LEFT + 32, y=y_legend)
    ET.indent(root)
    return ET.tostring(root, encoding='unicode') + '\n'
