"""Linear layers, convolutions and attention by oneDNN, against torch's own."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clipseg_model.modeling import onednn
from clipseg_model.modeling.attention import ImageAttention, attend
from clipseg_model.modeling.backbone import OpenClipBackbone
from clipseg_model.modeling.decoder import PlainHead, RefinedHead, upscale
from clipseg_model.modeling.dense import ACTIVATIONS, Dense, FeedForward, convolve
from clipseg_model.modeling.onednn import onednn_serves

needs_onednn = pytest.mark.skipif(
    not onednn._HAS_ONEDNN, reason='torch calls oneDNN itself on this processor'
)


@pytest.fixture
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


def towers(quick: bool) -> OpenClipBackbone:
    torch.manual_seed(3)
    tower = {'layers': 2, 'width': 32, 'head_width': 8, 'patch_size': 16, 'image_size': 64}
    text = {'context_length': 8, 'vocab_size': 49408, 'width': 16, 'heads': 2, 'layers': 1}
    overrides = {'vision_cfg': tower, 'text_cfg': text, 'embed_dim': 16, 'quick_gelu': quick}
    return OpenClipBackbone('ViT-B-16-quickgelu', overrides=overrides)


@pytest.mark.usefixtures('_no_grad')
class TestDense:
    @pytest.mark.parametrize('activation', ACTIVATIONS)
    @pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
    def test_is_a_linear_layer(self, activation: str, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        layer = Dense(24, 40).to(dtype)
        inputs = torch.randn(2, 7, 24).to(dtype)
        product = nn.functional.linear(inputs, layer.weight, layer.bias)
        expected = ACTIVATIONS[activation](product)
        rtol, atol = (1e-5, 1e-5) if dtype == torch.float32 else (2e-2, 2e-2)
        torch.testing.assert_close(layer(inputs, activation), expected, rtol=rtol, atol=atol)
        with torch.enable_grad():
            assert torch.equal(layer(inputs, activation), expected)

    @pytest.mark.parametrize('mode', ['in place', 'replaced', 'loaded', 'moved', 'assigned'])
    def test_changed_weights_are_packed_again(self, mode: str) -> None:
        torch.manual_seed(0)
        layer, other = Dense(24, 40), Dense(24, 40)
        inputs = torch.randn(3, 24)
        layer(inputs)
        if mode == 'in place':
            layer.weight.copy_(other.weight)
            layer.bias.copy_(other.bias)
        elif mode == 'replaced':
            layer.weight, layer.bias = other.weight, other.bias
        elif mode == 'loaded':
            layer.load_state_dict(other.state_dict())
        elif mode == 'assigned':
            layer.load_state_dict(other.state_dict(), assign=True)
        else:
            layer.double().load_state_dict(other.double().state_dict())
            layer.float(), other.float()
        torch.testing.assert_close(layer(inputs), nn.functional.linear(inputs, *other.parameters()))

    @needs_onednn
    def test_weights_are_packed_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        layer = Dense(24, 40)
        packings = 0
        reorder = torch.ops.mkldnn._reorder_linear_weight

        class Namespace:
            _linear_pointwise = torch.ops.mkldnn._linear_pointwise

            @staticmethod
            def _reorder_linear_weight(*args: Any) -> Tensor:
                nonlocal packings
                packings += 1
                packed: Tensor = reorder(*args)
                return packed

        monkeypatch.setattr(onednn.torch.ops, 'mkldnn', Namespace)
        for rows in (1, 5, 500, 5):
            layer(torch.randn(rows, 24))
        assert packings == 1

    def test_keys_and_copies(self) -> None:
        layer = Dense(24, 40)
        inputs = torch.randn(3, 24)
        expected = layer(inputs)
        assert list(layer.state_dict()) == ['weight', 'bias']
        for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert torch.equal(copied(inputs), expected)

    def test_where_torchs_layers_are_used(self) -> None:
        layer = Dense(24, 40)
        inputs = torch.randn(3, 24)
        assert onednn_serves(inputs, layer.weight) == onednn._HAS_ONEDNN
        assert not onednn_serves(inputs.double(), layer.weight)
        assert not onednn_serves(inputs.to('meta'), layer.weight)
        assert not onednn_serves(inputs[:0], layer.weight)
        with torch.enable_grad():
            assert not onednn_serves(inputs, layer.weight)
        expected = layer(inputs)
        with torch.autocast('cpu', torch.bfloat16):
            assert not onednn_serves(inputs, layer.weight)
            assert layer(inputs).dtype == torch.bfloat16
            layer.bfloat16()
            assert onednn_serves(inputs, layer.weight) == onednn._HAS_ONEDNN
            assert layer(inputs).dtype == torch.bfloat16
            torch.testing.assert_close(layer(inputs).float(), expected, rtol=2e-2, atol=2e-2)

    def test_an_exported_layer_is_of_torchs_own_operators(self) -> None:
        program = torch.export.export(Dense(24, 40).eval(), (torch.randn(3, 24),))
        assert 'mkldnn' not in str(program.graph)

    @pytest.mark.parametrize('quick', [False, True])
    def test_blocks_of_open_clip(self, quick: bool) -> None:
        """Against open_clip's own layers, which gradients bring back, with and without a mask."""
        tower = towers(quick)
        assert all(not name.endswith('packed') for name in tower.state_dict())
        block = tower.model.visual.transformer.resblocks[0]
        assert type(block.attn) is ImageAttention
        assert type(block.mlp) is FeedForward
        tokens = torch.randn(3, 17, 32)
        bias = torch.zeros(3 * 4, 17, 17)
        bias[:, :, 9:] = -torch.inf
        for mask in (None, bias):
            fast = block(tokens, attn_mask=mask)
            with torch.enable_grad():
                own = block(tokens, attn_mask=mask)
            torch.testing.assert_close(fast, own, rtol=1e-5, atol=1e-5)

    def test_convolutions(self) -> None:
        torch.manual_seed(0)
        conv = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=4)
        images = torch.randn(2, 8, 12, 10) * 4
        for activation in ('none', 'relu', 'relu6'):
            expected = ACTIVATIONS[activation](conv(images))
            torch.testing.assert_close(convolve(images, conv, activation), expected)
            with torch.enable_grad():
                torch.testing.assert_close(convolve(images, conv, activation), expected)


@pytest.mark.usefixtures('_no_grad')
class TestHeads:
    @pytest.mark.parametrize('outputs', [1, 6])
    def test_upscale_is_a_transposed_convolution(self, outputs: int) -> None:
        torch.manual_seed(0)
        deconv = nn.ConvTranspose2d(8, outputs, 4, stride=4)
        tokens = torch.randn(2, 8, 3, 5)
        pixels = upscale(tokens.permute(0, 2, 3, 1), deconv)
        pixels = pixels.permute(0, 5, 1, 3, 2, 4).reshape(2, outputs, 12, 20)
        torch.testing.assert_close(pixels, deconv(tokens))

    @pytest.mark.parametrize('patch', [14, 16])
    def test_refined(self, patch: int) -> None:
        torch.manual_seed(0)
        head = RefinedHead(8, patch)
        tokens = torch.randn(2, 8, 3, 5)
        expected = head.deconv2(head.deconv1(head.conv(tokens).relu()).relu())
        torch.testing.assert_close(head(tokens), expected)

    def test_plain(self) -> None:
        head = PlainHead(8, 16)
        tokens = torch.randn(2, 8, 3, 5)
        torch.testing.assert_close(head(tokens), head.deconv(tokens))


def test_attention_in_bfloat16_is_near_that_of_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 50, 16, generator=generator)
    bias = torch.zeros(2, 1, 1, 50)
    bias[:, :, :, 30:] = -torch.inf
    with torch.no_grad():
        exact = attend(query, key, value, bias)
        rough = attend(query.bfloat16(), key.bfloat16(), value.bfloat16(), bias)
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.float(), exact, rtol=0, atol=3e-2)
