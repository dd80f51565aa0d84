"""What torch keeps for the process or the thread, and a runtime on a CUDA device has to mind."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ['full_float32', 'share_graphs']


class _Convolutions:
    """The process's switch for TF32 in convolutions, off while anybody is inside.

    Counted: of two threads inside, the first that leaves must not switch it on for the other.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = False

    def enter(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = _allowed()
                if self._before:
                    torch.backends.cudnn.allow_tf32 = False
            self._inside += 1

    def leave(self) -> None:
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


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """While this lasts, convolutions in float32 on a CUDA device are computed in float32.

    torch's default for them (not for other products) is TF32, which has 10 bits of mantissa.

    Args:
        device: Where they are computed; nothing is done for any but a CUDA device.
    """
    if device.type != 'cuda':
        yield
        return
    _convolutions.enter()
    try:
        yield
    finally:
        _convolutions.leave()


_graphs: dict[str, Any] = {}
_GRAPH_STATE: dict[str, Callable[[], Any]] = {
    'tree_manager_containers': dict,
    'tree_manager_locks': lambda: defaultdict(threading.Lock),
}


def share_graphs() -> None:
    """Lets this thread record and replay the CUDA graphs that other threads compiled.

    Of ``torch.compile`` up to torch 2.12, what records them is known to the thread alone that first
    imported it, and a bare AssertionError awaits all others (pytorch issue 123177). A node has a
    new thread each time that it is activated, and one for each camera. They take turns, as graphs
    require: a segmenter is for one thread at a time.
    """
    from torch._inductor import cudagraph_trees

    known: Any = cudagraph_trees.local
    for name, make in _GRAPH_STATE.items():
        if not hasattr(known, name):
            setattr(known, name, _graphs.setdefault(name, make()))
        _graphs.setdefault(name, getattr(known, name))
