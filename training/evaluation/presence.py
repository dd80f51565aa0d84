"""Measures whether a model knows that a thing is not there at all.

    python -m training.evaluation.presence tabletop --data runs/tabletop \
        --fix val --on test --scenes 500

Of one view of each scene, prompts that are true of something in it and prompts that are true of
nothing are asked alike, as many of each. The threshold of the score is chosen on other scenes (best
balanced accuracy), and reported beside that of the model's card. Balanced accuracy is the mean of
the share of present prompts that are found present and of absent ones that are found absent.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from clipseg_model import Segmenter, create_model
from training.datasets.tabletop import TabletopViews


@dataclass(frozen=True)
class Scores:
    """What was asked and answered.

    Attributes:
        scores: (N,) in 0…1.
        present: (N,) bool, whether the prompt is true of something in the view.
        kinds: (N,) how the prompt names it (``name``, ``colour``, ``relation``, …).
        scenes: How many scenes.
    """

    scores: NDArray[np.float64]
    present: NDArray[np.bool_]
    kinds: NDArray[np.str_]
    scenes: int

    def of_kind(self, kind: str) -> Scores:
        """Returns those of one kind."""
        own = self.kinds == kind
        return Scores(self.scores[own], self.present[own], self.kinds[own], self.scenes)


def first_views(views: TabletopViews, scenes: int) -> list[int]:
    """Returns the first view of each of the first scenes."""
    first: dict[int, int] = {}
    for number, record in enumerate(views.records):
        first.setdefault(record['seed'], number)
    return list(first.values())[:scenes]


def collect(
    segmenter: Segmenter, views: TabletopViews, scenes: int, prompts: int, seed: int
) -> Scores:
    """Asks a model.

    Args:
        segmenter: The model.
        views: The split.
        scenes: Most scenes.
        prompts: Most present ones of a view, and as many absent ones.
        seed: Seed of the prompts drawn.
    """
    rng = np.random.default_rng(seed)
    answers: list[tuple[float, bool, str]] = []
    chosen = first_views(views, scenes)
    for view in tqdm(chosen, unit='view', mininterval=10):
        record = views.records[view]
        count = min(prompts, len(record['present']), len(record['absent']))
        if not count:
            continue
        drawn = [
            record[side][index]
            for side in ('present', 'absent')
            for index in rng.permutation(len(record[side]))[:count]
        ]
        image = np.ascontiguousarray(views.rgb(view))
        found = segmenter.segment(image, [text for text, _, _ in drawn])
        for (_, kind, ids), result in zip(drawn, found.results, strict=True):
            answers.append((result.score, bool(ids), kind))
    scores, present, kinds = zip(*answers, strict=True)
    return Scores(np.array(scores), np.array(present), np.array(kinds), len(chosen))


def rates(asked: Scores, threshold: float) -> dict[str, float]:
    """Returns balanced accuracy and its two halves; NaN where a half has no prompts."""
    said = asked.scores >= threshold
    there, gone = asked.present, ~asked.present
    found = float(said[there].mean()) if there.any() else float('nan')
    kept_out = float((~said[gone]).mean()) if gone.any() else float('nan')
    return {
        'balanced_accuracy': round((found + kept_out) / 2, 4),
        'found': round(found, 4),
        'kept_out': round(kept_out, 4),
        'present': int(there.sum()),
        'absent': int(gone.sum()),
    }


def best_threshold(asked: Scores) -> float:
    """Returns the score from which on to take a prompt for present: best balanced accuracy."""
    order = np.argsort(asked.scores, kind='stable')
    there = asked.present[order]
    missed = np.concatenate([[0], np.cumsum(there)]) / max(there.sum(), 1)
    kept_out = np.concatenate([[0], np.cumsum(~there)]) / max((~there).sum(), 1)
    # What is refused is all before a score: equal scores cannot be told apart.
    scores = asked.scores[order]
    border = np.concatenate([[True], scores[1:] > scores[:-1], [False]])
    best = int(np.argmax(np.where(border, kept_out - missed, -np.inf)))
    return float(scores[best])


def report_on(asked: Scores, thresholds: dict[str, float]) -> dict[str, Any]:
    """Returns the figures of a split at each threshold, of all prompts and by kind."""
    part: dict[str, Any] = defaultdict(dict)
    for name, threshold in thresholds.items():
        part[name]['threshold'] = round(threshold, 4)
        part[name]['all'] = rates(asked, threshold)
        for kind in sorted(set(asked.kinds.tolist())):
            part[name][kind] = rates(asked.of_kind(kind), threshold)
    return dict(part)


def print_report(split: str, asked: Scores, part: dict[str, Any]) -> None:
    """Prints the figures as tables."""
    console = Console()
    for name, rows in part.items():
        table = Table(title=f'{split}, {asked.scenes} scenes: {name}, {rows["threshold"]:.4f}')
        for column in ('prompts', 'balanced', 'found', 'kept out', 'present', 'absent'):
            table.add_column(column, justify='left' if column == 'prompts' else 'right')
        for kind, row in rows.items():
            if kind != 'threshold':
                shares = (row['balanced_accuracy'], row['found'], row['kept_out'])
                counts = (str(row['present']), str(row['absent']))
                table.add_row(kind, *(f'{share:.1%}' for share in shares), *counts)
        console.print(table)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('model', help='name of a model, or a checkpoint')
    parser.add_argument('--data', type=Path, required=True, help='folder of the rendered splits')
    parser.add_argument('--fix', default='val', help='split that the threshold is chosen on')
    parser.add_argument('--on', default='test', help='split to report on; of other scenes')
    parser.add_argument('--scenes', type=int, default=500, help='scenes of each split, at most')
    parser.add_argument('--prompts', type=int, default=8, help='present ones a view; so absent')
    parser.add_argument('--seed', type=int, default=0, help='seed of the prompts drawn')
    parser.add_argument('--device', default='auto')
    parser.add_argument('--threads', type=int, help='threads of the model on a CPU')
    parser.add_argument('--output', type=Path, help='JSON file for the figures')
    args = parser.parse_args()
    if args.fix == args.on:
        parser.error(f'--fix and --on are both {args.on}: a threshold is judged on other scenes')
    segmenter = create_model(args.model, device=args.device, threads=args.threads)
    thresholds = {'model card': segmenter.card.presence_threshold}
    report: dict[str, Any] = {'model': args.model}
    for split in (args.fix, args.on):
        views = TabletopViews(args.data / split)
        asked = collect(segmenter, views, args.scenes, args.prompts, args.seed)
        if split == args.fix:
            thresholds[f'best on {split}'] = best_threshold(asked)
        report[split] = {'scenes': asked.scenes, **report_on(asked, thresholds)}
        print_report(split, asked, report_on(asked, thresholds))
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(report, indent=2) + '\n')


if __name__ == '__main__':
    main()
