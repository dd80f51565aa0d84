"""Measure what zoom gains on small objects, loses on large ones, and how long a frame takes.

    python -m training.evaluation.small_objects tabletop --scenes 150 --output runs/zoom.json

Scenes are rendered larger than the model's input: zoom gains nothing where the picture has no more
detail than the model sees anyway. Each prompt is segmented by itself, first without zoom, then with
it, at the thresholds of the model card.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from clipseg_model import Segmenter, Zoom
from clipseg_model.zoom.proposals import CoarseProposals
from tabletop_world.language.phrases import absent, describe
from tabletop_world.language.truth import phrase_mask
from tabletop_world.render.renderer import Renderer
from tabletop_world.scenes.random_scenes import generate_scene
from tabletop_world.scenes.scene import Frame
from training.console import print_table, write_figures
from training.evaluation import scripts
from training.metrics.classes import EMPTY_SHARE
from training.metrics.pixels import intersection_and_union

RGB = NDArray[np.uint8]

#: Groups by the share of the picture that a prompt is true of: from, up to, and the largest number
#: of prompts of a view.
SIZES = {
    '0.1 to 0.3 %': (0.001, 0.003, 4),
    '0.3 to 1 %': (0.003, 0.01, 4),
    '1 to 10 %': (0.01, 0.1, 3),
    'above 10 %': (0.1, 1.0, 3),
}
SMALL = 'below 1 %'
ABSENT = 'absent'
ABSENT_PROMPTS = 3


@dataclass(frozen=True)
class Question:
    """A prompt about a picture, with its truth, bool (H, W), and its group by size."""

    text: str
    truth: NDArray[np.bool_]
    group: str


@dataclass
class Group:
    """Sums over a group of prompts."""

    prompts: int = 0
    intersection: int = 0
    union: int = 0
    empty: int = 0
    area: float = 0.0

    def add(self, mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> None:
        """Add a mask."""
        self.prompts += 1
        intersection, union = intersection_and_union(mask, truth)
        self.intersection += intersection
        self.union += union
        self.empty += int(mask.mean() < EMPTY_SHARE)
        self.area += float(mask.mean())

    def row(self, group: str) -> dict[str, float]:
        """Return the figures of the group."""
        if group == ABSENT:
            return {'kept_out': self.empty / self.prompts, 'area_on': self.area / self.prompts}
        return {'iou_fg': self.intersection / max(self.union, 1)}


@dataclass
class Side:
    """Results with zoom, or without."""

    groups: dict[str, Group] = field(default_factory=lambda: defaultdict(Group))
    seconds: list[float] = field(default_factory=list)
    regions: list[int] = field(default_factory=list)


def questions_about(frame: Frame, rng: np.random.Generator) -> list[Question]:
    """Draw present prompts of every group by size, and absent ones."""
    by_size: dict[str, list[Question]] = defaultdict(list)
    for phrase in describe(frame, rng, min_fraction=min(s[0] for s in SIZES.values())):
        truth = phrase_mask(phrase, frame)
        share = truth.mean()
        group = next(name for name, (_, up, _) in SIZES.items() if share <= up)
        by_size[group].append(Question(phrase.text, truth, group))
    questions = [
        by_size[name][index]
        for name, (_, _, most) in SIZES.items()
        for index in rng.permutation(len(by_size[name]))[:most]
    ]
    for phrase in absent(frame, rng, ABSENT_PROMPTS):
        questions.append(Question(phrase.text, phrase_mask(phrase, frame), ABSENT))
    return questions


def views_with_questions(
    split: str, scenes: int, width: int, height: int, seed: int
) -> Iterator[tuple[RGB, list[Question]]]:
    """Render the two views of each scene of a split, uint8 (H, W, 3), and draw the questions."""
    rng = np.random.default_rng(seed)
    with Renderer(width, height) as renderer:
        for number in range(scenes):
            scene = generate_scene(number, split)
            for camera in range(len(scene.cameras)):
                frame = renderer.render(scene, camera, depth=False)
                questions = questions_about(frame, rng)
                if questions:
                    yield frame.rgb, questions


def ask_both_ways(
    segmenter: Segmenter, zoom: Zoom, views: Iterable[tuple[RGB, list[Question]]]
) -> dict[bool, Side]:
    """Segment every question without and with zoom.

    Returns:
        Results by whether there was zoom. Seconds are those of one prompt on a new frame, from the
        picture to the mask.
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
                    side.groups[group].add(mask, question.truth)
    return sides


def report_of(sides: dict[bool, Side]) -> dict[str, Any]:
    """Return the figures as JSON types."""
    report: dict[str, Any] = {'groups': {}, 'cost': {}}
    for group in (*SIZES, SMALL, ABSENT):
        whole, zoom = (sides[zoomed].groups[group] for zoomed in (False, True))
        if zoom.prompts:
            figures = {'whole': whole.row(group), 'zoom': zoom.row(group)}
            report['groups'][group] = {'prompts': zoom.prompts, **figures}
    for zoomed, side in sides.items():
        milliseconds = np.array(side.seconds) * 1e3
        report['cost']['zoom' if zoomed else 'whole'] = {
            'median_ms': float(np.median(milliseconds)),
            'p90_ms': float(np.quantile(milliseconds, 0.9)),
            'regions': float(np.mean(side.regions)),
        }
    return report


def print_report(report: dict[str, Any]) -> None:
    """Print the figures as a table."""
    rows = []
    for name, row in report['groups'].items():
        key = 'kept_out' if name == ABSENT else 'iou_fg'
        before, after = row['whole'][key], row['zoom'][key]
        figures = (f'{before:.3f}', f'{after:.3f}', f'{after - before:+.3f}')
        rows.append((name, str(row['prompts']), *figures))
    print_table(
        'IoU_FG; of absent prompts, the share with an empty mask',
        ('truth fills', 'prompts', 'whole image', 'with zoom', 'difference'),
        rows,
    )
    whole, zoomed = report['cost']['whole'], report['cost']['zoom']
    print(
        f'a frame and one prompt: {whole["median_ms"]:.0f} ms without zoom, '
        f'{zoomed["median_ms"]:.0f} ms with (median; 90 % under {zoomed["p90_ms"]:.0f} ms), '
        f'{zoomed["regions"]:.1f} regions on average'
    )


def main() -> None:
    """Run the command line."""
    defaults, coarse = Zoom(), CoarseProposals()
    parser = scripts.new_parser(__doc__)
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
    scripts.add_device(parser)
    args = parser.parse_args()
    segmenter = scripts.load_segmenter(args)
    segmenter.warm_up(args.height, args.width)
    zoom = Zoom(
        CoarseProposals(args.low, args.margin, args.largest),
        args.combination,
        args.context,
        args.least_view,
        args.regions,
    )
    views = views_with_questions(args.split, args.scenes, args.width, args.height, args.seed)
    total = 2 * args.scenes
    sides = ask_both_ways(segmenter, zoom, tqdm(views, total=total, unit='view', mininterval=10))
    report = {
        'model': args.model,
        'split': args.split,
        'scenes': args.scenes,
        'size': [args.width, args.height],
        'zoom': asdict(zoom),
        **report_of(sides),
    }
    print_report(report)
    write_figures(args.output, report)


if __name__ == '__main__':
    main()
