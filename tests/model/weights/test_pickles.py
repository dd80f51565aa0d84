"""Pickled weights in Hugging Face folders: no code in them runs, and what is wrong is named."""

from __future__ import annotations

import fractions
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip('transformers')

import huggingface_models as theirs
from safetensors.torch import load_file

from clipseg_model.errors import CheckpointError
from clipseg_model.weights.checkpoints import load_checkpoint, load_towers


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return theirs.save(theirs.make(), tmp_path / 'CIDAS--clipseg-tiny')


def to_bin(folder: Path, weights: Any) -> None:
    (folder / 'model.safetensors').unlink()
    torch.save(weights, folder / 'pytorch_model.bin')


def test_code_in_them_is_not_run(folder: Path, tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / 'ran'),)

    to_bin(folder, {'decoder.film_mul.bias': Malicious()})
    with pytest.raises(CheckpointError, match=r'refused.*asks for posix\.mkdir .*run code') as got:
        load_checkpoint(folder)
    assert 'weights_only' not in str(got.value)
    assert not (tmp_path / 'ran').exists()
    torch.load(folder / 'pytorch_model.bin', weights_only=False)
    assert (tmp_path / 'ran').exists(), 'the file would not have run code at all'


@pytest.mark.parametrize('keep', [0, 100, -200])
def test_cut_off(folder: Path, keep: int) -> None:
    to_bin(folder, load_file(folder / 'model.safetensors'))
    path = folder / 'pytorch_model.bin'
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match='damaged'):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ('write', 'words'),
    [
        (
            lambda path: torch.save(torch.nn.Linear(2, 2), path),
            'torch.nn.modules.linear.Linear',
        ),
        (lambda path: torch.save({'a': np.float64(3)}, path), 'multiarray.scalar'),
        (lambda path: torch.save({'a': fractions.Fraction(1)}, path), 'fractions.Fraction'),
        (lambda path: torch.jit.script(torch.nn.Linear(2, 2)).save(path), 'state_dict() alone'),
        (lambda path: tarfile.open(path, 'w').close(), 'damaged'),
        (lambda path: path.write_bytes(pickle.dumps({'a': os.mkdir})), 'damaged'),
        (lambda path: path.write_bytes(b'<html>not found</html>'), 'damaged'),
    ],
)
@pytest.mark.filterwarnings('ignore')
def test_what_was_refused_is_named_and_no_advice_is_quoted(
    folder: Path, write: Callable[[Path], None], words: str
) -> None:
    (folder / 'model.safetensors').unlink()
    write(folder / 'pytorch_model.bin')
    for read in (load_checkpoint, lambda path: load_towers(path / 'pytorch_model.bin', {})):
        with pytest.raises(CheckpointError) as got:
            read(folder)
        assert words in str(got.value)
        for advice in ('weights_only', 'safe_globals', 'torch.load', 'trust'):
            assert advice not in str(got.value)


def test_weights_that_are_mostly_not_there(folder: Path) -> None:
    """One value that is shown a million times must not take the memory of a million."""
    to_bin(folder, {'decoder.film_mul.bias': torch.zeros(1).expand(1 << 40)})
    with pytest.raises(CheckpointError, match='does not hold the values of decoder'):
        load_checkpoint(folder)
    torch.save({'decoder.film': torch.eye(3).to_sparse()}, folder / 'pytorch_model.bin')
    with pytest.raises(CheckpointError, match='does not hold the values of decoder'):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ([1, 2], 'holds a list'),
        ({}, 'holds a dict'),
        ({'model': {'weight': torch.zeros(2)}}, "'model' is a dict and not a tensor"),
    ],
)
def test_other_contents(folder: Path, content: object, message: str) -> None:
    to_bin(folder, content)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder)
