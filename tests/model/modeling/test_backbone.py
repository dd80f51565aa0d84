from __future__ import annotations

import logging
import math
from pathlib import Path

import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from clipseg_model.errors import CheckpointError, ImageError, PromptError
from clipseg_model.modeling.backbone import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Backbone,
    OpenClipBackbone,
    build_backbone,
    interpolate_positions,
)
from clipseg_model.modeling.clipseg import CLIPSeg

SMALL = {
    'embed_dim': 16,
    'vision_cfg': {'image_size': 64, 'layers': 4, 'width': 128, 'patch_size': 16},
    'text_cfg': {'context_length': 77, 'vocab_size': 49408, 'width': 32, 'heads': 2, 'layers': 2},
}
PROMPTS = ['a mug', 'something to drink from, on the table', '茶碗']


@pytest.fixture(scope='module')
def towers() -> OpenClipBackbone:
    torch.manual_seed(0)
    return OpenClipBackbone(overrides=SMALL)


def pixels(height: int, width: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def test_is_a_frozen_backbone(towers: OpenClipBackbone) -> None:
    assert isinstance(towers, Backbone)
    assert (towers.token_width, towers.embed_dim) == (128, 16)
    assert (towers.patch_size, towers.num_blocks) == (16, 4)
    assert (towers.mean, towers.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert not any(parameter.requires_grad for parameter in towers.parameters())
    assert not towers.training


def test_taps_are_open_clips_intermediates(towers: OpenClipBackbone) -> None:
    images = pixels(64, 64)
    with torch.no_grad():
        taps, grid = towers.image_tokens(images, [2, 0])
        visual = towers.model.visual
        _, expected = visual.transformer.forward_intermediates(
            visual._embeds(images), indices=[0, 2]
        )
    assert grid == (4, 4)
    torch.testing.assert_close(taps[0], expected[1], rtol=0, atol=1e-6)
    torch.testing.assert_close(taps[1], expected[0], rtol=0, atol=1e-6)


def test_embeddings_are_open_clips(towers: OpenClipBackbone) -> None:
    images = pixels(64, 64)
    tokens = open_clip.SimpleTokenizer()(PROMPTS)
    with torch.no_grad():
        torch.testing.assert_close(
            towers.embed_images(images), towers.model.encode_image(images), rtol=0, atol=1e-6
        )
        torch.testing.assert_close(
            towers.embed_texts(PROMPTS), towers.model.encode_text(tokens), rtol=0, atol=1e-5
        )


def test_embeddings_are_not_normalised(towers: OpenClipBackbone) -> None:
    norms = towers.embed_texts(PROMPTS).norm(dim=1)
    assert not torch.allclose(norms, torch.ones(3), atol=0.1)


def test_no_block_after_the_deepest_tap_runs(towers: OpenClipBackbone) -> None:
    ran: list[int] = []
    handles = [
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
        for number, block in enumerate(towers.model.visual.transformer.resblocks)
    ]
    try:
        towers.image_tokens(pixels(64, 64), [0, 1])
        assert ran == [0, 1]
        ran.clear()
        towers.embed_images(pixels(64, 64))
        assert ran == [0, 1, 2, 3]
    finally:
        for handle in handles:
            handle.remove()


def test_padding_behind_the_longest_prompt_is_not_computed(towers: OpenClipBackbone) -> None:
    lengths: list[int] = []
    handle = towers.model.transformer.register_forward_hook(
        lambda _, arguments, __: lengths.append(arguments[0].shape[1])
    )
    try:
        towers.embed_texts(['a mug'])
    finally:
        handle.remove()
    assert lengths == [4]  # start, two words, end


def test_a_prompt_does_not_depend_on_its_neighbours(towers: OpenClipBackbone) -> None:
    together = towers.embed_texts(PROMPTS)
    for index, prompt in enumerate(PROMPTS):
        torch.testing.assert_close(
            together[index], towers.embed_texts([prompt])[0], rtol=0, atol=1e-5
        )


def test_no_texts_make_no_embeddings(towers: OpenClipBackbone) -> None:
    assert towers.embed_texts([]).shape == (0, 16)


def test_a_prompt_beyond_the_context_is_refused_not_cut(towers: OpenClipBackbone) -> None:
    assert towers.embed_texts(['mug ' * 75]).shape == (1, 16)
    with pytest.raises(PromptError, match=r'77 tokens.*shorten'):
        towers.embed_texts(['a cup', 'mug ' * 76])


@pytest.mark.parametrize('size', [(96, 160), (32, 64), (16, 16), (352, 208)])
def test_any_grid(towers: OpenClipBackbone, size: tuple[int, int]) -> None:
    height, width = size
    taps, grid = towers.image_tokens(pixels(height, width, 1), [1])
    assert grid == (height // 16, width // 16)
    assert taps[0].shape == (1, 1 + grid[0] * grid[1], 128)
    assert torch.isfinite(taps[0]).all()
    assert towers.embed_images(pixels(height, width, 1)).shape == (1, 16)


def test_rows_and_columns_are_not_swapped(towers: OpenClipBackbone) -> None:
    """A change at the right edge changes tokens of the last column before any attention."""
    visual = towers.model.visual
    image = pixels(32, 80, 1)
    other = image.clone()
    other[..., 64:] += 1
    before, after = (towers._embed_patches(picture)[0] for picture in (image, other))
    assert visual.conv1.kernel_size == (16, 16)
    changed = (before - after).abs().amax(2)[0, 1:].reshape(2, 5) > 1e-6
    assert changed.tolist() == [[False] * 4 + [True]] * 2


class TestPositions:
    positions = torch.randn(1 + 9, 5, generator=torch.Generator().manual_seed(2))

    def test_native_grid_is_untouched(self) -> None:
        assert interpolate_positions(self.positions, (3, 3), (3, 3)) is self.positions

    def test_cls_row_is_untouched(self) -> None:
        resized = interpolate_positions(self.positions, (3, 3), (6, 4))
        assert resized.shape == (1 + 24, 5)
        assert torch.equal(resized[0], self.positions[0])

    def test_is_bicubic_without_aligned_corners(self) -> None:
        resized = interpolate_positions(self.positions, (3, 3), (5, 7))
        for channel in range(5):
            plane = self.positions[1:, channel].reshape(1, 1, 3, 3)
            expected = F.interpolate(plane, (5, 7), mode='bicubic', align_corners=False)
            torch.testing.assert_close(resized[1:, channel].reshape(5, 7), expected[0, 0])

    def test_native_grid_may_be_oblong(self) -> None:
        row = torch.arange(3.0).repeat(2, 1).reshape(6, 1)  # two rows, three columns
        resized = interpolate_positions(torch.cat([torch.zeros(1, 1), row]), (2, 3), (2, 6))
        plane = resized[1:, 0].reshape(2, 6)
        torch.testing.assert_close(plane[0], plane[1])
        assert (plane[0].diff() > 0).all()


@pytest.mark.parametrize('layers', [[], [4], [-1], [0, 9]])
def test_blocks_that_are_not_there(towers: OpenClipBackbone, layers: list[int]) -> None:
    with pytest.raises(ValueError, match='blocks 0 to 3'):
        towers.image_tokens(pixels(64, 64), layers)


@pytest.mark.parametrize('shape', [(1, 3, 60, 64), (1, 3, 64, 50), (1, 3, 0, 64)])
def test_sides_that_are_no_multiple_of_the_patch(
    towers: OpenClipBackbone, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ImageError, match='multiples of 16'):
        towers.image_tokens(torch.zeros(shape), [0])


def test_pixels_of_a_wrong_shape(towers: OpenClipBackbone) -> None:
    with pytest.raises(ImageError, match=r'\(3, 64, 64\)'):
        towers.embed_images(torch.zeros(3, 64, 64))


def test_configuration_rebuilds_the_towers(towers: OpenClipBackbone) -> None:
    rebuilt = build_backbone(towers.config())
    assert isinstance(rebuilt, OpenClipBackbone)
    rebuilt.load_state_dict(towers.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(rebuilt.embed_texts(PROMPTS), towers.embed_texts(PROMPTS))
        assert torch.equal(
            rebuilt.embed_images(pixels(48, 64)), towers.embed_images(pixels(48, 64))
        )


def test_building_claims_nothing_about_weights(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        OpenClipBackbone(overrides=SMALL)
    assert not caplog.records


def test_weights_from_a_local_file(towers: OpenClipBackbone, tmp_path: Path) -> None:
    path = tmp_path / 'towers.safetensors'
    save_file(towers.model.state_dict(), path)
    loaded = OpenClipBackbone(pretrained=path, overrides=SMALL)
    with torch.no_grad():
        assert torch.equal(loaded.embed_texts(PROMPTS), towers.embed_texts(PROMPTS))


def test_names_of_pretrained_weights_are_not_fetched() -> None:
    with pytest.raises(CheckpointError, match="'openai' is not one: nothing is downloaded"):
        OpenClipBackbone(pretrained='openai', overrides=SMALL)


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / 'ran',)

    path = tmp_path / 'towers.pt'
    torch.save({'state_dict': Malicious()}, path)
    with pytest.raises(CheckpointError, match='does not hold weights'):
        OpenClipBackbone(pretrained=path, overrides=SMALL)
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        ({}, "'small_clip' or 'photo_clip', not None"),
        ({'type': 'resnet'}, "not 'resnet'"),
        ({'type': 'open_clip', 'depth': 3}, 'depth'),
        ({'type': 'small_clip'}, 'vocabulary_size'),
        ({'type': 'open_clip', 'architecture': 'ViT-Z-99'}, 'ViT-Z-99'),
        ({'type': 'open_clip', 'architecture': 'RN50'}, 'not a plain CLIP'),
        ({'type': 'open_clip', 'architecture': 'coca_ViT-B-32'}, 'not a plain CLIP'),
        ({'type': 'open_clip', 'architecture': 'ViT-B-16-SigLIP'}, 'tokenizer'),
        ({'type': 'open_clip', 'overrides': SMALL, 'mean': [0.5]}, 'wrong'),
    ],
)
def test_configurations_that_are_wrong(config: dict[str, object], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        build_backbone(config)


@pytest.mark.parametrize(
    ('architecture', 'missing'),
    [
        ('RN50', 'no vision transformer, and so no tokens'),
        ('coca_ViT-B-32', 'no text tower apart from its captioning decoder'),
        ('xlm-roberta-base-ViT-B-32', "it is 'xlm-roberta-base'"),
        ('ViT-L-14-CLIPA', "it needs 'bert-base-uncased'"),
        ('ViT-L-14-CLIPA', 'no image embedding at a CLS token'),
        ('ViT-B-16-SigLIP', "whose CLS token and blocks can be read: it is timm's"),
        ('ViT-B-16-SigLIP', "it needs 'timm/ViT-B-16-SigLIP'"),
        ('ViT-B-16-SigLIP', 'no causal text tower'),
        ('EVA02-B-16', "it is timm's 'eva02_base_patch16_clip_224'"),
    ],
)
def test_what_towers_lack_is_named(architecture: str, missing: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        OpenClipBackbone(architecture)
    assert missing in str(caught.value)
    assert 'ViT-L-14-336-quickgelu' in str(caught.value)


# open_clip's configurations at a fraction of their width and depth.
@pytest.mark.parametrize(
    ('architecture', 'size', 'patch'),
    [
        ('ViT-L-14', 224, 14),
        ('ViT-L-14-336-quickgelu', 336, 14),
        ('ViT-B-32', 224, 32),
        ('ViT-L-16-320', 320, 16),
        ('ViT-M-16-alt', 224, 16),
        ('ViT-g-14', 224, 14),
    ],
)
def test_other_architectures(architecture: str, size: int, patch: int) -> None:
    config = open_clip.get_model_config(architecture)
    vision, text = config['vision_cfg'], config['text_cfg']
    heads = vision['width'] // vision.get('head_width', 64)
    small = {
        'vision_cfg': {**vision, 'layers': 2, 'width': 8 * heads, 'head_width': 8},
        'text_cfg': {**text, 'layers': 1, 'width': 4 * text['heads']},
    }
    torch.manual_seed(0)
    towers = OpenClipBackbone(architecture, overrides=small)
    assert towers.patch_size == patch
    native = pixels(size, size, 1)
    with torch.no_grad():
        _, grid = towers.image_tokens(native, [0, 1])
        expected = towers.model.encode_image(native)
        torch.testing.assert_close(towers.embed_images(native), expected, rtol=0, atol=1e-5)
        tokens = open_clip.SimpleTokenizer()(PROMPTS)
        expected = towers.model.encode_text(tokens)
        torch.testing.assert_close(towers.embed_texts(PROMPTS), expected, rtol=0, atol=1e-5)
        assert grid == (size // patch, size // patch)
        model = CLIPSeg(towers, [0, 1], dim=16, feedforward=32, head='refined')
        oblong = pixels(3 * patch, 5 * patch, 2)
        assert model(oblong, torch.randn(2, 3, towers.embed_dim)).shape == (2, 3, *oblong.shape[2:])
    rebuilt = build_backbone(towers.config())
    assert isinstance(rebuilt, OpenClipBackbone)
    rebuilt.load_state_dict(towers.state_dict(), strict=True)


class TestTokensPerSide:
    """`n_tokens` of the official code: the patches fit the image, not the other way round."""

    def towers(self, n_tokens: int | None) -> OpenClipBackbone:
        torch.manual_seed(0)
        return OpenClipBackbone(overrides=SMALL, n_tokens=n_tokens)

    def test_the_grid(self) -> None:
        for size, n_tokens in (((64, 64), 8), ((96, 96), 3), ((40, 60), 4)):
            taps, grid = self.towers(n_tokens).image_tokens(pixels(*size), [1])
            assert grid == (n_tokens, n_tokens * size[1] // size[0])
            assert taps[0].shape == (2, 1 + grid[0] * grid[1], 128)

    def test_patches_of_the_size_that_they_were_trained_at(self) -> None:
        images = pixels(64, 64)
        taps, _ = self.towers(4).image_tokens(images, [1])
        expected, _ = self.towers(None).image_tokens(images, [1])
        assert torch.equal(taps[0], expected[0])
        embedding = self.towers(4).embed_images(images)
        assert torch.equal(embedding, self.towers(None).embed_images(images))

    def test_the_convolution_is_resampled_with_aligned_corners(self) -> None:
        """The corners of a kernel stay, whatever its size, and so does a plane."""
        towers = self.towers(8)
        kernel = towers.model.visual.conv1.weight
        with torch.no_grad():
            ramp = torch.arange(16.0)
            kernel.copy_((ramp + 100 * ramp[:, None]).expand_as(kernel))
            towers.model.visual.positional_embedding.zero_()
            towers.model.visual.class_embedding.zero_()
            towers.model.visual.ln_pre = torch.nn.Identity()
            image = torch.zeros(1, 3, 64, 64)
            image[0, 0, 0, 0], image[0, 0, 15, 8 + 7] = 1, 1  # corners of two patches of 8 × 8
            tokens = towers._embed_patches(image)[0][0, 1:, 0].view(8, 8)
        assert tokens[0, 0] == 0
        assert tokens[1, 1] == 15 + 1500
        assert tokens.count_nonzero() == 1

    def test_the_logits_have_the_size_of_the_image(self) -> None:
        model = CLIPSeg(self.towers(8), [0, 1], dim=16, feedforward=32)
        with torch.no_grad():
            features = model.encode_image(pixels(64, 64, 1))
            logits = model.decode(features, torch.randn(3, 16))
            assert logits.shape == (3, 64, 64)
            condition = torch.randn(1, 3, 16)
            raw = model.decoder(features.taps, features.grid, condition)
            assert raw.shape == (1, 3, 128, 128)
            expected = F.interpolate(raw, (64, 64), mode='bilinear', align_corners=True)
            assert torch.equal(model.decode(features, condition), expected)

    def test_configuration(self) -> None:
        towers = self.towers(8)
        rebuilt = build_backbone(towers.config())
        assert isinstance(rebuilt, OpenClipBackbone)
        assert rebuilt.n_tokens == 8
        assert 'n_tokens' not in self.towers(None).config()

    def test_sizes_that_do_not_fit(self) -> None:
        for shape in ((1, 3, 60, 64), (1, 3, 0, 64), (1, 3, 4, 4)):
            with pytest.raises(ImageError, match=r'multiple of n_tokens \(8\)'):
                self.towers(8).image_tokens(torch.zeros(shape), [0])
        with pytest.raises(ImageError, match='multiples of 8 px, not 60'):
            self.towers(8).image_tokens(torch.zeros(1, 3, 64, 60), [0])
        with pytest.raises(CheckpointError, match='at least 1, not 0'):
            build_backbone({'type': 'open_clip', 'overrides': SMALL, 'n_tokens': 0})


def test_the_architecture_of_the_paper() -> None:
    towers = OpenClipBackbone('ViT-B-16-quickgelu')
    assert (towers.token_width, towers.embed_dim, towers.num_blocks) == (768, 512, 12)
    assert sum(value.numel() for value in towers.parameters()) == 149_620_737
    assert towers.model.visual.grid_size == (14, 14)
    block = towers.model.visual.transformer.resblocks[0]
    assert type(block.mlp.gelu).__name__ == 'QuickGELU'
    assert math.isclose(block.ln_1.eps, 1e-5)
    taps, grid = towers.image_tokens(torch.zeros(1, 3, 352, 352), [3, 6, 9])
    assert grid == (22, 22)
    assert [tap.shape for tap in taps] == [(1, 485, 768)] * 3
