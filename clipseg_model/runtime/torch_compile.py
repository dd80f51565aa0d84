"""What is needed of torch.compile and has no public name."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch


def allow_shapes(count: int) -> AbstractContextManager[None]:
    """Let a function be compiled for this many shapes, in a ``with`` block; torch's limit is 8."""
    config: Any = torch._dynamo.config
    patched: AbstractContextManager[None] = config.patch(recompile_limit=count)
    return patched


_graphs: dict[str, Any] = {}
GRAPH_STATE: dict[str, Callable[[], Any]] = {
    'tree_manager_containers': dict,
    'tree_manager_locks': lambda: defaultdict(threading.Lock),
}


def share_graphs() -> None:
    """Let this thread record and replay the CUDA graphs that other threads compiled.

    Up to torch 2.12, ``torch.compile`` keeps them in a ``threading.local`` of the thread that first
    imported it, and every other thread fails with a bare AssertionError (pytorch issue 123177).
    Threads take turns, as graphs require: a segmenter is for one thread at a time.
    """
    from torch._inductor import cudagraph_trees

    known: Any = cudagraph_trees.local
    for name, make in GRAPH_STATE.items():
        if not hasattr(known, name):
            setattr(known, name, _graphs.setdefault(name, make()))
        _graphs.setdefault(name, getattr(known, name))
