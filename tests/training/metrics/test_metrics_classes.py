"""Metrics over classes and prompts against torchmetrics and scikit-learn; exact sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from counting import collected, drawn, figures, worker
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    jaccard_score,
    roc_auc_score,
)
from torchmetrics.classification import (
    BinaryCalibrationError,
    BinaryJaccardIndex,
    MulticlassJaccardIndex,
)

from training.metrics.classes import (
    ClassStatistics,
    ConfusionMatrix,
    PromptStatistics,
    zero_shot_classes,
)
from training.metrics.pixels import BINS, PixelStatistics
from training.metrics.sums import sum_over_processes


def adversarial() -> list[tuple[np.ndarray, np.ndarray]]:
    """All, nothing, the opposite, one pixel."""
    nothing, everything = np.zeros((5, 5), bool), np.ones((5, 5), bool)
    one = nothing.copy()
    one[2, 3] = True
    middle = np.float32(0.5 / BINS)
    return [
        (np.where(mask, 1 - middle, middle).astype(np.float32), truth)
        for mask in (nothing, everything, one)
        for truth in (nothing, everything, one)
    ]


PAIRS = [*(drawn(seed) for seed in range(4)), *adversarial()]


@pytest.mark.parametrize('pair', range(len(PAIRS)))
class TestPixels:
    def test_iou_agrees_with_torchmetrics_and_scikit_learn(self, pair):
        probability, truth = PAIRS[pair]
        statistics = PixelStatistics()
        statistics.add(probability, truth)
        for index in (1, 50, 100, 180):
            mask = probability >= index / BINS
            foreground = statistics.iou_foreground()[index]
            index_of_torch = BinaryJaccardIndex(threshold=index / BINS, zero_division=0)
            theirs = index_of_torch(torch.from_numpy(probability), torch.from_numpy(truth))
            assert foreground == pytest.approx(float(theirs), abs=1e-6)
            binary = [
                jaccard_score(truth.ravel(), mask.ravel(), pos_label=label, zero_division=0)
                for label in (0, 1)
            ]
            assert statistics.iou_binary()[index] == pytest.approx(np.mean(binary))

    def test_calibration_error_agrees_with_torchmetrics(self, pair):
        probability, truth = PAIRS[pair]
        statistics = PixelStatistics()
        statistics.add(probability, truth)
        theirs = BinaryCalibrationError(n_bins=20, norm='l1')(
            torch.from_numpy(probability.ravel()), torch.from_numpy(truth.ravel().astype(int))
        )
        assert statistics.calibration_error() == pytest.approx(float(theirs), abs=1e-5)


def half_found() -> tuple[np.ndarray, np.ndarray]:
    """Half of the foreground is found, without doubt; nothing tells the rest from background."""
    truth = np.arange(10_000) < 1000
    return np.where(np.arange(10_000) < 500, 0.9975, 0.0025).astype(np.float32), truth


def missed_and_false() -> tuple[np.ndarray, np.ndarray]:
    """Close to 0 lies 30 % of the foreground, in an order that says little; 2 % is false."""
    rng = np.random.default_rng(0)
    truth = np.arange(20_000) < 4000
    probability = np.where(truth, rng.uniform(0.3, 1, 20_000), rng.uniform(0, 0.005, 20_000))
    probability[:1200] = rng.uniform(0, 0.005, 1200)
    probability[-320:] = rng.uniform(0.2, 1, 320)
    return probability.astype(np.float32), truth


def mostly_near_zero(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits as models have them: most of both kinds under a threshold of 0.005."""
    rng = np.random.default_rng(seed)
    truth = rng.random(20_000) < rng.uniform(0.02, 0.4)
    logits = rng.normal(size=20_000) * rng.uniform(1, 4) + truth * rng.uniform(1, 5) - 8
    return (1 / (1 + np.exp(-logits))).astype(np.float32), truth


@pytest.mark.parametrize(
    'pair',
    [
        *(lambda seed=seed: drawn(seed, 200) for seed in range(4)),
        *(lambda seed=seed: mostly_near_zero(seed) for seed in range(6)),
        half_found,
        missed_and_false,
    ],
)
def test_average_precision_agrees_with_scikit_learn(pair):
    probability, truth = pair()
    statistics = PixelStatistics()
    statistics.add(probability, truth)
    # What is left between them is that pixels of one level, 1/64 of the logit, are a tie.
    theirs = average_precision_score(truth.ravel(), probability.ravel())
    assert statistics.average_precision() == pytest.approx(theirs, abs=2e-3)


def test_average_precision_by_hand():
    statistics = PixelStatistics()
    statistics.add(*half_found())
    assert statistics.average_precision() == pytest.approx(0.5 * 1 + 0.5 * 0.1)
    nothing, all_there = PixelStatistics(), PixelStatistics()
    nothing.add(np.full((4, 4), 0.9, np.float32), np.zeros((4, 4), bool))
    all_there.add(np.zeros((4, 4), np.float32), np.ones((4, 4), bool))
    assert (nothing.average_precision(), all_there.average_precision()) == (0, 1)


def test_calibration_of_honest_and_of_overconfident_probabilities():
    rng = np.random.default_rng(0)
    probability = rng.random((400, 400)).astype(np.float32)
    honest, proud = PixelStatistics(), PixelStatistics()
    honest.add(probability, rng.random((400, 400)) < probability)
    proud.add(np.full((400, 400), 0.99, np.float32), rng.random((400, 400)) < 0.6)
    assert honest.calibration_error() < 0.01
    assert proud.calibration_error() == pytest.approx(0.39, abs=0.01)
    with pytest.raises(ValueError, match='7 ranges do not divide'):
        honest.calibration_error(7)


def test_pixels_that_do_not_count():
    probability = np.array([[0.9, 0.6, 0.3, 0.1]], np.float32)
    truth = np.array([[True, True, False, False]])
    ignoring = PixelStatistics()
    ignoring.add(probability, ~truth, np.array([[True, False, True, False]]))
    assert (ignoring.foreground.sum(), ignoring.background.sum()) == (1, 1)
    with pytest.raises(ValueError, match='not within 0…1'):
        ignoring.add(np.array([[np.nan, 0, 0, 0]], np.float32), truth)
    with pytest.raises(ValueError, match='pixels that count'):
        ignoring.add(probability, truth, np.ones((2, 2), bool))


class TestClasses:
    def test_mean_iou_is_over_classes_not_over_pixels(self):
        statistics = ClassStatistics()
        half = np.array([[0.9, 0.1]], np.float32)
        statistics.by_class[1].add(np.full((10, 10), 0.9, np.float32), np.ones((10, 10), bool))
        statistics.by_class[2].add(half, np.array([[True, True]]))
        statistics.by_class[2].add(half, np.array([[False, True]]))
        at_half = BINS // 2
        assert statistics.mean_iou()[at_half] == pytest.approx((1 + 1 / 4) / 2)
        assert statistics.all_classes().iou_foreground()[at_half] == pytest.approx(101 / 104)
        with pytest.raises(ValueError, match='nothing was added'):
            ClassStatistics().mean_iou()

    def test_confusion_agrees_with_scikit_learn_and_torchmetrics(self):
        rng = np.random.default_rng(0)
        truth = rng.integers(0, 21, (80, 80))
        predicted = np.where(rng.random((80, 80)) < 0.6, truth, rng.integers(0, 21, (80, 80)))
        truth[:5] = 255
        matrix = ConfusionMatrix.of(21)
        for rows in (slice(0, 30), slice(30, 80)):
            matrix.add(predicted[rows], truth[rows].astype(np.uint8))
        known = truth != 255
        np.testing.assert_array_equal(
            matrix.counts, confusion_matrix(truth[known], predicted[known], labels=range(21))
        )
        theirs = MulticlassJaccardIndex(21, average='none', ignore_index=255)
        np.testing.assert_allclose(
            matrix.ious(), theirs(torch.from_numpy(predicted), torch.from_numpy(truth)), atol=1e-6
        )

    def test_seen_and_unseen(self):
        matrix = ConfusionMatrix(np.array([[6, 2, 0], [0, 4, 0], [4, 0, 4]]))
        ious = [6 / 12, 4 / 6, 4 / 8]
        result = matrix.seen_unseen([2])
        assert result['seen'] == pytest.approx((ious[0] + ious[1]) / 2)
        assert result['unseen'] == pytest.approx(ious[2])
        assert result['harmonic'] == pytest.approx(2 / (1 / result['seen'] + 1 / result['unseen']))
        assert result['overall'] == pytest.approx(np.mean(ious))
        assert ConfusionMatrix.of(3).seen_unseen([1])['harmonic'] == 0

    def test_classes_that_do_not_exist(self):
        with pytest.raises(ValueError, match='predictions 3 … 3 of 3'):
            ConfusionMatrix.of(3).add(np.array([[3]]), np.array([[0]]))
        with pytest.raises(ValueError, match='differ in shape'):
            ConfusionMatrix.of(3).add(np.zeros((1, 2), int), np.zeros((2, 1), int))

    def test_the_background_counts_threefold(self):
        maps = np.array([[[0.2, 0.2]], [[0.5, 0.7]], [[0.1, 0.65]]], np.float32)
        assert zero_shot_classes(maps).tolist() == [[0, 1]]
        assert zero_shot_classes(maps, background=1).tolist() == [[1, 1]]


class TestPrompts:
    def test_auroc_agrees_with_scikit_learn(self):
        rng = np.random.default_rng(0)
        for decimals in (1, 2):
            truth = rng.random(300) < 0.4
            scores = np.clip(rng.normal(0.4 + 0.2 * truth, 0.2), 0, 1).round(decimals)
            statistics = PromptStatistics()
            for score, present in zip(scores, truth, strict=True):
                # A little above the level's lower end, which has no exact binary form.
                mask = np.full((2, 2), present)
                statistics.add(min(float(score) + 1e-9, 1), mask, mask)
            assert statistics.presence_auroc() == pytest.approx(roc_auc_score(truth, scores))

    def test_ious_of_prompts(self):
        truth = np.zeros((10, 10), bool)
        truth[:, :5] = True
        statistics = PromptStatistics()
        statistics.add(0.9, truth, truth)
        statistics.add(0.9, np.ones((10, 10), bool), truth)
        statistics.add(0.1, np.ones((10, 10), bool), np.zeros((10, 10), bool))
        assert statistics.mean_iou() == pytest.approx(0.75, abs=1e-9)
        assert [statistics.accuracy(t) for t in (0.495, 0.5, 0.995, 1.0)] == [1, 0.5, 0.5, 0]

    def test_nothing_added(self):
        empty = PromptStatistics()
        assert np.isnan([empty.presence_auroc(), empty.mean_iou(), empty.accuracy(0.5)]).all()
        with pytest.raises(ValueError, match=r'presence is 1\.2'):
            empty.add(1.2, np.zeros((1, 1), bool), np.zeros((1, 1), bool))


class TestSums:
    def test_one_process_sums_nothing(self):
        statistics = PixelStatistics()
        assert sum_over_processes(statistics, Accelerator(cpu=True)) is statistics

    def test_two_processes_have_the_sums_of_one(self, tmp_path):
        import socket

        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            port = probe.getsockname()[1]
        torch.multiprocessing.spawn(worker, (port, str(tmp_path)), nprocs=2)
        expected = repr(figures(collected(slice(None))))
        assert [(tmp_path / f'{rank}.txt').read_text() for rank in (0, 1)] == [expected] * 2
