"""Work that is not done: counted in calls and in floating-point operations, never in time."""

from __future__ import annotations

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
from clipseg_model.modeling.clipseg import CLIPSeg
from clipseg_model.prompts import Prompt
from clipseg_model.registry import create_model
from clipseg_model.segmenter import Segmenter
from training.papers.flops import paper_model

PROMPTS = ['a mug', 'the red chair', 'blue cup']


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
        assert np.array_equal(small.embed(example), own.embed(example)), 'examples keep their size'

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
