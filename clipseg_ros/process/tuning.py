"""Settings of the process that must be made before torch and numpy are imported.

They were measured on two busy cores. Without the first, the buffers of every frame are mapped and
unmapped again, thousands of page faults each. Without the second, the model's idle threads spin and
take the core that the camera needs (182 ms a frame of 720p instead of 42). So do those of numpy's
products, by which frames are resized (a third of the frames of the console).
"""

from __future__ import annotations

import ctypes
import os
import sys

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_MEBIBYTE = 1024 * 1024


def keep_large_buffers() -> bool:
    """Make glibc keep freed image buffers for the next frame; return whether it took it."""
    if not sys.platform.startswith('linux'):
        return False
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is None:
        return False
    taken = mallopt(_M_MMAP_THRESHOLD, 32 * _MEBIBYTE)
    return bool(mallopt(_M_TRIM_THRESHOLD, 512 * _MEBIBYTE) and taken)


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
