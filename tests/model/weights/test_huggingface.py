"""Folders of Hugging Face's CLIPSeg: their variants, and what is wrong with them."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip('transformers')

import huggingface_models as theirs
from safetensors.torch import load_file, save_file
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


def to_parts(folder: Path, count: int = 3, pickled: bool = False) -> None:
    """Split the weights of a folder as ``save_pretrained(max_shard_size=...)`` does."""
    weights = load_file(folder / 'model.safetensors')
    (folder / 'model.safetensors').unlink()
    stem, suffix = ('pytorch_model', 'bin') if pickled else ('model', 'safetensors')
    places = {}
    for number in range(count):
        name = f'{stem}-{number + 1:05}-of-{count:05}.{suffix}'
        part = dict(list(weights.items())[number::count])
        places |= dict.fromkeys(part, name)
        torch.save(part, folder / name) if pickled else save_file(part, folder / name)
    index = {'metadata': {'total_size': 1}, 'weight_map': places}
    (folder / f'{stem}.{suffix}.index.json').write_text(json.dumps(index))


class TestVariants:
    @pytest.mark.parametrize('pickled', [False, True])
    def test_weights_in_parts(self, folder: Path, pickled: bool) -> None:
        expected = load_huggingface(folder)[0]
        to_parts(folder, pickled=pickled)
        index = folder / ('pytorch_model.bin' if pickled else 'model.safetensors')
        index = index.with_name(f'{index.name}.index.json')
        for given in (folder, index):
            model, card = load_checkpoint(given)
            assert same(model, expected)
            assert card.weights == index
        part = next(folder.glob('*-00002-of-*'))
        with pytest.raises(CheckpointError, match=r'one of several files.*give its folder'):
            load_checkpoint(part)

    def test_parts_as_transformers_writes_them(self, tmp_path: Path) -> None:
        model = theirs.make()
        whole = theirs.save(model, tmp_path / 'whole')
        parts = theirs.save(model, tmp_path / 'parts')
        (parts / 'model.safetensors').unlink()
        model.save_pretrained(parts, max_shard_size='2MB')
        assert len(list(parts.glob('model-*.safetensors'))) > 1
        assert same(load_checkpoint(parts)[0], load_checkpoint(whole)[0])

    @pytest.mark.parametrize('variant', ['fp16', 'bf16'])
    @pytest.mark.parametrize('name', ['model.{}.safetensors', 'pytorch_model.{}.bin'])
    def test_files_in_16_bits_under_their_own_names(
        self, folder: Path, name: str, variant: str
    ) -> None:
        full = load_huggingface(folder)[0].state_dict()
        dtype = torch.float16 if variant == 'fp16' else torch.bfloat16
        weights = {
            key: value.to(dtype) for key, value in load_file(folder / 'model.safetensors').items()
        }
        (folder / 'model.safetensors').unlink()
        path = folder / name.format(variant)
        torch.save(weights, path) if path.suffix == '.bin' else save_file(weights, path)
        for given in (folder, path):
            for key, value in load_checkpoint(given)[0].state_dict().items():
                assert value.dtype == torch.float32
                torch.testing.assert_close(value, full[key], rtol=1e-2, atol=1e-2)

    def test_full_precision_is_preferred(self, folder: Path) -> None:
        (folder / 'model.fp16.safetensors').write_bytes(b'not read')
        (folder / 'model.safetensors.index.json').write_text('not read')
        assert load_card(folder).weights == folder / 'model.safetensors'

    @pytest.mark.parametrize('whole', [False, True], ids=['alone', 'beside a model'])
    def test_an_adapter_is_to_be_merged(self, folder: Path, whole: bool) -> None:
        (folder / 'adapter_config.json').write_text(
            '{"peft_type": "LORA", "base_model_name_or_path": "CIDAS/clipseg-rd64-refined"}'
        )
        weights = folder / 'adapter_model.safetensors'
        save_file({'base_model.lora_A.weight': torch.ones(2)}, weights)
        if not whole:
            (folder / 'model.safetensors').unlink()
            (folder / 'config.json').unlink()
        for given in (folder, weights):
            for read in (load_checkpoint, load_card, load_towers):
                with pytest.raises(
                    CheckpointError, match=r'merge it first.*CIDAS/clipseg-rd64-refined.*merge_and'
                ):
                    read(given)

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


def lose_a_part(folder: Path) -> None:
    to_parts(folder)
    (folder / 'model-00002-of-00003.safetensors').unlink()


def lead_out(part: object) -> Callable[[Path], None]:
    """An index whose part is not beside it."""

    def damage(folder: Path) -> None:
        (folder / 'model.safetensors').rename(folder.parent / 'stray.safetensors')
        index = {'weight_map': {'logit_scale': part}}
        (folder / 'model.safetensors.index.json').write_text(json.dumps(index))

    return damage


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (remove('config.json'), r'no file .*config\.json'),
        (remove('preprocessor_config.json'), r'no preprocessor_config\.json.*save_pretrained'),
        (remove('model.safetensors'), r'none of model\.safetensors, .*, pytorch_model\.bin'),
        (split, 'names no files of weights'),
        (lose_a_part, r"in 3 files that .*index\.json names, and 'model-00002-of-00003\.saf"),
        (lead_out('../stray.safetensors'), r"1 files .*, and '\.\./stray\.safetensors' is not"),
        (lead_out('model.safetensors.index.json'), 'is not beside it'),
        (lead_out(''), "'' is not beside it"),
        (lead_out(7), "'7' is not beside it"),
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


class TestWriting:
    def test_others_may_read_it(self, folder: Path, tmp_path: Path) -> None:
        model, card = load_checkpoint(folder)
        for mask, mode in ((0o022, 0o644), (0o002, 0o664), (0o077, 0o600)):
            before = os.umask(mask)
            try:
                save_huggingface(tmp_path / str(mode), model, card)
                save_checkpoint(tmp_path / f'{mode}.safetensors', model, card.stored_fields())
            finally:
                os.umask(before)
            files = [*(tmp_path / str(mode)).iterdir(), tmp_path / f'{mode}.safetensors']
            assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {mode}
            assert len(files) > 4

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
