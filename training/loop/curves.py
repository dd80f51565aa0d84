"""The curves of a run as a picture beside its log: loss, and what validation measures."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

#: Losses of single steps are drawn pale, with their mean over so much of the run.
_SHARE = 0.05
_PIXELS_PER_INCH = 110


def draw_curves(log: Path) -> bytes | None:
    """Return a PNG of a run's ``log.jsonl``; None where there is nothing to draw yet.

    Raises:
        OSError: The log cannot be read.
    """
    losses, measured = _read(log.read_text(encoding='utf-8').splitlines())
    if not losses:
        return None
    shown = [name for name in ('iou_fg', 'ap', 'absent_area') if measured.get(name)]
    figure = Figure(figsize=(8, 3.2 * (1 + bool(shown))), layout='constrained')
    axes = np.atleast_1d(figure.subplots(1 + bool(shown), 1, sharex=True))
    steps, values = zip(*losses, strict=True)
    axes[0].plot(steps, values, alpha=0.3, label='loss of training')
    axes[0].plot(steps, _smoothed(values), label=f'its mean over {_SHARE:.0%} of the run')
    if measured.get('loss'):
        axes[0].plot(*zip(*measured['loss'], strict=True), marker='o', label='loss of validation')
    axes[0].set(ylabel='binary cross-entropy')
    for name in shown:
        axes[1].plot(*zip(*measured[name], strict=True), marker='o', label=name)
    if shown:
        axes[1].set(ylabel='validation', ylim=(0, 1))
    for one in axes:
        one.grid(alpha=0.3)
        one.legend()
    axes[-1].set(xlabel='iteration')
    picture = io.BytesIO()
    figure.savefig(picture, format='png', dpi=_PIXELS_PER_INCH)
    return picture.getvalue()


def _read(
    lines: Iterable[str],
) -> tuple[list[tuple[int, float]], dict[str, list[tuple[int, float]]]]:
    losses: list[tuple[int, float]] = []
    measured: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for text in lines:
        line: dict[str, Any] = json.loads(text)
        if 'loss' in line:
            losses.append((line['iteration'], line['loss']))
        for name, value in line.get('validation', {}).items():
            measured[name].append((line['iteration'], value))
    return losses, measured


def _smoothed(values: Iterable[float]) -> list[float]:
    series = np.array(list(values))
    width = max(1, round(_SHARE * len(series)))
    sums = np.cumsum(np.concatenate([[0.0], series]))
    ends = np.arange(1, len(series) + 1)
    starts = np.maximum(0, ends - width)
    return [float(mean) for mean in (sums[ends] - sums[starts]) / (ends - starts)]
