"""Charts as SVG, drawn by matplotlib without a display."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.style
from matplotlib.figure import Figure

_STYLE = 'tableau-colorblind10'


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


def line_chart(title: str, x_label: str, y_label: str, lines: Sequence[Line]) -> str:
    """Return an SVG chart with both axes from zero, and the spread of each line as a band."""
    with matplotlib.style.context(_STYLE):
        figure = Figure(figsize=(6.4, 4), layout='constrained')
        axes = figure.subplots()
        for line in lines:
            axes.plot(line.x, line.y, marker='o', label=line.name, gid=line.name)
            axes.fill_between(line.x, line.low, line.high, alpha=0.2)
        axes.set(title=title, xlabel=x_label, ylabel=y_label, xlim=(0, None), ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend()
        return figure_to_svg(figure)


def figure_to_svg(figure: Figure) -> str:
    """Return a figure as SVG."""
    text = io.StringIO()
    # Text stays text, and the same figure gives the same file.
    with matplotlib.rc_context({'svg.fonttype': 'none', 'svg.hashsalt': 'clipseg_ros'}):
        figure.savefig(text, format='svg', metadata={'Date': None})
    return text.getvalue()
