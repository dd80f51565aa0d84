"""Fixtures around a tiny model with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_models import CARD, make_model

from clipseg_model import registry
from clipseg_model.modeling.clipseg import CLIPSeg
from clipseg_model.segmenter import Segmenter
from clipseg_model.weights.checkpoints import save_checkpoint


@pytest.fixture(autouse=True)
def _no_downloaded_models(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever this machine has downloaded, a test finds nothing of it."""
    empty = tmp_path_factory.mktemp('models')
    monkeypatch.setenv('CLIPSEG_MODELS', str(empty / 'own'))
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(empty / 'hub'))


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
