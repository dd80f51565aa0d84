"""What two processes count apart, and what the sum of it reports."""

from __future__ import annotations

import os

import numpy as np
import torch
from accelerate import Accelerator

from training.metrics.classes import ClassStatistics, ConfusionMatrix, PromptStatistics
from training.metrics.matting import MattingErrors, MattingStatistics
from training.metrics.pixels import BINS, PixelStatistics
from training.metrics.sums import sum_over_processes


def drawn(seed: int, size: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities in the middle of a level, so that no implementation rounds them elsewhere."""
    rng = np.random.default_rng(seed)
    truth = rng.random((size, size)) < rng.uniform(0.05, 0.6)
    level = np.clip(rng.normal(0.35 + 0.25 * truth, 0.2), 0, 0.999) * BINS // 1
    return ((level + 0.5) / BINS).astype(np.float32), truth


def collected(rows: slice):
    """Every kind of statistics, over some of the same 20 samples."""
    pixels, classes, prompts = PixelStatistics(), ClassStatistics(), PromptStatistics()
    matrix, mattes = ConfusionMatrix.of(3), MattingStatistics()
    for seed in range(20)[rows]:
        probability, truth = drawn(seed, 20)
        pixels.add(probability, truth)
        classes.by_class[seed % 7].add(probability, truth)
        prompts.add(float(probability.max()), probability > 0.5, truth & (seed % 3 > 0))
        matrix.add((probability * 2.99).astype(int), truth.astype(int))
        mattes.add([MattingErrors(*(probability[0, :5].tolist()))] * (1 + seed % 3))
    return pixels, classes, prompts, matrix, mattes


def figures(statistics) -> list:
    """Everything they report, to be compared bit by bit."""
    pixels, classes, prompts, matrix, mattes = statistics
    return [
        pixels.average_precision(),
        pixels.iou_binary().tolist(),
        pixels.samples,
        classes.mean_iou().tolist(),
        prompts.presence_auroc(),
        prompts.mean_iou(),
        matrix.counts.tolist(),
        mattes.per_matte(),
        mattes.per_expression(),
    ]


def worker(rank: int, port: int, folder: str) -> None:
    """One of two processes, with every second sample."""
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2', MASTER_ADDR='127.0.0.1',
        MASTER_PORT=str(port), ACCELERATE_USE_CPU='true',
    )  # fmt: skip
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == 2
    parts = collected(slice(rank, None, 2))
    summed = [sum_over_processes(part, accelerator) for part in parts]
    with open(f'{folder}/{rank}.txt', 'w') as file:
        file.write(repr(figures(summed)))
    torch.distributed.destroy_process_group()
