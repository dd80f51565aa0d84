from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tiny_models import make_small_clip
from torch import Tensor, nn

from clipseg_model.modeling.bundled.small_clip import SmallClip
from clipseg_model.modeling.clsclip import ClsCLIP

SMALL = {'dim': 16, 'feedforward': 32}
WIDTH = 32


@pytest.fixture(autouse=True)
def _grad_free() -> Iterator[None]:
    with torch.no_grad():
        yield


def make(*arguments: Any, **options: Any) -> ClsCLIP:
    torch.manual_seed(0)
    return ClsCLIP(make_small_clip(), *arguments, **{**SMALL, **options}).eval()


def pixels(height: int = 48, width: int = 64) -> Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(1))


def last_patches(model: ClsCLIP, condition: Tensor) -> Tensor:
    """What enters the decoder."""
    seen: list[Tensor] = []
    handle = model.decoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.decode(model.encode_image(pixels()), condition)
    handle.remove()
    return torch.cat(seen)


class TestReplacement:
    def test_equals_the_equations(self) -> None:
        """[c, x_{i+1}] = block_i([L_i t, x_i]) where i is guided, block_i([c, x_i]) elsewhere."""
        model = make([0, 1])
        text = model.embed_texts(['the red mug'])
        tokens, _ = model.backbone.tokens_before(pixels(), 0)
        for number, block in enumerate(model.backbone.blocks):
            if number in (0, 1):
                layer = model.guide.projections[str(number)]
                replaced = text @ layer.weight.T + layer.bias
                tokens = torch.cat([replaced[:, None], tokens[:, 1:]], 1)
            tokens = block(tokens)
        torch.testing.assert_close(last_patches(model, text), tokens[:, 1:])

    def test_the_images_own_cls_token_has_no_effect(self) -> None:
        model = make([0])
        text = model.embed_texts(['the red mug'])
        other = torch.randn(WIDTH)
        before = last_patches(model, text)
        model.backbone.cls.add_(other)
        assert torch.equal(last_patches(model, text), before)
        after = make([1])
        reference = last_patches(after, text)
        after.backbone.cls.add_(other)
        assert (last_patches(after, text) - reference).abs().max() > 1e-4

    def test_with_its_own_cls_token_the_tower_is_untouched(self) -> None:
        model = make([0])
        layer = model.guide.projections['0']
        nn.init.zeros_(layer.weight)
        layer.bias.copy_(model.backbone.cls + model.backbone.positions[0])
        taps, _ = model.backbone.image_tokens(pixels(), [2])
        condition = model.embed_texts(['the red mug'])
        torch.testing.assert_close(last_patches(model, condition), taps[0][:, 1:])

    def test_blocks_of_the_paper(self) -> None:
        towers = SmallClip(8, 8, word_dim=4, width=WIDTH, num_blocks=12, text_width=32)
        model = ClsCLIP(towers, **SMALL)
        assert model.blocks == (2, 3, 4)
        assert list(model.guide.projections) == ['2', '3', '4']
        assert model.decoder.options['num_layers'] == 2


class TestAblations:
    def test_channel_attention(self) -> None:
        model = make([1, 2], 'channel')
        text = model.embed_texts(['the red mug'])
        tokens, _ = model.backbone.tokens_before(pixels(), 1)
        for number in (1, 2):
            weight = torch.sigmoid(model.guide.projections[str(number)](text))[0]
            tokens = model.backbone.blocks[number](tokens * (2 * weight))
        torch.testing.assert_close(last_patches(model, text), tokens[:, 1:])

    def test_spatial_attention(self) -> None:
        model = make([2], 'spatial')
        text = model.embed_texts(['the red mug'])
        tokens, _ = model.backbone.tokens_before(pixels(), 2)
        direction = model.guide.projections['2'](text)[0]
        fit = torch.tensor([float(token @ direction) / WIDTH**0.5 for token in tokens[0]])
        tokens = model.backbone.blocks[2](tokens * (2 * fit.sigmoid())[None, :, None])
        torch.testing.assert_close(last_patches(model, text), tokens[:, 1:])

    @pytest.mark.parametrize('guidance', ['channel', 'spatial'])
    def test_a_projection_of_zero_leaves_the_tower_as_it_is(self, guidance: str) -> None:
        model = make([0, 2], guidance)
        for layer in model.guide.projections.values():
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        taps, _ = model.backbone.image_tokens(pixels(), [2])
        condition = model.embed_texts(['the red mug'])
        torch.testing.assert_close(last_patches(model, condition), taps[0][:, 1:])

    def test_learned_tokens_join_before_the_first_block(self) -> None:
        model = make([3], 'channel', 50)
        assert model.shares_image_features
        assert model.learned_tokens is not None
        assert model.learned_tokens.shape == (50, WIDTH)
        text = model.embed_texts(['the red mug'])
        tokens, grid = model.backbone.tokens_before(pixels(), 0)
        patches = grid[0] * grid[1]
        tokens = torch.cat([tokens, model.learned_tokens[None]], 1)  # attention knows no order
        for block in model.backbone.blocks:
            tokens = block(tokens)
        weight = torch.sigmoid(model.guide.projections['3'](text))
        expected = tokens[:, 1 : 1 + patches] * (2 * weight)
        torch.testing.assert_close(last_patches(model, text), expected, rtol=1e-4, atol=1e-5)

    def test_learned_tokens_beside_a_replaced_cls_token(self) -> None:
        model = make([1], 'cls', 4)
        assert not model.shares_image_features
        condition = model.embed_texts(['the red mug', 'a chair'])
        logits = model.decode(model.encode_image(pixels()), condition)
        assert logits.shape == (2, 48, 64)


class TestDecoder:
    def test_patches_land_where_they_came_from(self) -> None:
        """Without attention between tokens, a patch decides over its own pixels alone."""
        model = make([1])
        for block in model.decoder.blocks:
            nn.init.zeros_(block.out_proj.weight)
        patches = torch.randn(1, 6, WIDTH, generator=torch.Generator().manual_seed(4))
        other = patches.clone()
        other[0, 4] += 1  # row 1, column 1 of a grid of 2 × 3
        difference = model.decoder(other, (2, 3)) - model.decoder(patches, (2, 3))
        changed = difference[0].abs().gt(1e-6)
        assert changed[16:32, 16:32].all()
        assert changed.sum() == 256

    def test_the_refined_head(self) -> None:
        model = make([1], head='refined')
        text = model.embed_texts(['the red mug'])
        assert model(pixels(), text[None]).shape == (1, 1, 48, 64)
        assert model.config()['decoder']['head'] == 'refined'


@pytest.mark.parametrize(
    ('arguments', 'options', 'message'),
    [
        (([],), {}, 'ascending'),
        (([2, 1],), {}, r'ascending and distinct, not \[2, 1\]'),
        (([1, 3],), {}, r'not all in 0…2'),
        (([-1],), {}, 'not all in'),
        (([4], 'channel'), {}, r'not all in 0…3'),
        (([1], 'text'), {}, "guidance must be one of .* not 'text'"),
        (([1], 'cls', -1), {}, 'learned_tokens must be 0 or more, not -1'),
        (([1],), {'dim': 30}, 'divisible'),
        (([1],), {'head': 'fancy'}, "'fancy'"),
    ],
)
def test_options_that_do_not_fit(
    arguments: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(*arguments, **options)
