"""Full float32 on CUDA devices: the switch that torch keeps for the whole process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from clipseg_model.runtime.devices import Device


class _Convolutions:
    """The process's switch for TF32 in convolutions, off while any thread is inside.

    Threads are counted: of two inside, the first that leaves must not switch it on for the other.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = False

    @contextmanager
    def off(self) -> Iterator[None]:
        with self._lock:
            if self._inside == 0:
                self._before = _allowed()
                if self._before:
                    torch.backends.cudnn.allow_tf32 = False
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0 and self._before:
                    torch.backends.cudnn.allow_tf32 = True


def _allowed() -> bool:
    try:
        return torch.backends.cudnn.allow_tf32
    except RuntimeError:
        # Set for each kind of layer, which this switch cannot express: the user's decision.
        return False


_convolutions = _Convolutions()


def full_float32(device: Device | torch.device) -> AbstractContextManager[None]:
    """Compute convolutions in float32 without TF32 on a CUDA device, in a ``with`` block.

    torch's default for them (not for other products) is TF32, which has 10 bits of mantissa.
    """
    return _convolutions.off() if device.type == 'cuda' else nullcontext()
