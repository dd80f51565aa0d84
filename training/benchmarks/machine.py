"""The machine: its description, and the measured peak of its processor or GPU."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from clipseg_model.modeling.base import SegmentationModel
from clipseg_model.modeling.dense import Dense

#: (rows, inputs, outputs): the widest layer of ViT-B/16 at 352 × 352, and a large square.
SHAPES = ((485, 768, 3072), (2048, 2048, 2048))
#: The same on a GPU, of 16 images, and a square that fills it.
GPU_SHAPES = ((16 * 485, 768, 3072), (8192, 8192, 8192))
CPU = torch.device('cpu')
PACKAGES = ('torch', 'transformers', 'openvino', 'onnxruntime', 'numpy', 'opencv-python-headless')


def describe(packages: Sequence[str] = PACKAGES, device: torch.device = CPU) -> dict[str, Any]:
    """Return processor, cores, memory, threads of torch, GPU, system and versions of packages.

    Args:
        packages: Those that are installed are listed.
        device: Where models run; a GPU is named.
    """
    model = re.search(r'^model name\s*:\s*(.+)$', _read('/proc/cpuinfo'), re.M)
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        'processor': model[1] if model else platform.processor(),
        'instructions': torch.backends.cpu.get_cpu_capability(),
        'cores': os.cpu_count(),
        'memory_gb': round(psutil.virtual_memory().total / 1e9, 1),
        'threads': torch.get_num_threads(),
        'gpu': torch.cuda.get_device_name(device) if device.type == 'cuda' else None,
        'system': f'{platform.system()} {platform.release()}',
        'python': platform.python_version(),
        'versions': versions,
    }


def name_of(machine: dict[str, Any]) -> str:
    """Return the GPU if one is used, processor and threads, of :func:`describe`, in a line."""
    gpu = f'{machine["gpu"]}, ' if machine['gpu'] else ''
    return (
        f'{gpu}{machine["processor"]} ({machine["instructions"]}), {machine["threads"]} threads '
        f'of {machine["cores"]} cores'
    )


def peak_gflops(dtype: torch.dtype, turns: int = 9, device: torch.device = CPU) -> float:
    """Return the most GFLOP/s of a matrix product: the best of torch's libraries, over shapes.

    Args:
        dtype: float32, bfloat16 or, on a GPU, float16.
        turns: Repetitions; the fastest is taken.
        device: Where it runs.
    """
    best = 0.0
    with torch.no_grad():
        for rows, inputs, outputs in SHAPES if device.type == 'cpu' else GPU_SHAPES:
            values = torch.randn(rows, inputs, dtype=dtype, device=device)
            for kind in (nn.Linear, Dense):
                layer = kind(inputs, outputs, bias=False).to(device, dtype)
                seconds = min(timed(partial(layer, values), device) for _ in range(turns))
                best = max(best, 2 * rows * inputs * outputs / seconds / 1e9)
    return best


@torch.no_grad()
def count_gflops(
    model: SegmentationModel, shape: tuple[int, int], device: str
) -> tuple[float, float]:
    """Return the GFLOP of an image of a height and width, and of a prompt, counted by torch.

    Two operations for each multiplication with addition in matrix products, convolutions and
    attention, and none for the rest. On the device ``meta`` nothing is computed.
    """
    counters = [FlopCounterMode(display=False) for _ in range(2)]
    with counters[0]:
        features = model.encode_image(torch.empty(1, 3, *shape, device=device))
    with counters[1]:
        model.decode(features, torch.empty(1, model.backbone.embed_dim, device=device))
    image, prompt = (counter.get_total_flops() / 1e9 for counter in counters)
    return image, prompt


def timed(run: Callable[[], object], device: torch.device = CPU) -> float:
    """Return the seconds that a call takes, until the device is idle again."""
    on_gpu = device.type == 'cuda'
    if on_gpu:
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    run()
    if on_gpu:
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def summary(seconds: list[float]) -> dict[str, float]:
    """Return the median, and the first and last decile, in milliseconds."""
    low, middle, high = np.quantile(seconds, [0.1, 0.5, 0.9]) * 1e3
    return {'median': float(middle), 'low': float(low), 'high': float(high)}


def as_text(times: dict[str, float]) -> str:
    """Return a :func:`summary` as text: the median, and the deciles in parentheses."""
    return f'{times["median"]:.1f} ({times["low"]:.1f}–{times["high"]:.1f})'


def resident_mib(peak: bool) -> float:
    """Return the resident memory of this process now, or at its peak, MiB; Linux only."""
    field = 'VmHWM' if peak else 'VmRSS'
    found = re.search(rf'^{field}:\s*(\d+) kB', _read('/proc/self/status'), re.M)
    return int(found[1]) / 1024 if found else float('nan')


def _read(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ''
