"""Measure whether a model knows that a thing is not there at all.

    python -m training.evaluation.absence tabletop --data runs/tabletop \
        --fix val --on test --scenes 500

One view of each scene is segmented with present prompts, which are true of something in it, and as
many absent ones, which are true of nothing. The threshold of the score is chosen on other scenes
(best balanced accuracy), and reported beside that of the model card. Balanced accuracy is the mean
of the share of present prompts that are found and of absent ones that are kept out.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from clipseg_model import Segmenter
from training.console import print_table, write_figures
from training.datasets.tabletop import TabletopViews
from training.evaluation import scripts


@dataclass(frozen=True)
class Scores:
    """Scores of prompts.

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
        """Return those of one kind."""
        own = self.kinds == kind
        return Scores(self.scores[own], self.present[own], self.kinds[own], self.scenes)


def score_prompts(
    segmenter: Segmenter, views: TabletopViews, scenes: int, prompts: int, seed: int
) -> Scores:
    """Ask a model for present and absent prompts, as many of each.

    Args:
        segmenter: The model.
        views: The split.
        scenes: How many at most.
        prompts: Present ones of a view, at most.
        seed: Of the prompts drawn.
    """
    rng = np.random.default_rng(seed)
    answers: list[tuple[float, bool, str]] = []
    chosen = scripts.first_views(views, scenes)
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


def rates(scores: Scores, threshold: float) -> dict[str, float]:
    """Return balanced accuracy and its two halves; NaN where a half has no prompts."""
    above, present, absent = scores.scores >= threshold, scores.present, ~scores.present
    found = float(above[present].mean()) if present.any() else float('nan')
    kept_out = float((~above[absent]).mean()) if absent.any() else float('nan')
    return {
        'balanced_accuracy': round((found + kept_out) / 2, 4),
        'found': round(found, 4),
        'kept_out': round(kept_out, 4),
        'present': int(present.sum()),
        'absent': int(absent.sum()),
    }


def best_threshold(scores: Scores) -> float:
    """Return the threshold with the best balanced accuracy; a score that reaches it is present."""
    order = np.argsort(scores.scores, kind='stable')
    present, ascending = scores.present[order], scores.scores[order]
    missed = np.concatenate([[0], np.cumsum(present)]) / max(present.sum(), 1)
    kept_out = np.concatenate([[0], np.cumsum(~present)]) / max((~present).sum(), 1)
    # Equal scores cannot be told apart: a threshold lies where the score rises.
    border = np.concatenate([[True], ascending[1:] > ascending[:-1], [False]])
    best = int(np.argmax(np.where(border, kept_out - missed, -np.inf)))
    return float(ascending[best])


def figures_of(scores: Scores, thresholds: dict[str, float]) -> dict[str, Any]:
    """Return the figures of a split at each threshold, of all prompts and by kind."""
    part: dict[str, Any] = defaultdict(dict)
    for name, threshold in thresholds.items():
        part[name]['threshold'] = round(threshold, 4)
        part[name]['all'] = rates(scores, threshold)
        for kind in sorted(set(scores.kinds.tolist())):
            part[name][kind] = rates(scores.of_kind(kind), threshold)
    return dict(part)


def print_figures_of(split: str, scores: Scores, part: dict[str, Any]) -> None:
    """Print the figures of a split as tables, one for each threshold."""
    columns = ('prompts', 'balanced', 'found', 'kept out', 'present', 'absent')
    for name, rows in part.items():
        cells = []
        for kind, row in rows.items():
            if kind != 'threshold':
                shares = (row['balanced_accuracy'], row['found'], row['kept_out'])
                counts = (str(row['present']), str(row['absent']))
                cells.append([kind, *(f'{share:.1%}' for share in shares), *counts])
        title = f'{split}, {scores.scenes} scenes: {name}, {rows["threshold"]:.4f}'
        print_table(title, columns, cells)


def main() -> None:
    """Run the command line."""
    parser = scripts.new_parser(__doc__)
    parser.add_argument('--data', type=Path, required=True, help='folder of the rendered splits')
    parser.add_argument('--fix', default='val', help='split that the threshold is chosen on')
    parser.add_argument('--on', default='test', help='split to report on; of other scenes')
    parser.add_argument('--scenes', type=int, default=500, help='scenes of each split, at most')
    parser.add_argument('--prompts', type=int, default=8, help='present ones a view; so absent')
    parser.add_argument('--seed', type=int, default=0, help='seed of the prompts drawn')
    scripts.add_device(parser)
    args = parser.parse_args()
    if args.fix == args.on:
        parser.error(f'--fix and --on are both {args.on}: a threshold is judged on other scenes')
    segmenter = scripts.load_segmenter(args)
    thresholds = {'model card': segmenter.card.presence_threshold}
    report: dict[str, Any] = {'model': args.model}
    for split in (args.fix, args.on):
        views = TabletopViews(args.data / split)
        scores = score_prompts(segmenter, views, args.scenes, args.prompts, args.seed)
        if split == args.fix:
            thresholds[f'best on {split}'] = best_threshold(scores)
        figures = figures_of(scores, thresholds)
        report[split] = {'scenes': scores.scenes, **figures}
        print_figures_of(split, scores, figures)
    write_figures(args.output, report)


if __name__ == '__main__':
    main()
