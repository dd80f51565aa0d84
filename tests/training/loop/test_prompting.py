"""Samples to tensors: squares, captions, prompt images, weights."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from clipseg_model.prompting.templates import TEMPLATES
from clipseg_model.prompting.visual_prompt import visual_prompt
from training.datasets.samples import Sample, Support
from training.loop.prompting import PromptSettings, make_batch, square


def sample(height=40, width=60, support=True, **changes) -> Sample:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    mask = np.zeros((height, width), bool)
    mask[5:25, 10:30] = True
    fields = {
        'key': 'k',
        'phrase': 'red mug',
        'image': image,
        'mask': mask,
        'support': Support('s', image[::-1].copy(), mask) if support else None,
    }
    return Sample(**{**fields, **changes})


def batch(samples, seed=0, **changes):
    return make_batch(samples, PromptSettings(size=32, **changes), np.random.default_rng(seed))


def test_squeezed_pictures_have_their_corners_and_masks_their_nearest_pixels():
    one = sample()
    image, mask, valid = square(one, 32)
    corners = torch.from_numpy(one.image[[0, 0, -1, -1], [0, -1, 0, -1]]).float() / 255
    torch.testing.assert_close(image[:, [0, 0, -1, -1], [0, -1, 0, -1]].T, corners)
    rows, columns = np.arange(32) * 40 // 32, np.arange(32) * 60 // 32
    np.testing.assert_array_equal(mask[0].numpy(), one.mask[np.ix_(rows, columns)])
    assert valid.all()


def test_padding_keeps_the_aspect_and_does_not_count():
    image, mask, valid = square(sample(), 60, 'pad')
    torch.testing.assert_close(
        image[:, :40] * 255, torch.from_numpy(sample().image).permute(2, 0, 1).float()
    )
    assert mask.sum() == 400
    assert valid[0, :40].all()
    assert not valid[0, 40:].any()
    assert not image[:, 41:].any()


def test_pixels_that_do_not_count_and_mattes():
    valid = np.ones((40, 60), bool)
    valid[:, :30] = False
    _, _, counts = square(sample(valid=valid), 32)
    assert counts[0, :, 16:].all()
    assert not counts[0, :, :16].any()
    alpha = np.full((40, 60), 0.3, np.float32)
    _, truth, _ = square(sample(alpha=alpha), 32)
    torch.testing.assert_close(truth, torch.full((1, 32, 32), 0.3))


def test_batches():
    made = batch([sample(), sample(support=False, class_id=3)])
    assert made.images.shape == (2, 3, 32, 32)
    assert made.masks.shape == made.valid.shape == (2, 1, 32, 32)
    assert made.has_support.tolist() == [True, False]
    assert made.text_weights[1] == 1
    assert 0 <= made.text_weights[0] <= 0.5
    assert made.class_ids.tolist() == [-1, 3]
    support = sample().support
    np.testing.assert_array_equal(
        made.supports[0].numpy(), visual_prompt(support.image, support.mask, 32)
    )
    assert not made.supports[1].any()


def test_weights_are_uniform_up_to_one_half_or_as_told():
    weights = batch([sample()] * 400).text_weights
    assert weights.max() <= 0.5
    assert weights.mean() == pytest.approx(0.25, abs=0.03)
    assert batch([sample()] * 400, text_weight=(0, 1)).text_weights.max() > 0.9
    assert (batch([sample()] * 4, text_weight=(0.7, 0.7)).text_weights == 0.7).all()


def test_captions_are_drawn_from_all_nine():
    texts = Counter(batch([sample(support=False)] * 900).texts)
    assert set(texts) == {template.format('red mug') for template in TEMPLATES['shuffle+']}
    assert len(texts) == 9
    assert min(texts.values()) > 60
    assert batch([sample()], template='plain').texts == ['red mug']


def test_the_same_generator_makes_the_same_batch():
    first, again, other = (batch([sample()] * 8, seed) for seed in (1, 1, 2))
    assert first.texts == again.texts != other.texts
    torch.testing.assert_close(first.text_weights, again.text_weights)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'template': 'nine'}, "no template 'nine'; there are plain"),
        ({'method': 'blurred'}, "no method 'blurred'"),
        ({'text_weight': (0.5, 0.2)}, 'must be a range'),
        ({'mix_text_max': 0.5}, 'mix_text_max'),
    ],
)
def test_settings_that_are_wrong(changes, message):
    with pytest.raises(ValidationError, match=message):
        PromptSettings(**changes)
