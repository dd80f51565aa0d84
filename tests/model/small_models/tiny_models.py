"""Tiny models with random weights, so that no test waits for a real one."""

from __future__ import annotations

import zlib
from typing import Any

import torch

from clipseg_model.modeling.bundled.photo_clip import PhotoClip
from clipseg_model.modeling.bundled.small_clip import SmallClip
from clipseg_model.modeling.clipseg import CLIPSeg

VOCABULARY = """[PAD] [UNK] [CLS] [SEP] a the mug red blue cup something to sit on drink from chair
of left"""

WORDS = tuple(VOCABULARY.split())
"""Known word pieces, in the order of the table."""

CARD: dict[str, Any] = {
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
        max_pieces=16,
    )
    text = towers.text
    text.vocabulary.copy_(torch.frombuffer(bytearray(packed), dtype=torch.uint8))
    text.table.copy_(
        torch.randint(-127, 128, text.table.shape, generator=generator, dtype=torch.int8)
    )
    text.scale.fill_(1 / 64)
    # A random stem answers faintly: as whitened features do, its own shall have about unit size.
    towers.whitening.mul_(30)
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


def make_photo_model(seed: int = 0) -> CLIPSeg:
    """The same on towers that know photographs, with two names and random classes."""
    small = make_small_clip(seed)
    torch.manual_seed(seed)
    options = {**small.config(), 'num_names': 3, 'num_members': 4, 'own_dim': 4, 'meaning_dim': 32}
    options.pop('type')
    towers = PhotoClip(**options, meaning_width=32, meaning_blocks=1)
    text = towers.text
    for name in ('vocabulary', 'table', 'scale'):
        getattr(text, name).copy_(getattr(small.text, name))
    towers.whitening.mul_(30)
    towers.deep_whitening.mul_(30)
    deep = towers.deep
    deep.classes.copy_(torch.randint(-127, 128, deep.classes.shape, dtype=torch.int8))
    meanings = torch.nn.functional.normalize(torch.randn(towers.names.shape), dim=-1)
    towers.names.copy_((meanings * 127).round().to(torch.int8))
    towers.name_scale.fill_(1 / 127)
    towers.members.copy_(torch.tensor([[0, 5], [1, 7], [2, 5], [2, 7]], dtype=torch.int16))
    model = CLIPSeg(towers, [0, 2], dim=16, num_heads=4, feedforward=32, head='refined')
    for guide in model.decoder.guides:
        torch.nn.init.normal_(guide.weight, std=0.3)
    return model.eval()
