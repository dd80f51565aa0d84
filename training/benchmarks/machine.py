"""What a machine is, and what its processor or GPU can do at best: measured, not looked up."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import nn

from clipseg_model.modeling.dense import Dense

#: (rows, inputs, outputs): the widest layer of ViT-B/16 at 352 × 352, and a large square.
SHAPES = ((485, 768, 3072), (2048, 2048, 2048))
#: The same on a GPU, of 16 images, and a square that fills it.
GPU_SHAPES = ((16 * 485, 768, 3072), (8192, 8192, 8192))
CPU = torch.device('cpu')
PACKAGES = ('torch', 'transformers', 'openvino', 'onnxruntime', 'numpy', 'opencv-python-headless')


def describe(packages: Sequence[str] = PACKAGES, device: torch.device = CPU) -> dict[str, Any]:
    """Returns processor, cores, memory, threads of torch, GPU, system and versions of packages.

    Args:
        packages: Those that are installed are named.
        device: Where is computed; a GPU is named where it is one.
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
    """What :func:`describe` found, in a line: the GPU if one is used, processor and threads."""
    gpu = f'{machine["gpu"]}, ' if machine['gpu'] else ''
    return (
        f'{gpu}{machine["processor"]} ({machine["instructions"]}), {machine["threads"]} threads '
        f'of {machine["cores"]} cores'
    )


def peak_gflops(dtype: torch.dtype, turns: int = 9, device: torch.device = CPU) -> float:
    """The most GFLOP/s of a matrix product here: the best of torch's libraries, over shapes.

    Args:
        dtype: float32, bfloat16 or, on a GPU, float16.
        turns: Repetitions, of which the fastest counts.
        device: Where.
    """
    best = 0.0
    with torch.no_grad():
        for rows, inputs, outputs in SHAPES if device.type == 'cpu' else GPU_SHAPES:
            values = torch.randn(rows, inputs, dtype=dtype, device=device)
            for kind in (nn.Linear, Dense):
                layer = kind(inputs, outputs, bias=False).to(device, dtype)
                seconds = min(
                    timed(lambda layer=layer, x=values: layer(x), device) for _ in range(turns)
                )
                best = max(best, 2 * rows * inputs * outputs / seconds / 1e9)
    return best


def timed(run: Callable[[], object], device: torch.device = CPU) -> float:
    """Seconds that a call takes, until a device has done what it put there."""
    on_gpu = device.type == 'cuda'
    if on_gpu:
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    run()
    if on_gpu:
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def summary(seconds: list[float]) -> dict[str, float]:
    """Returns the median, and the first and last decile, in milliseconds."""
    low, middle, high = np.quantile(seconds, [0.1, 0.5, 0.9]) * 1e3
    return {'median': float(middle), 'low': float(low), 'high': float(high)}


def resident_mib(peak: bool) -> float:
    """Memory of this process now, or at its peak, MiB; Linux only."""
    field = 'VmHWM' if peak else 'VmRSS'
    found = re.search(rf'^{field}:\s*(\d+) kB', _read('/proc/self/status'), re.M)
    return int(found[1]) / 1024 if found else float('nan')


def _read(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ''
