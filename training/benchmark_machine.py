"""What a machine is, and what its processor can do at best: measured, not looked up."""

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

from clipseg_model.dense import Dense

#: (rows, inputs, outputs): the widest layer of ViT-B/16 at 352 × 352, and a large square.
SHAPES = ((485, 768, 3072), (2048, 2048, 2048))
PACKAGES = ('torch', 'transformers', 'openvino', 'onnxruntime', 'numpy', 'opencv-python-headless')


def describe(packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """Returns processor, cores, memory, threads of torch, system and versions of packages.

    Args:
        packages: Those that are installed are named.
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
        'system': f'{platform.system()} {platform.release()}',
        'python': platform.python_version(),
        'versions': versions,
    }


def peak_gflops(dtype: torch.dtype, turns: int = 9) -> float:
    """The most GFLOP/s of a matrix product here: the best of torch's libraries, over shapes.

    Args:
        dtype: float32 or bfloat16.
        turns: Repetitions, of which the fastest counts.
    """
    best = 0.0
    with torch.no_grad():
        for rows, inputs, outputs in SHAPES:
            values = torch.randn(rows, inputs, dtype=dtype)
            for kind in (nn.Linear, Dense):
                layer = kind(inputs, outputs, bias=False).to(dtype)
                seconds = min(timed(lambda layer=layer, x=values: layer(x)) for _ in range(turns))
                best = max(best, 2 * rows * inputs * outputs / seconds / 1e9)
    return best


def timed(run: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    run()
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
