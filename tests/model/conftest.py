"""Tiny random models, so that nothing here waits for a real one."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from clipseg_model import registry
from clipseg_model.checkpoints import save_checkpoint
from clipseg_model.clipseg import CLIPSeg
from clipseg_model.segmenter import Segmenter
from clipseg_model.small_clip import SmallClip

WORDS = [
    '[PAD]',
    '[UNK]',
    '[CLS]',
    '[SEP]',
    'a',
    'the',
    'mug',
    'red',
    'blue',
    'cup',
    'something',
    'to',
    'sit',
    'on',
    'drink',
    'from',
    'chair',
    'of',
    'left',
]
CARD = {
    'name': 'tiny',
    'input_size': 64,
    'threshold': 0.5,
    'licence': 'Apache-2.0',
    'description': 'Random weights, for tests.',
    'notice': 'Random weights: its masks mean nothing.',
}


def make_small_clip(seed: int = 0) -> SmallClip:
    """Towers with random weights that know the words of :data:`WORDS`."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    packed = zlib.compress('\n'.join(WORDS).encode())
    towers = SmallClip(
        vocabulary_size=len(WORDS),
        vocabulary_bytes=len(packed),
        word_dim=8,
        width=32,
        num_blocks=3,
        grid=4,
        embed_dim=16,
        text_width=32,
        text_blocks=1,
        max_pieces=12,
    )
    text = towers.text
    text.vocabulary.copy_(torch.frombuffer(bytearray(packed), dtype=torch.uint8))
    text.table.copy_(
        torch.randint(-127, 128, text.table.shape, generator=generator, dtype=torch.int8)
    )
    text.scale.fill_(1 / 64)
    return towers


def make_model(seed: int = 0, head: str = 'refined') -> CLIPSeg:
    """A CLIPSeg with random weights whose logits differ between prompts and pixels."""
    towers = make_small_clip(seed)
    model = CLIPSeg(towers, [0, 2], dim=16, num_heads=4, feedforward=32, head=head)
    with torch.no_grad():
        # Random heads answer near 0 everywhere: stretch them, so that masks have both values.
        last = model.decoder.head.deconv2 if head == 'refined' else model.decoder.head.deconv
        last.weight *= 20
    return model.eval()


@pytest.fixture
def model() -> CLIPSeg:
    return make_model()


@pytest.fixture
def checkpoint(tmp_path: Path, model: CLIPSeg) -> Path:
    path = tmp_path / 'tiny.safetensors'
    save_checkpoint(path, model, CARD)
    return path


@pytest.fixture
def segmenter(checkpoint: Path) -> Segmenter:
    return registry.create_model(checkpoint, 'cpu')


@pytest.fixture
def image() -> NDArray[np.uint8]:
    """A landscape picture, 120 wide and 90 high, with some structure."""
    generator = np.random.default_rng(0)
    picture = np.full((90, 120, 3), 90, np.uint8)
    picture[20:60, 30:80] = (200, 40, 40)
    return picture + generator.integers(0, 30, picture.shape, dtype=np.uint8)
