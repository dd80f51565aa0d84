from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from clipseg_model.calibration import (
    logit,
    sigmoid,
    top_scores,
)


@pytest.mark.parametrize('probability', [1e-9, 0.1, 0.5, 0.77, 1 - 1e-9])
def test_logit_and_sigmoid_are_inverse(probability: float) -> None:
    value = sigmoid(np.array([logit(probability)], np.float32))[0]
    assert value == pytest.approx(probability, rel=1e-5)


def test_sigmoid_of_extremes() -> None:
    values = sigmoid(np.array([-1e30, -np.inf, 0, 1e30, np.inf, np.nan], np.float32))
    assert values.dtype == np.float32
    np.testing.assert_allclose(values[:5], [0, 0, 0.5, 1, 1], atol=1e-30)
    assert math.isnan(values[5])


def test_sigmoid_leaves_its_input() -> None:
    logits = np.array([1.0, 2.0], np.float32)
    sigmoid(logits)
    assert logits.tolist() == [1.0, 2.0]


class TestScores:
    def test_mean_of_the_surest_pixels(self) -> None:
        logits = torch.full((2, 200, 300), -20.0)
        logits[0].view(-1)[:180] = 3.0  # 0.3 % of 60,000
        logits[1].view(-1)[1000:1090] = 3.0
        scores = top_scores(logits.numpy())
        high = 1 / (1 + math.exp(-3))
        assert scores[0] == pytest.approx(high, abs=1e-6)
        assert scores[1] == pytest.approx(high / 2, abs=1e-6)

    def test_at_least_sixteen_pixels(self) -> None:
        logits = torch.full((1, 64, 64), -30.0)
        logits[0, 0, 0] = 30.0
        assert top_scores(logits.numpy())[0] == pytest.approx(1 / 16)

    def test_fewer_pixels_than_that(self) -> None:
        assert top_scores(np.zeros((1, 2, 2), np.float32)) == [0.5]

    @pytest.mark.parametrize('size', [(352, 352), (126, 98), (33, 71), (24, 40), (4, 4)])
    def test_no_top_pixel_is_missed(self, size: tuple[int, int]) -> None:
        noise = torch.randn(3, *size, generator=torch.manual_seed(0))
        # Broad peaks, single pixels, and many equals.
        smooth = functional.avg_pool2d(noise, 9, stride=1, padding=4) * 20
        logits = torch.cat([noise, smooth, noise.round()])
        count = max(16, math.ceil(0.003 * size[0] * size[1]))
        ordered = logits.flatten(1).sort(descending=True).values
        expected = ordered[:, :count].sigmoid().mean(dim=1)
        torch.testing.assert_close(torch.tensor(top_scores(logits.numpy())), expected)
