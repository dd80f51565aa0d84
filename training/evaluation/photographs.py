r"""Measure a model on photographs with masks: names that are there, and names that are not.

    python -m training.evaluate photos MODEL --annotations instances.json --images images \
        --source coco --list training/datasets/test_photos.json:coco --output report.json

Of each photograph every name is asked that fills at least 0.2 % of it, and some that its source's
vocabulary labels and that are not there. Masks and scores are those that a Segmenter gives, with
the card's threshold and presence threshold.
"""

from __future__ import annotations

import argparse
import json
import math
import zlib
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from clipseg_model import Prompt, Segmenter, create_model
from clipseg_model.outputs.palette import colour_of
from training.datasets.photographs import Photograph, PhotographFile
from training.datasets.samples import DataError
from training.metrics.classes import absent_figures
from training.metrics.pixels import BINS, PixelStatistics

LEAST_SHARE = 0.002
"""Share of its photograph that a name must fill to be asked."""
SUPPORT_SHARE = 0.01
"""Share of its photograph that an example must fill."""
SHEET_COLUMNS, SHEET_ROWS = 4, 6
SIZES = {'under 1 %': (0.0, 0.01), '1 to 5 %': (0.01, 0.05), 'over 5 %': (0.05, 1.01)}


@dataclass
class Tally:
    """What was measured of some prompts whose thing is there."""

    pixels: PixelStatistics = field(default_factory=PixelStatistics)
    intersection: int = 0
    union: int = 0
    ious: list[float] = field(default_factory=list)

    def add(
        self,
        probability: NDArray[np.float32],
        mask: NDArray[np.bool_],
        truth: NDArray[np.bool_],
    ) -> None:
        """Add a prompt."""
        self.pixels.add(probability, truth)
        intersection, union = int((mask & truth).sum()), int((mask | truth).sum())
        self.intersection += intersection
        self.union += union
        self.ious.append(intersection / max(union, 1))

    def row(self) -> dict[str, float]:
        """Return the figures."""
        return {
            'prompts': len(self.ious),
            'ap': self.pixels.average_precision(),
            'iou_fg': self.intersection / max(self.union, 1),
            'iou_prompts': float(np.mean(self.ious)),
        }


@dataclass
class Measured:
    """All that was measured of a set of photographs."""

    names: Tally = field(default_factory=Tally)
    by_name: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    by_size: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    examples: Tally = field(default_factory=Tally)
    present_scores: list[float] = field(default_factory=list)
    absent_scores: list[float] = field(default_factory=list)
    absent_areas: list[float] = field(default_factory=list)
    photographs: int = 0

    def report(self) -> dict[str, Any]:
        """Return the figures as JSON types."""
        by_name = {name: tally.row() for name, tally in sorted(self.by_name.items())}
        result: dict[str, Any] = {
            'photographs': self.photographs,
            'names': self.names.row(),
            'miou': float(np.mean([row['iou_fg'] for row in by_name.values()])),
            'mean_ap': float(np.mean([row['ap'] for row in by_name.values()])),
            'by_name': by_name,
            'by_size': {name: self.by_size[name].row() for name in SIZES if name in self.by_size},
        }
        if self.absent_scores:
            result['absent'] = absent_figures(self.absent_areas)
            result['presence_auroc'] = auroc(self.present_scores, self.absent_scores)
        if self.examples.ious:
            result['image_prompts'] = self.examples.row()
        return result


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Return the probability that a score of ``positive`` is above one of ``negative``."""
    scores = np.concatenate([positive, negative])
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    count = len(positive)
    wins = ranks[:count].sum() - count * (count + 1) / 2
    return float(wins / (count * len(negative)))


def find_photographs(
    file: PhotographFile, source: str, split: str | None, names: Sequence[str] | None
) -> list[int]:
    """Return the ids of the photographs to measure.

    Args:
        file: Where they are.
        source: Theirs.
        split: Theirs, or None for any.
        names: File names of those to take; all where None.

    Raises:
        DataError: There are none, or one of ``names`` is missing.
    """
    numbers = file.numbers(source, split)
    if names is not None:
        wanted = set(names)
        numbers = [n for n in numbers if file.records[n]['file_name'] in wanted]
        if len(numbers) < len({n for n in wanted if n.startswith(f'{source}_') or not source}):
            raise DataError(f'{file.path} lacks some of the {len(wanted)} photographs of the list')
    if not numbers:
        raise DataError(f'{file.path} has no photograph of source {source!r}, split {split!r}')
    return numbers


def measure(
    segmenter: Segmenter,
    file: PhotographFile,
    numbers: Sequence[int],
    absent: int = 5,
    only: Sequence[str] | None = None,
    examples: bool = True,
    sheet: list[Any] | None = None,
    licences: Collection[str] = (),
) -> Measured:
    """Run a model over photographs.

    Args:
        segmenter: The model, with its thresholds.
        file: Where the photographs are.
        numbers: Their ids.
        absent: Names asked of each photograph that are not there.
        only: Names to ask; the source's vocabulary where None.
        examples: Whether to ask by objects of other photographs of the set, too.
        sheet: Where photographs and masks are kept, to be shown.
        licences: Of the photographs that may be shown, as the file names them; all where empty.
    """
    result = Measured()
    photos: dict[int, Photograph] = {number: file.read(number) for number in numbers}
    shown: dict[str, list[int]] = defaultdict(list)
    for number, photo in photos.items():
        for name, mask in photo.objects:
            if mask.mean() >= SUPPORT_SHARE and number not in shown[name]:
                shown[name].append(number)
    for number, photo in tqdm(photos.items(), unit='photo', mininterval=10):
        rng = np.random.default_rng(zlib.crc32(photo.name.encode()))
        asked = [n for n, mask in photo.masks.items() if mask.mean() >= LEAST_SHARE]
        free = sorted(set(photo.vocabulary) - set(photo.masks) - photo.unknown)
        if only is not None:
            asked = [name for name in asked if name in only]
            free = [name for name in free if name in only]
        if not asked and (only is not None or not absent):
            continue
        result.photographs += 1
        missing = [free[i] for i in rng.permutation(len(free))[:absent]]
        prompts = [Prompt(text=name) for name in (*asked, *missing)]
        owners: list[str] = []
        for name in asked if examples else ():
            others = [other for other in shown[name] if other != number]
            if others:
                other = photos[others[rng.integers(len(others))]]
                mask = max((m for n, m in other.objects if n == name), key=lambda m: m.sum())
                prompts.append(Prompt(image=other.image, mask=mask))
                owners.append(name)
        found = segmenter.segment(photo.image, prompts).results
        licence = str(file.records[number].get('licence', file.records[number].get('license')))
        if sheet is not None and (not licences or licence in licences):
            pairs = zip(asked, found, strict=False)
            sheet.append((photo, [(name, answer.mask) for name, answer in pairs]))
        for name, answer in zip(asked, found, strict=False):
            truth, share = photo.masks[name], float(photo.masks[name].mean())
            size = next(key for key, (low, high) in SIZES.items() if low <= share < high)
            for tally in (result.names, result.by_name[name], result.by_size[size]):
                tally.add(answer.probability, answer.mask, truth)
            result.present_scores.append(answer.score)
        for answer in found[len(asked) : len(asked) + len(missing)]:
            result.absent_scores.append(answer.score)
            result.absent_areas.append(float(answer.mask.mean()))
        for name, answer in zip(owners, found[len(asked) + len(missing) :], strict=True):
            result.examples.add(answer.probability, answer.mask, photo.masks[name])
    return result


def calibrate(measured: Measured, clean: float) -> dict[str, float]:
    """Choose thresholds: of pixels for the best IoU_FG, of presence to keep absent masks empty.

    Args:
        measured: On validation photographs.
        clean: Share of the absent prompts whose mask shall be empty.
    """
    curve = measured.names.pixels.iou_foreground()[1:BINS]
    presence = float(np.quantile(measured.absent_scores, clean))
    return {
        'threshold': (1 + int(np.argmax(curve))) / BINS,
        'presence_threshold': math.ceil(presence * 1e4) / 1e4,
    }


def write_sheet(
    path: Path, sheet: Sequence[Any], columns: int = SHEET_COLUMNS, width: int = 320
) -> None:
    """Write a contact sheet: each photograph beside the masks of the names that are there."""
    tiles: list[list[NDArray[np.uint8]]] = [[] for _ in range(columns)]
    for index, (photo, answers) in enumerate(sheet[: columns * SHEET_ROWS]):
        picture = photo.image.astype(np.float32)
        for number, (_, mask) in enumerate(answers[:8], start=1):
            picture[mask] = 0.45 * picture[mask] + 0.55 * np.array(colour_of(number))
        both = Image.fromarray(np.concatenate([photo.image, picture.astype(np.uint8)], 1))
        height = round(both.height * width / both.width)
        tiles[index % columns].append(np.asarray(both.resize((width, height))))
    strips = [np.concatenate(column) for column in tiles if column]
    whole = np.full((max(map(len, strips)), width * len(strips), 3), 255, np.uint8)
    for index, strip in enumerate(strips):
        whole[: len(strip), index * width : (index + 1) * width] = strip
    Image.fromarray(whole).save(path)


def print_report(report: dict[str, Any]) -> None:
    """Print the figures."""
    table = Table(title=f'{report["photographs"]} photographs')
    for column in ('group', 'prompts', 'AP', 'IoU_FG', 'mean IoU of prompts'):
        table.add_column(column)
    rows = {'names': report['names'], **report['by_size']}
    if 'image_prompts' in report:
        rows['image prompts'] = report['image_prompts']
    for name, row in rows.items():
        cells = (f'{row[key]:.3f}' for key in ('ap', 'iou_fg', 'iou_prompts'))
        table.add_row(name, str(row['prompts']), *cells)
    console = Console()
    console.print(table)
    line = f'mIoU over names {report["miou"]:.3f}, mean AP over names {report["mean_ap"]:.3f}'
    if 'absent' in report:
        line += (
            f'; absent clean {report["absent"]["kept_out"]:.3f}, '
            f'presence AUROC {report["presence_auroc"]:.3f}'
        )
    console.print(line)


def _listed(given: str | None, key: str) -> list[str] | None:
    if given is None:
        return None
    path, _, entry = given.partition(':')
    data = json.loads(Path(path).read_text(encoding='utf-8'))
    listed: list[str] = data[entry or key] if isinstance(data, dict) else data
    return listed


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('model', help='name of a model, or a checkpoint')
    parser.add_argument('--annotations', type=Path, required=True)
    parser.add_argument('--images', type=Path, required=True)
    parser.add_argument('--source', nargs='*', default=[''], help='of the photographs')
    parser.add_argument('--split')
    parser.add_argument('--list', help='FILE.json[:KEY] of the photographs to take')
    parser.add_argument('--only', help='FILE.json[:KEY] of the names to ask')
    parser.add_argument('--absent', type=int, default=5, help='absent names a photograph')
    parser.add_argument('--calibrate', type=float, metavar='CLEAN', help='choose thresholds')
    parser.add_argument('--threshold', type=float)
    parser.add_argument('--presence', type=float)
    parser.add_argument('--input-size', type=int)
    parser.add_argument('--threads', type=int)
    parser.add_argument('--output', type=Path)
    parser.add_argument('--sheet', type=Path, help='contact sheet to write')
    parser.add_argument(
        '--licences', nargs='*', default=[], help='of the photographs on it; all by default'
    )
    args = parser.parse_args(arguments)
    segmenter = create_model(
        args.model, threads=args.threads, runtime='eager', input_size=args.input_size
    )
    changes = {'threshold': args.threshold, 'presence_threshold': args.presence}
    changes = {key: value for key, value in changes.items() if value is not None}
    segmenter = Segmenter(segmenter.model, replace(segmenter.card, **changes))
    file = PhotographFile(args.annotations, args.images)
    names, only = _listed(args.list, 'photos'), _listed(args.only, 'names')
    numbers = [n for s in args.source for n in find_photographs(file, s, args.split, names)]
    sheet: list[Any] | None = [] if args.sheet else None
    measured = measure(
        segmenter, file, numbers, args.absent, only, sheet=sheet, licences=args.licences
    )
    report = measured.report()
    card = segmenter.card
    report['model'], report['input_size'] = args.model, card.input_size
    asked = Path(args.list).name if args.list else args.annotations.name
    report['data'] = ' '.join(part for part in (asked, args.split, *args.source) if part)
    report['thresholds'] = [card.threshold, card.presence_threshold]
    print_report(report)
    if args.calibrate is not None:
        report['calibration'] = calibrate(measured, args.calibrate)
        print(json.dumps(report['calibration']))
    if sheet:
        report['sheet'] = [photo.name for photo, _ in sheet[: SHEET_ROWS * SHEET_COLUMNS]]
    if args.output:
        args.output.write_text(json.dumps(report, indent=1) + '\n')
    if args.sheet and sheet:
        write_sheet(args.sheet, sheet)


if __name__ == '__main__':
    main()
