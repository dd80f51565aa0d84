"""Counts what the papers' models cost: parameters, and operations for an image and a prompt.

    python -m training.papers.flops
    python -m training.papers.flops --size 224

Counted by torch's flop counter: two operations for each multiplication with addition in matrix
products, convolutions and attention, and nothing for the rest. No weights are made and nothing is
computed: the models live on torch's ``meta`` device.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from clipseg_model.modeling.backbone import OpenClipBackbone
from clipseg_model.modeling.base import SegmentationModel, build_model
from clipseg_model.modeling.clipseg import CLIPSeg
from clipseg_model.registry import get_card
from clipseg_model.weights.untrained import UNTRAINED

PAPER_MODELS = ('clipseg-rd64', *UNTRAINED)
#: Side of the image, pixels.
INPUT_SIZE = 352
PROMPT = 'a photo of a mug.'


@dataclass(frozen=True)
class Cost:
    """What a model costs.

    Attributes:
        trainable: Trainable parameters.
        image: GFLOP once an image.
        prompt: GFLOP once a prompt and image.
        text: GFLOP once a text, kept for all images.
    """

    trainable: int
    image: float
    prompt: float
    text: float


def paper_model(name: str) -> SegmentationModel:
    """Builds one of :data:`PAPER_MODELS` at its full size, on the ``meta`` device."""
    config = get_card(name).config
    with torch.device('meta'):
        if config['architecture'] == 'clipseg':
            towers = OpenClipBackbone(config['backbone']['architecture'])
            return CLIPSeg(towers, config['layers'], **config['decoder']).eval()
        return build_model(config).eval()


def costs(name: str, size: int = INPUT_SIZE) -> Cost:
    """Counts the operations of one of :data:`PAPER_MODELS` on a square image."""
    model = paper_model(name)
    pixels = torch.empty(1, 3, size, size, device='meta')
    condition = torch.empty(1, model.backbone.embed_dim, device='meta')
    counters = [FlopCounterMode(display=False) for _ in range(3)]
    with counters[0]:
        features = model.encode_image(pixels)
    with counters[1]:
        model.decode(features, condition)
    with counters[2]:
        model.embed_texts([PROMPT])
    image, prompt, text = (counter.get_total_flops() / 1e9 for counter in counters)
    trainable = sum(value.numel() for value in model.parameters() if value.requires_grad)
    return Cost(trainable, image, prompt, text)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--size', type=int, default=INPUT_SIZE, help='side of the image, pixels')
    args = parser.parse_args()
    table = Table(title=f'{args.size} × {args.size} pixels')
    for heading in ('model', 'trainable parameters', 'GFLOP an image', 'a prompt', 'a text'):
        table.add_column(heading, justify='left' if heading == 'model' else 'right')
    for name in PAPER_MODELS:
        cost = costs(name, args.size)
        figures = (cost.image, cost.prompt, cost.text)
        table.add_row(name, f'{cost.trainable:,}', *(f'{figure:.2f}' for figure in figures))
    Console().print(table)


if __name__ == '__main__':
    main()
