"""Measure how many of the things in rendered scenes a model finds as a detector for zoom.

    python -m training.evaluation.detector_recall tabletop --scenes 30 --tiles 1,2,3

A prompt's things are the connected parts of its truth. One is found where a detection of the prompt
has at least half of its box in common with the thing's (IoU), and met where the middle of the thing
lies in a detection: zoom will show it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from clipseg_model.instances import find_instances
from clipseg_model.zoom.detectors import Detection
from clipseg_model.zoom.model_detector import ModelDetector
from training.console import print_figures, write_figures
from training.evaluation import scripts
from training.evaluation.small_objects import ABSENT, SIZES, Question, views_with_questions

#: Least pixels of a thing.
LEAST = 20


@dataclass
class Recall:
    """Counts of a detector."""

    things: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    found: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    met: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    detections: int = 0
    absent: int = 0
    absent_prompts: int = 0
    seconds: list[float] = field(default_factory=list)

    def add(self, question: Question, boxes: Sequence[tuple[float, ...]]) -> None:
        """Add the boxes of a prompt."""
        self.detections += len(boxes)
        if question.group == ABSENT:
            self.absent_prompts += 1
            self.absent += bool(boxes)
            return
        for part in find_instances(question.truth, question.truth.astype(np.float32), LEAST):
            x, y, width, height = part.box
            share = part.area / question.truth.size
            group = next((name for name, (low, up, _) in SIZES.items() if low < share <= up), '')
            if not group:
                continue
            thing = (x, y, x + width, y + height)
            middle = (x + width / 2, y + height / 2)
            self.things[group] += 1
            self.found[group] += any(box_iou(thing, box) >= 0.5 for box in boxes)
            self.met[group] += any(
                box[0] <= middle[0] <= box[2] and box[1] <= middle[1] <= box[3] for box in boxes
            )

    def rows(self, tiles: int) -> list[dict[str, Any]]:
        """Return the figures, a row for each size."""
        return [
            {
                'tiles': tiles,
                'thing fills': group,
                'things': self.things[group],
                'recall': round(self.found[group] / self.things[group], 3),
                'met': round(self.met[group] / self.things[group], 3),
            }
            for group in SIZES
            if self.things[group]
        ]


def box_iou(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the intersection over the union of two boxes: left, top, right, bottom."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    common = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return common / (sum(areas) - common)


def measure(
    detectors: dict[int, ModelDetector],
    views: Iterable[tuple[NDArray[np.uint8], list[Question]]],
) -> dict[int, Recall]:
    """Ask each detector for all prompts of each view."""
    recalls = {tiles: Recall() for tiles in detectors}
    for rgb, questions in views:
        names = [question.text for question in questions]
        for tiles, detect in detectors.items():
            start = time.perf_counter()
            detections: list[Detection] = detect(rgb, names)
            recalls[tiles].seconds.append(time.perf_counter() - start)
            for question in questions:
                boxes = [one.box for one in detections if one.category == question.text]
                recalls[tiles].add(question, boxes)
    return recalls


def main() -> None:
    """Run the command line."""
    parser = scripts.new_parser(__doc__)
    parser.add_argument('--split', default='test')
    parser.add_argument('--scenes', type=int, default=30, help='scenes, of two views each')
    parser.add_argument('--width', type=int, default=640)
    parser.add_argument('--height', type=int, default=480)
    parser.add_argument(
        '--tiles', type=lambda text: [int(n) for n in text.split(',')], default=[1, 2, 3]
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of the prompts drawn')
    scripts.add_device(parser)
    args = parser.parse_args()
    segmenter = scripts.load_segmenter(args)
    views = views_with_questions(args.split, args.scenes, args.width, args.height, args.seed)
    detectors = {tiles: ModelDetector(segmenter, tiles=tiles) for tiles in args.tiles}
    recalls = measure(detectors, tqdm(views, total=2 * args.scenes, unit='view', mininterval=10))
    rows = [row for tiles, recall in recalls.items() for row in recall.rows(tiles)]
    print_figures('Recall of things', rows)
    costs = [
        {
            'tiles': tiles,
            'detections a view': round(recall.detections / len(recall.seconds), 1),
            'absent prompts with any': round(recall.absent / max(1, recall.absent_prompts), 3),
            'median ms a view': round(1e3 * float(np.median(recall.seconds))),
        }
        for tiles, recall in recalls.items()
    ]
    print_figures('Cost, all prompts of a view at once', costs)
    write_figures(args.output, {'recall': rows, 'cost': costs})


if __name__ == '__main__':
    main()
