"""The results of the demo: an answer for each prompt, its faults, and a table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

MIN_MEAN_IOU = 0.6
"""Least mean intersection over union of the prompts for things that are there."""
MAX_ABSENT_SHARE = 0.01
"""Largest share of the picture that the mask of something absent may cover."""


@dataclass(frozen=True)
class Answer:
    """The result for one prompt.

    Attributes:
        iou: Intersection over union with the truth, 0…1; None for something absent.
        share: Share of the picture that the mask covers, 0…1.
        score: Of the prompt, 0…1; None without ``~/segments``.
        latency_ms: Median from the camera's stamp to the mask's arrival.
        fps: Masks a second.
    """

    scene: int
    prompt: str
    kind: str
    iou: float | None
    share: float
    score: float | None
    latency_ms: float
    fps: float

    @property
    def wrong(self) -> bool:
        """Whether the mask of something absent is too large."""
        return self.iou is None and self.share > MAX_ABSENT_SHARE


def intersection_over_union(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return what two masks, of one shape and not both empty, have in common, 0…1."""
    union = int((mask | truth).sum())
    if union == 0:
        raise ValueError('two empty masks have no intersection over union')
    return int((mask & truth).sum()) / union


def mean_iou(answers: list[Answer]) -> float:
    """Return the mean over the prompts for things that are there."""
    return float(np.mean([answer.iou for answer in answers if answer.iou is not None]))


def find_faults(answers: list[Answer]) -> list[str]:
    """Return what is not good enough, one sentence each."""
    faults = [
        f'scene {answer.scene}: {answer.prompt!r} is not there, and its mask covers '
        f'{answer.share:.1%} of the picture (at most {MAX_ABSENT_SHARE:.0%})'
        for answer in answers
        if answer.wrong
    ]
    if (mean := mean_iou(answers)) < MIN_MEAN_IOU:
        faults.insert(0, f'the mean IoU is {mean:.2f} (at least {MIN_MEAN_IOU})')
    return faults


def make_table(answers: list[Answer], camera_rate: float) -> Table:
    """Return the answers as a table for people; those of a scene have to stand together."""
    title = f'masks over ROS topics against the renderer; the camera makes {camera_rate:g} frames/s'
    table = Table(title=title, title_justify='left')
    for heading in ('scene', 'prompt', 'kind'):
        table.add_column(heading)
    for heading in ('IoU', 'score', 'latency', 'frames/s'):
        table.add_column(heading, justify='right')
    scene = None
    for answer in answers:
        new_scene, scene = answer.scene != scene, answer.scene
        if new_scene:
            table.add_section()
        colour = 'red' if answer.wrong else 'green'
        table.add_row(
            str(answer.scene) if new_scene else '',
            escape(answer.prompt),
            answer.kind,
            f'[{colour}]{answer.share:.1%} on' if answer.iou is None else f'{answer.iou:.2f}',
            '–' if answer.score is None else f'{answer.score:.2f}',
            f'{answer.latency_ms:.0f} ms',
            f'{answer.fps:.1f}',
        )
    table.add_section()
    latency = float(np.median([answer.latency_ms for answer in answers]))
    fps = float(np.median([answer.fps for answer in answers]))
    present = sum(answer.iou is not None for answer in answers)
    figures = (f'{mean_iou(answers):.2f}', '', f'{latency:.0f} ms', f'{fps:.1f}')
    table.add_row('', f'mean of {present}; medians', '', *figures)
    return table
