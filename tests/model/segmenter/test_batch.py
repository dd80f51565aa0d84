"""Images of several cameras in one call of the model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from clipseg_model.errors import ImageError, PromptError
from clipseg_model.segmenter import Segmenter

PROMPTS = ['a mug', 'the red chair', 'blue cup']


@pytest.fixture
def images(image: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    return [image, image[::-1], np.roll(image, 30, axis=1)]


def test_answers_are_those_of_each_image(
    segmenter: Segmenter, images: list[NDArray[np.uint8]]
) -> None:
    found = segmenter.segment_batch(images, PROMPTS, 0.3)
    assert len(found) == 3
    for image, batched in zip(images, found, strict=True):
        alone = segmenter.segment(image, PROMPTS, 0.3)
        assert (batched.height, batched.width, batched.model) == (90, 120, 'tiny')
        for one, other in zip(batched.results, alone.results, strict=True):
            np.testing.assert_allclose(one.logits, other.logits, atol=1e-4)
            assert one.prompt == other.prompt
            assert one.threshold == other.threshold == 0.3
            assert one.score == pytest.approx(other.score, abs=1e-5)


def test_all_images_are_encoded_and_decoded_in_one_call(
    segmenter: Segmenter, images: list[NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter.prepare(PROMPTS)
    conditions = segmenter.embedder.conditions
    encode, decode, calls = segmenter.model.encode_image, segmenter.model.decode, []

    def spy_encode(pixels: torch.Tensor) -> Any:
        calls.append(('encode', len(pixels)))
        return encode(pixels)

    def spy_decode(features: Any, condition: torch.Tensor) -> torch.Tensor:
        calls.append(('decode', len(images)))
        return decode(features, condition)

    def spy_conditions(*arguments: Any) -> torch.Tensor:
        calls.append(('conditions', len(arguments[0])))
        return conditions(*arguments)

    monkeypatch.setattr(segmenter.embedder, 'conditions', spy_conditions)
    monkeypatch.setattr(segmenter.model, 'encode_image', spy_encode)
    monkeypatch.setattr(segmenter.model, 'decode', spy_decode)
    segmenter.segment_batch(images[:2], PROMPTS[:2])
    assert [name for name, _ in calls] == ['conditions', 'encode', 'decode']
    assert calls[1] == ('encode', 2)


def test_what_is_no_batch(segmenter: Segmenter, images: list[NDArray[np.uint8]]) -> None:
    with pytest.raises(ImageError, match=r'120 × 90, 100 × 90.*resize'):
        segmenter.segment_batch([images[0], images[0][:, :100]], PROMPTS)
    with pytest.raises(ImageError, match='none'):
        segmenter.segment_batch([], PROMPTS)
    with pytest.raises(ImageError):
        segmenter.segment_batch([images[0][..., 0]], PROMPTS)
    with pytest.raises(PromptError):
        segmenter.segment_batch(images, [])
    with pytest.raises(PromptError, match='threshold'):
        segmenter.segment_batch(images, PROMPTS, 1.5)
