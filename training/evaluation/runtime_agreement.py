"""Measures how far runtimes and precisions agree with fp32 masks on held-out tabletop scenes.

    python -m training.evaluation.runtime_agreement tabletop --data runs/tabletop --scenes 200

One view of each scene is segmented with its own present prompts, by eager fp32 and by every runtime
and precision that is installed; what is compared are masks and logits at the model's resolution.
int8 is calibrated on views of the training split, whose scenes are others.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from clipseg_model import ClipsegError, create_model
from clipseg_model.registry import load_model
from clipseg_model.runtime.export_files import weights_digest
from clipseg_model.runtime.quantization import export_int8, mask_agreement
from training.datasets.tabletop import TabletopViews

RUNS = (
    ('eager', 'bf16'),
    ('onnxruntime', 'fp32'),
    ('openvino', 'fp32'),
    ('openvino', 'bf16'),
    ('openvino', 'int8'),
)
PROMPTS = 8


def one_view_a_scene(
    views: TabletopViews, scenes: int
) -> tuple[list[NDArray[np.uint8]], list[list[str]]]:
    """Returns pictures of different scenes and phrases that are true of something in each."""
    pictures, prompts, seen = [], [], set()
    rng = np.random.default_rng(0)
    for view, record in enumerate(views.records):
        if record['seed'] in seen or not record['present'] or len(pictures) == scenes:
            continue
        seen.add(record['seed'])
        drawn = rng.permutation(len(record['present']))[:PROMPTS]
        pictures.append(np.array(views.rgb(view)))
        prompts.append([record['present'][index][0] for index in drawn])
    return pictures, prompts


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('model', nargs='?', default='tabletop')
    parser.add_argument('--data', type=Path, required=True, help='folder of tabletop_render')
    parser.add_argument('--split', default='test')
    parser.add_argument('--scenes', type=int, default=200)
    parser.add_argument('--calibration', type=int, default=64, help='pictures of split train')
    parser.add_argument('--report', type=Path, help='JSON file to write')
    args = parser.parse_args()
    pictures, prompts = one_view_a_scene(TabletopViews(args.data / args.split), args.scenes)
    table = Table(title=f'{args.model}: {len(pictures)} scenes of {args.split}, against eager fp32')
    for column in ('runtime', 'precision', 'IoU of masks', 'correlation of logits', 'pixels on'):
        table.add_column(column)
    report: dict[str, Any] = {'model': args.model, 'scenes': len(pictures), 'split': args.split}
    with tempfile.TemporaryDirectory() as folder:
        calibrate(args.model, args.data / 'train', args.calibration, Path(folder))
        for runtime, precision in RUNS:
            try:
                other = create_model(
                    args.model,
                    'cpu',
                    runtime=runtime,
                    precision=precision,
                    exports=folder if precision == 'int8' else None,
                )
            except ClipsegError as error:
                table.add_row(runtime, precision, str(error))
                continue
            found = mask_agreement(create_model(args.model, 'cpu'), other, pictures, prompts)
            report[f'{runtime} {precision}'] = vars(found)
            figures = (f'{found.iou:.4f}', f'{found.correlation:.5f}', f'{found.share_on:.2%}')
            table.add_row(runtime, precision, *figures)
    Console().print(table)
    if args.report:
        args.report.write_text(json.dumps(report, indent=2) + '\n')


def calibrate(model_name: str, data: Path, count: int, folder: Path) -> None:
    """Writes the int8 variant of a model to a folder, whatever its agreement."""
    pictures, prompts = one_view_a_scene(TabletopViews(data), count)
    phrases = sorted({phrase for asked in prompts for phrase in asked})
    chosen = np.random.default_rng(0).permutation(len(phrases))[:32]
    model, card = load_model(model_name)
    digest = weights_digest(model)
    wanted = [phrases[index] for index in chosen]
    export_int8(model, card, digest, folder, pictures, wanted, least_iou=0.0)


if __name__ == '__main__':
    main()
