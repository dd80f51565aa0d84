from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import clipseg_model
from clipseg_model import registry
from clipseg_model.errors import CheckpointError, DeviceError, ModelNotFoundError
from clipseg_model.modeling.clipseg import build_clipseg
from clipseg_model.modeling.decoder import CLIPSegDecoder
from clipseg_model.weights import store
from clipseg_model.weights.untrained import UNTRAINED


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / 'weights'
    folder.mkdir()
    monkeypatch.setattr(registry, 'WEIGHTS_FOLDER', folder)
    return folder


def test_the_default_comes_first() -> None:
    assert registry.list_models()[0] == registry.DEFAULT_MODEL == 'everyday'


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
    for name in registry.list_models()[2:]:
        assert not registry.get_card(name).present
        remedy = 'train it' if name in UNTRAINED else f'run "clipseg download {name}"'
        with pytest.raises(CheckpointError, match=remedy):
            registry.create_model(name)
    for name in ('CIDAS/clipseg-rd16', 'somebody/clipseg-garden'):
        with pytest.raises(CheckpointError, match='clipseg download'):
            registry.create_model(name)
    with pytest.raises(CheckpointError, match=r"no file or folder 'models/mug'"):
        registry.create_model('models/mug')


def test_cards_of_published_weights() -> None:
    towers = store.SOURCES[store.TOWERS[16]].parameters
    assert towers == 149_620_737  # which the test of the backbone counts
    for name, dim, head in (
        ('clipseg-rd64-refined', 64, 'refined'),
        ('clipseg-rd64', 64, 'plain'),
        ('clipseg-rd16', 16, 'plain'),
    ):
        card = registry.get_card(name)
        assert (card.layers, card.input_size) == ((3, 6, 9), 352)
        assert card.prompt_ground == 'mean'
        assert card.source == f'https://huggingface.co/CIDAS/{name}'
        assert 'not MIT' in card.licence
        assert (card.config['decoder']['dim'], card.config['decoder']['head']) == (dim, head)
        decoder = CLIPSegDecoder(768, 512, **card.config['decoder'])
        count = sum(value.numel() for value in decoder.parameters())
        assert card.details['parameters'] == towers + count


def test_a_downloaded_model_by_name(tmp_path: Path) -> None:
    """By this project's name and by the hub's; its card says whose it is."""
    theirs = pytest.importorskip('huggingface_models')
    source = store.SOURCES['clipseg-rd16']
    theirs.save(theirs.make(), source.folder, size=96)
    assert registry.get_card('clipseg-rd16').present
    image = torch.zeros(48, 64, 3, dtype=torch.uint8).numpy()
    for name in ('clipseg-rd16', 'CIDAS/clipseg-rd16'):
        segmenter = registry.create_model(name, 'cpu')
        card = segmenter.card
        assert (card.name, card.licence, card.source) == (
            'clipseg-rd16',
            source.licence,
            source.url,
        )
        assert (card.input_size, card.layers) == (96, (0, 2, 3))
        assert segmenter.segment(image, ['a mug']).model == 'clipseg-rd16'
    theirs.save(theirs.make(), store.models_folder() / 'somebody--clipseg-garden')
    assert registry.create_model('somebody/clipseg-garden', 'cpu').card.name == 'clipseg-garden'


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
        ('sam', 'There are everyday, tabletop, clipseg-rd64'),
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


def test_device_and_threads(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert str(registry.create_model(checkpoint, 'auto').device) == 'cpu'
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


def test_a_small_model_does_without_open_clip(checkpoint: Path) -> None:
    script = (
        'import sys, clipseg_model; clipseg_model.create_model(sys.argv[1], "cpu"); '
        'heavy = {"open_clip", "timm", "transformers", "huggingface_hub", "sympy"}; '
        'assert not heavy & set(sys.modules), heavy & set(sys.modules)'
    )
    bundled = registry.get_card('tabletop').present
    model = 'tabletop' if bundled else str(checkpoint)
    subprocess.run([sys.executable, '-c', script, model], check=True, timeout=120)


@pytest.mark.parametrize(
    ('name', 'most', 'notice'),
    [('tabletop', 10_000_000, 'demonstration'), ('everyday', 25_000_000, 'is small')],
)
def test_the_bundled_models(name: str, most: int, notice: str) -> None:
    """What every bundled file must be, as soon as there is one."""
    card = registry.get_card(name)
    assert card.weights is not None
    assert card.name == name
    assert card.weights.stat().st_size <= most
    assert card.licence == 'Apache-2.0'
    assert notice in card.notice
    segmenter = registry.create_model(name, 'cpu')
    image = torch.zeros(48, 64, 3, dtype=torch.uint8).numpy()
    found = segmenter.segment(image, ['the red mug', 'something to sit on'])
    assert [result.mask.shape for result in found.results] == [(48, 64)] * 2
