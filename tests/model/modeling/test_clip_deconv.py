from __future__ import annotations

import pytest
import torch
from tiny_models import make_small_clip
from torch import Tensor, nn
from torch.nn import functional

from clipseg_model.modeling.clip_deconv import CLIPDeconv, CLIPDeconvDecoder, build_clip_deconv


def reference_decode(decoder: CLIPDeconvDecoder, tap: Tensor, side: int, text: Tensor) -> Tensor:
    """One prompt on one square image, step by step as the official code does it, CLS and all."""
    state = functional.linear(tap, decoder.reduce.weight, decoder.reduce.bias)
    state = decoder.film_mul(text) * state + decoder.film_add(text)
    first, _, second = decoder.project
    state = second(torch.relu(first(state)))
    state = state[:, 1:].permute(0, 2, 1).reshape(1, -1, side, side)
    logits: Tensor = functional.conv_transpose2d(
        state, decoder.head.deconv.weight, decoder.head.deconv.bias, stride=16
    )
    return logits[0, 0]


@torch.no_grad()
def test_the_decoder_equals_the_official_one() -> None:
    torch.manual_seed(3)
    decoder = CLIPDeconvDecoder(token_width=24, embed_dim=12, dim=16, hidden=20)
    tap, texts = torch.randn(1, 1 + 9, 24), torch.randn(1, 2, 12)
    logits = decoder(tap[:, 1:], (3, 3), texts)
    for prompt in range(2):
        expected = reference_decode(decoder, tap, 3, texts[0, prompt])
        torch.testing.assert_close(logits[0, prompt], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_patch_decides_over_its_own_pixels_alone() -> None:
    torch.manual_seed(4)
    decoder = CLIPDeconvDecoder(token_width=8, embed_dim=4, dim=8)
    patches, texts = torch.randn(1, 6, 8), torch.randn(1, 1, 4)
    other = patches.clone()
    other[0, 4] += 1  # row 1, column 1 of a grid of 2 × 3
    difference = decoder(other, (2, 3), texts) - decoder(patches, (2, 3), texts)
    changed = difference[0, 0].abs().gt(1e-6)
    assert changed[16:32, 16:32].all()
    assert changed.sum() == 256


@torch.no_grad()
def test_it_decodes_the_patches_of_the_block_that_it_says() -> None:
    towers = make_small_clip().eval()
    model = CLIPDeconv(towers, 1, dim=16)
    pixels = torch.randn(1, 3, 48, 48)
    taps, _ = towers.image_tokens(pixels, [1])
    text = model.embed_texts(['a mug'])
    logits = model.decode(model.encode_image(pixels), text)[0]
    expected = reference_decode(model.decoder, taps[0], 3, text[0])
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('layer', [-1, 3])
def test_a_layer_that_is_not_there(layer: int) -> None:
    with pytest.raises(ValueError, match=rf'layer {layer} is not in 0…2'):
        CLIPDeconv(make_small_clip(), layer)


def test_more_than_one_layer() -> None:
    model: nn.Module = CLIPDeconv(make_small_clip(), 1)
    with pytest.raises(ValueError, match=r'one block, not \[0, 1\]'):
        build_clip_deconv({**model.config(), 'layers': [0, 1]})
