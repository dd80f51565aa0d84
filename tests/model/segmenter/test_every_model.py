"""What holds for each architecture, on tiny towers of both kinds and at the papers' sizes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tiny_models import CARD
from tiny_variants import TOWERS, VARIANTS, make
from torch import Tensor, nn
from typer.testing import CliRunner

from clipseg_model import registry
from clipseg_model.cli.app import app
from clipseg_model.errors import CheckpointError
from clipseg_model.modeling.backbone import OpenClipBackbone
from clipseg_model.modeling.base import ARCHITECTURES, SegmentationModel, build_model
from clipseg_model.prompts import Prompt
from clipseg_model.weights.checkpoints import load_checkpoint, save_checkpoint
from clipseg_model.weights.untrained import UNTRAINED
from training.papers.flops import INPUT_SIZE, PAPER_MODELS, costs, paper_model

#: CLIPSeg, with the largest of OpenAI's CLIPs.
LARGE = 'clipseg-vit-l-14-336'
PROMPTS = ['a mug', 'the red chair', 'blue cup']


def pixels(height: int = 64, width: int = 64, batch: int = 1, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, height, width, generator=generator)


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


@pytest.fixture(params=list(VARIANTS))
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=TOWERS)
def model(request: pytest.FixtureRequest, variant: str) -> SegmentationModel:
    return make(variant, request.param)


@pytest.fixture
def grad_free() -> Iterator[None]:
    with torch.no_grad():
        yield


def test_nothing_is_left_out() -> None:
    assert {entry['architecture'] for entry in VARIANTS.values()} == set(ARCHITECTURES)
    assert set(UNTRAINED) <= {*VARIANTS, LARGE}
    assert set(UNTRAINED) <= set(registry.list_models())
    assert set(PAPER_MODELS) == set(UNTRAINED) - {LARGE} | {'clipseg-rd64'}


@pytest.mark.usefixtures('grad_free')
class TestForward:
    def test_shape_for_square_and_other_images(self, model: SegmentationModel) -> None:
        condition = model.embed_texts(PROMPTS).expand(2, -1, -1)
        for size in ((64, 64), (48, 80), (96, 32)):
            logits = model(pixels(*size, batch=2), condition)
            assert logits.shape == (2, 3, *size)
            assert logits.dtype == torch.float32
            assert logits.isfinite().all()

    def test_each_prompt_on_each_image_is_on_its_own(self, model: SegmentationModel) -> None:
        """Batches, and chunks of them, give what every pair alone gives."""
        images = pixels(48, 64, batch=2)
        texts = model.embed_texts([*PROMPTS, 'something', 'left of a cup'])
        condition = torch.stack([texts, texts.flip(0)])
        logits = model(images, condition)
        for image in range(2):
            features = model.encode_image(images[image : image + 1])
            for prompt in range(5):
                alone = model.decode(features, condition[image, prompt : prompt + 1])[0]
                torch.testing.assert_close(logits[image, prompt], alone, rtol=1e-4, atol=1e-5)

    def test_images_and_prompts_matter(self, model: SegmentationModel) -> None:
        condition = model.embed_texts(PROMPTS)
        first = model.decode(model.encode_image(pixels(seed=1)), condition)
        second = model.decode(model.encode_image(pixels(seed=2)), condition)
        assert (first - second).abs().amax((1, 2)).min() > 1e-5
        assert (first[0] - first[1]).abs().max() > 1e-5

    def test_gradients_do_not_change_what_is_computed(self, model: SegmentationModel) -> None:
        condition = model.embed_texts(PROMPTS)[None].repeat(1, 4, 1)
        chunked = model(pixels(), condition)
        with torch.enable_grad():
            whole = model(pixels(), condition)
        torch.testing.assert_close(chunked, whole.detach(), rtol=1e-4, atol=1e-5)

    def test_one_set_of_prompts_for_many_images_is_ambiguous(
        self, model: SegmentationModel
    ) -> None:
        with pytest.raises(ValueError, match='features hold 2'):
            model.decode(model.encode_image(pixels(batch=2)), model.embed_texts(PROMPTS))

    def test_what_is_shared_between_prompts(self, model: SegmentationModel) -> None:
        """Where the flag says so, decoding prompts runs no block of an image tower."""
        if hasattr(model, 'image_tower'):
            blocks = model.image_tower.model.blocks
        elif isinstance(model.backbone, OpenClipBackbone):
            blocks = model.backbone.model.visual.transformer.resblocks
        else:
            blocks = model.backbone.blocks
        ran: list[int] = []
        for number, block in enumerate(blocks):
            block.register_forward_hook(lambda *_, number=number: ran.append(number))
        features = model.encode_image(pixels())
        shared, ran[:] = list(ran), []
        model.decode(features, model.embed_texts(PROMPTS))
        assert model.shares_image_features == (not ran)
        if ran:
            assert (shared, ran) == ([0], [1, 2])


class TestTraining:
    def test_gradient_reaches_all_and_only_the_trainable(self, model: SegmentationModel) -> None:
        logits = model(
            pixels(48, 64, batch=2), model.embed_texts(PROMPTS[:2])[None].repeat(2, 1, 1)
        )
        generator = torch.Generator().manual_seed(2)
        (logits * torch.randn(logits.shape, generator=generator)).sum().backward()
        names = trainable(model)
        assert names
        for name, parameter in model.named_parameters():
            if name in names:
                assert parameter.grad is not None, name
                assert parameter.grad.any(), name
            else:
                assert parameter.grad is None, name

    def test_a_step_changes_the_trainable_and_no_bit_of_the_towers(
        self, model: SegmentationModel
    ) -> None:
        before = {name: value.clone() for name, value in model.state_dict().items()}
        names = trainable(model)
        optimizer = torch.optim.AdamW(names.values(), lr=1e-2, weight_decay=0.1)
        logits = model(pixels(), model.embed_texts(PROMPTS)[None])
        logits.square().sum().backward()
        optimizer.step()
        assert any(name.startswith('backbone.') for name in before)
        for name, value in model.state_dict().items():
            assert torch.equal(value, before[name]) == (name not in names), name

    def test_the_towers_are_not_trained(self, model: SegmentationModel) -> None:
        parts = {name.split('.')[0] for name in trainable(model)}
        assert parts <= {'decoder', 'guide', 'learned_tokens'}


class TestUse:
    @pytest.fixture
    def path(self, tmp_path: Path, variant: str) -> Path:
        path = tmp_path / 'tiny.safetensors'
        model = make(variant)
        with torch.no_grad():
            # Random heads answer near 0 everywhere: stretch them, so that masks have both values.
            for parameter in model.decoder.head.parameters():
                parameter.mul_(5)
        save_checkpoint(path, model, {**CARD, 'name': variant})
        return path

    def test_save_and_load(self, tmp_path: Path, model: SegmentationModel) -> None:
        path = tmp_path / 'model.safetensors'
        save_checkpoint(path, model, CARD)
        loaded, card = load_checkpoint(path)
        assert type(loaded) is type(model)
        assert loaded.config() == model.config() == card.config
        assert card.architecture == model.config()['architecture']
        assert loaded.shares_image_features == model.shares_image_features
        with torch.no_grad():
            condition = model.embed_texts(PROMPTS)[None]
            assert torch.equal(loaded.embed_texts(PROMPTS)[None], condition)
            images = pixels(48, 64)
            assert torch.equal(loaded(images, condition), model(images, condition))

    def test_in_a_segmenter(self, path: Path, image: NDArray[np.uint8]) -> None:
        segmenter = registry.create_model(path, 'cpu')
        segmenter.warm_up(90, 120, prompts=2)
        mask = np.zeros(image.shape[:2], bool)
        mask[20:60, 30:80] = True
        mixed = Prompt('the red mug', image=image, mask=mask, weight=0.5)
        prompts = [*PROMPTS, Prompt(image=image, mask=mask, name='example'), mixed]
        found = segmenter.segment(image, prompts)
        assert [result.mask.shape for result in found.results] == [(90, 120)] * 5
        again = segmenter.predict(prompts[:1])
        np.testing.assert_allclose(again.results[0].logits, found.results[0].logits, 1e-4, 1e-4)
        assert 0 < found.results[0].mask.mean() < 1

    def test_on_the_command_line(
        self, path: Path, tmp_path: Path, image: NDArray[np.uint8]
    ) -> None:
        photo = tmp_path / 'photo.png'
        Image.fromarray(image).save(photo)
        arguments = ['segment', photo, '-p', 'a mug; blue cup', '-m', path, '-o', tmp_path / 'out']
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        record = json.loads((tmp_path / 'out' / 'photo.json').read_text())
        assert record['model'] in VARIANTS
        assert [entry['name'] for entry in record['prompts']] == ['a mug', 'blue cup']


class TestByName:
    @pytest.mark.parametrize('name', list(UNTRAINED))
    def test_without_weights_the_error_tells_what_to_do(self, name: str) -> None:
        card = registry.get_card(name)
        assert not card.present
        assert 'No trained weights' in card.description
        with pytest.raises(CheckpointError, match=rf"'{name}'.*build_model.*docs/models\.md"):
            registry.create_model(name)

    @pytest.mark.parametrize('name', list(UNTRAINED))
    def test_with_weights_the_name_works(
        self,
        name: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        image: NDArray[np.uint8],
    ) -> None:
        monkeypatch.setenv('CLIPSEG_MODELS', str(tmp_path))
        save_checkpoint(tmp_path / f'{name}.safetensors', make(name), CARD)
        assert registry.get_card(name).present
        found = registry.create_model(name, 'cpu').segment(image, ['a mug'])
        assert (found.model, found.results[0].mask.shape) == (name, (90, 120))
        photo = tmp_path / 'photo.png'
        Image.fromarray(image).save(photo)
        arguments = ['segment', photo, '-p', 'a mug', '-m', name, '-o', tmp_path / 'out']
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        assert json.loads((tmp_path / 'out' / 'photo.json').read_text())['model'] == name

    @pytest.mark.parametrize('name', list(UNTRAINED))
    def test_the_card_builds_the_model(self, name: str) -> None:
        card = registry.get_card(name)
        with torch.device('meta'):
            model = build_model(card.config)
        config = model.config()
        towers = 'ViT-L-14-336-quickgelu' if name == LARGE else 'ViT-B-16-quickgelu'
        assert config['backbone']['architecture'] == towers
        assert {**config, 'backbone': card.config['backbone']} == card.config

    def test_an_architecture_that_is_not_there(self) -> None:
        with pytest.raises(ValueError, match=r"'clipseg', 'clip-deconv', .* not 'sam'"):
            build_model({'architecture': 'sam'})


class TestAtThePapersSizes:
    """On ViT-B/16: C = 768, E = 512, patches of 16; D = 64, feed-forward 2,048."""

    REDUCE = 768 * 64 + 64
    FILM = 2 * (512 * 64 + 64)
    BLOCK = 4 * (64 * 64 + 64) + (64 * 2048 + 2048) + (2048 * 64 + 64) + 4 * 64
    HEAD = 64 * 16 * 16 + 1
    GUIDED_BLOCK = 512 * 768 + 768

    COUNTS = {  # noqa: RUF012
        'clipseg-rd64': FILM + 3 * (REDUCE + BLOCK) + HEAD,
        'clip-deconv': REDUCE + FILM + 2 * (64 * 64 + 64) + HEAD,
        'vitseg': FILM + 3 * (REDUCE + BLOCK) + HEAD,
        'clsclip': 3 * GUIDED_BLOCK + REDUCE + 2 * BLOCK + HEAD,
        'clsclip-channel': GUIDED_BLOCK + REDUCE + 2 * BLOCK + HEAD,
        'clsclip-spatial': GUIDED_BLOCK + REDUCE + 2 * BLOCK + HEAD,
        'clsclip-vpt': GUIDED_BLOCK + 50 * 768 + REDUCE + 2 * BLOCK + HEAD,
    }

    @pytest.mark.parametrize(
        ('name', 'count'),
        [
            ('clipseg-rd64', 1_073_153),
            ('clip-deconv', 139_585),
            ('vitseg', 1_073_153),
            ('clsclip', 1_809_857),
            ('clsclip-channel', 1_021_889),
            ('clsclip-spatial', 1_021_889),
            ('clsclip-vpt', 1_060_289),
        ],
    )
    def test_trainable_parameters(self, name: str, count: int) -> None:
        model = paper_model(name)
        assert self.COUNTS[name] == count
        assert sum(value.numel() for value in trainable(model).values()) == count
        frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
        vit = 86_088_960 if name == 'vitseg' else 0
        assert frozen == 149_620_737 + vit

    def test_the_documented_costs(self, repository: Path) -> None:
        """The table in docs/models.md, trainable parameters and GFLOPs, is what is computed."""
        page = (repository / 'docs' / 'models.md').read_text()
        for name in PAPER_MODELS:
            row = re.search(rf'^\| `{name}` \| ([\d,]+) \| ([\d.]+) \| ([\d.]+) \|', page, re.M)
            assert row is not None, name
            cost = costs(name)
            assert int(row[1].replace(',', '')) == cost.trainable, name
            assert row[2] == f'{cost.image:.2f}', name
            assert row[3] == f'{cost.prompt:.2f}', name
        assert f'{INPUT_SIZE} × {INPUT_SIZE}' in page
