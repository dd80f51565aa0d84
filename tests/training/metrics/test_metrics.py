"""Metrics against values computed by hand or by brute force."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

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


def parabolas(x: list[float], y: list[float]) -> float:
    """Simpson's rule by its definition: the integral of a parabola through each three points."""
    total = 0.0
    for first in range(0, len(x) - 2, 2):
        part = slice(first, first + 3)
        # Around its middle, so that the fit is exact to rounding.
        middle = x[first + 1]
        curve = np.polyint(np.polyfit(np.array(x[part]) - middle, y[part], 2))
        ends = x[first] - middle, x[first + 2] - middle
        total += float(np.polyval(curve, ends[1]) - np.polyval(curve, ends[0]))
    return total


def ap_of_published_code(probability: np.ndarray, truth: np.ndarray) -> float:
    """The published steps on the pixels themselves: 49 thresholds, + 1, points as they lie."""
    points: dict[float, float] = {}
    for threshold in np.linspace(0, 1, 51)[1:-1]:
        found = probability > threshold
        tp, fp = int((found & truth).sum()), int((found & ~truth).sum())
        if tp + fp:
            recall = tp / (1 + tp + int((~found & truth).sum()))
            points[recall] = max(points.get(recall, 0.0), tp / (1 + tp + fp))
    x, y = (list(values) for values in zip(*sorted(points.items()), strict=True))
    if len(x) % 2:
        return parabolas(x, y)
    first, last = ((x[i + 1] - x[i]) * (y[i] + y[i + 1]) / 2 for i in (0, len(x) - 2))
    return (parabolas(x[:-1], y[:-1]) + last + first + parabolas(x[1:], y[1:])) / 2


@pytest.mark.parametrize('seed', range(12))
def test_ap_as_published_follows_the_published_steps(seed):
    rng = np.random.default_rng(seed)
    truth = rng.random((60, 60)) < 0.2
    sharp = rng.uniform(0.2, 1)
    noise = rng.random((60, 60)) ** rng.uniform(0.5, 3)
    # The middles of the levels: none lies on a threshold, where > and ≥ differ.
    probability = np.floor(np.clip(sharp * truth + (1 - sharp) * noise, 0, 0.999) * 200) / 200
    probability = (probability + 0.0025).astype(np.float32)
    found = statistics(probability, truth).published_average_precision()
    assert found == pytest.approx(ap_of_published_code(probability, truth), abs=1e-9)


def test_ap_as_published_collapses_where_the_area_does_not():
    # A sure and good predictor: nearly all objects are above the published code's last threshold,
    # where its curve begins.
    rng = np.random.default_rng(0)
    truth = np.arange(90_000) < 9000
    probability = np.where(truth, 0.9925, rng.uniform(0, 0.3, 90_000))
    probability[:500] = rng.uniform(0, 0.97, 500)
    probability, truth = probability.reshape(300, 300), truth.reshape(300, 300)
    ours = statistics(probability, truth)
    theirs = average_precision_score(truth.ravel(), probability.ravel())
    assert ours.average_precision() == pytest.approx(theirs, abs=1e-3)
    assert ours.average_precision() > 0.98
    assert 0.02 < ours.published_average_precision() < 0.06


def test_ap_as_published_leaves_0_to_1():
    # One long step of recall after short and steep ones.
    truth = np.arange(10000) < 2500
    probability = np.full(10000, 0.0125)
    probability[:2300] = 0.0325
    probability[:3] = 0.9725
    probability[[3, *range(5000, 5012)]] = 0.9525
    curve = statistics(probability.reshape(100, 100), truth.reshape(100, 100))
    assert not 0 <= curve.published_average_precision() <= 1
    assert 0 < curve.average_precision() < 1


def test_ap_as_published_of_nothing_found():
    truth = np.ones((4, 4), bool)
    assert np.isnan(statistics(np.zeros((4, 4)), truth).published_average_precision())
    assert statistics(np.full((4, 4), 0.99), truth).published_average_precision() == 0
