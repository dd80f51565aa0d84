"""Work that is not done: counted in calls and in floating-point operations, never in time."""

from __future__ import annotations

import copy
import pickle
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tiny_models import make_model
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

import clipseg_model.modeling.clipseg as clipseg_module
from clipseg_model.cli.app import app
from clipseg_model.errors import CheckpointError
from clipseg_model.modeling import onednn
from clipseg_model.modeling.attention import ImageAttention, attend
from clipseg_model.modeling.backbone import OpenClipBackbone
from clipseg_model.modeling.clipseg import CLIPSeg, PlainHead, RefinedHead, upscale
from clipseg_model.modeling.dense import ACTIVATIONS, Dense, FeedForward, convolve
from clipseg_model.modeling.onednn import onednn_serves
from clipseg_model.prompts import Prompt
from clipseg_model.registry import create_model
from clipseg_model.segmenter import Segmenter
from training.papers.flops import paper_model

PROMPTS = ['a mug', 'the red chair', 'blue cup']

needs_onednn = pytest.mark.skipif(
    not onednn._HAS_ONEDNN, reason='torch calls oneDNN itself on this processor'
)


@pytest.fixture
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


def count_calls(model: nn.Module) -> Counter[str]:
    """How often each module of a model is called from now on, by its name."""
    calls: Counter[str] = Counter()
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: calls.update([name]))
    return calls


def image_blocks(calls: Counter[str]) -> dict[int, int]:
    """Calls of the blocks of a SmallClip's image tower."""
    names = {number: f'backbone.blocks.{number}' for number in range(3)}
    return {number: calls[name] for number, name in names.items()}


class TestCalls:
    @pytest.mark.parametrize('count', [1, 3])
    def test_a_frame_of_known_prompts(
        self, segmenter: Segmenter, image: NDArray[np.uint8], count: int
    ) -> None:
        """What depends on the prompts alone is known, what depends on the image is done once."""
        prompts = PROMPTS[:count]
        segmenter.segment(image, prompts)
        calls = count_calls(segmenter.model)
        for frame in range(1, 4):
            segmenter.segment(image, prompts)
            assert calls['backbone.stem'] == frame
            assert image_blocks(calls) == {0: frame, 1: frame, 2: frame}
            for tap in range(2):
                assert calls[f'decoder.reduces.{tap}'] == frame
        assert calls['backbone.text'] == 0
        assert calls['decoder.film_mul'] == calls['decoder.film_add'] == 0

    def test_no_block_after_the_deepest_tap(self, image: NDArray[np.uint8]) -> None:
        towers = make_model().backbone
        model = CLIPSeg(towers, [0, 1], dim=16, num_heads=4, feedforward=32)
        calls = count_calls(model)
        with torch.inference_mode():
            model.encode_image(torch.zeros(1, 3, 64, 64))
        assert image_blocks(calls) == {0: 1, 1: 1, 2: 0}

    def test_projections_are_made_once_for_several_predictions(
        self, segmenter: Segmenter, image: NDArray[np.uint8]
    ) -> None:
        calls = count_calls(segmenter.model)
        segmenter.set_image(image)
        for prompts in (PROMPTS, PROMPTS[:1], PROMPTS[1:]):
            segmenter.predict(prompts)
        assert calls['decoder.reduces.0'] == calls['decoder.reduces.1'] == 1
        assert calls['decoder.film_mul'] == 3

    def test_another_set_of_known_prompts_needs_no_text_tower(
        self, segmenter: Segmenter, image: NDArray[np.uint8]
    ) -> None:
        segmenter.segment(image, PROMPTS)
        calls = count_calls(segmenter.model)
        segmenter.segment(image, PROMPTS[:2])
        segmenter.segment(image, PROMPTS)
        assert calls['backbone.text'] == 0
        assert calls['decoder.film_mul'] == 1

    def test_thresholds_and_names_change_no_features(
        self, segmenter: Segmenter, image: NDArray[np.uint8]
    ) -> None:
        segmenter.segment(image, ['a mug'])
        calls = count_calls(segmenter.model)
        segmenter.segment(image, [Prompt('a mug', name='mine', threshold=0.2)], threshold=0.3)
        assert calls['decoder.film_mul'] == 0

    @pytest.mark.parametrize('change', ['weight', 'template', 'method'])
    def test_what_changes_features_is_noticed(
        self, segmenter: Segmenter, image: NDArray[np.uint8], change: str
    ) -> None:
        mask = np.zeros(image.shape[:2], bool)
        mask[20:60, 30:80] = True
        prompt = Prompt('a mug', image=image, mask=mask, weight=0.3)
        before = segmenter.segment(image, [prompt]).results[0].logits
        if change == 'weight':
            prompt = Prompt('a mug', image=image, mask=mask, weight=0.8)
        elif change == 'template':
            segmenter.template = 'the red {}'
        else:
            segmenter.visual_method = 'crop'
        after = segmenter.segment(image, [prompt]).results[0].logits
        assert np.abs(after - before).max() > 1e-4

    def test_few_sets_are_kept(self, segmenter: Segmenter, image: NDArray[np.uint8]) -> None:
        segmenter.set_image(image)
        for index in range(1, 60):
            segmenter.predict([Prompt('a mug', image=image, weight=index / 60)])
        assert len(segmenter.embedder._sets) == 32


class TestInputSize:
    def test_is_overridden(
        self, checkpoint: Path, image: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        small = create_model(checkpoint, 'cpu', input_size=32)
        found = small.segment(image, [*PROMPTS, Prompt(image=image)])
        assert found.results[0].logits.shape == (32, 32)
        assert found.results[0].mask.shape == image.shape[:2]
        own = create_model(checkpoint, 'cpu')
        assert own.segment(image, PROMPTS).results[0].logits.shape == (64, 64)
        example = [Prompt(image=image)]
        assert torch.equal(small.embed(example), own.embed(example)), 'examples keep their size'

    @pytest.mark.parametrize(('size', 'message'), [(40, 'patch size 16'), (0, '16…4096')])
    def test_of_no_use(self, checkpoint: Path, size: int, message: str) -> None:
        with pytest.raises(CheckpointError, match=message):
            create_model(checkpoint, 'cpu', input_size=size)

    def test_on_the_command_line(
        self, checkpoint: Path, image: NDArray[np.uint8], tmp_path: Path
    ) -> None:
        Image.fromarray(image).save(tmp_path / 'photo.png')
        words = ['segment', tmp_path / 'photo.png', '-p', 'a mug', '-m', checkpoint]
        words += ['-o', tmp_path / 'out', '--device', 'cpu', '--input-size']
        fine = CliRunner().invoke(app, [*map(str, words), '32'])
        assert fine.exit_code == 0, fine.output
        wrong = CliRunner().invoke(app, [*map(str, words), '40'])
        assert wrong.exit_code != 0
        assert 'patch size 16' in ' '.join(wrong.output.split())


class TestChunks:
    @pytest.mark.parametrize('bound', [1, 40_000, 10**9])
    def test_do_not_change_the_answer(self, monkeypatch: pytest.MonkeyPatch, bound: int) -> None:
        """Eight prompts on each of two images, with more or less memory for it."""
        model = make_model()
        images = torch.randn(2, 3, 48, 64, generator=torch.Generator().manual_seed(1))
        condition = torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(2))
        with torch.enable_grad():
            whole = model(images, condition).detach()
        monkeypatch.setattr(clipseg_module, 'CACHE_BYTES', bound)
        decoded: list[int] = []
        decode = model.decoder.decode

        def spy(projected: Any, grid: Any, modulation: Any) -> Tensor:
            decoded.append(modulation[0].shape[1])
            return decode(projected, grid, modulation)

        monkeypatch.setattr(model.decoder, 'decode', spy)
        with torch.no_grad():
            logits = model(images, condition)
        torch.testing.assert_close(logits, whole, rtol=1e-4, atol=1e-5)
        # 13 tokens by 32 hidden channels of four bytes are 1,664 bytes a pair.
        expected = {1: [1] * 8, 40_000: [8], 10**9: [8]}
        assert decoded == expected[bound]
        monkeypatch.setattr(clipseg_module, 'CACHE_BYTES', 2 * 3 * 1664)
        decoded.clear()
        with torch.no_grad():
            torch.testing.assert_close(model(images, condition), whole, rtol=1e-4, atol=1e-5)
        assert decoded == [3, 3, 2]

    def test_at_full_size_hidden_activations_stay_below_the_bound(self) -> None:
        model = paper_model('clipseg-rd64')
        features = model.encode_image(torch.empty(1, 3, 352, 352, device='meta'))
        assert model._pairs_at_once(features) == 64
        on_cpu = torch.empty(1, 485, 1)
        features.taps[0] = on_cpu
        assert model._pairs_at_once(features) * 485 * 2048 * 4 <= 8 << 20


@pytest.mark.usefixtures('_no_grad')
class TestOperations:
    """ViT-B/16 at 352 × 352, by torch's flop counter, without weights."""

    def test_bounds(self) -> None:
        vit_b = paper_model('clipseg-rd64')
        pixels = torch.empty(1, 3, 352, 352, device='meta')
        with FlopCounterMode(display=False) as image:
            features = vit_b.encode_image(pixels)
        # Ten of twelve blocks, the patches and three projections: all twelve are 91.8.
        assert 76.0e9 < image.get_total_flops() < 77.5e9
        cost = {}
        for count in (1, 64):
            condition = torch.empty(count, 512, device='meta')
            with FlopCounterMode(display=False) as film:
                prompts = vit_b.encode_prompts(condition)
            assert film.get_total_flops() == count * 2 * 2 * 512 * 64
            with FlopCounterMode(display=False) as counter:
                vit_b.decode(features, prompts)
            cost[count] = counter.get_total_flops()
        assert cost[64] == 64 * cost[1]
        assert cost[1] < 1.1e9
        everything = image.get_total_flops() + cost[64]
        assert everything < 2 * (image.get_total_flops() + cost[1])

    def test_the_layers_by_onednn_are_counted_alike(self) -> None:
        model = make_model()
        pixels = torch.zeros(1, 3, 64, 64)
        counts = []
        for enabled in (False, True):
            with torch.set_grad_enabled(not enabled), FlopCounterMode(display=False) as counter:
                model.decode(model.encode_image(pixels), torch.zeros(2, 16))
            counts.append(counter.get_total_flops())
        assert counts[0] > 0
        # Padded depthwise kernels, and the products of attention in another form.
        assert counts[1] == pytest.approx(counts[0], rel=0.02)


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
