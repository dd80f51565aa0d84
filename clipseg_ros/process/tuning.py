"""Settings of the process that must be made before torch and numpy are imported.

Two were measured on two busy cores. Without the first, the buffers of every frame are mapped and
unmapped again, thousands of page faults each. Without the second, the model's idle threads spin and
take the core that the camera needs (182 ms a frame of 720p instead of 42). So would those of
numpy's products, by which frames are resized; what that costs was not measured apart.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_MEBIBYTE = 1024 * 1024
_KEPT_UP_TO = 32 * _MEBIBYTE
_APART_FROM = 32 * 1024


def keep_large_buffers() -> bool:
    """Make glibc keep freed image buffers for the next frame; return whether it took it."""
    taken = _mallopt(_M_MMAP_THRESHOLD, _KEPT_UP_TO)
    return _mallopt(_M_TRIM_THRESHOLD, 512 * _MEBIBYTE) and taken


@contextmanager
def large_blocks_apart() -> Iterator[None]:
    """Let glibc map each large block by itself, in a ``with`` block in which a model is loaded.

    What loading frees goes back to the system at once then, and not only when all is loaded: the
    peak of the default model is 29 MB lower, measured.
    """
    _mallopt(_M_MMAP_THRESHOLD, _APART_FROM)
    try:
        yield
    finally:
        _mallopt(_M_MMAP_THRESHOLD, _KEPT_UP_TO)


def _mallopt(name: int, value: int) -> bool:
    if not sys.platform.startswith('linux'):
        return False
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    return mallopt is not None and bool(mallopt(name, value))


def release_freed_memory() -> None:
    """Return freed memory to the system, where the C library can (glibc)."""
    if sys.platform.startswith('linux'):
        malloc_trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
        if malloc_trim is not None:
            malloc_trim(0)


def tune_process() -> None:
    """Apply all settings; an ``OMP_WAIT_POLICY`` or ``OPENBLAS_NUM_THREADS`` of the user stays.

    Raises:
        RuntimeError: If torch is imported already, when OpenMP has read its settings.
    """
    if 'torch' in sys.modules and 'OMP_WAIT_POLICY' not in os.environ:
        raise RuntimeError(
            'torch was imported before tune_process(): its threads will spin. '
            'Call tune_process() first, or set OMP_WAIT_POLICY=PASSIVE in the environment'
        )
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    # numpy's products are small: no second pool of threads beside the model's.
    os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
    keep_large_buffers()
