"""Measures what zooming in brings on small things, costs on large ones, and takes a frame.

    python -m training.evaluation.zoom tabletop --split test --scenes 150 --output runs/zoom.json

Scenes are rendered here, larger than the model's input, since zoom has nothing to show where the
picture has no more detail than the model sees anyway. Each prompt is asked by itself, first without
zoom, then with, at the model's own thresholds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from clipseg_model import Segmenter, Zoom, create_model
from clipseg_model.zoom.proposals import CoarseProposals
from tabletop_world.language.phrases import absent, describe
from tabletop_world.render.renderer import Renderer
from tabletop_world.scenes.random_scenes import generate_scene
from training.evaluate import ABSENT_SHARE

#: Groups by the share of the picture that all a prompt is true of fills: from, up to, and how many
#: prompts of a view at most.
SIZES = {
    '0.1 to 0.3 %': (0.001, 0.003, 4),
    '0.3 to 1 %': (0.003, 0.01, 4),
    '1 to 10 %': (0.01, 0.1, 3),
    'above 10 %': (0.1, 1.0, 3),
}
SMALL = 'below 1 %'
LARGE = 'above 10 %'
ABSENT = 'absent'
ABSENT_PROMPTS = 3


@dataclass(frozen=True)
class Question:
    """A prompt about a picture, with its truth, bool (H, W), and its group by size."""

    text: str
    truth: NDArray[np.bool_]
    group: str


@dataclass
class Tally:
    """Sums over a group of prompts."""

    prompts: int = 0
    intersection: int = 0
    union: int = 0
    empty: int = 0
    area: float = 0.0

    def add(self, mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> None:
        """Adds a mask."""
        self.prompts += 1
        self.intersection += int(np.count_nonzero(mask & truth))
        self.union += int(np.count_nonzero(mask | truth))
        self.empty += int(mask.mean() < ABSENT_SHARE)
        self.area += float(mask.mean())

    def row(self, group: str) -> dict[str, float]:
        """Returns the group's figures."""
        if group == ABSENT:
            return {'kept_out': self.empty / self.prompts, 'area_on': self.area / self.prompts}
        return {'iou_fg': self.intersection / max(self.union, 1)}


@dataclass
class Side:
    """What was measured with zoom, or without."""

    tallies: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    seconds: list[float] = field(default_factory=list)
    regions: list[int] = field(default_factory=list)


def pictures(
    split: str, scenes: int, width: int, height: int, seed: int
) -> Iterator[tuple[NDArray[np.uint8], list[Question]]]:
    """Renders views of a split, and draws questions about each.

    Args:
        split: Split of the tabletop world.
        scenes: Number of scenes; two views each.
        width: Of the pictures, pixels.
        height: Of the pictures, pixels.
        seed: Seed of the questions.
    """
    rng = np.random.default_rng(seed)
    with Renderer(width, height) as renderer:
        for number in range(scenes):
            scene = generate_scene(number, split)
            for camera in range(len(scene.cameras)):
                frame = renderer.render(scene, camera, depth=False)
                by_size: dict[str, list[Question]] = defaultdict(list)
                for phrase in describe(frame, rng, min_fraction=min(s[0] for s in SIZES.values())):
                    truth = np.isin(frame.instances, list(phrase.object_ids))
                    share = truth.mean()
                    group = next(name for name, (_, up, _) in SIZES.items() if share <= up)
                    by_size[group].append(Question(phrase.text, truth, group))
                questions = [
                    by_size[name][index]
                    for name, (_, _, most) in SIZES.items()
                    for index in rng.permutation(len(by_size[name]))[:most]
                ]
                nowhere = np.zeros((height, width), bool)
                questions += [
                    Question(phrase.text, nowhere, ABSENT)
                    for phrase in absent(frame, rng, ABSENT_PROMPTS)
                ]
                if questions:
                    yield frame.rgb, questions


def measure(
    segmenter: Segmenter,
    zoom: Zoom,
    views: Iterator[tuple[NDArray[np.uint8], list[Question]]],
) -> dict[bool, Side]:
    """Asks every question without and with zoom.

    Returns:
        What was measured, by whether there was zoom. Seconds are those of one prompt on a new
        frame, from the picture to the mask.
    """
    sides = {False: Side(), True: Side()}
    for rgb, questions in views:
        for question in questions:
            groups = [question.group]
            if question.group in SIZES and SIZES[question.group][1] <= 0.01:
                groups.append(SMALL)
            segmenter.prepare([question.text])
            for zoomed, side in sides.items():
                segmenter.zoom = zoom if zoomed else None
                start = time.perf_counter()
                result = segmenter.segment(rgb, [question.text]).results[0]
                mask = result.mask
                side.seconds.append(time.perf_counter() - start)
                side.regions.append(len(result.close_ups.parts) if result.close_ups else 0)
                for group in groups:
                    side.tallies[group].add(mask, question.truth)
    return sides


def report_of(sides: dict[bool, Side]) -> dict[str, Any]:
    """Returns the figures as JSON types."""
    groups = [*SIZES, SMALL, ABSENT]
    report: dict[str, Any] = {'groups': {}, 'cost': {}}
    for group in groups:
        tallies = {zoomed: side.tallies[group] for zoomed, side in sides.items()}
        if tallies[True].prompts:
            report['groups'][group] = {
                'prompts': tallies[True].prompts,
                'whole': tallies[False].row(group),
                'zoom': tallies[True].row(group),
            }
    for zoomed, side in sides.items():
        milliseconds = np.array(side.seconds) * 1e3
        report['cost']['zoom' if zoomed else 'whole'] = {
            'median_ms': float(np.median(milliseconds)),
            'p90_ms': float(np.quantile(milliseconds, 0.9)),
            'regions': float(np.mean(side.regions)),
        }
    return report


def print_report(report: dict[str, Any]) -> None:
    """Prints the figures as a table."""
    table = Table(title='IoU_FG; of absent prompts, the share with an empty mask')
    for column in ('truth fills', 'prompts', 'whole image', 'with zoom', 'difference'):
        table.add_column(column, justify='left' if column == 'truth fills' else 'right')
    for name, row in report['groups'].items():
        key = 'kept_out' if name == ABSENT else 'iou_fg'
        before, after = row['whole'][key], row['zoom'][key]
        table.add_row(
            name, str(row['prompts']), f'{before:.3f}', f'{after:.3f}', f'{after - before:+.3f}'
        )
    console = Console()
    console.print(table)
    before, after = report['cost']['whole'], report['cost']['zoom']
    console.print(
        f'a frame and one prompt: {before["median_ms"]:.0f} ms without zoom, '
        f'{after["median_ms"]:.0f} ms with (median; 90 % under {after["p90_ms"]:.0f} ms), '
        f'{after["regions"]:.1f} regions on average'
    )


def main() -> None:
    """Runs the command line."""
    defaults, coarse = Zoom(), CoarseProposals()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('model', help='name of a model, or a checkpoint')
    parser.add_argument('--split', default='test', help='val to choose settings, test to report')
    parser.add_argument('--scenes', type=int, default=150, help='scenes, of two views each')
    parser.add_argument('--width', type=int, default=640)
    parser.add_argument('--height', type=int, default=480)
    parser.add_argument('--combination', default=defaults.combination)
    parser.add_argument('--context', type=float, default=defaults.context)
    parser.add_argument('--least-view', type=float, default=defaults.least_view)
    parser.add_argument('--regions', type=int, default=defaults.max_regions)
    parser.add_argument('--low', type=float, default=coarse.low)
    parser.add_argument('--margin', type=float, default=coarse.margin)
    parser.add_argument('--largest', type=float, default=coarse.largest)
    parser.add_argument('--seed', type=int, default=0, help='seed of the prompts drawn')
    parser.add_argument('--device', default='auto')
    parser.add_argument('--threads', type=int, help='threads of the model on a CPU')
    parser.add_argument('--output', type=Path, help='JSON file for the figures')
    args = parser.parse_args()
    segmenter = create_model(args.model, device=args.device, threads=args.threads)
    segmenter.warm_up(args.height, args.width)
    zoom = Zoom(
        CoarseProposals(args.low, args.margin, args.largest),
        args.combination,
        args.context,
        args.least_view,
        args.regions,
    )
    views = pictures(args.split, args.scenes, args.width, args.height, args.seed)
    sides = measure(
        segmenter, zoom, tqdm(views, total=2 * args.scenes, unit='view', mininterval=10)
    )
    report = {
        'model': args.model,
        'split': args.split,
        'scenes': args.scenes,
        'size': [args.width, args.height],
        'zoom': asdict(zoom),
        **report_of(sides),
    }
    print_report(report)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(report, indent=2) + '\n')


if __name__ == '__main__':
    main()
