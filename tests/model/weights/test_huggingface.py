"""Folders of Hugging Face's CLIPSeg: their variants, and what is wrong with them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip('transformers')

import huggingface_models as theirs
from safetensors.torch import load_file
from tiny_models import CARD, make_model

from clipseg_model.errors import CheckpointError
from clipseg_model.model_card import ModelCard
from clipseg_model.weights.checkpoints import (
    load_card,
    load_checkpoint,
    load_towers,
    save_checkpoint,
)
from clipseg_model.weights.huggingface import load_huggingface, save_huggingface


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return theirs.save(theirs.make(), tmp_path / 'CIDAS--clipseg-tiny')


def same(model: torch.nn.Module, other: torch.nn.Module) -> bool:
    states = model.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(value, states[1][key]) for key, value in states[0].items()
    )


def to_bin(folder: Path, weights: Any) -> None:
    (folder / 'model.safetensors').unlink()
    torch.save(weights, folder / 'pytorch_model.bin')


class TestVariants:
    def test_the_card(self, folder: Path) -> None:
        model, card = load_checkpoint(folder)
        assert (card.name, card.input_size, card.layers) == ('clipseg-tiny', 64, (0, 2, 3))
        assert card.prompt_ground == 'mean'
        assert card.weights == folder / 'model.safetensors'
        assert card.config == model.config()
        assert card == load_card(folder)
        assert not model.training

    def test_the_file_of_weights_stands_for_the_folder(self, folder: Path) -> None:
        by_file, card = load_checkpoint(folder / 'model.safetensors')
        assert same(by_file, load_checkpoint(str(folder))[0])
        assert card.name == 'clipseg-tiny'

    def test_files_of_older_versions(self, folder: Path) -> None:
        """Pickled weights with position_ids, settings given twice, a size as one number."""
        expected = load_huggingface(folder)[0]
        weights = load_file(folder / 'model.safetensors')
        for tower in ('text', 'vision'):
            weights[f'clip.{tower}_model.embeddings.position_ids'] = torch.arange(9)[None]
        to_bin(folder, weights)
        config = json.loads((folder / 'config.json').read_text())
        theirs.edit_json(
            folder / 'config.json',
            vision_config={},
            vision_config_dict=config['vision_config'],
            text_config_dict=None,
        )
        theirs.edit_json(
            folder / 'preprocessor_config.json', size=96, do_rescale=None, rescale_factor=None
        )
        model, card = load_checkpoint(folder)
        assert same(model, expected)
        assert card.input_size == 96

    def test_settings_of_the_processor_in_the_newer_file(self, folder: Path) -> None:
        old = folder / 'preprocessor_config.json'
        settings = {'image_processor': json.loads(old.read_text())}
        (folder / 'processor_config.json').write_text(json.dumps(settings))
        old.unlink()
        assert load_checkpoint(folder)[1].input_size == 64

    def test_half_precision(self, folder: Path) -> None:
        full = load_huggingface(folder)[0]
        weights = load_file(folder / 'model.safetensors')
        theirs.edit_weights(folder, **{k: v.half() for k, v in weights.items()})
        half = load_huggingface(folder)[0]
        for key, value in half.state_dict().items():
            assert value.dtype == torch.float32
            torch.testing.assert_close(value, full.state_dict()[key], rtol=1e-3, atol=1e-3)

    def test_to_a_file_of_this_project_and_back(self, folder: Path, tmp_path: Path) -> None:
        model, card = load_checkpoint(folder)
        own = tmp_path / 'own.safetensors'
        save_checkpoint(own, model, {**card.stored_fields(), 'threshold': 0.4, 'resize': 'aspect'})
        loaded, known = load_checkpoint(own)
        assert same(loaded, model)
        save_huggingface(tmp_path / 'back', loaded, known)
        again, kept = load_checkpoint(tmp_path / 'back')
        assert same(again, model)
        assert kept.stored_fields() == known.stored_fields()
        names = {path.name for path in (tmp_path / 'back').iterdir()}
        assert {'model.safetensors', 'config.json', 'vocab.json', 'merges.txt'} < names

    def test_towers_for_a_file_without_them(self, folder: Path, tmp_path: Path) -> None:
        model, card = load_checkpoint(folder)
        part = tmp_path / 'part.safetensors'
        save_checkpoint(part, model, card.stored_fields(), include_backbone=False)
        assert part.stat().st_size < 200_000
        assert same(load_checkpoint(part, backbone_weights=folder)[0], model)
        towers = load_towers(folder)
        assert isinstance(towers, torch.nn.Module)
        assert same(towers, model.backbone)  # type: ignore[arg-type]


def edit_config(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: theirs.edit_json(folder / 'config.json', **changes)


def edit_tower(tower: str, **changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        section = json.loads((folder / 'config.json').read_text())[f'{tower}_config']
        theirs.edit_json(folder / 'config.json', **{f'{tower}_config': {**section, **changes}})

    return edit


def edit_processor(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: theirs.edit_json(folder / 'preprocessor_config.json', **changes)


def edit_weights(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: theirs.edit_weights(folder, **changes)


def remove(*names: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).unlink() for name in names] and None


def cut(folder: Path) -> None:
    path = folder / 'model.safetensors'
    path.write_bytes(path.read_bytes()[:-5000])


def split(folder: Path) -> None:
    (folder / 'model.safetensors').rename(folder / 'model-00001-of-00002.safetensors')
    (folder / 'model.safetensors.index.json').write_text('{}')


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (remove('config.json'), r'no file .*config\.json'),
        (remove('preprocessor_config.json'), r'no preprocessor_config\.json.*save_pretrained'),
        (remove('model.safetensors'), r'neither model\.safetensors nor pytorch_model\.bin'),
        (split, 'split into several files'),
        (cut, 'damaged, or cut off'),
        (
            edit_weights(decoder__film_mul__bias=None),
            r'decoder\.film_mul\.bias is missing, and has to be \(16,\)',
        ),
        (
            edit_weights(clip__vision_model__encoder__layers__1__self_attn__k_proj__weight=None),
            r'layers\.1\.self_attn\.k_proj\.weight is missing, and has to be \(48, 48\)',
        ),
        (edit_weights(decoder__extra=torch.zeros(3)), r'decoder\.extra is unknown, and is \(3,\)'),
        (
            edit_weights(clip__visual_projection__weight=torch.zeros(48, 24)),
            r'visual_projection\.weight is \(48, 24\), not \(24, 48\)',
        ),
        (edit_weights(decoder__film_add__bias=torch.full((16,), torch.inf)), 'is not finite'),
        (edit_config(model_type='clip'), "of a 'clip' model"),
        (edit_config(reduce_dim=18), '18'),
        (edit_config(reduce_dim=32), r'film_mul\.weight is \(16, 24\), not \(32, 24\)'),
        (edit_config(extract_layers=[0, 2, 7]), r'\[0, 2, 7\] are not all in 0…4'),
        (edit_config(use_complex_transposed_convolution=True), r'transposed_convolution\.0'),
        (edit_tower('vision', patch_size=32), r'patch_embedding\.weight is'),
        (edit_tower('vision', hidden_act='relu'), 'hidden_act'),
        (edit_tower('vision', hidden_act='gelu'), 'the same in both towers'),
        (edit_tower('vision', num_channels=4), 'num_channels is 4'),
        (edit_tower('text', vocab_size=30000), '49408'),
        (edit_processor(resample=3), 'resample is 3'),
        (edit_processor(do_normalize=False), 'do_normalize is False'),
        (edit_processor(do_center_crop=True), 'do_center_crop'),
        (edit_processor(rescale_factor=1.0), 'rescale_factor'),
        (edit_processor(size={'shortest_edge': 352}), 'a square'),
        (edit_processor(size={'height': 64, 'width': 96}), 'a square'),
        (edit_processor(size=None), 'size'),
    ],
)
def test_folders_that_are_wrong(folder: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder)


def test_settings_that_are_no_json(folder: Path) -> None:
    (folder / 'config.json').write_text('{')
    with pytest.raises(CheckpointError, match='not readable as JSON'):
        load_checkpoint(folder)
    (folder / 'config.json').write_text('[]')
    with pytest.raises(CheckpointError, match='holds a list'):
        load_checkpoint(folder)


def test_a_refined_head_on_other_patches_is_refused(tmp_path: Path) -> None:
    """transformers makes (P / 4)² pixels a patch of it, not P."""
    vision = {'hidden_size': 48, 'intermediate_size': 96, 'num_attention_heads': 4}
    vision.update(patch_size=32, image_size=64, num_hidden_layers=4)
    folder = theirs.save(theirs.make(refined=True, vision_config=vision), tmp_path / 'a')
    with pytest.raises(CheckpointError, match='patch_size is 32, and must be 16'):
        load_checkpoint(folder)


class TestPickles:
    def test_code_in_them_is_not_run(self, folder: Path, tmp_path: Path) -> None:
        class Malicious:
            def __reduce__(self) -> tuple[object, tuple[str]]:
                return os.mkdir, (str(tmp_path / 'ran'),)

        to_bin(folder, {'decoder.film_mul.bias': Malicious()})
        with pytest.raises(CheckpointError, match=r'refused.*could run code'):
            load_checkpoint(folder)
        assert not (tmp_path / 'ran').exists()
        torch.load(folder / 'pytorch_model.bin', weights_only=False)
        assert (tmp_path / 'ran').exists(), 'the file would not have run code at all'

    @pytest.mark.parametrize('keep', [0, 100, -200])
    def test_cut_off(self, folder: Path, keep: int) -> None:
        to_bin(folder, load_file(folder / 'model.safetensors'))
        path = folder / 'pytorch_model.bin'
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(CheckpointError, match='damaged'):
            load_checkpoint(folder)

    @pytest.mark.parametrize(
        ('content', 'message'),
        [
            ([1, 2], 'holds a list'),
            ({}, 'holds a dict'),
            ({'model': {'weight': torch.zeros(2)}}, "'model' is a dict and not a tensor"),
        ],
    )
    def test_other_contents(self, folder: Path, content: object, message: str) -> None:
        to_bin(folder, content)
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(folder)


class TestWriting:
    def test_an_existing_folder_is_left_alone(self, folder: Path) -> None:
        model, card = load_checkpoint(folder)
        before = sorted(path.name for path in folder.iterdir())
        with pytest.raises(CheckpointError, match='is there already'):
            save_huggingface(folder, model, card)
        assert sorted(path.name for path in folder.iterdir()) == before

    def test_a_failure_leaves_nothing(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model, card = load_checkpoint(folder)

        def fail(*_: object) -> None:
            raise OSError('disk full')

        monkeypatch.setattr('clipseg_model.weights.huggingface.save_file', fail)
        with pytest.raises(CheckpointError, match='disk full'):
            save_huggingface(tmp_path / 'new', model, card)
        assert os.listdir(tmp_path) == [folder.name]

    def test_a_model_that_transformers_does_not_have(self, tmp_path: Path) -> None:
        card = ModelCard('tiny', 'clipseg', {}, CARD['input_size'])
        with pytest.raises(CheckpointError, match=r'plain CLIP towers.*SmallClip'):
            save_huggingface(tmp_path / 'new', make_model(), card)
        assert not list(tmp_path.iterdir())
