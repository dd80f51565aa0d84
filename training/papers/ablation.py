"""The ablation of CLIPSeg's paper on the tabletop world: train, evaluate, and tabulate it.

    python -m training.papers.ablation runs/tabletop runs/ablation --seeds 0 1

Each file of ``configs/tabletop_ablation`` is a row; all have the same budget and the towers of the
bundled model. Activations of the towers are cached once for all rows with the same data. An
interrupted command goes on where it stopped, and several at once share the rows. ``report.json``
and ``report.md`` hold the table.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from clipseg_model import Prompt, Segmenter, create_model
from clipseg_model.errors import ClipsegError
from clipseg_model.files.atomic_files import write_atomically
from clipseg_model.segmentation import PromptResult
from training.cache_activations import cache
from training.console import markdown_table, write_figures
from training.datasets.samples import sample_rng
from training.datasets.tabletop_phrases import TabletopPhrases, TabletopSettings
from training.loop.activations import DESCRIPTION
from training.loop.run_folder import RunFolder
from training.loop.settings import Settings, load_settings
from training.metrics.classes import PromptStatistics, absent_figures
from training.metrics.pixels import PixelStatistics, index_of
from training.train import train

CONFIGS = Path(__file__).parents[1] / 'configs' / 'tabletop_ablation'
#: The rows in the order of the table, and what it calls them.
ROWS = {
    'pc': 'CLIPSeg (PC)',
    'pc_plus': 'CLIPSeg (PC+)',
    'no_visual': 'PC+, no visual',
    'no_negatives': 'PC+, no negatives',
    'd16': 'PC+, D = 16',
    'one_tap': 'PC+, only one tap',
    'clip_deconv': 'CLIP-Deconv (PC+)',
    'clsclip': 'ClsCLIP (PC+)',
}
#: Taps of all rows, blocks of the small towers.
LAYERS = (0, 1, 2, 3)
#: Draws of each training sample that are cached; longer runs repeat them.
EPOCHS = 1
#: Present prompts of each view of the test, and as many absent ones.
PHRASES = 4
#: Views of the test split, of which there are two to a scene.
VIEWS = 250
#: Columns of the table: heading, section and key of a row's figures.
COLUMNS = (
    ('text: mIoU', 'text', 'miou'),
    ('IoU_FG', 'text', 'iou_fg'),
    ('AP', 'text', 'ap'),
    ('image: mIoU', 'image', 'miou'),
    ('IoU_FG', 'image', 'iou_fg'),
    ('AP', 'image', 'ap'),
    ('absent: area on', 'absent', 'area_on'),
    ('kept out', 'absent', 'kept_out'),
    ('presence AUROC', 'absent', 'presence_auroc'),
)


@dataclass
class Asked:
    """Statistics of prompts of one kind.

    Attributes:
        pixels: Of present prompts.
        prompts: IoU of present prompts, and scores of presence.
        areas: Share of the picture that is on, of each absent prompt.
    """

    pixels: PixelStatistics = field(default_factory=PixelStatistics)
    prompts: PromptStatistics = field(default_factory=PromptStatistics)
    areas: list[float] = field(default_factory=list)

    def add(self, result: PromptResult, truth: NDArray[np.bool_], threshold: float) -> None:
        """Add a result and its truth, bool (H, W); a prompt is absent if the truth is empty."""
        mask = result.probability > threshold
        self.prompts.add(result.score, mask, truth)
        if truth.any():
            self.pixels.add(result.probability, truth)
        else:
            self.areas.append(float(mask.mean()))

    def present_row(self, threshold: float) -> dict[str, float]:
        """Return the figures of present prompts."""
        return {
            'prompts': self.pixels.samples,
            'miou': self.prompts.mean_iou(),
            'iou_fg': float(self.pixels.iou_foreground()[index_of(threshold)]),
            'ap': self.pixels.average_precision(),
        }

    def absent_row(self) -> dict[str, float]:
        """Return the figures of absent prompts, and the AUROC of presence."""
        return {
            **absent_figures(self.areas),
            'presence_auroc': self.prompts.presence_auroc(),
        }


def evaluate_row(segmenter: Segmenter, data: Path, views: int, seed: int = 0) -> dict[str, Any]:
    """Evaluate a model on the test split, with phrases and with support images.

    Args:
        segmenter: The model, with the threshold of validation.
        data: Folder of the rendered splits.
        views: Number of views.
        seed: Of the absent prompts and support images, which are the same for all rows.

    Returns:
        Figures of the sections ``text``, ``image`` and ``absent``, and the threshold.
    """
    settings: dict[str, Any] = {'folder': data, 'split': 'test', 'views': views, 'phrases': PHRASES}
    true = TabletopPhrases(TabletopSettings(**settings, visual=True))
    false = TabletopPhrases(TabletopSettings(**settings, negatives=1.0))
    threshold = segmenter.card.threshold
    text, image = Asked(), Asked()
    of_view: dict[str, list[int]] = defaultdict(list)
    for index in range(len(true)):
        of_view[true.key(index).rpartition(' phrase ')[0]].append(index)
    for indices in tqdm(of_view.values(), unit='view', mininterval=10):
        queries = []
        for index in indices:
            shown = true.load(index, sample_rng(seed, 0, index))
            denied = false.load(index, sample_rng(seed, 1, index))
            queries.append((Prompt(text=shown.phrase), shown.mask, text))
            queries.append((Prompt(text=denied.phrase), denied.mask, text))
            if shown.support is not None:
                prompt = Prompt(image=shown.support.image, mask=shown.support.mask)
                queries.append((prompt, shown.mask, image))
        found = segmenter.segment(shown.image, [query[0] for query in queries])
        for (_, truth, asked), result in zip(queries, found.results, strict=True):
            asked.add(result, truth, threshold)
    return {
        'views': views,
        'threshold': threshold,
        'text': text.present_row(threshold),
        'image': image.present_row(threshold),
        'absent': text.absent_row(),
    }


def row_settings(row: str, data: Path, seed: int, changes: Sequence[str] = ()) -> Settings:
    """Return the settings of the run of a row."""
    places = [f'data.folder={data}', f'validation.data.folder={data}', f'seed={seed}']
    return load_settings(CONFIGS / f'{row}.yaml', [*places, *changes])


def cached(settings: Settings, folder: Path) -> Path:
    """Cache the activations of a run, and return their folder; the same data share one."""
    drawn = [settings.data, settings.prompts.model_dump(), settings.drawn_by, settings.towers]
    digest = hashlib.sha256(json.dumps(drawn, default=str).encode()).hexdigest()[:12]
    place = folder / f'{settings.data["dataset"].replace("+", "_plus")}-{digest}'
    with claimed(place.with_suffix('.lock'), wait=True):
        # An incomplete cache is checked and completed.
        cache(settings, place, EPOCHS, layers=LAYERS)
    assert (place / DESCRIPTION).is_file()
    return place


def run_row(row: str, seed: int, data: Path, output: Path, changes: Sequence[str] = ()) -> None:
    """Train and evaluate a row with a seed, unless that is done.

    Args:
        row: A key of :data:`ROWS`.
        seed: Of weights and order; the draws of samples are the same for every seed.
        data: Folder of the rendered splits.
        output: Folder of the experiment.
        changes: Changes of the settings, ``KEY=VALUE`` each.
    """
    folder = output / f'{row}-{seed}'
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / 'figures.json').exists():
        return
    settings = row_settings(row, data, seed, changes)
    activations = cached(settings, output / 'activations')
    settings = settings.model_copy(update={'activations': str(activations)})
    checkpoint = folder / 'model.safetensors'
    if not checkpoint.exists():
        checkpoint = train(settings, folder, resume=True)
    segmenter = create_model(checkpoint, device='cpu')
    figures = {
        'row': row,
        'seed': seed,
        'iterations': settings.iterations,
        'batch_size': settings.batch_size,
        'trained_weights': trained_weights(checkpoint),
        **evaluate_row(segmenter, data, VIEWS),
    }
    write_figures(folder / 'figures.json', figures)


def trained_weights(checkpoint: Path) -> int:
    """Return the number of trained weights of a run, from its last state."""
    folder = RunFolder(checkpoint.parent)
    state = folder.load(folder.last)
    return sum(value.numel() for value in state['trained'].values())


@contextlib.contextmanager
def claimed(path: Path, wait: bool) -> Iterator[bool]:
    """Hold a lock file, and yield whether it was free. It is released when the process ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def report(output: Path) -> str:
    """Tabulate what is finished, and write ``report.json`` and ``report.md``.

    Returns:
        The table in Markdown: means over the seeds, with half of their range where there are
        several.
    """
    found = [json.loads(path.read_text()) for path in sorted(output.glob('*/figures.json'))]
    rows = []
    for row, name in ROWS.items():
        runs = [figures for figures in found if figures['row'] == row]
        if not runs:
            rows.append([name, 'not run', *[''] * (1 + len(COLUMNS))])
            continue
        seeds = ', '.join(str(figures['seed']) for figures in runs)
        cells = [
            mean_and_range([figures[section][key] for figures in runs], key)
            for _, section, key in COLUMNS
        ]
        weights = f'{runs[0]["trained_weights"]:,}'
        rows.append([name, seeds, weights, *cells])
    heads = ['', 'seeds', 'weights', *(column[0] for column in COLUMNS)]
    table = '\n'.join(markdown_table(heads, rows)) + '\n'
    write_figures(output / 'report.json', found)
    write_atomically(output / 'report.md', table)
    return table


def mean_and_range(values: list[float], key: str) -> str:
    """Return the mean of values as text, with half their range if there are several."""
    percent = key in ('area_on', 'kept_out')
    scale, digits, unit = (100, 2 if key == 'area_on' else 1, ' %') if percent else (1, 3, '')
    text = f'{scale * np.mean(values):.{digits}f}'
    if len(values) > 1:
        text += f' ± {scale * (max(values) - min(values)) / 2:.{digits}f}'
    return text + unit


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('data', type=Path, help='folder of the rendered splits')
    parser.add_argument('output', type=Path, help='folder of the experiment')
    parser.add_argument(
        '--rows', nargs='+', choices=ROWS, default=list(ROWS), metavar='ROW',
        help=f'some of {", ".join(ROWS)}; all by default',
    )  # fmt: skip
    parser.add_argument('--seeds', nargs='+', type=int, default=[0], metavar='SEED')
    parser.add_argument('--threads', type=int, help='threads on a CPU')
    parser.add_argument('--report', action='store_true', help='only tabulate what is finished')
    parser.add_argument(
        '--set', action='append', default=[], metavar='KEY=VALUE',
        help='change a setting of every row, such as iterations=2400; into another output folder',
    )  # fmt: skip
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        for seed in [] if args.report else args.seeds:
            for row in args.rows:
                with claimed(args.output / 'locks' / f'{row}-{seed}', wait=False) as free:
                    if free:
                        run_row(row, seed, args.data, args.output, args.set)
        print(report(args.output))
    except ClipsegError as error:
        raise SystemExit(f'{error}') from error


if __name__ == '__main__':
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    main()
