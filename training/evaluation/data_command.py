r"""Measure a model on any data set, in paper mode or in native mode.

    python -m training.evaluate data runs/own/model.safetensors --mode native \
        --data '{dataset: folder, folder: my_data/val}'
    python -m training.evaluate data clipseg-rd64-refined --mode paper \
        --data '{dataset: phrasecut, folder: data/VGPhraseCut_v0, split: test, crop: none}'

paper    pictures and truth are squares of 352 × 352 pixels, as in CLIPSeg's evaluation
native   the model as it is used, on the pixels of the pictures at their own size and aspect

Figures of the two modes cannot be compared: there is no default, and the result names the mode.
--data takes the settings of a data set (docs/datasets.md), a YAML file with them, or a file of
training/configs, whose validation data are used. Several processes share the work (torchrun
--nproc_per_node 8 -m training.evaluate data …), and their sums are exact. While it runs, --output
and --csv have what the first of them has so far; --output is marked with "complete": false.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from clipseg_model.errors import ClipsegError, FileError
from clipseg_model.files.small_files import parse_yaml, read_yaml
from clipseg_model.prompting.templates import TEMPLATES
from clipseg_model.prompting.visual_prompt import METHODS
from clipseg_model.registry import load_model
from training.console import print_table, write_figures
from training.datasets.samples import evenly_spread
from training.datasets.sources import open_source, tell_left_out
from training.evaluation import scripts
from training.evaluation.modes import PAPER_SIZE, Evaluation, EvaluationError, evaluate
from training.evaluation.outcomes import Outcomes, has_counts
from training.loop.processes import begin_accelerator
from training.loop.run_folder import git_commit
from training.metrics.outcomes import by_subset, gathered, write_csv
from training.metrics.tally import CURVES, SCALARS, Tally

TITLES = {
    'iou_fg': 'IoU_FG',
    'iou_bin': 'IoU_BIN (FB-IoU)',
    'miou_samples': 'mIoU over samples',
    'miou_classes': 'mIoU over classes',
    'ap': 'AP',
    'ap_published': 'AP (as published)',
    'calibration_error': 'calibration error',
    'presence_auroc': 'presence AUROC',
}


def read_data(text: str) -> dict[str, Any]:
    """Read the settings of a data set from the command line.

    Args:
        text: YAML, a file with it, or a configuration of training, whose validation data are
            taken.

    Raises:
        EvaluationError: If it is none of these.
    """
    path = Path(text)
    named = text.endswith(('.yaml', '.yml'))
    try:
        values = read_yaml(path) if named else parse_yaml(text, 'it')
    except FileError as error:
        raise EvaluationError(f'--data {text} cannot be read: {error}') from error
    if isinstance(values, dict) and 'dataset' not in values:
        values = (values.get('validation') or {}).get('data')
    if not isinstance(values, dict) or 'dataset' not in values:
        raise EvaluationError(
            f"--data {text} names no data set: give '{{dataset: folder, folder: my_data/val}}' or "
            'a file of training/configs with validation data'
        )
    return values


def print_tally(tally: Tally, thresholds: list[float], how: dict[str, Any]) -> None:
    """Print the figures."""
    levels = sorted({tally.threshold, *thresholds})
    rows = []
    for name in CURVES:
        best, threshold = tally.best(name)
        if not np.isnan(best):
            cells = [f'{tally.figure(name, level):.4f}' for level in levels]
            rows.append([TITLES[name], *cells, f'{best:.4f}', f'{threshold:.3f}'])
    title = f'{how["mode"]} mode, pixels: {how["pixels"]}, {tally.pixels().samples} samples'
    print_table(title, ('', *(f't = {x:g}' for x in levels), 'best', 'at t'), rows)
    for name in SCALARS:
        value = tally.figure(name)
        if not np.isnan(value):
            print(f'{TITLES[name]}: {value:.4f}')
    if tally.matting.mattes:
        print(f'per matte: {tally.matting.per_matte()}')
        print(f'per expression (E): {tally.matting.per_expression()}')
    for kind, count in sorted(tally.skipped.items()):
        print(f'left out, {kind}: {count}')


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = scripts.new_parser(__doc__)
    parser.prog = 'python -m training.evaluate data'
    option = parser.add_argument
    option('--mode', choices=('paper', 'native'), required=True)
    option('--data', required=True, metavar='YAML', help='a data set, or a file')
    option('--prompt', choices=('text', 'image'), default='text', help='phrases, or support images')
    option('--template', choices=sorted(TEMPLATES), help="caption of the phrases; the model's own")
    option('--method', choices=list(METHODS), help="of support images; the model's own")
    option('--fit', choices=('squeeze', 'pad'), help='of paper mode: squeeze')
    option('--size', type=int, help=f'side of the squares of paper mode: {PAPER_SIZE}')
    option('--threshold', type=float, action='append', default=[], help='besides its own')
    option('--csv', type=Path, metavar='FILE', help='a line for each sample')
    option(
        '--predictions',
        type=Path,
        metavar='FOLDER',
        help="masks as PNG for PhraseCut's own evaluator; in native mode",
    )
    option('--samples', type=int, help='at most so many, evenly spread')
    option('--seed', type=int, default=0)
    option('--batch', type=int, default=8, help='samples at once, in paper mode')
    option('--workers', type=int, default=0, help='processes that load')
    option('--device', choices=('auto', 'cpu'), default='auto')
    return parser


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Evaluate as the command line says, and return the result.

    Raises:
        ClipsegError: If model, data or options are not usable.
    """
    if args.mode == 'native' and (args.fit or args.size):
        raise EvaluationError('--fit and --size are of paper mode: native mode resizes no truth')
    if args.mode == 'paper' and args.predictions:
        raise EvaluationError(
            "--predictions are masks of the pictures' own size: they need --mode native"
        )
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
        # Support images are the prompts.
        data = {'visual': True, **data}
    accelerator = begin_accelerator(device=args.device)
    model, card = load_model(args.model)
    source = open_source(data)
    if accelerator.is_main_process:
        tell_left_out(source)
    indices = evenly_spread(len(source), args.samples)
    outcomes = None
    if args.csv or args.predictions or has_counts(source):
        outcomes = Outcomes(source, args.predictions)
    how = evaluation.described(card)
    details = {
        **how,
        'model': args.model,
        'data': data,
        'commit': git_commit(),
        'processes': accelerator.num_processes,
    }

    def keep(so_far: Tally) -> None:
        if accelerator.is_main_process:
            if args.csv and outcomes is not None:
                write_csv(args.csv, outcomes.listed)
            report = so_far.report(args.threshold)
            write_figures(args.output, {'complete': False, **details, **report})

    tally = evaluate(model, card, source, evaluation, accelerator, indices, outcomes, partial=keep)
    listed = [] if outcomes is None else gathered(outcomes.listed, accelerator)
    result = {**details, **tally.report(args.threshold)}
    subsets = by_subset(listed)
    if subsets:
        result['subsets'] = subsets
    if accelerator.is_main_process:
        if args.csv:
            write_csv(args.csv, listed)
        print_tally(tally, args.threshold, how)
        write_figures(args.output, result)
    return result


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    try:
        run(make_parser().parse_args(arguments))
    except (ClipsegError, FileNotFoundError) as error:
        raise SystemExit(f'{error}') from error


if __name__ == '__main__':
    main()
