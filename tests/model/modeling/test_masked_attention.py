from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tiny_models import make_model, make_small_clip
from torch import Tensor, nn

from clipseg_model.errors import PromptError
from clipseg_model.modeling.backbone import OpenClipBackbone
from clipseg_model.modeling.masked_attention import (
    SCOPES,
    attention_bias,
    masked_attention,
    tokens_inside,
)

SMALL = {
    'embed_dim': 16,
    'vision_cfg': {'image_size': 64, 'layers': 3, 'width': 128, 'patch_size': 16},
    'text_cfg': {'context_length': 77, 'vocab_size': 49408, 'width': 32, 'heads': 2, 'layers': 1},
}
#: Tokens of the 4 × 4 grid, CLS being 0, that the object of :func:`mask` is and is not in.
INSIDE, OUTSIDE = [6, 7], [1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15, 16]


@pytest.fixture(autouse=True)
def _grad_free() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope='module', params=['open_clip', 'small_clip'])
def towers(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    if request.param == 'open_clip':
        return OpenClipBackbone(overrides=SMALL)
    return make_small_clip().eval()


def blocks_of(towers: Any) -> Any:
    if isinstance(towers, OpenClipBackbone):
        return towers.model.visual.transformer.resblocks
    return towers.blocks


def pixels(batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def mask() -> Tensor:
    """An object in the second row of tokens, columns 1 and 2."""
    inside = torch.zeros(1, 64, 64, dtype=torch.bool)
    inside[0, 20:30, 18:40] = True
    return inside


def disturbed(towers: Any, number: int, tokens: list[int], scope: str | None) -> list[Tensor]:
    """CLS after each block, and the embedding, with noise on tokens before one block."""
    noise = torch.randn(1, len(tokens), towers.token_width) * 3
    seen: list[Tensor] = []

    def disturb(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        states = args[0].clone()
        states[:, tokens] += noise
        return (states, *args[1:])

    handles = [blocks_of(towers)[number].register_forward_pre_hook(disturb)]
    for block in blocks_of(towers):
        handles.append(
            block.register_forward_hook(lambda _, __, out: seen.append(out[:, 0].clone()))
        )
    try:
        if scope is None:
            embedding = towers.embed_images(pixels())
        else:
            with masked_attention(towers, mask(), scope):
                embedding = towers.embed_images(pixels())
    finally:
        for handle in handles:
            handle.remove()
    return [*seen, embedding]


class TestTokens:
    def test_one_pixel_is_enough(self) -> None:
        one = torch.zeros(2, 64, 64, dtype=torch.bool)
        one[0, 31, 16] = True
        one[1] = mask()[0]
        inside = tokens_inside(one, (4, 4))
        assert inside.nonzero().tolist() == [[0, 5], [1, 5], [1, 6]]

    @pytest.mark.parametrize('size', [(90, 120), (3, 2), (64, 200)])
    def test_any_size_of_picture(self, size: tuple[int, int]) -> None:
        corner = torch.zeros(1, *size, dtype=torch.bool)
        corner[0, -1, -1] = True
        inside = tokens_inside(corner, (4, 4))
        assert inside[0, -1]
        assert not inside[0, 0]
        assert tokens_inside(torch.ones(1, *size, dtype=torch.bool), (4, 4)).all()


class TestBias:
    def test_who_may_attend_to_whom(self) -> None:
        inside = torch.tensor([[True, False]])
        no = -torch.inf
        assert attention_bias(inside, 'cls_last', last=False) is None
        for scope, last in (('cls_last', True), ('cls', False), ('cls', True)):
            bias = attention_bias(inside, scope, last)
            assert bias is not None
            assert bias[0, 0].tolist() == [[0, 0, no], [0, 0, 0], [0, 0, 0]]
        bias = attention_bias(inside, 'all', last=False)
        assert bias is not None
        assert bias[0, 0].tolist() == [[0, 0, no]] * 3


class TestTowers:
    @pytest.mark.parametrize('scope', SCOPES)
    def test_a_mask_of_everything_changes_nothing(self, towers: Any, scope: str) -> None:
        plain = towers.embed_images(pixels(2))
        with masked_attention(towers, torch.ones(2, 64, 64, dtype=torch.bool), scope):
            masked = towers.embed_images(pixels(2))
        torch.testing.assert_close(masked, plain, rtol=1e-5, atol=1e-5)

    def test_all_equals_a_tower_that_has_the_inside_tokens_only(self, towers: Any) -> None:
        states: list[Tensor] = []
        first, last = blocks_of(towers)[0], blocks_of(towers)[-1]
        handles = [
            first.register_forward_pre_hook(lambda _, args: states.append(args[0])),
            last.register_forward_hook(lambda _, __, out: states.append(out)),
        ]
        with masked_attention(towers, mask(), 'all'):
            towers.embed_images(pixels())
        for handle in handles:
            handle.remove()
        few = states[0][:, [0, *INSIDE]]
        for block in blocks_of(towers):
            few = block(few)
        torch.testing.assert_close(states[1][:, [0, *INSIDE]], few, rtol=1e-4, atol=1e-5)

    def test_all_outside_tokens_have_no_influence(self, towers: Any) -> None:
        expected = disturbed(towers, 0, [], 'all')
        outside = disturbed(towers, 0, OUTSIDE, 'all')
        for ours, its in zip(outside, expected, strict=True):
            torch.testing.assert_close(ours, its, rtol=0, atol=1e-6)
        assert (disturbed(towers, 0, INSIDE, 'all')[-1] - expected[-1]).abs().max() > 1e-3

    def test_cls_reads_the_object_only_in_every_block(self, towers: Any) -> None:
        for number in range(3):
            expected = disturbed(towers, number, [], 'cls')
            outside = disturbed(towers, number, OUTSIDE, 'cls')
            torch.testing.assert_close(outside[number], expected[number], rtol=0, atol=1e-6)
            inside = disturbed(towers, number, INSIDE, 'cls')
            assert (inside[number] - expected[number]).abs().max() > 1e-4
        # What is outside still speaks to the object's tokens, and through them to CLS.
        assert (disturbed(towers, 0, OUTSIDE, 'cls')[-1] - expected[-1]).abs().max() > 1e-5

    def test_cls_last_restricts_the_last_block_only(self, towers: Any) -> None:
        expected = disturbed(towers, 2, [], 'cls_last')
        outside = disturbed(towers, 2, OUTSIDE, 'cls_last')
        torch.testing.assert_close(outside[-1], expected[-1], rtol=0, atol=1e-6)
        free = disturbed(towers, 2, OUTSIDE, None)
        assert (free[-1] - disturbed(towers, 2, [], None)[-1]).abs().max() > 1e-4
        early = disturbed(towers, 0, OUTSIDE, 'cls_last')
        assert (early[0] - expected[0]).abs().max() > 1e-4

    @pytest.mark.parametrize('scope', SCOPES)
    def test_each_image_has_its_own_mask(self, towers: Any, scope: str) -> None:
        masks = torch.cat([mask(), mask().flip(1)])
        with masked_attention(towers, masks, scope):
            together = towers.embed_images(pixels(2))
        for index in range(2):
            with masked_attention(towers, masks[[index]], scope):
                alone = towers.embed_images(pixels(2)[[index]])
            torch.testing.assert_close(together[[index]], alone, rtol=1e-4, atol=1e-5)
        assert (together - towers.embed_images(pixels(2))).abs().amax(1).min() > 1e-4

    def test_it_ends_even_after_a_failure(self, towers: Any) -> None:
        plain = towers.embed_images(pixels())
        with pytest.raises(ValueError, match='1 masks do not fit 2 images'):  # noqa: SIM117
            with masked_attention(towers, mask(), 'all'):
                towers.embed_images(pixels(2))
        assert torch.equal(towers.embed_images(pixels()), plain)

    def test_pictures_that_are_no_squares(self, towers: Any) -> None:
        oblong = torch.zeros(1, 3, 32, 64)
        with (
            masked_attention(towers, torch.ones(1, 32, 64, dtype=torch.bool), 'cls'),
            pytest.raises(ValueError, match='8 patches'),
        ):
            towers.embed_images(oblong)


def test_pixels_outside_of_the_object_have_no_influence_on_a_clip() -> None:
    """The patches of open_clip's towers do not overlap, so it holds from the pixels on."""
    torch.manual_seed(0)
    towers = OpenClipBackbone(overrides=SMALL)
    other = torch.randn(1, 3, 64, 64)
    other[..., 16:32, 16:48] = pixels()[..., 16:32, 16:48]
    with masked_attention(towers, mask(), 'all'):
        expected, found = towers.embed_images(pixels()), towers.embed_images(other)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_a_whole_model_is_restricted() -> None:
    model = make_model()
    with masked_attention(model, mask(), 'all'):
        masked = model.embed_images(pixels())
    with masked_attention(model.backbone, mask(), 'all'):
        expected = model.backbone.embed_images(pixels())
    assert torch.equal(masked, expected)
    assert not torch.equal(masked, model.embed_images(pixels()))


def test_the_text_tower_is_left_alone(towers: Any) -> None:
    plain = towers.embed_texts(['a mug'])
    with masked_attention(towers, mask(), 'all'):
        assert torch.equal(towers.embed_texts(['a mug']), plain)


def test_what_cannot_be_restricted() -> None:
    with (
        pytest.raises(PromptError, match='Linear has no CLIP image tower'),
        masked_attention(nn.Linear(2, 2), mask(), 'all'),
    ):
        pass
    with (
        pytest.raises(ValueError, match="cls_last, cls, all, not 'some'"),
        masked_attention(make_small_clip(), mask(), 'some'),
    ):
        pass
