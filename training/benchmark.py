"""Times models from uint8 frame to masks, against each other in one run.

    python -m training.benchmark tabletop --prompts 4
    python -m training.benchmark tabletop --prompts 4 --transformers --frames 10

Every subject sees the same frames in turn, frame by frame, so that a noisy machine disturbs all of
them alike; what is reported of them are medians, and their ratio to the first subject. The prompts
are known beforehand (a robot asks for the same things of many frames); every frame is new.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from clipseg_model import create_model

PROMPTS = (
    'a red mug',
    'the book',
    'something to sit on',
    'something to drink from',
    'a bottle',
    'the bowl with the fruit in it',
    'a blue box',
    'something to cut with',
)

Subject = Callable[[NDArray[np.uint8]], object]


def frames(count: int, height: int, width: int) -> list[NDArray[np.uint8]]:
    """Returns smooth random pictures, uint8 (height, width, 3)."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)]


def own_subject(name: str, prompts: list[str], device: str) -> Subject:
    """Returns a call that segments a frame with a model of this project and makes every mask."""
    segmenter = create_model(name, device=device)

    def run(image: NDArray[np.uint8]) -> object:
        return [result.mask for result in segmenter.segment(image, prompts).results]

    return run


def transformers_subject(prompts: list[str]) -> Subject:
    """Returns a call that segments as the documentation of transformers' CLIPSeg shows.

    The weights are random (speed does not depend on them): ViT-B/16 with D = 64, 352 × 352.
    """
    from transformers import CLIPSegConfig, CLIPSegForImageSegmentation, ViTImageProcessor

    config = CLIPSegConfig(vision_config={'patch_size': 16, 'image_size': 352})
    model = CLIPSegForImageSegmentation(config).eval()
    processor = ViTImageProcessor(size={'height': 352, 'width': 352})
    token_ids = torch.randint(1, 40000, (len(prompts), 8))
    token_ids[:, -1] = config.text_config.eos_token_id

    @torch.no_grad()
    def run(image: NDArray[np.uint8]) -> object:
        pixels = processor(images=[image] * len(prompts), return_tensors='pt')['pixel_values']
        logits = model(input_ids=token_ids, pixel_values=pixels).logits
        shape = image.shape[:2]
        masks = torch.nn.functional.interpolate(logits[:, None], shape, mode='bilinear')
        return masks.sigmoid() > 0.5

    return run


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('model', nargs='*', default=['tabletop'], help='models or checkpoints')
    parser.add_argument('--prompts', type=int, default=4, choices=range(1, len(PROMPTS) + 1))
    parser.add_argument('--frames', type=int, default=50, help='frames timed')
    parser.add_argument('--height', type=int, default=480)
    parser.add_argument('--width', type=int, default=640)
    parser.add_argument('--device', default='auto')
    parser.add_argument('--threads', type=int, default=os.cpu_count())
    parser.add_argument('--transformers', action='store_true', help="time transformers' CLIPSeg")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    prompts = list(PROMPTS[: args.prompts])
    subjects = {name: own_subject(name, prompts, args.device) for name in args.model}
    if args.transformers:
        subjects['transformers CLIPSeg rd64'] = transformers_subject(prompts)
    pictures = frames(8, args.height, args.width)
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    for turn in range(-3, args.frames):
        for name, run in subjects.items():
            began = time.perf_counter()
            run(pictures[turn % len(pictures)])
            if turn >= 0:
                seconds[name].append(time.perf_counter() - began)
    table = Table(
        title=f'{args.prompts} prompts, {args.width} × {args.height}, {args.threads} threads, '
        f'torch {torch.__version__}, {args.frames} frames'
    )
    for column in ('model', 'median ms', '90 % ms', 'frames/s', 'time against the first'):
        table.add_column(column, justify='left' if column == 'model' else 'right')
    first = float(np.median(next(iter(seconds.values()))))
    for name, times in seconds.items():
        median, late = np.median(times), np.quantile(times, 0.9)
        cells = (f'{median * 1e3:.1f}', f'{late * 1e3:.1f}', f'{1 / median:.1f}')
        table.add_row(name, *cells, f'{median / first:.2f} ×')
    Console().print(table)


if __name__ == '__main__':
    main()
