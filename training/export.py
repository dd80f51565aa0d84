"""Turn a training run into what others use: a checkpoint, or a Hugging Face folder.

    python -m training.export runs/own own.safetensors --calibrate
    python -m training.export runs/own hub/own --calibrate --empty 0.9 --evaluation test.json
    python -m training.export runs/train/tabletop_finish tabletop.safetensors --input-size 256

An OUTPUT that ends in .safetensors is a checkpoint for clipseg, create_model and the node. Any
other is a new folder for the hub: README.md with the model card and, where transformers has the
architecture, all that CLIPSegForImageSegmentation.from_pretrained reads. --calibrate chooses the
thresholds on a validation split, that of the run if no other is named, and the card keeps them and
what they were chosen on. --evaluation adds what was measured: results of
`python -m training.evaluate data --output`; for runs of training.train_tabletop, the report of
`python -m training.evaluate`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from clipseg_model.errors import ClipsegError
from clipseg_model.modeling.clipseg import build_clipseg
from clipseg_model.registry import load_model
from clipseg_model.weights.checkpoints import save_checkpoint
from training.bundled.cache_features import SUPPORT_SIZE
from training.bundled.cached_training import CachedTraining
from training.bundled.losses import JointTraining
from training.calibrate import calibrate
from training.evaluation.data_command import read_data
from training.loop.processes import begin_accelerator
from training.loop.run_folder import RunFolder
from training.publish import PublishError, quality, read_evaluation, write_folder

DESCRIPTION = 'Demonstration model of this project: tiny, and knows rendered scenes only.'
NOTICE = (
    'The model "tabletop" is a demonstration: it was trained on rendered household scenes and '
    'does not understand photographs. Use a CLIPSeg checkpoint for real work.'
)
PHOTO_SIZE = 304
PHOTO_DESCRIPTION = (
    'Small model of this project: everyday things in photographs, and rendered scenes.'
)
PHOTO_NOTICE = (
    'The model "everyday" is small: it knows some hundred everyday things and misses small ones. '
    'Use clipseg-rd64-refined for real work.'
)


def measured(report: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of an evaluation that a model card quotes."""
    quality: dict[str, Any] = {}
    for split, part in report.items():
        if not isinstance(part, dict) or 'groups' not in part:
            continue
        quality[split] = {'scenes': part['scenes'], 'views': part['views']}
        for name, row in part['groups'].items():
            quality[split][name] = {
                key: round(row[key], 3) for key in ('iou_fg', 'ap') if key in row
            }
        if 'absent' in part:
            quality[split]['absent'] = {k: round(v, 4) for k, v in part['absent'].items()}
        if part.get('words'):
            words = part['words'].items()
            quality[split]['words'] = {word: round(row['iou_fg'], 3) for word, row in words}
    return quality


def records_of(run: Path) -> list[dict[str, Any]]:
    """Return a run's records, without what names the machine's folders; SystemExit without."""
    records = [json.loads(path.read_text()) for path in sorted(run.glob('run_*.json'))]
    if not records:
        raise SystemExit(
            f'{run} holds no run_*.json: it is no folder that training.train_tabletop or '
            'training.train_bundled wrote'
        )
    for record in records:
        record.pop('command', None)
    return records


def history(run: Path) -> list[dict[str, Any]]:
    """Return a run's records, after those of the run that it began with."""
    records = records_of(run)
    earlier = records[0]['init_from']
    return [*(history(Path(earlier).parent) if earlier else []), *records]


def export_tabletop(args: argparse.Namespace) -> None:
    """Export a run of training.train_tabletop."""
    state = RunFolder(args.run).load(args.run / 'state.pt')
    records = history(args.run)
    settings = records[-1]['settings']
    joint = JointTraining(build_clipseg(settings['model']))
    joint.load_state_dict(state['average'])
    card: dict[str, Any] = {
        'name': args.output.stem,
        'input_size': args.input_size or 288,
        'resize': 'aspect',
        'prompt_image_size': settings['data']['support_size'],
        'licence': 'Apache-2.0',
        'description': DESCRIPTION,
        'notice': NOTICE,
        'details': {
            'data': 'rendered by tabletop_world; see docs/tabletop_world.md',
            'runs': records,
            'iterations of the last run': state['iteration'],
        },
    }
    if args.evaluation:
        report = json.loads(args.evaluation[-1].read_text())
        calibration = report['calibration']
        card['threshold'] = calibration['threshold']
        card['presence_threshold'] = calibration['presence_threshold']
        card['details']['calibrated_on'] = calibration['split']
        card['details']['measured'] = measured(report)
    save_checkpoint(args.output, joint.model, card, dtype=torch.float16)
    print(f'{args.output}: {args.output.stat().st_size / 1e6:.2f} MB')


def export_bundled(args: argparse.Namespace) -> None:
    """Export a run of training.train_bundled.

    ``--evaluation`` may name results of ``python -m training.evaluate photos``: one with
    ``--calibrate``, whose thresholds the card takes, and others, whose figures it keeps.
    """
    state = torch.load(args.run / 'state.pt', map_location='cpu', weights_only=True)
    records = records_of(args.run)
    settings = records[-1]['settings']
    model: Any = load_model(settings['start'])[0]
    module = CachedTraining(model)
    module.load_state_dict(state['average'])
    card: dict[str, Any] = {
        'name': args.output.stem,
        'input_size': args.input_size or PHOTO_SIZE,
        'resize': 'aspect',
        'prompt_image_size': SUPPORT_SIZE,
        'licence': args.licence or 'Apache-2.0',
        'description': args.description or PHOTO_DESCRIPTION,
        'notice': PHOTO_NOTICE,
        'details': {
            'data': settings['terms'],
            'runs': records,
            'iterations': state['iteration'],
            'measured': {},
        },
    }
    for path in args.evaluation:
        report = json.loads(path.read_text())
        if 'calibration' in report:
            card |= report['calibration']
            card['details']['calibrated_on'] = report['data']
        else:
            kept = ('names', 'miou', 'absent', 'presence_auroc', 'image_prompts', 'photographs')
            figures = {key: report[key] for key in kept if key in report}
            card['details']['measured'][report['data']] = figures
    save_checkpoint(args.output, model, card, dtype=torch.float16)
    print(f'{args.output}: {args.output.stat().st_size / 1e6:.2f} MB')


def export_run(args: argparse.Namespace) -> None:
    """Export a run of training.train, or any checkpoint; ClipsegError where it cannot be done."""
    run = Path(args.run)
    weights = run / 'model.safetensors' if run.is_dir() else run
    if run.is_dir() and not weights.is_file():
        raise PublishError(
            f'{run} has no model.safetensors: the run did not come to its end. Go on with '
            f'python -m training.train {run / "config.yaml"} --output {run} --resume'
        )
    model, card = load_model(str(weights) if run.is_dir() else args.run)
    changes: dict[str, Any] = {'name': args.output.stem}
    for key in ('licence', 'description'):
        if getattr(args, key) is not None:
            changes[key] = getattr(args, key)
    card = replace(card, **changes)
    if args.empty is not None and args.calibrate is None:
        raise PublishError('--empty is of --calibrate: give both')
    if args.calibrate is not None:
        data = read_data(args.calibrate or str(run / 'config.yaml'))
        card = calibrate(model, card, data, begin_accelerator(), args.empty, args.samples)
        print(json.dumps(card.details['calibration']))
    results = [quality(read_evaluation(path), card.threshold) for path in args.evaluation]
    if results:
        card = replace(card, details={**card.details, 'evaluations': results})
    if args.output.suffix == '.safetensors':
        dtype = torch.float16 if args.half else None
        save_checkpoint(args.output, model, card.stored_fields(), dtype=dtype)
        print(f'{args.output}: {args.output.stat().st_size / 1e6:.2f} MB')
        return
    if args.half:
        raise PublishError('--half is for a .safetensors file')
    write_folder(args.output, model, card)
    print(f'{args.output}: upload it with hf upload OWNER/NAME {args.output}')


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('run', help='folder of a run, or a checkpoint')
    parser.add_argument('output', type=Path, help='.safetensors file, or a new folder')
    parser.add_argument(
        '--calibrate',
        nargs='?',
        const='',
        metavar='YAML',
        help="choose thresholds on a data set; without a value, on the run's validation data",
    )
    parser.add_argument(
        '--empty', type=float, help='calibrate presence too: share of absent prompts to keep empty'
    )
    parser.add_argument('--samples', type=int, help='to calibrate on, at most')
    parser.add_argument(
        '--evaluation', type=Path, action='append', default=[], help='result to put on the card'
    )
    parser.add_argument('--licence', help='of the weights')
    parser.add_argument('--description', help='one sentence')
    parser.add_argument('--half', action='store_true', help='store 16-bit values')
    parser.add_argument(
        '--input-size',
        type=int,
        help='of the tabletop model; a run of training.train knows its own',
    )
    args = parser.parse_args(arguments)
    try:
        if (Path(args.run) / 'state.pt').is_file():
            args.run = Path(args.run)
            first = json.loads((args.run / 'run_000000.json').read_text())
            export = export_bundled if 'cache' in first['settings'] else export_tabletop
            export(args)
        else:
            export_run(args)
    except (ClipsegError, FileNotFoundError) as error:
        raise SystemExit(f'{error}') from error


if __name__ == '__main__':
    main()
