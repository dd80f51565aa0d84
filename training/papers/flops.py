"""Count the costs of the papers' models: parameters, and operations for an image and a prompt.

    python -m training.papers.flops
    python -m training.papers.flops --size 224

Operations are those of :func:`training.benchmarks.machine.count_gflops`. No weights are made and
nothing is computed: the models are on torch's ``meta`` device.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from clipseg_model.modeling.base import SegmentationModel, build_model
from clipseg_model.registry import get_card
from clipseg_model.weights.untrained import UNTRAINED
from training.benchmarks.machine import count_gflops
from training.console import print_table

#: Those of the papers' own sizes, on ViT-B/16.
PAPER_MODELS = ('clipseg-rd64', *(name for name in UNTRAINED if 'vit-l' not in name))
#: Side of the image, pixels.
INPUT_SIZE = 352
PROMPT = 'a photo of a mug.'


@dataclass(frozen=True)
class Cost:
    """Costs of a model.

    Attributes:
        trainable: Number of trainable parameters.
        image: GFLOP of an image.
        prompt: GFLOP of a prompt in an image.
        text: GFLOP of a text, once for all images.
    """

    trainable: int
    image: float
    prompt: float
    text: float


def paper_model(name: str) -> SegmentationModel:
    """Build one of :data:`PAPER_MODELS` at its full size, on the ``meta`` device."""
    config = get_card(name).config
    with torch.device('meta'):
        return build_model(config).eval()


def costs(name: str, size: int = INPUT_SIZE) -> Cost:
    """Count the operations of one of :data:`PAPER_MODELS` on a square image."""
    model = paper_model(name)
    image, prompt = count_gflops(model, (size, size), 'meta')
    with FlopCounterMode(display=False) as counter:
        model.embed_texts([PROMPT])
    trainable = sum(value.numel() for value in model.parameters() if value.requires_grad)
    return Cost(trainable, image, prompt, counter.get_total_flops() / 1e9)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--size', type=int, default=INPUT_SIZE, help='side of the image, pixels')
    args = parser.parse_args()
    rows = []
    for name in PAPER_MODELS:
        cost = costs(name, args.size)
        figures = (cost.image, cost.prompt, cost.text)
        rows.append((name, f'{cost.trainable:,}', *(f'{figure:.2f}' for figure in figures)))
    columns = ('model', 'trainable parameters', 'GFLOP an image', 'a prompt', 'a text')
    print_table(f'{args.size} × {args.size} pixels', columns, rows)


if __name__ == '__main__':
    main()
