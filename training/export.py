"""Turns a training run into a checkpoint that :func:`clipseg_model.create_model` reads.

    python -m training.export runs/tabletop/train tabletop.safetensors --input-size 288

With ``--evaluation``, the thresholds and the measured quality of a report by
``python -m training.evaluate`` are written into the model card.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from clipseg_model.checkpoints import save_checkpoint
from clipseg_model.clipseg import build_clipseg
from training.losses import JointTraining

DESCRIPTION = 'Demonstration model of this project: tiny, and knows rendered scenes only.'
NOTICE = (
    'The model "tabletop" is a demonstration: it was trained on rendered household scenes and '
    'does not understand photographs. Use a CLIPSeg checkpoint for real work.'
)


def measured(report: dict[str, Any]) -> dict[str, Any]:
    """Returns the figures of an evaluation that a model card quotes."""
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


def history(run: Path) -> list[dict[str, Any]]:
    """Returns the records of a run, after those of the run whose weights it began with.

    Raises:
        SystemExit: If one of the folders holds no record.
    """
    records = [json.loads(path.read_text()) for path in sorted(run.glob('run_*.json'))]
    if not records:
        raise SystemExit(
            f'{run} holds no run_*.json: it is no folder that training.train_tabletop wrote'
        )
    earlier = records[0]['init_from']
    return [*(history(Path(earlier).parent) if earlier else []), *records]


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('run', type=Path, help='folder that training.train_tabletop wrote')
    parser.add_argument('output', type=Path, help='.safetensors file to write')
    parser.add_argument('--input-size', type=int, default=288)
    parser.add_argument('--evaluation', type=Path, help='report of training.evaluate')
    args = parser.parse_args()
    state = torch.load(args.run / 'state.pt', map_location='cpu', weights_only=True)
    records = history(args.run)
    settings = records[-1]['settings']
    joint = JointTraining(build_clipseg(settings['model']))
    joint.load_state_dict(state['average'])
    card: dict[str, Any] = {
        'name': args.output.stem,
        'input_size': args.input_size,
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
        report = json.loads(args.evaluation.read_text())
        calibration = report['calibration']
        card['threshold'] = calibration['threshold']
        card['presence_threshold'] = calibration['presence_threshold']
        card['details']['calibrated_on'] = calibration['split']
        card['details']['measured'] = measured(report)
    save_checkpoint(args.output, joint.model, card, dtype=torch.float16)
    print(f'{args.output}: {args.output.stat().st_size / 1e6:.2f} MB')


if __name__ == '__main__':
    main()
