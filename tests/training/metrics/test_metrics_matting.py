"""Errors of mattes against their formulas, written out pixel by pixel."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, mean_squared_error

from training.metrics.matting import MattingErrors, MattingStatistics, matting_errors


def mattes(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:24, :30]
    truth = np.clip(1.5 - np.hypot(y - 11, x - 14) / 6 + rng.normal(0, 0.1, x.shape), 0, 1)
    predicted = np.clip(truth + rng.normal(0, 0.2, x.shape), 0, 1)
    predicted[2:5, 20:28] = 0.9
    # As files have them.
    return np.round(predicted * 255) / 255, np.round(truth * 255) / 255


def gradient_magnitude(matte: np.ndarray) -> np.ndarray:
    """First derivatives of a Gaussian of 1.4 pixels, 9 × 9, of unit energy, at every pixel."""
    kernel = np.zeros((9, 9))
    for i in range(9):
        for j in range(9):
            dy, dx = i - 4, j - 4
            kernel[i, j] = dx * np.exp(-(dx**2 + dy**2) / (2 * 1.4**2))
    kernel /= np.linalg.norm(kernel)
    padded = np.pad(matte, 4, mode='edge')
    magnitude = np.zeros_like(matte)
    for y in range(matte.shape[0]):
        for x in range(matte.shape[1]):
            part = padded[y : y + 9, x : x + 9]
            magnitude[y, x] = np.hypot((part * kernel).sum(), (part * kernel.T).sum())
    return magnitude


def largest_region(mask: np.ndarray) -> np.ndarray:
    """Flood fill over four neighbours."""
    left = {tuple(point) for point in np.argwhere(mask)}
    best: set = set()
    while left:
        waiting = [min(left)]
        region = set()
        while waiting:
            point = waiting.pop()
            if point in left:
                left.remove(point)
                region.add(point)
                y, x = point
                waiting += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
        best = max(best, region, key=len)
    found = np.zeros_like(mask)
    for point in best:
        found[point] = True
    return found


def connectivity(predicted: np.ndarray, truth: np.ndarray) -> float:
    level = np.ones_like(truth)
    decided = np.zeros(truth.shape, bool)
    for step in range(1, 11):
        outside = ~largest_region((predicted >= step / 10) & (truth >= step / 10))
        level[outside & ~decided] = (step - 1) / 10
        decided |= outside
    total = 0.0
    for p, t, lost in zip(predicted.ravel(), truth.ravel(), level.ravel(), strict=True):
        phi = [1 - (v - lost if v - lost >= 0.15 else 0) for v in (p, t)]
        total += abs(phi[0] - phi[1])
    return total


@pytest.mark.parametrize('seed', range(3))
def test_errors_agree_with_their_formulas(seed):
    predicted, truth = mattes(seed)
    errors = matting_errors(predicted, truth)
    assert errors.mad == pytest.approx(mean_absolute_error(truth, predicted))
    assert errors.mse == pytest.approx(mean_squared_error(truth, predicted))
    assert errors.sad == pytest.approx(errors.mad * truth.size / 1000)
    difference = gradient_magnitude(predicted) - gradient_magnitude(truth)
    assert errors.grad == pytest.approx((difference**2).sum() / 1000)
    assert errors.conn == pytest.approx(connectivity(predicted, truth) / 1000)
    assert min(astuple(errors)) > 0


def test_equal_and_opposite_mattes():
    _, truth = mattes(0)
    assert astuple(matting_errors(truth, truth)) == (0, 0, 0, 0, 0)
    disc = (truth > 0.5).astype(float)
    errors = matting_errors(1 - disc, disc)
    assert (errors.mse, errors.mad, errors.sad) == (1, 1, truth.size / 1000)
    # The gradients have the same magnitude everywhere.
    assert errors.grad == pytest.approx(0)
    assert errors.conn == pytest.approx(connectivity(1 - disc, disc) / 1000)
    assert astuple(matting_errors(np.zeros((4, 4)), np.zeros((4, 4)))) == (0, 0, 0, 0, 0)


def test_what_is_no_matte():
    with pytest.raises(ValueError, match='differ in shape'):
        matting_errors(np.zeros((2, 3)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r'the true matte is 0\.0 … 255\.0, not within 0…1'):
        matting_errors(np.zeros((1, 2)), np.array([[0.0, 255.0]]))


def test_means_over_mattes_and_over_expressions():
    def errors(value: float) -> MattingErrors:
        return MattingErrors(value, 2 * value, 3 * value, 4 * value, 5 * value)

    statistics = MattingStatistics()
    statistics.add([errors(1.0)])
    statistics.add([errors(2.0), errors(4.0), errors(6.0)])
    assert astuple(statistics.per_matte()) == pytest.approx((2.5, 5, 7.5, 10, 12.5))
    assert statistics.per_expression().sad == pytest.approx(13 / 4)
    assert (statistics.mattes, statistics.expressions) == (2, 4)
    with pytest.raises(ValueError, match='without expressions'):
        statistics.add([])
    assert np.isnan(MattingStatistics().per_matte().sad)
