"""How many threads compute on the CPU: one number for every runtime and for OpenCV."""

from __future__ import annotations

import os
import sys

import cv2

_chosen: list[int] = []
_pending: list[int] = []


def set_threads(count: int) -> None:
    """Let every runtime that is started from now on, torch and OpenCV use so many threads.

    Raises:
        ValueError: It is less than 1.
    """
    if count < 1:
        raise ValueError(f'threads must be at least 1, not {count}')
    _chosen[:] = _pending[:] = [count]
    cv2.setNumThreads(count)
    apply_to_torch()


def thread_count() -> int:
    """Return the number of threads: as it was set, else torch's, else one for each core."""
    if 'torch' in sys.modules:
        return int(sys.modules['torch'].get_num_threads())
    if _chosen:
        return _chosen[0]
    given = os.environ.get('OMP_NUM_THREADS', '')
    return int(given) if given.isdigit() and int(given) else len(os.sched_getaffinity(0))


def apply_to_torch() -> None:
    """Give torch the number that was set before it was imported."""
    if _pending and 'torch' in sys.modules:
        sys.modules['torch'].set_num_threads(_pending.pop())
