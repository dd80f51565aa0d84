from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tiny_models import CARD, make_model

from clipseg_model import create_model
from clipseg_model.errors import CheckpointError, ModelNotFoundError
from clipseg_model.model_card import ModelCard
from clipseg_model.modeling.clipseg import CLIPSeg
from clipseg_model.weights.checkpoints import (
    load_card,
    load_checkpoint,
    load_towers,
    save_checkpoint,
)


def contents(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(path, framework='pt') as opened:
        tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        return tensors, dict(opened.metadata())


def rewrite(path: Path, **changes: Any) -> None:
    """Change tensors (given as such) and metadata (given as text; None removes) of a file."""
    tensors, metadata = contents(path)
    for key, value in changes.items():
        if isinstance(value, torch.Tensor):
            tensors[key] = value
        elif value is None:
            tensors.pop(key, None)
            metadata.pop(key, None)
        else:
            metadata[key] = value
    save_file(tensors, path, metadata)


def state_of(model: CLIPSeg) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


@pytest.mark.parametrize(
    'name',
    ['x' * 5000, f'a/{"x" * 300}', f'{"x" * 300}.safetensors', 'a\0b.pth', 'a/\0', 'ü' * 200],
)
@pytest.mark.parametrize('read', [load_checkpoint, load_card, load_towers, create_model])
def test_names_that_no_file_has(name: str, read: Any) -> None:
    with pytest.raises((CheckpointError, ModelNotFoundError), match='There is no'):
        read(name)


class TestRoundTrip:
    def test_everything_comes_back(self, checkpoint: Path, model: CLIPSeg) -> None:
        loaded, card = load_checkpoint(checkpoint)
        state = loaded.state_dict()
        assert state.keys() == model.state_dict().keys()
        for key, value in model.state_dict().items():
            assert torch.equal(state[key], value)
            assert state[key].dtype == value.dtype
        assert loaded.config() == model.config()
        assert not loaded.training
        assert (card.name, card.input_size, card.threshold) == ('tiny', 64, 0.5)
        assert (card.architecture, card.layers) == ('clipseg', (0, 2))
        assert card.notice == CARD['notice']
        assert card.weights == checkpoint
        assert card.present

    def test_the_card_alone(self, checkpoint: Path) -> None:
        assert load_card(checkpoint) == load_checkpoint(checkpoint)[1]

    def test_all_fields_of_a_card(self, tmp_path: Path, model: CLIPSeg) -> None:
        fields = {
            **CARD,
            'threshold': 0.42,
            'presence_threshold': 0.3,
            'resize': 'aspect',
            'prompt_image_size': 96,
            'prompt_ground': 'mean',
            'visual_method': 'blur_10_crop',
            'template': 'a photo of a {}.',
            'source': 'https://example.org/weights',
            'details': {'seed': 7, 'measured': {'iou': 0.71}, 'note': 'Größe'},
        }
        save_checkpoint(tmp_path / 'a.safetensors', model, fields)
        assert load_card(tmp_path / 'a.safetensors').stored_fields() == fields

    def test_half_precision_storage(self, tmp_path: Path, model: CLIPSeg) -> None:
        full, half = tmp_path / 'full.safetensors', tmp_path / 'half.safetensors'
        save_checkpoint(full, model, CARD)
        save_checkpoint(half, model, CARD, dtype=torch.float16)
        assert half.stat().st_size < 0.6 * full.stat().st_size
        tensors, _ = contents(half)
        kinds = {value.dtype for value in tensors.values()}
        assert kinds == {torch.float16, torch.int8, torch.uint8}
        loaded = load_checkpoint(half)[0].state_dict()
        for key, value in model.state_dict().items():
            assert loaded[key].dtype == value.dtype
            torch.testing.assert_close(loaded[key], value, rtol=1e-3, atol=1e-3)
        table = 'backbone.text.table'
        assert torch.equal(loaded[table], model.state_dict()[table])

    def test_saving_changes_nothing(self, tmp_path: Path, model: CLIPSeg) -> None:
        before = state_of(model)
        save_checkpoint(tmp_path / 'a.safetensors', model, CARD, dtype=torch.float16)
        for key, value in model.state_dict().items():
            assert torch.equal(value, before[key])
            assert value.dtype == before[key].dtype

    def test_towers_may_come_from_a_file_of_their_own(self, tmp_path: Path, model: CLIPSeg) -> None:
        whole, part = tmp_path / 'whole.safetensors', tmp_path / 'part.safetensors'
        save_checkpoint(whole, model, CARD)
        save_checkpoint(part, model, CARD, include_backbone=False)
        tensors, metadata = contents(part)
        assert all(key.startswith('decoder.') for key in tensors)
        assert json.loads(metadata['without']) == ['backbone.']
        with pytest.raises(CheckpointError, match='without the weights of backbone'):
            load_checkpoint(part)
        loaded, _ = load_checkpoint(part, backbone_weights=whole)
        for key, value in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[key], value)


class TestWriting:
    def test_an_older_file_stays_until_the_new_one_is_complete(
        self, checkpoint: Path, model: CLIPSeg, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = checkpoint.read_bytes()

        def fail(*_: object) -> None:
            raise OSError('disk full')

        monkeypatch.setattr('clipseg_model.weights.checkpoints.save_file', fail)
        with pytest.raises(CheckpointError, match='disk full'):
            save_checkpoint(checkpoint, model, CARD)
        assert checkpoint.read_bytes() == before
        assert os.listdir(checkpoint.parent) == [checkpoint.name]

    def test_no_other_file_is_left(self, checkpoint: Path) -> None:
        assert os.listdir(checkpoint.parent) == [checkpoint.name]
        assert checkpoint.stat().st_mode & 0o777 == 0o644

    def test_folders_are_made(self, tmp_path: Path, model: CLIPSeg) -> None:
        path = tmp_path / 'some' / 'where' / 'a.safetensors'
        save_checkpoint(path, model, CARD)
        assert path.is_file()

    def test_a_weight_that_is_not_finite(self, tmp_path: Path, model: CLIPSeg) -> None:
        with torch.no_grad():
            model.decoder.film_mul.bias[0] = 1e6
        save_checkpoint(tmp_path / 'a.safetensors', model, CARD)
        with pytest.raises(CheckpointError, match=r'film_mul\.bias is not finite as torch.float16'):
            save_checkpoint(tmp_path / 'b.safetensors', model, CARD, dtype=torch.float16)
        assert not (tmp_path / 'b.safetensors').exists()

    @pytest.mark.parametrize(
        ('fields', 'message'),
        [
            ({'input_size': 64}, "lacks 'name'"),
            ({'name': 'a'}, "lacks 'input_size'"),
            ({**CARD, 'treshold': 0.4}, "no field 'treshold'.*threshold"),
            ({**CARD, 'weights': 'a'}, "no field 'weights'"),
            ({**CARD, 'threshold': 1.0}, 'threshold must be .* not 1.0'),
            ({**CARD, 'threshold': '0.5'}, 'threshold'),
            ({**CARD, 'presence_threshold': -0.1}, 'presence_threshold'),
            ({**CARD, 'input_size': 8}, 'input_size'),
            ({**CARD, 'input_size': True}, 'input_size'),
            ({**CARD, 'prompt_image_size': 1.5}, 'prompt_image_size'),
            ({**CARD, 'resize': 'stretch'}, "'stretch'"),
            ({**CARD, 'prompt_ground': 'white'}, "'white'"),
            ({**CARD, 'template': 'a photo'}, 'template'),
            ({**CARD, 'name': ' '}, 'name'),
            ({**CARD, 'licence': None}, 'licence'),
            ({**CARD, 'source': None}, 'source'),
            ({**CARD, 'details': {'path': Path('a')}}, 'JSON'),
            ({**CARD, 'details': {'iou': float('nan')}}, 'JSON'),
        ],
    )
    def test_cards_that_are_wrong(
        self, tmp_path: Path, model: CLIPSeg, fields: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(CheckpointError, match=message):
            save_checkpoint(tmp_path / 'a.safetensors', model, fields)
        assert not list(tmp_path.iterdir())

    def test_other_suffixes(self, tmp_path: Path, model: CLIPSeg) -> None:
        with pytest.raises(CheckpointError, match=r'\.safetensors file, unlike .*a\.pt'):
            save_checkpoint(tmp_path / 'a.pt', model, CARD)


class TestDamage:
    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r'no checkpoint .*none\.safetensors'):
            load_checkpoint(tmp_path / 'none.safetensors')

    @pytest.mark.parametrize('keep', [0, 4, 200, -1])
    def test_cut_off_file(self, checkpoint: Path, keep: int) -> None:
        checkpoint.write_bytes(checkpoint.read_bytes()[:keep])
        with pytest.raises(CheckpointError, match='damaged, or cut off'):
            load_checkpoint(checkpoint)

    def test_another_kind_of_file(self, tmp_path: Path) -> None:
        path = tmp_path / 'a.safetensors'
        path.write_bytes(b'<html>not found</html>' * 10)
        with pytest.raises(CheckpointError, match='not a readable safetensors file'):
            load_checkpoint(path)

    def test_weights_of_another_project(self, tmp_path: Path) -> None:
        path = tmp_path / 'a.safetensors'
        save_file({'weight': torch.zeros(3)}, path)
        with pytest.raises(CheckpointError, match='no configuration'):
            load_checkpoint(path)

    @pytest.mark.parametrize(
        ('changes', 'message'),
        [
            ({'version': '2'}, "version '2'.*update"),
            ({'config': '{'}, 'config .* damaged'),
            ({'config': '[]'}, 'config .* not a dict'),
            ({'config': None}, 'config .* missing'),
            ({'config': '{"architecture": "sam"}'}, "'clsclip', not 'sam'"),
            ({'config': '{"architecture": "clipseg"}'}, "KeyError\\('backbone'\\)"),
            ({'card': '{}'}, 'lacks'),
            ({'card': 'null'}, 'card .* not a dict'),
            ({'without': None}, 'without .* missing'),
            (
                {'decoder.film_mul.bias': None},
                r'decoder\.film_mul\.bias is missing, and has to be \(16,\)',
            ),
            ({'decoder.extra': torch.zeros(1)}, r'decoder\.extra is unknown, and is \(1,\)'),
            ({'decoder.film_mul.bias': torch.zeros(3)}, r'film_mul\.bias is \(3,\), not \(16,\)'),
            (
                {'decoder.film_mul.bias': torch.full((16,), torch.nan)},
                r'film_mul\.bias is not finite',
            ),
            (
                {'decoder.film_mul.bias': torch.zeros(16, dtype=torch.int32)},
                r'film_mul\.bias is torch\.int32, not torch\.float32',
            ),
            ({'backbone.text.table': torch.zeros(20, 8)}, r'text\.table'),
        ],
    )
    def test_contents_that_do_not_fit(
        self, checkpoint: Path, changes: dict[str, Any], message: str
    ) -> None:
        rewrite(checkpoint, **changes)
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(checkpoint)

    def test_a_model_of_another_size(self, tmp_path: Path, checkpoint: Path) -> None:
        other = make_model(head='plain')
        save_checkpoint(tmp_path / 'other.safetensors', other, CARD)
        _, metadata = contents(tmp_path / 'other.safetensors')
        rewrite(checkpoint, config=metadata['config'])
        with pytest.raises(CheckpointError, match=r'head\.deconv\.weight is missing'):
            load_checkpoint(checkpoint)

    def test_a_long_list_of_faults_is_cut_short(self, checkpoint: Path) -> None:
        _, metadata = contents(checkpoint)
        save_file({'weight': torch.zeros(1)}, checkpoint, metadata)
        with pytest.raises(CheckpointError, match=r'and \d+ more') as caught:
            load_checkpoint(checkpoint)
        assert str(caught.value).count('is missing') == 5


def test_a_card_without_weights_is_not_present() -> None:
    card = ModelCard('a', 'clipseg', {}, 64)
    assert not card.present
    assert card.layers == ()
