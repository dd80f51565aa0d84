"""Measure a model on held-out scenes of the tabletop world, as its users run it.

    python -m training.evaluate tabletop --data runs/tabletop --calibrate val --split test
    python -m training.evaluate photos --help       photographs, each with its own vocabulary
    python -m training.evaluate data --help         any other data set

Masks come from :class:`clipseg_model.Segmenter`, so preprocessing, threshold and presence are the
shipped ones. ``--calibrate`` chooses the threshold (best IoU_FG) and the presence threshold (the
lowest that keeps the wanted share of absent prompts empty) on one split, and uses them for the
others.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from tqdm import tqdm

from clipseg_model import Prompt, Segmenter
from training.console import print_table, write_figures
from training.datasets.tabletop import TabletopViews
from training.evaluation import data_command, photographs, scripts
from training.metrics.classes import EMPTY_SHARE, absent_figures
from training.metrics.pixels import BINS, PixelStatistics, intersection_and_union

#: Prompts asked of each view, at most, by group.
PRESENT_PROMPTS = 10
ABSENT_PROMPTS = 6
UNSEEN_WORDS_PRESENT = 8


@dataclass
class Group:
    """What was measured of one group of prompts."""

    pixels: PixelStatistics = field(default_factory=PixelStatistics)
    intersection: int = 0
    union: int = 0
    sample_ious: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    areas: list[float] = field(default_factory=list)

    def row(self) -> dict[str, float]:
        """Return the group's figures."""
        row = {
            'prompts': self.pixels.samples,
            'iou_fg': self.intersection / max(self.union, 1),
            'ap': self.pixels.average_precision(),
        }
        if self.sample_ious:
            row['miou'] = float(np.mean(self.sample_ious))
        return row


@dataclass
class Query:
    """A prompt asked of a view, the ids of the objects it is true of, and its group."""

    prompt: Prompt
    object_ids: list[int]
    group: str


def queries(views: TabletopViews, view: int, rng: np.random.Generator) -> list[Query]:
    """Draw the prompts of a view: of every kind, absent ones, unseen words, a support image."""
    record = views.records[view]
    drawn: list[Query] = []

    def draw(phrases: list[Any], count: int, group: str | None = None) -> None:
        for index in rng.permutation(len(phrases))[:count]:
            text, kind, ids = phrases[index]
            drawn.append(Query(Prompt(text=text), ids, group or kind))

    draw(record['present'], PRESENT_PROMPTS)
    draw(record['absent'], ABSENT_PROMPTS, 'absent')
    words = record.get('unseen_words', [])
    draw([word for word in words if word[2]], UNSEEN_WORDS_PRESENT, 'unseen_word')
    groups = views.kinds_of_thing(view, 0.003)
    keys = list(groups)
    if keys and record['present'] and words:
        key = keys[rng.integers(len(keys))]
        support = views.support_example(key, view, rng)
        if support is not None:
            image, mask = support
            drawn.append(Query(Prompt(image=image, mask=mask), groups[key], 'support_image'))
    return drawn


def evaluate_views(
    segmenter: Segmenter, views: TabletopViews, count: int, seed: int
) -> tuple[dict[str, Group], dict[str, Group]]:
    """Return figures of the model by group of prompts, and by word outside the grammar."""
    rng = np.random.default_rng(seed)
    groups: dict[str, Group] = defaultdict(Group)
    words: dict[str, Group] = defaultdict(Group)
    for view in tqdm(range(min(count, len(views))), unit='view', mininterval=10):
        drawn = queries(views, view, rng)
        if not drawn:
            continue
        segmentation = segmenter.segment(
            np.ascontiguousarray(views.rgb(view)), [query.prompt for query in drawn]
        )
        for query, result in zip(drawn, segmentation.results, strict=True):
            truth = views.mask(view, query.object_ids)
            targets = [groups[query.group]]
            if query.group == 'unseen_word':
                targets.append(words[query.prompt.text or ''])
            elif query.group not in ('absent', 'support_image'):
                targets.append(groups['all_text'])
            intersection, union = intersection_and_union(result.mask, truth)
            for group in targets:
                group.pixels.add(result.probability, truth)
                group.intersection += intersection
                group.union += union
                group.scores.append(result.score)
                group.areas.append(float(result.mask.mean()))
                if query.object_ids:
                    group.sample_ious.append(intersection / max(union, 1))
    return dict(groups), dict(words)


def calibrate(
    segmenter: Segmenter, views: TabletopViews, count: int, seed: int, empty: float
) -> dict[str, float]:
    """Choose both thresholds on a split.

    ``empty`` is the share of absent prompts whose mask shall be empty.
    """
    groups, _ = evaluate_views(segmenter, views, count, seed)
    curve = groups['all_text'].pixels.iou_foreground()[1:BINS]
    threshold = float((1 + int(np.argmax(curve))) / BINS)
    presence = float(np.quantile(groups['absent'].scores, empty))
    return {'threshold': threshold, 'presence_threshold': round(presence, 4)}


def report_split(
    segmenter: Segmenter, views: TabletopViews, count: int, seed: int
) -> dict[str, Any]:
    """Return the figures of a split, for the report."""
    groups, words = evaluate_views(segmenter, views, count, seed)
    absent = groups.pop('absent', None)
    part: dict[str, Any] = {
        'views': min(len(views), count),
        'scenes': len({record['seed'] for record in views.records[:count]}),
        'groups': {name: group.row() for name, group in groups.items()},
        'words': {name: group.row() for name, group in words.items()},
    }
    if absent is not None:
        part['absent'] = absent_figures(absent.areas)
    return part


def print_report(report: dict[str, Any]) -> None:
    """Print the figures as tables."""
    columns = ('group', 'prompts', 'IoU_FG', 'AP', 'mean IoU')
    for title, rows in (('Prompts', report['groups']), ('Words outside', report['words'])):
        lines = []
        for name, row in sorted(rows.items()):
            cells = (f'{row.get(key, float("nan")):.3f}' for key in ('iou_fg', 'ap', 'miou'))
            lines.append([name, str(row['prompts']), *cells])
        if lines:
            print_table(title, columns, lines)
    if 'absent' in report:
        row = report['absent']
        Console().print(
            f'absent prompts ({row["prompts"]}): {row["area_on"]:.2%} of the image on; '
            f'{row["kept_out"]:.1%} of them under {EMPTY_SHARE:.1%}'
        )


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] == ['data']:
        data_command.main(sys.argv[2:])
        return
    if sys.argv[1:2] == ['photos']:
        photographs.main(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    scripts.add_model(parser)
    parser.add_argument('--data', type=Path, required=True, help='folder of the rendered splits')
    parser.add_argument('--split', action='append', default=[], help='split to report on')
    parser.add_argument('--calibrate', metavar='SPLIT', help='choose thresholds on this split')
    parser.add_argument('--empty', type=float, default=0.9, help='absent prompts to keep empty')
    parser.add_argument('--views', type=int, default=10**9, help='views of each split, at most')
    parser.add_argument('--seed', type=int, default=0, help='seed of the prompts drawn')
    scripts.add_device(parser)
    parser.add_argument('--input-size', type=int, help="side of the model's input; its own")
    args = parser.parse_args()
    segmenter = scripts.load_segmenter(args, input_size=args.input_size)
    report: dict[str, Any] = {'model': args.model, 'input_size': segmenter.card.input_size}
    if args.calibrate:
        views = TabletopViews(args.data / args.calibrate)
        chosen = calibrate(segmenter, views, args.views, args.seed, args.empty)
        used = min(len(views), args.views)
        report['calibration'] = {'split': args.calibrate, 'views': used, **chosen}
        print(json.dumps(report['calibration']))
        card = replace(
            segmenter.card,
            threshold=chosen['threshold'],
            presence_threshold=chosen['presence_threshold'],
        )
        segmenter = Segmenter(segmenter.model, card, args.device)
    for split in args.split:
        views = TabletopViews(args.data / split)
        report[split] = part = report_split(segmenter, views, args.views, args.seed + 1)
        Console().rule(f'{split}: {part["scenes"]} scenes, {part["views"]} views')
        print_report(part)
    write_figures(args.output, report)


if __name__ == '__main__':
    main()
