"""What ONNX Runtime computes in between: memory that all sessions on the CPU take in turn.

By itself each session has an arena of its own that keeps the most it ever took; and without one,
glibc's heap grows to several times of that, as blocks that are aligned leave holes. Here all
sessions share one arena, whose blocks are as large as what was asked for, and which can be given
back while no session runs.
"""

from __future__ import annotations

import threading
from typing import Any

_NAME = 'Cpu'
_SAME_AS_REQUESTED = 1

_lock = threading.Lock()
_shared: list[Any] = []
"""The module onnxruntime, once it has the arena."""


def share_scratch(ort: Any, options: Any) -> None:
    """Let a session that is made with ``options`` compute in the memory of all.

    Args:
        ort: The module onnxruntime.
        options: Its ``SessionOptions``; they are changed.
    """
    with _lock:
        if not _shared:
            arena = ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR
            ort.create_and_register_allocator(
                ort.OrtMemoryInfo(_NAME, arena, 0, ort.OrtMemType.DEFAULT),
                ort.OrtArenaCfg({'arena_extend_strategy': _SAME_AS_REQUESTED}),
            )
            _shared.append(ort)
    options.add_session_config_entry('session.use_env_allocators', '1')
    # Weights would keep the arena's blocks from being given back.
    options.add_session_config_entry('session.use_device_allocator_for_initializers', '1')
    # A pattern is one block for each shape of the inputs, beside what the first run took.
    options.enable_mem_pattern = False


def release_scratch() -> None:
    """Give what no session computes in at the moment back to the C library."""
    if not _shared:
        return
    ort = _shared[0]
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    share_scratch(ort, options)
    session = ort.InferenceSession(_identity(), options, providers=['CPUExecutionProvider'])
    run = ort.RunOptions()
    run.add_run_config_entry('memory.enable_memory_arena_shrinkage', 'cpu:0')
    session.run(None, {}, run)


def _identity() -> bytes:
    """Return a model that computes a constant, as ONNX writes it: the arena needs a run of one."""
    one = _field(1, 1) + _field(2, 1) + _field(4, b'\0\0\x80\x3f')  # dims, float, float_data
    constant = _field(1, b'value') + _field(5, one) + _field(20, 4)
    node = _field(2, b'y') + _field(4, b'Constant') + _field(5, constant)
    shape = _field(1, _field(1, 1))
    kind = _field(1, _field(1, 1) + _field(2, shape))
    graph = _field(1, node) + _field(2, b'g') + _field(12, _field(1, b'y') + _field(2, kind))
    return _field(1, 8) + _field(7, graph) + _field(8, _field(2, 17))


def _field(number: int, value: int | bytes) -> bytes:
    """Return a field of a protocol buffer, of a number or of bytes, less than 128 of either."""
    key = number << 3 | (0 if isinstance(value, int) else 2)
    head = bytes([key] if key < 128 else [key % 128 + 128, key // 128])
    return head + (bytes([value]) if isinstance(value, int) else bytes([len(value)]) + value)
