"""Settings of the process that have to be made before torch is imported.

Both were measured on two busy cores with 720p frames. Without the first, every frame's buffers
are mapped and unmapped again, thousands of page faults each; without the second, the model's
idle threads spin and take the core that the camera needs (182 ms a frame instead of 42).
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_MEBIBYTE = 1024 * 1024


def keep_large_buffers() -> bool:
    """Makes glibc keep freed image buffers for the next frame.

    Returns:
        Whether the C library took the settings; other C libraries have no such knob.
    """
    if not sys.platform.startswith('linux'):
        return False
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is None:
        return False
    taken = mallopt(_M_MMAP_THRESHOLD, 32 * _MEBIBYTE)
    return bool(mallopt(_M_TRIM_THRESHOLD, 512 * _MEBIBYTE) and taken)


def release_freed_memory() -> None:
    """Returns freed memory to the system, where the C library can (glibc)."""
    if sys.platform.startswith('linux'):
        malloc_trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
        if malloc_trim is not None:
            malloc_trim(0)


def forget_dead_entities(node: Any) -> None:
    """Lets a node's callback group forget what was destroyed.

    rclpy adds a reference for every publisher, subscription, timer and service to it, and never
    takes one away: some forty for each time that the node is configured.
    """
    entities = node.default_callback_group.entities
    entities.difference_update([entity for entity in entities if entity() is None])


def tune_process() -> None:
    """Applies all settings; an ``OMP_WAIT_POLICY`` set by the user stays.

    Raises:
        RuntimeError: If torch is imported already, when OpenMP has read its settings.
    """
    if 'torch' in sys.modules and 'OMP_WAIT_POLICY' not in os.environ:
        raise RuntimeError(
            'torch was imported before tune_process(): its threads will spin. '
            'Call tune_process() first, or set OMP_WAIT_POLICY=PASSIVE in the environment'
        )
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    keep_large_buffers()
