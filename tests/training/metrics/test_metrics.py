"""Metrics against values computed by hand or by brute force."""

from __future__ import annotations

import numpy as np
import pytest

from training.metrics.pixels import BINS, PixelStatistics


def statistics(probability, truth) -> PixelStatistics:
    collected = PixelStatistics()
    collected.add(np.asarray(probability, np.float32), np.asarray(truth, bool))
    return collected


def test_iou_by_hand():
    collected = statistics([[0.9, 0.9, 0.2, 0.2]], [[1, 0, 1, 0]])
    at_half = BINS // 2
    assert collected.iou_foreground()[at_half] == pytest.approx(1 / 3)
    assert collected.iou_background()[at_half] == pytest.approx(1 / 3)
    assert collected.iou_binary()[at_half] == pytest.approx(1 / 3)
    assert collected.iou_foreground()[0] == pytest.approx(1 / 2)


def test_iou_sums_pixels_over_samples():
    collected = statistics(np.ones((10, 10)), np.ones((10, 10)))
    collected.add(np.ones((1, 10), np.float32), np.zeros((1, 10), bool))
    assert collected.iou_foreground()[BINS // 2] == pytest.approx(100 / 110)
    assert collected.samples == 2


def test_iou_agrees_with_thresholding():
    rng = np.random.default_rng(0)
    truth = rng.random((40, 40)) < 0.3
    probability = np.clip(truth * 0.3 + rng.random((40, 40)) * 0.7, 0, 1).astype(np.float32)
    curve = statistics(probability, truth).iou_foreground()
    for index in (20, 90, 130):
        mask = probability >= index / BINS
        assert curve[index] == pytest.approx((mask & truth).sum() / (mask | truth).sum())


def test_average_precision_of_perfect_and_of_random_predictions():
    rng = np.random.default_rng(1)
    truth = rng.random((200, 200)) < 0.25
    assert statistics(truth, truth).average_precision() == pytest.approx(1, abs=1e-3)
    chance = statistics(rng.random((200, 200)), truth).average_precision()
    assert chance == pytest.approx(0.25, abs=0.02)


def test_average_precision_ranks_predictions():
    rng = np.random.default_rng(2)
    truth = rng.random((100, 100)) < 0.2
    noise = rng.random((100, 100))
    better = statistics(np.clip(0.3 * truth + 0.7 * noise, 0, 1), truth).average_precision()
    worse = statistics(np.clip(0.1 * truth + 0.9 * noise, 0, 1), truth).average_precision()
    assert worse < better < 1


def test_merge_equals_adding():
    rng = np.random.default_rng(3)
    parts = [(rng.random((8, 8)).astype(np.float32), rng.random((8, 8)) < 0.5) for _ in range(2)]
    together = PixelStatistics()
    for part in parts:
        together.add(*part)
    merged = statistics(*parts[0])
    merged.merge(statistics(*parts[1]))
    assert (merged.foreground == together.foreground).all()
    assert (merged.background == together.background).all()
    assert merged.samples == together.samples == 2


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r'\(2, 2\).*\(2, 3\)'):
        PixelStatistics().add(np.zeros((2, 2), np.float32), np.zeros((2, 3), bool))


def test_average_precision_of_what_is_hardly_ever_found():
    # A few pixels found at close thresholds, the rest at threshold 0 only: one long step of recall
    # after short and steep ones.
    truth = np.arange(10000) < 2500
    probability = np.zeros(10000)
    probability[:3] = 0.995
    probability[[3, *range(5000, 5012)]] = 0.99
    curve = statistics(probability.reshape(100, 100), truth.reshape(100, 100))
    assert curve.average_precision() == pytest.approx(0.25, abs=0.01)
