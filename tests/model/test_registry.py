from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import clipseg_model
from clipseg_model import registry
from clipseg_model.clipseg import build_clipseg
from clipseg_model.errors import CheckpointError, DeviceError, ModelNotFoundError


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / 'weights'
    folder.mkdir()
    monkeypatch.setattr(registry, 'WEIGHTS_FOLDER', folder)
    return folder


def test_the_default_comes_first() -> None:
    assert registry.list_models()[0] == registry.DEFAULT_MODEL == 'tabletop'


def test_every_name_has_a_card() -> None:
    for name in registry.list_models():
        card = registry.get_card(name)
        assert card.name == name
        assert card.description


def test_the_cards_values_are_the_checkpoints(weights: Path, checkpoint: Path) -> None:
    assert not registry.get_card('tabletop').present
    shutil.copy(checkpoint, weights / 'tabletop.safetensors')
    card = registry.get_card('tabletop')
    assert card.present
    assert (card.name, card.input_size) == ('tiny', 64)


@pytest.mark.usefixtures('weights')
def test_a_bundled_file_that_is_missing() -> None:
    with pytest.raises(CheckpointError, match=r'tabletop\.safetensors\): reinstall'):
        registry.create_model('tabletop', 'cpu')


def test_a_bundled_file_that_is_damaged(weights: Path) -> None:
    (weights / 'tabletop.safetensors').write_bytes(b'x')
    for attempt in (registry.get_card, registry.create_model):
        with pytest.raises(CheckpointError, match='damaged'):
            attempt('tabletop')


def test_weights_that_are_not_bundled() -> None:
    assert not registry.get_card('clipseg-rd64').present
    with pytest.raises(CheckpointError, match=r'path of a \.safetensors checkpoint'):
        registry.create_model('clipseg-rd64')


def test_the_architecture_of_the_papers_model_builds() -> None:
    card = registry.get_card('clipseg-rd64')
    assert card.layers == (3, 6, 9)
    model = build_clipseg(dict(card.config))
    assert sum(value.numel() for value in model.decoder.parameters()) == 1_073_153
    assert model.layers == (3, 6, 9)
    assert card.input_size == 352


@pytest.mark.parametrize(
    ('name', 'hint'),
    [
        ('tabeltop', "Did you mean 'tabletop'"),
        ('clipseg', "Did you mean 'clipseg-rd64'"),
        ('sam', 'There are tabletop, clipseg-rd64'),
        ('', 'There are'),
    ],
)
def test_names_that_are_not_known(name: str, hint: str) -> None:
    with pytest.raises(ModelNotFoundError, match=hint):
        registry.create_model(name)
    with pytest.raises(ModelNotFoundError, match=hint):
        registry.get_card(name)


@pytest.mark.parametrize('path', ['none.safetensors', './none', 'models/none.safetensors'])
def test_paths_that_are_not_there(path: str) -> None:
    with pytest.raises(CheckpointError, match='no checkpoint'):
        registry.create_model(path)


def test_a_path_as_text_or_path(checkpoint: Path) -> None:
    for path in (checkpoint, str(checkpoint)):
        assert registry.create_model(path, 'cpu').card.name == 'tiny'


def test_a_path_in_the_current_folder(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkpoint.parent)
    assert registry.create_model(checkpoint.name, 'cpu').card.name == 'tiny'


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    torch.save({}, tmp_path / 'rd64-uni.pth')
    with pytest.raises(CheckpointError, match=r'\.safetensors'):
        registry.create_model(tmp_path / 'rd64-uni.pth')


def test_device_and_threads(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert registry.create_model(checkpoint, 'auto').device == torch.device('cpu')
    with pytest.raises(DeviceError, match='cuda'):
        registry.create_model(checkpoint, 'cuda')
    before = torch.get_num_threads()
    try:
        registry.create_model(checkpoint, 'cpu', threads=1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    with pytest.raises(ValueError, match='not 0'):
        registry.create_model(checkpoint, 'cpu', threads=0)


def test_public_names() -> None:
    for name in clipseg_model.__all__:
        assert getattr(clipseg_model, name) is not None
    with pytest.raises(AttributeError, match='nonsense'):
        _ = clipseg_model.nonsense


def test_importing_the_package_does_not_import_torch() -> None:
    script = (
        'import sys, clipseg_model; assert "torch" not in sys.modules; '
        'clipseg_model.parse_prompts; assert "rclpy" not in sys.modules'
    )
    subprocess.run([sys.executable, '-c', script], check=True, timeout=60)


def test_the_bundled_model() -> None:
    """What every bundled file must be, as soon as there is one."""
    card = registry.get_card('tabletop')
    if not card.present:
        pytest.skip('the bundled weights are not in this checkout')
    assert card.weights is not None
    assert card.name == 'tabletop'
    assert card.weights.stat().st_size <= 10_000_000
    assert card.licence == 'Apache-2.0'
    assert 'demonstration' in card.notice
    segmenter = registry.create_model('tabletop', 'cpu')
    image = torch.zeros(48, 64, 3, dtype=torch.uint8).numpy()
    found = segmenter.segment(image, ['the red mug', 'something to sit on'])
    assert [result.mask.shape for result in found.results] == [(48, 64)] * 2
