from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from tiny_models import make_small_clip
from torch import Tensor

from clipseg_model.errors import CheckpointError, ImageError
from clipseg_model.modeling.vitseg import ImageNetViT, ViTSeg

NAME = 'vit_tiny_patch16_224'
SMALL: dict[str, Any] = {'img_size': 64, 'depth': 3, 'embed_dim': 32, 'num_heads': 2}
DECODER: dict[str, Any] = {'dim': 16, 'feedforward': 32}


@pytest.fixture(autouse=True)
def _grad_free() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module]:
    """A file as timm publishes them, classifier and all, and the network that it is of."""
    torch.manual_seed(5)
    network = timm.create_model(NAME, num_classes=10, **SMALL).eval()
    path = tmp_path_factory.mktemp('timm') / 'model.safetensors'
    save_file(network.state_dict(), path)
    return path, network


def pixels(height: int = 64, width: int = 64, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def make(**options: Any) -> ViTSeg:
    torch.manual_seed(0)
    tower = ImageNetViT(NAME, overrides=SMALL)
    model = ViTSeg(make_small_clip(), tower, options.pop('layers', [0, 2]), **DECODER, **options)
    return model.eval()


class TestImageNetViT:
    def test_taps_are_timms(self, weights: tuple[Path, torch.nn.Module]) -> None:
        path, network = weights
        tower = ImageNetViT(NAME, path, SMALL)
        taps, grid = tower.image_tokens(pixels(), [0, 2])
        expected = network.forward_intermediates(
            pixels(), indices=[0, 2], return_prefix_tokens=True, output_fmt='NLC', norm=False
        )[1]
        assert grid == (4, 4)
        for tap, (patches, prefix) in zip(taps, expected, strict=True):
            torch.testing.assert_close(tap, torch.cat([prefix, patches], 1), rtol=0, atol=1e-5)

    def test_is_frozen(self) -> None:
        tower = ImageNetViT(NAME, overrides=SMALL)
        assert not any(parameter.requires_grad for parameter in tower.parameters())
        assert not tower.training

    def test_other_grids_and_no_block_after_the_deepest(self) -> None:
        tower = ImageNetViT(NAME, overrides=SMALL)
        ran: list[int] = []
        for number, block in enumerate(tower.model.blocks):
            block.register_forward_hook(lambda *_, number=number: ran.append(number))
        taps, grid = tower.image_tokens(pixels(48, 80), [1])
        assert grid == (3, 5)
        assert taps[0].shape == (2, 1 + 15, 32)
        assert ran == [0, 1]

    def test_sides_that_do_not_fit(self) -> None:
        with pytest.raises(ImageError, match='multiples of 16'):
            ImageNetViT(NAME, overrides=SMALL).image_tokens(pixels(40, 64), [0])

    @pytest.mark.parametrize('name', ['resnet50', 'vit_huge_patch16_9999', ''])
    def test_architectures_that_are_not_there(self, name: str) -> None:
        with pytest.raises(CheckpointError, match=f'no plain vision transformer {name!r}'):
            ImageNetViT(name)

    @pytest.mark.parametrize(
        'overrides',
        [
            {'class_token': False, 'global_pool': 'avg'},
            {'reg_tokens': 4},
            {'no_embed_class': True},
            {'pos_embed': 'none'},
        ],
    )
    def test_architectures_of_another_kind(self, overrides: dict[str, Any]) -> None:
        with pytest.raises(CheckpointError, match='CLS token and learned positions'):
            ImageNetViT(NAME, overrides={**SMALL, **overrides})

    def test_files_that_do_not_fit(
        self, tmp_path: Path, weights: tuple[Path, torch.nn.Module]
    ) -> None:
        with pytest.raises(CheckpointError, match='nothing is downloaded'):
            ImageNetViT(NAME, tmp_path / 'none.safetensors', SMALL)
        with pytest.raises(CheckpointError, match=r"(?s)does not hold timm's .*blocks\.3"):
            ImageNetViT(NAME, weights[0], {**SMALL, 'depth': 4})
        pickled = tmp_path / 'model.safetensors'
        torch.save({}, pickled)
        with pytest.raises(CheckpointError, match='as safetensors'):
            ImageNetViT(NAME, pickled, SMALL)


class TestViTSeg:
    def test_the_vit_sees_pixels_normalised_as_it_was_trained(self) -> None:
        model = make()
        backbone, tower = model.backbone, model.image_tower
        image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))

        def normalised(by: Any) -> Tensor:
            mean, std = (torch.tensor(values).view(3, 1, 1) for values in (by.mean, by.std))
            return (image - mean) / std

        assert tower.mean == (0.5, 0.5, 0.5)
        assert tower.mean != backbone.mean
        taps, _ = tower.image_tokens(normalised(tower), [0, 2])
        features = model.encode_image(normalised(backbone))
        for ours, expected in zip(features.taps, taps, strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)

    def test_prompts_go_through_clip(self) -> None:
        model = make()
        texts = ['a mug', 'the red chair']
        assert torch.equal(model.embed_texts(texts), model.backbone.embed_texts(texts))
        assert torch.equal(model.embed_images(pixels()), model.backbone.embed_images(pixels()))

    def test_clips_image_tower_has_no_say_in_the_image(self) -> None:
        model = make()
        before = model.encode_image(pixels()).taps[0]
        for parameter in model.backbone.parameters():
            parameter.zero_()
        assert torch.equal(model.encode_image(pixels()).taps[0], before)

    @pytest.mark.parametrize('layers', [[], [2, 0], [0, 3], [-1, 2]])
    def test_layers_that_are_not_there(self, layers: list[int]) -> None:
        with pytest.raises(ValueError, match='layers'):
            make(layers=layers)

    def test_patches_of_different_size(self) -> None:
        tower = ImageNetViT('vit_tiny_patch16_224', overrides={**SMALL, 'patch_size': 8})
        with pytest.raises(ValueError, match='patches of 8 px and CLIP of 16 px'):
            ViTSeg(make_small_clip(), tower, [0], **DECODER)
