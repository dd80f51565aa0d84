"""A small rendered data set and small frozen parts, made once."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import save_file

from clipseg_model.modeling.bundled.small_clip import SmallClip
from tabletop_world.language.phrases import grammar_words
from tabletop_world.language.vocabulary import UNSEEN_WORDS
from training.bundled.render_scenes import render_shard


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For tests that train: threads gain nothing on matrices this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _no_accelerator_is_left() -> Iterator[None]:
    """One process holds one precision, and keeps it: the next test may have another."""
    yield
    AcceleratorState._reset_state(True)


@pytest.fixture(scope='session')
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the splits train, val, test and unseen_pairs, a few scenes each."""
    folder = tmp_path_factory.mktemp('rendered')
    for split, scenes in (('train', 12), ('val', 3), ('test', 3), ('unseen_pairs', 3)):
        (folder / split).mkdir()
        render_shard(folder / split, split, 0, scenes, 96)
    return folder


@pytest.fixture(scope='session')
def frozen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """Random frozen parts that know the words of the grammar, and their sizes."""
    known = sorted({*grammar_words(), *' '.join(UNSEEN_WORDS).split()})
    words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', *known]
    packed = zlib.compress('\n'.join(words).encode())
    sizes = {'vocabulary_size': len(words), 'vocabulary_bytes': len(packed), 'word_dim': 8}
    torch.manual_seed(0)
    towers = SmallClip(**sizes)
    towers.text.vocabulary.copy_(torch.from_numpy(np.frombuffer(packed, np.uint8).copy()))
    towers.text.table.random_(-127, 128)
    towers.text.scale.fill_(1 / 64)
    state = {k: v for k, v in towers.state_dict().items() if k.startswith('stem.')}
    state |= {f'text.{key}': getattr(towers.text, key) for key in ('table', 'scale', 'vocabulary')}
    path = tmp_path_factory.mktemp('frozen') / 'frozen.safetensors'
    save_file(state, path)
    return path, sizes
