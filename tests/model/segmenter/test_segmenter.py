from __future__ import annotations

from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_calls import Calls, with_card
from numpy.typing import NDArray
from tiny_models import CARD, make_model

from clipseg_model.errors import CheckpointError, ClipsegError, ImageError, PromptError
from clipseg_model.prompting.visual_prompt import visual_prompt
from clipseg_model.prompts import Prompt
from clipseg_model.segmenter import Segmenter
from clipseg_model.settings import SegmentSettings
from clipseg_model.weights.checkpoints import load_card, save_checkpoint

PROMPTS = ['a mug', 'the red chair', 'blue cup']


@pytest.fixture
def calls(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(segmenter, monkeypatch)


class TestSharing:
    def test_an_image_is_encoded_once(
        self, segmenter: Segmenter, calls: Calls, image: NDArray[np.uint8]
    ) -> None:
        segmenter.set_image(image)
        segmenter.predict(PROMPTS)
        segmenter.predict(['a mug'])
        assert calls.images == [(1, 3, 64, 64)]
        assert calls.decoded == [3, 1]

    def test_prompts_are_embedded_once(
        self, segmenter: Segmenter, calls: Calls, image: NDArray[np.uint8]
    ) -> None:
        segmenter.segment(image, PROMPTS)
        segmenter.segment(image, [PROMPTS[2], 'a cup', PROMPTS[0], 'a cup'])
        assert calls.texts == [PROMPTS, ['a cup']]

    def test_example_images_are_embedded_once(
        self, segmenter: Segmenter, calls: Calls, image: NDArray[np.uint8]
    ) -> None:
        mask = np.zeros(image.shape[:2], bool)
        mask[20:60, 30:80] = True
        for _ in range(2):
            segmenter.segment(image, [Prompt(image=image.copy(), mask=mask.copy())])
        assert calls.prompt_images == 1
        segmenter.segment(image, [Prompt(image=image, mask=~mask), Prompt(image=image)])
        assert calls.prompt_images == 3

    def test_results_do_not_depend_on_the_other_prompts(
        self, segmenter: Segmenter, image: NDArray[np.uint8]
    ) -> None:
        together = segmenter.segment(image, PROMPTS)
        for prompt, result in zip(PROMPTS, together.results, strict=True):
            alone = segmenter.segment(image, [prompt]).results[0]
            np.testing.assert_allclose(result.logits, alone.logits, atol=1e-5)
            assert result.score == pytest.approx(alone.score, abs=1e-6)

    def test_two_hundred_prompts(
        self, segmenter: Segmenter, calls: Calls, image: NDArray[np.uint8]
    ) -> None:
        words = ('red', 'blue', 'cup', 'mug', 'chair', 'a')
        prompts = [f'the {" ".join(some)}' for some in product(words, repeat=3)][:200]
        found = segmenter.segment(image, prompts)
        assert len(found.results) == 200
        assert calls.decoded == [200]
        alone = segmenter.segment(image, prompts[150:151]).results[0]
        np.testing.assert_allclose(found.results[150].logits, alone.logits, atol=1e-5)

    def test_nothing_needs_gradients(self, segmenter: Segmenter, image: NDArray[np.uint8]) -> None:
        segmenter.set_image(image)
        assert segmenter._features is not None
        assert not any(tap.requires_grad for tap in segmenter._features.taps)


class TestPrompts:
    def test_image_prompts_go_through_the_prompt_image(
        self, segmenter: Segmenter, image: NDArray[np.uint8]
    ) -> None:
        mask = np.zeros(image.shape[:2], bool)
        mask[20:60, 30:80] = True
        found = segmenter.segment(image, [Prompt(image=image, mask=mask)]).results[0]
        prompt_image = visual_prompt(image, mask, 64)
        with torch.inference_mode():
            vector = segmenter.model.embed_images(
                segmenter.preprocessor.pixels(prompt_image, (64, 64))
            )
            segmenter.set_image(image)
            assert segmenter._features is not None
            expected = segmenter.model.decode(segmenter._features, vector)
        np.testing.assert_allclose(found.logits, expected[0].numpy(), atol=1e-6)

    def test_prompt_images_have_the_cards_size(
        self, segmenter: Segmenter, image: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = with_card(segmenter, prompt_image_size=96)
        sizes: list[tuple[int, ...]] = []
        embed = other.model.embed_images

        def spy(pixels: torch.Tensor) -> torch.Tensor:
            sizes.append(tuple(pixels.shape))
            return embed(pixels)

        monkeypatch.setattr(other.model, 'embed_images', spy)
        other.segment(image, [Prompt(image=image)])
        assert sizes == [(1, 3, 96, 96)]

    @pytest.mark.parametrize('weight', [0.0, 0.25, 1.0])
    def test_mixed_prompts(
        self, segmenter: Segmenter, image: NDArray[np.uint8], weight: float
    ) -> None:
        text, example, mixed = segmenter.embed(
            [
                Prompt('a mug'),
                Prompt(image=image),
                Prompt('a mug', image=image, weight=weight),
            ]
        )
        torch.testing.assert_close(mixed, weight * text + (1 - weight) * example)

    def test_weight_is_the_share_of_the_text(
        self, segmenter: Segmenter, image: NDArray[np.uint8]
    ) -> None:
        """The paper's x = a s + (1 - a) t, with s of the image, t of the text, a = 1 - weight."""
        mixed = Prompt('a mug', image=image, weight=0.7)
        t, s, x = segmenter.embed([Prompt('a mug'), Prompt(image=image), mixed])
        a = 1 - mixed.weight
        torch.testing.assert_close(x, a * s + (1 - a) * t)
        assert (x - ((1 - a) * s + a * t)).abs().max() > 1e-3

    def test_an_example_without_a_mask_is_preprocessed_as_any_image(
        self, segmenter: Segmenter
    ) -> None:
        picture = np.random.default_rng(0).integers(0, 256, (150, 201, 3), dtype=np.uint8)
        with torch.inference_mode():
            expected = segmenter.model.embed_images(
                segmenter.preprocessor.pixels(picture, (64, 64))
            )
        assert torch.equal(segmenter.embed([Prompt(image=picture)]), expected)

    def test_prepare_embeds_ahead(
        self, segmenter: Segmenter, calls: Calls, image: NDArray[np.uint8]
    ) -> None:
        prompts = segmenter.prepare(PROMPTS)
        assert [prompt.text for prompt in prompts] == PROMPTS
        segmenter.segment(image, prompts)
        assert len(calls.texts) == 1

    def test_a_prompt_that_the_model_cannot_read(
        self, segmenter: Segmenter, image: NDArray[np.uint8]
    ) -> None:
        segmenter.set_image(image)
        for attempt in (segmenter.predict, segmenter.prepare):
            with pytest.raises(PromptError, match='茶碗'):
                attempt(['a mug', '茶碗'])
        assert segmenter.predict(['a mug']).results[0].prompt.text == 'a mug'

    @pytest.mark.parametrize('prompts', [[], 'a mug', [''], [None], ['a mug'] * 255])
    def test_what_is_no_list_of_prompts(
        self, segmenter: Segmenter, calls: Calls, image: NDArray[np.uint8], prompts: Any
    ) -> None:
        with pytest.raises(PromptError):
            segmenter.segment(image, prompts)
        assert calls.images == []


class TestThresholds:
    def test_prompts_before_call_before_card(
        self, segmenter: Segmenter, image: NDArray[np.uint8]
    ) -> None:
        prompts = [Prompt('a mug', threshold=0.3), 'blue cup']
        card = with_card(segmenter, threshold=0.4)
        assert [x.threshold for x in card.segment(image, prompts).results] == [0.3, 0.4]
        assert [x.threshold for x in card.segment(image, prompts, 0.6).results] == [0.3, 0.6]

    @pytest.mark.parametrize('threshold', [0, 1, -1, float('nan'), 'high'])
    def test_out_of_range(
        self, segmenter: Segmenter, image: NDArray[np.uint8], threshold: Any
    ) -> None:
        with pytest.raises(PromptError, match='between 0 and 1'):
            segmenter.segment(image, ['a mug'], threshold)

    def test_presence(self, segmenter: Segmenter, image: NDArray[np.uint8]) -> None:
        scores = [result.score for result in segmenter.segment(image, PROMPTS).results]
        between = (min(scores) + max(scores)) / 2
        found = with_card(segmenter, presence_threshold=between).segment(image, PROMPTS)
        assert [result.score for result in found.results] == pytest.approx(scores)
        assert [result.presence for result in found.results] == [s >= between for s in scores]
        assert any(result.mask.any() for result in found.results if result.presence)
        assert not any(result.mask.any() for result in found.results if not result.presence)


class TestOrder:
    def test_predict_before_set_image(self, segmenter: Segmenter) -> None:
        with pytest.raises(ImageError, match='set_image'):
            segmenter.predict(['a mug'])

    def test_a_bad_image_does_not_leave_the_last_one(
        self, segmenter: Segmenter, image: NDArray[np.uint8]
    ) -> None:
        segmenter.set_image(image)
        with pytest.raises(ImageError, match='float64'):
            segmenter.set_image(image.astype(float))  # type: ignore[arg-type]
        with pytest.raises(ImageError, match='set_image'):
            segmenter.predict(['a mug'])
        assert segmenter.segment(image, ['a mug']).results

    def test_warming_up_leaves_no_image(self, segmenter: Segmenter, calls: Calls) -> None:
        segmenter.warm_up(height=48, width=64, prompts=3)
        assert calls.images == [(1, 3, 64, 64)]
        assert calls.decoded == [3]
        with pytest.raises(ImageError, match='set_image'):
            segmenter.predict(['a mug'])

    @pytest.mark.parametrize('size', [(1, 1), (1, 700), (37, 5), (64, 64), (601, 399)])
    def test_results_have_the_size_of_the_image(
        self, segmenter: Segmenter, size: tuple[int, int]
    ) -> None:
        found = segmenter.segment(np.full((*size, 3), 80, np.uint8), PROMPTS)
        assert (found.height, found.width) == size
        for array in (found.mask(), found.labels(), found.confidence(), found.probability()):
            assert array.shape == size
        for result in found.results:
            assert result.mask.shape == result.probability.shape == size
        assert found.model == 'tiny'


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
class TestCuda:
    def test_agrees_with_the_cpu(self, segmenter: Segmenter, image: NDArray[np.uint8]) -> None:
        expected = segmenter.segment(image, PROMPTS)
        fast = Segmenter(make_model(), segmenter.card, 'cuda')
        found = fast.segment(image, PROMPTS)
        assert fast.device.type == 'cuda'
        for ours, its in zip(found.results, expected.results, strict=True):
            np.testing.assert_allclose(ours.logits, its.logits, atol=2e-2)
            assert ours.score == pytest.approx(its.score, abs=5e-3)


class TestDamage:
    def test_logits_that_are_not_finite(
        self, segmenter: Segmenter, image: NDArray[np.uint8]
    ) -> None:
        with torch.no_grad():
            segmenter.model.decoder.film_add.bias[0] = torch.nan
        for act in (
            lambda: segmenter.segment(image, ['a mug']),
            lambda: segmenter.segment_batch([image, image], ['a mug']),
            segmenter.warm_up,
        ):
            with pytest.raises(ClipsegError, match=r"'tiny' gave logits that are not finite"):
                act()

    @pytest.mark.parametrize(
        'name',
        [
            'backbone.stem.blocks.3.expand.weight',
            'backbone.blocks.1.linear1.bias',
            'decoder.blocks.0.linear1.weight',
            'decoder.head.conv.weight',
        ],
    )
    @pytest.mark.parametrize('value', [torch.nan, torch.inf])
    def test_weights_that_are_not_finite(
        self, segmenter: Segmenter, name: str, value: float
    ) -> None:
        """They would not always show in the logits: a fused ReLU makes NaN 0."""
        with torch.no_grad():
            segmenter.model.get_parameter(name).flatten()[3] = value
        with pytest.raises(CheckpointError, match=f"'tiny'.*{name}"):
            Segmenter(segmenter.model, segmenter.card, 'cpu')

    @pytest.mark.parametrize('sizes', [{'input_size': 100}, {'prompt_image_size': 100}])
    def test_sizes_that_do_not_fit_the_patches(self, tmp_path: Path, sizes: dict[str, int]) -> None:
        model = make_model()
        save_checkpoint(tmp_path / 'a.safetensors', model, {**CARD, **sizes})
        with pytest.raises(CheckpointError, match=r'100.*patch size 16'):
            Segmenter(model, load_card(tmp_path / 'a.safetensors'), 'cpu')


class TestPromptsAtOnce:
    @pytest.mark.parametrize('at_once', [1, 2, 5])
    def test_fewer_at_once_give_the_same_answer(
        self, at_once: int, segmenter: Segmenter, image: NDArray[np.uint8], calls: Calls
    ) -> None:
        prompts = [*PROMPTS, Prompt('a bowl', negative=True)]
        expected = segmenter.segment(image, prompts)
        del calls.decoded[:], calls.images[:]
        found = segmenter.segment(image, prompts, settings=SegmentSettings(prompts_at_once=at_once))
        assert calls.decoded == {1: [1, 1, 1, 1], 2: [2, 2], 5: [4]}[at_once]
        assert len(calls.images) == 1, 'the image is encoded once'
        for one, other in zip(found.results, expected.results, strict=True):
            np.testing.assert_allclose(one.logits, other.logits, atol=1e-4)

    def test_released_caches_are_made_anew(
        self, segmenter: Segmenter, image: NDArray[np.uint8], calls: Calls
    ) -> None:
        segmenter.set_image(image)
        expected = segmenter.predict(PROMPTS)
        segmenter.release_caches()
        with pytest.raises(ImageError, match='no image'):
            segmenter.predict(PROMPTS)
        again = segmenter.segment(image, PROMPTS)
        assert len(calls.texts) == 1, 'embeddings are kept'
        np.testing.assert_array_equal(again.results[0].logits, expected.results[0].logits)


class TestSettings:
    def test_those_of_a_call_come_before_the_defaults(
        self, segmenter: Segmenter, image: NDArray[np.uint8], calls: Calls
    ) -> None:
        captioned, red = SegmentSettings(template='a {}'), SegmentSettings(template='red {}')
        segmenter.settings = captioned
        segmenter.segment(image, ['mug'])
        segmenter.segment(image, ['cup'], settings=red)
        segmenter.segment_batch([image, image], ['chair'], settings=red)
        segmenter.prepare(['bowl'], red)
        segmenter.segment(image, ['plate'])
        wanted = [['a mug'], ['red cup'], ['red chair'], ['red bowl'], ['a plate']]
        assert calls.texts == wanted
        assert segmenter.settings is captioned

    def test_one_default_may_be_set_alone(self, segmenter: Segmenter) -> None:
        segmenter.settings = SegmentSettings(template='a {}')
        segmenter.visual_method = 'crop'
        assert segmenter.settings == SegmentSettings('a {}', 'crop')

    def test_each_is_an_attribute(self, segmenter: Segmenter) -> None:
        for field in fields(SegmentSettings):
            assert hasattr(Segmenter, field.name), field.name
        segmenter.prompts_at_once = 2
        segmenter.reuse_frames = 7
        assert segmenter.settings == SegmentSettings(prompts_at_once=2, reuse_frames=7)


class TestWithoutReuse:
    def test_answers_share_no_memory(self, segmenter: Segmenter, image: NDArray[np.uint8]) -> None:
        segmenter.set_image(image)
        first, second = (segmenter.predict(PROMPTS).results[0].logits for _ in range(2))
        np.testing.assert_array_equal(first, second)
        assert not np.shares_memory(first, second)

    def test_an_inferred_encoding_is_not_kept(
        self, segmenter: Segmenter, image: NDArray[np.uint8]
    ) -> None:
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
        wanted = segmenter.prepare(PROMPTS)
        segmenter.infer(pixels, wanted)
        with pytest.raises(ImageError, match='no encoding to reuse'):
            segmenter.infer(None, wanted)
