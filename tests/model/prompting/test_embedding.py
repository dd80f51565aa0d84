from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from model_calls import Calls, with_card
from numpy.typing import NDArray

from clipseg_model.errors import CheckpointError, PromptError
from clipseg_model.modeling.masked_attention import SCOPES, masked_attention
from clipseg_model.prompting.embedding import EmbeddingCache
from clipseg_model.prompting.templates import TEMPLATES
from clipseg_model.prompting.visual_prompt import METHODS, visual_prompt
from clipseg_model.prompts import Prompt
from clipseg_model.segmenter import Segmenter
from clipseg_model.settings import SegmentSettings


@pytest.fixture
def calls(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(segmenter, monkeypatch)


class TestTemplates:
    def test_the_cards(self, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
        templated = with_card(segmenter, template='a {} to sit on')
        calls = Calls(templated, monkeypatch)
        templated.prepare(['red chair'])
        assert calls.texts == [['a red chair to sit on']]
        assert templated.template == 'a {} to sit on'

    def test_chosen_before_the_cards(
        self, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        card = replace(segmenter.card, template='a {} to sit on')
        chosen = Segmenter(segmenter.model, card, 'cpu', SegmentSettings(template='the red {}'))
        calls = Calls(chosen, monkeypatch)
        chosen.prepare(['cup'])
        chosen.template = 'none'
        chosen.prepare(['cup'])
        chosen.template = None
        chosen.prepare(['cup'])
        assert calls.texts == [['the red cup'], ['cup'], ['a cup to sit on']]

    def test_an_ensemble_is_the_average_over_its_captions(
        self, segmenter: Segmenter, calls: Calls
    ) -> None:
        phrases = ['red mug', 'blue cup']
        segmenter.template = 'ensemble'
        found = segmenter.embed(phrases)
        nine = TEMPLATES['shuffle+']
        assert calls.texts == [[c.replace('{}', phrase) for phrase in phrases for c in nine]]
        for vector, phrase in zip(found, phrases, strict=True):
            each = segmenter.model.embed_texts([caption.replace('{}', phrase) for caption in nine])
            np.testing.assert_allclose(vector, each.mean(0).detach(), rtol=1e-4, atol=1e-5)
            assert (each - each.mean(0)).abs().max() > 1e-3

    def test_each_is_cached(self, segmenter: Segmenter, calls: Calls) -> None:
        vectors = {}
        for template in ('ensemble', 'none', 'fixed', 'none', 'shuffle+', 'fixed'):
            segmenter.template = template
            vector = segmenter.embed(['red mug'])
            assert np.array_equal(vectors.setdefault(template, vector), vector)
        assert [len(texts) for texts in calls.texts] == [9, 1, 1]
        assert np.array_equal(vectors['shuffle+'], vectors['ensemble'])
        assert not np.array_equal(vectors['none'], vectors['ensemble'])

    def test_many_captions_are_embedded_in_parts(self, segmenter: Segmenter, calls: Calls) -> None:
        words = ('red', 'blue', 'cup', 'mug', 'chair', 'a')
        phrases = [' '.join(some) for some in product(words, repeat=2)]
        segmenter.template = 'ensemble'
        found = segmenter.embed(phrases)
        assert [len(texts) for texts in calls.texts] == [256, 9 * 36 - 256]
        alone = with_card(segmenter).embed(phrases[30:31], SegmentSettings(template='ensemble'))
        np.testing.assert_allclose(found[[30]], alone, rtol=1e-4, atol=1e-5)

    def test_what_is_none(self, segmenter: Segmenter) -> None:
        with pytest.raises(PromptError, match="no template 'nine'"):
            segmenter.template = 'nine'
        with pytest.raises(PromptError, match="no template 'nine'"):
            SegmentSettings(template='nine')
        assert segmenter.template == '{}'


class TestVisualMethods:
    @pytest.fixture
    def example(self, image: NDArray[np.uint8]) -> Prompt:
        mask = np.zeros(image.shape[:2], bool)
        mask[20:60, 30:80] = True
        return Prompt(image=image, mask=mask)

    @pytest.mark.parametrize('name', [name for name, m in METHODS.items() if not m.attention])
    def test_of_pixels(self, segmenter: Segmenter, example: Prompt, name: str) -> None:
        assert example.image is not None
        assert example.mask is not None
        chosen = SegmentSettings(visual_method=name)
        prompt_image = visual_prompt(example.image, example.mask, 64, name)
        with torch.inference_mode():
            expected = segmenter.model.embed_images(
                torch.from_numpy(segmenter.preprocessor.pixels(prompt_image, (64, 64)))
            )
        np.testing.assert_array_equal(segmenter.embed([example], chosen), expected)

    @pytest.mark.parametrize('scope', SCOPES)
    def test_of_attention(self, segmenter: Segmenter, example: Prompt, scope: str) -> None:
        assert example.image is not None
        segmenter.visual_method = f'attention_{scope}'
        found = segmenter.embed([example])
        mask = torch.from_numpy(np.array(example.mask))[None]
        with torch.inference_mode():
            pixels = torch.from_numpy(segmenter.preprocessor.pixels(example.image, (64, 64)))
            with masked_attention(segmenter.model, mask, scope):
                expected = segmenter.model.embed_images(pixels)
            plain = segmenter.model.embed_images(pixels)
        np.testing.assert_array_equal(found, expected)
        assert (torch.from_numpy(found) - plain).abs().max() > 1e-4

    def test_each_is_another_and_is_cached(
        self, segmenter: Segmenter, calls: Calls, example: Prompt
    ) -> None:
        vectors = []
        for name in [*METHODS, *METHODS]:
            segmenter.visual_method = name
            vectors.append(segmenter.embed([example])[0])
        assert calls.prompt_images == len(METHODS)
        distinct = {tuple(vector.tolist()) for vector in vectors}
        # The blur of blur_1_50 is a fifth of a pixel here: it is intensity 50 without one.
        assert len(distinct) == len(METHODS) - 1

    def test_the_ground(self, segmenter: Segmenter, example: Prompt) -> None:
        assert example.image is not None
        assert example.mask is not None
        fading = with_card(segmenter, prompt_ground='mean')
        mean = tuple(255 * level for level in segmenter.model.backbone.mean)
        picture = visual_prompt(example.image, example.mask, 64, ground=mean)
        with torch.inference_mode():
            expected = segmenter.model.embed_images(
                torch.from_numpy(segmenter.preprocessor.pixels(picture, (64, 64)))
            )
        np.testing.assert_array_equal(fading.embed([example]), expected)
        assert not np.array_equal(segmenter.embed([example]), expected)

    def test_the_cards_unless_one_is_given(self, segmenter: Segmenter, example: Prompt) -> None:
        as_released = with_card(segmenter, visual_method='blur_10_crop')
        assert as_released.visual_method == 'blur_10_crop'
        named = segmenter.embed([example], SegmentSettings(visual_method='blur_10_crop'))
        assert np.array_equal(as_released.embed([example]), named)
        ours = SegmentSettings(visual_method='crop_blur_10')
        assert np.array_equal(as_released.embed([example], ours), segmenter.embed([example]))
        assert not np.array_equal(named, segmenter.embed([example]))
        with pytest.raises(CheckpointError, match=r"names the visual method 'glow'; there are"):
            with_card(segmenter, visual_method='glow')

    def test_what_is_none(self, segmenter: Segmenter) -> None:
        with pytest.raises(PromptError, match=r"no method 'glow'.*crop_blur_10"):
            segmenter.visual_method = 'glow'
        with pytest.raises(PromptError, match="no method 'glow'"):
            SegmentSettings(visual_method='glow')
        assert segmenter.visual_method == 'crop_blur_10'


class TestCache:
    def embedder(self, keys: list[str]) -> tuple[list[list[str]], object]:
        calls: list[list[str]] = []

        def embed(positions: list[int]) -> list[torch.Tensor]:
            calls.append([keys[position] for position in positions])
            return [torch.tensor([float(len(keys[position]))]) for position in positions]

        return calls, embed

    def lookup(self, cache: EmbeddingCache, keys: list[str]) -> tuple[list[float], list[list[str]]]:
        calls, embed = self.embedder(keys)
        found = cache.get(keys, embed)  # type: ignore[arg-type]
        return [float(value) for value in found], calls

    def test_only_what_is_missing_is_made_and_in_one_call(self) -> None:
        cache = EmbeddingCache()
        assert self.lookup(cache, ['a', 'bb', 'a']) == ([1, 2, 1], [['a', 'bb']])
        assert self.lookup(cache, ['ccc', 'bb', 'a']) == ([3, 2, 1], [['ccc']])
        assert self.lookup(cache, ['a', 'bb']) == ([1, 2], [])

    def test_the_longest_unused_goes_first(self) -> None:
        cache = EmbeddingCache(capacity=2)
        self.lookup(cache, ['a', 'bb'])
        self.lookup(cache, ['a'])
        self.lookup(cache, ['ccc'])
        assert len(cache) == 2
        assert self.lookup(cache, ['a', 'bb']) == ([1, 2], [['bb']])

    def test_more_keys_than_it_keeps(self) -> None:
        cache = EmbeddingCache(capacity=2)
        self.lookup(cache, ['a', 'bb'])
        values, calls = self.lookup(cache, ['ccc', 'a', 'dddd', 'bb'])
        assert (values, calls) == ([3, 1, 4, 2], [['ccc', 'dddd']])
        assert len(cache) == 2

    def test_a_failure_leaves_it_as_it_was(self) -> None:
        cache = EmbeddingCache()

        def fail(_: list[int]) -> list[torch.Tensor]:
            raise PromptError('no')

        with pytest.raises(PromptError):
            cache.get(['a'], fail)
        assert len(cache) == 0

    def test_capacity_must_be_positive(self) -> None:
        with pytest.raises(ValueError, match='not 0'):
            EmbeddingCache(0)
