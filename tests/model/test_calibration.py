from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from clipseg_model.calibration import (
    ThresholdCalibrator,
    best_presence_threshold,
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
    def test_mean_of_the_top_thousandth(self) -> None:
        logits = torch.full((2, 200, 300), -20.0)
        logits[0].view(-1)[:60] = 3.0
        logits[1].view(-1)[1000:1030] = 3.0
        scores = top_scores(logits)
        high = 1 / (1 + math.exp(-3))
        assert scores[0] == pytest.approx(high, abs=1e-6)
        assert scores[1] == pytest.approx(high / 2, abs=1e-6)

    def test_at_least_sixteen_pixels(self) -> None:
        logits = torch.full((1, 64, 64), -30.0)
        logits[0, 0, 0] = 30.0
        assert top_scores(logits)[0] == pytest.approx(1 / 16)

    def test_fewer_pixels_than_that(self) -> None:
        assert top_scores(torch.zeros(1, 2, 2)) == [0.5]


class TestThreshold:
    def test_finds_where_two_populations_part(self) -> None:
        generator = np.random.default_rng(0)
        calibrator = ThresholdCalibrator()
        for _ in range(5):
            truth = generator.random((40, 40)) < 0.2
            logits = np.where(truth, 2.0, -3.0) + generator.normal(0, 0.3, truth.shape)
            calibrator.add(logits, truth)
        threshold, iou = calibrator.best()
        assert 0.15 < threshold < 0.75
        assert iou == pytest.approx(1, abs=1e-3)

    def test_agrees_with_counting(self) -> None:
        generator = np.random.default_rng(1)
        truth = generator.random(2000) < 0.3
        logits = generator.normal(0, 2, 2000) + 1.5 * truth
        calibrator = ThresholdCalibrator(bins=20)
        calibrator.add(logits[:700], truth[:700])
        calibrator.add(logits[700:], truth[700:])
        probabilities = sigmoid(logits.astype(np.float32))
        for threshold, iou in zip(calibrator.thresholds, calibrator.curve(), strict=True):
            on = probabilities >= threshold
            expected = (on & truth).sum() / (on | truth).sum()
            assert iou == pytest.approx(expected, abs=1e-9)
        assert calibrator.best()[1] == calibrator.curve().max()

    def test_needs_foreground(self) -> None:
        calibrator = ThresholdCalibrator()
        calibrator.add(np.zeros(4), np.zeros(4, bool))
        with pytest.raises(ValueError, match='foreground'):
            calibrator.best()

    def test_shapes_must_agree(self) -> None:
        with pytest.raises(ValueError, match=r'\(4,\) and \(5,\)'):
            ThresholdCalibrator().add(np.zeros(4), np.zeros(5, bool))
        with pytest.raises(ValueError, match='not 1'):
            ThresholdCalibrator(1)


class TestPresence:
    def test_between_the_two_groups(self) -> None:
        scores = [0.1, 0.2, 0.3, 0.7, 0.8]
        present = [False, False, False, True, True]
        assert best_presence_threshold(scores, present) == pytest.approx(0.5)

    def test_overlapping_groups(self) -> None:
        scores = [0.1, 0.4, 0.5, 0.3, 0.6, 0.9]
        present = [False, False, False, True, True, True]
        assert best_presence_threshold(scores, present) == pytest.approx(0.55)

    def test_groups_count_equally(self) -> None:
        """Many absent prompts do not outweigh the few that are there."""
        scores = [0.1] * 50 + [0.5] * 40 + [0.5, 0.4]
        present = [False] * 90 + [True, True]
        assert best_presence_threshold(scores, present) == pytest.approx(0.25)

    def test_nothing_tells_them_apart(self) -> None:
        assert best_presence_threshold([0.5, 0.5], [True, False]) == 0

    @pytest.mark.parametrize('present', [[True, True], [False, False], [True]])
    def test_needs_both_groups(self, present: list[bool]) -> None:
        with pytest.raises(ValueError, match='present'):
            best_presence_threshold([0.1, 0.2], present)
