"""Miniature photographs with masks, and a model that may be trained on them."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from clipseg_model.modeling.bundled.photo_clip import PhotoClip
from clipseg_model.modeling.clipseg import CLIPSeg
from clipseg_model.weights.checkpoints import save_checkpoint

WORDS = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', 'a', 'the', 'photo', 'red', 'blue', 'box', 'ball')


def write_photographs(folder: Path, count: int = 4, **changes: Any) -> Path:
    """Grey pictures with a red box or a blue ball each, in COCO's instance format."""
    images, annotations = [], []
    rng = np.random.default_rng(0)
    for number in range(count):
        pixels = np.full((96, 128, 3), 128, np.uint8)
        x, y = (int(v) for v in rng.integers(8, 48, 2))
        name = number % 2
        pixels[y : y + 40, x : x + 40] = (200, 20, 20) if name == 0 else (20, 20, 200)
        Image.fromarray(pixels).save(folder / f'{number}.png')
        images.append({'id': number, 'file_name': f'{number}.png', 'height': 96, 'width': 128})
        corners = [x, y, x + 40, y, x + 40, y + 40, x, y + 40]
        annotations.append(
            {'id': number, 'image_id': number, 'category_id': name, 'segmentation': [corners]}
        )
    categories = [{'id': 0, 'name': 'red_box'}, {'id': 1, 'name': 'blue ball'}]
    data = {'images': images, 'annotations': annotations, 'categories': categories, **changes}
    path = folder / 'instances.json'
    path.write_text(json.dumps(data))
    return path


def write_start(folder: Path) -> Path:
    """A model with random weights to start with."""
    torch.manual_seed(0)
    packed = zlib.compress('\n'.join(WORDS).encode())
    towers = PhotoClip(
        len(WORDS), len(packed), num_names=2, num_members=2, word_dim=8, own_dim=4,
        meaning_dim=32, meaning_width=32, meaning_blocks=1, width=32, num_blocks=2,
        embed_dim=16, text_width=32, text_blocks=1,
    )  # fmt: skip
    towers.text.vocabulary.copy_(torch.from_numpy(np.frombuffer(packed, np.uint8).copy()))
    towers.text.table.random_(-127, 128)
    towers.text.scale.fill_(1 / 64)
    towers.names.random_(-20, 20)
    towers.members.copy_(torch.tensor([[0, 3], [1, 8]]))
    model = CLIPSeg(towers, [0, 1], dim=16, feedforward=32, head='refined')
    path = folder / 'start.safetensors'
    save_checkpoint(path, model, {'name': 'start', 'input_size': 96}, dtype=torch.float32)
    return path


def run(module: Any, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr('sys.argv', ['command', *map(str, arguments)])
    module.main()
