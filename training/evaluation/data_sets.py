r"""Measures a model on any data set, in paper mode or in native mode.

    python -m training.evaluate data runs/own/model.safetensors --mode native \
        --data '{dataset: folder, folder: my_data/val}'
    python -m training.evaluate data clipseg-rd64-refined --mode paper \
        --data '{dataset: phrasecut, folder: data/VGPhraseCut_v0, split: test, crop: none}'

paper    pictures and truth are squares of 352 × 352 pixels, as in CLIPSeg's evaluation
native   the model as its users have it, on the pixels of the pictures at their own size and aspect

Figures of one mode cannot be compared with those of the other: there is no default, and the mode
is in the result. --data takes a data set's settings (docs/datasets.md), a YAML file that holds
them, or a file of training/configs, whose validation data are then used. Several processes share
the work (torchrun --nproc_per_node 8 -m training.evaluate data …), and their sums are exact.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from accelerate import Accelerator
from rich.console import Console
from rich.table import Table

from clipseg_model.errors import ClipsegError
from clipseg_model.prompting.visual_prompt import DEFAULT_METHOD, METHODS
from clipseg_model.prompts import TEMPLATES
from clipseg_model.registry import load_model
from training.datasets.sources import open_source
from training.evaluation.measuring import PAPER_SIZE, Evaluation, EvaluationError, measure
from training.loop.run_folder import git_commit, write_atomically
from training.metrics.tally import CURVES, Tally

TITLES = {
    'iou_fg': 'IoU_FG',
    'iou_bin': 'IoU_BIN (FB-IoU)',
    'miou_samples': 'mIoU over samples',
    'miou_classes': 'mIoU over classes',
}


def read_data(text: str) -> dict[str, Any]:
    """Reads the settings of a data set from the command line.

    Args:
        text: YAML, or a file with the settings, or one of a training run, whose validation data
            are taken.

    Raises:
        EvaluationError: It is neither.
    """
    path = Path(text)
    named = text.endswith(('.yaml', '.yml'))
    try:
        values = yaml.safe_load(path.read_text(encoding='utf-8') if named else text)
    except (OSError, yaml.YAMLError) as error:
        raise EvaluationError(f'--data {text} cannot be read: {error}') from error
    if isinstance(values, dict) and 'dataset' not in values:
        values = (values.get('validation') or {}).get('data')
    if not isinstance(values, dict) or 'dataset' not in values:
        raise EvaluationError(
            f"--data {text} names no data set: give '{{dataset: folder, folder: my_data/val}}' or "
            'a file of training/configs with validation data'
        )
    return values


def spread(count: int, wanted: int | None) -> list[int]:
    """Returns at most so many of ``count`` indices, evenly spread."""
    shown = min(count, wanted or count)
    indices: list[int] = np.linspace(0, count - 1, shown).round().astype(int).tolist()
    return indices


def begin_accelerator(device: str = 'auto') -> Accelerator:
    """Joins the processes that measure.

    Args:
        device: ``auto``, or ``cpu`` to leave a GPU alone.
    """
    return Accelerator(cpu=device == 'cpu' or not torch.cuda.is_available(), mixed_precision='no')


def print_tally(tally: Tally, thresholds: list[float], how: dict[str, Any]) -> None:
    """Prints the figures."""
    console = Console()
    title = f'{how["mode"]} mode, pixels: {how["pixels"]}'
    table = Table(title=f'{title}, {tally.pixels().samples} samples')
    table.add_column('')
    levels = sorted({tally.threshold, *thresholds})
    for level in levels:
        table.add_column(f't = {level:g}', justify='right')
    table.add_column('best', justify='right')
    table.add_column('at t', justify='right')
    for name in CURVES:
        best, where = tally.best(name)
        if np.isnan(best):
            continue
        cells = [f'{tally.figure(name, level):.4f}' for level in levels]
        table.add_row(TITLES[name], *cells, f'{best:.4f}', f'{where:.3f}')
    console.print(table)
    for name, title in (
        ('ap', 'AP'),
        ('calibration_error', 'calibration error'),
        ('presence_auroc', 'presence AUROC'),
    ):
        value = tally.figure(name)
        if not np.isnan(value):
            console.print(f'{title}: {value:.4f}')
    if tally.matting.mattes:
        console.print(f'per matte: {tally.matting.per_matte()}')
        console.print(f'per expression (E): {tally.matting.per_expression()}')
    for kind, count in tally.skipped.items():
        console.print(f'left out, {kind}: {count}')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument('model', help='name of a model, or a checkpoint')
    parser.add_argument('--mode', choices=('paper', 'native'), required=True)
    parser.add_argument('--data', required=True, metavar='YAML', help='a data set, or a file')
    parser.add_argument(
        '--prompt', choices=('text', 'image'), default='text', help='phrases, or support images'
    )
    parser.add_argument(
        '--template', choices=sorted(TEMPLATES), help="caption of the phrases; the model's own"
    )
    parser.add_argument(
        '--method', choices=list(METHODS), default=DEFAULT_METHOD, help='of support images'
    )
    parser.add_argument(
        '--fit', choices=('squeeze', 'pad'), help='of pictures to squares, in paper mode: squeeze'
    )
    parser.add_argument(
        '--size', type=int, help=f'side of the squares, in paper mode: {PAPER_SIZE}'
    )
    parser.add_argument(
        '--threshold', type=float, action='append', default=[], help='to report at, beside its own'
    )
    parser.add_argument('--samples', type=int, help='at most so many, evenly spread')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--batch', type=int, default=8, help='samples at once, in paper mode')
    parser.add_argument('--workers', type=int, default=0, help='processes that load')
    parser.add_argument('--device', choices=('auto', 'cpu'), default='auto')
    parser.add_argument('--output', type=Path, help='JSON file for the figures')


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measures as the command line says.

    Returns:
        The result.

    Raises:
        ClipsegError: Model, data or options are not usable.
    """
    if args.mode == 'native' and (args.fit or args.size):
        raise EvaluationError('--fit and --size are of paper mode: native mode resizes no truth')
    for level in args.threshold:
        if not 0 < level < 1:
            raise EvaluationError(f'--threshold must be strictly between 0 and 1, not {level}')
    evaluation = Evaluation(
        mode=args.mode,
        prompt=args.prompt,
        template=args.template,
        method=args.method,
        fit=args.fit or 'squeeze',
        size=args.size or PAPER_SIZE,
        seed=args.seed,
        batch=args.batch,
        workers=args.workers,
    )
    data = read_data(args.data)
    if args.prompt == 'image':
        # Without them there would be nothing to ask with.
        data = {'visual': True, **data}
    accelerator = begin_accelerator(args.device)
    model, card = load_model(args.model)
    source = open_source(data)
    tally = measure(model, card, source, evaluation, accelerator, spread(len(source), args.samples))
    how = evaluation.described(card)
    result = {
        **how,
        'model': args.model,
        'data': data,
        'commit': git_commit(),
        'processes': accelerator.num_processes,
        **tally.report(args.threshold),
    }
    if accelerator.is_main_process:
        print_tally(tally, args.threshold, how)
        if args.output:
            write_atomically(args.output, json.dumps(result, indent=2) + '\n')
    return result


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m training.evaluate data',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    try:
        run(parser.parse_args(arguments))
    except (ClipsegError, FileNotFoundError) as error:
        raise SystemExit(f'{error}') from error


if __name__ == '__main__':
    main()
