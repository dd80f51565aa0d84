"""Measure how far runtimes and precisions agree with fp32 masks on held-out tabletop scenes.

    python -m training.evaluation.runtime_agreement tabletop --data runs/tabletop --scenes 200

One view of each scene is segmented with prompts that are true of it, by eager fp32 and by every
runtime and precision that is installed; masks and logits are compared at the resolution of the
model. int8 is calibrated on views of the training split, which has other scenes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipseg_model import ClipsegError, create_model
from clipseg_model.quantization import export_int8, mask_agreement
from clipseg_model.registry import load_model
from clipseg_model.runtime.split import weights_digest
from training.console import print_table, write_figures
from training.datasets.tabletop import TabletopViews
from training.evaluation import scripts

RUNS = (
    ('eager', 'bf16'),
    ('onnxruntime', 'fp32'),
    ('openvino', 'fp32'),
    ('openvino', 'bf16'),
    ('openvino', 'int8'),
)
PROMPTS = 8


def pictures_and_prompts(
    views: TabletopViews, scenes: int
) -> tuple[list[NDArray[np.uint8]], list[list[str]]]:
    """Return a picture of each scene, with phrases that are true of something in it."""
    rng = np.random.default_rng(0)
    chosen = scripts.first_views(views, scenes, lambda record: bool(record['present']))
    prompts = []
    for view in chosen:
        present = views.records[view]['present']
        prompts.append([present[i][0] for i in rng.permutation(len(present))[:PROMPTS]])
    return [np.array(views.rgb(view)) for view in chosen], prompts


def calibrate(model_name: str, data: Path, count: int, folder: Path) -> None:
    """Write the int8 variant of a model to a folder, whatever its agreement."""
    pictures, prompts = pictures_and_prompts(TabletopViews(data), count)
    phrases = sorted({phrase for some in prompts for phrase in some})
    chosen = np.random.default_rng(0).permutation(len(phrases))[:32]
    model, card = load_model(model_name)
    wanted = [phrases[index] for index in chosen]
    export_int8(model, card, weights_digest(model), folder, pictures, wanted, least_iou=0.0)


def main() -> None:
    """Run the command line."""
    parser = scripts.new_parser(__doc__, nargs='?', default='tabletop')
    parser.add_argument('--data', type=Path, required=True, help='folder of the rendered splits')
    parser.add_argument('--split', default='test')
    parser.add_argument('--scenes', type=int, default=200)
    parser.add_argument('--calibration', type=int, default=64, help='pictures of split train')
    args = parser.parse_args()
    pictures, prompts = pictures_and_prompts(TabletopViews(args.data / args.split), args.scenes)
    rows: list[tuple[str, ...]] = []
    report: dict[str, Any] = {'model': args.model, 'scenes': len(pictures), 'split': args.split}
    with tempfile.TemporaryDirectory() as folder:
        calibrate(args.model, args.data / 'train', args.calibration, Path(folder))
        for runtime, precision in RUNS:
            exports = folder if precision == 'int8' else None
            options: dict[str, Any] = {'runtime': runtime, 'precision': precision}
            try:
                other = create_model(args.model, 'cpu', exports=exports, **options)
            except ClipsegError as error:
                rows.append((f'{runtime} {precision}', str(error)))
                continue
            reference = create_model(args.model, 'cpu', runtime='eager')
            found = mask_agreement(reference, other, pictures, prompts)
            report[f'{runtime} {precision}'] = vars(found)
            figures = (f'{found.iou:.4f}', f'{found.correlation:.5f}', f'{found.share_on:.2%}')
            rows.append((f'{runtime} {precision}', *figures))
    print_table(
        f'{args.model}: {len(pictures)} scenes of {args.split}, against eager fp32',
        ('runtime', 'IoU of masks', 'correlation of logits', 'pixels on'),
        rows,
    )
    write_figures(args.output, report)


if __name__ == '__main__':
    main()
