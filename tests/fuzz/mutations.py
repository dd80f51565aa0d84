"""Damaged inputs for readers: seeded changes of bytes and of JSON, and a guard around each try."""

from __future__ import annotations

import copy
import json
import resource
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

STRANGE: tuple[Any, ...] = (
    None, True, -1, 0, 1, 7, 1 << 31, 1 << 63, 10**30, -0.5, 1e308, float('nan'), float('inf'),
    '', 'x', '../x', '/etc/passwd', 'ü\0', 'x' * 5000, [], [[]], {}, {'': None}, [1, 'a', None],
)  # fmt: skip
"""Values that no writer would put there."""


EXTREMES = (
    0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1,
)  # fmt: skip
"""Numbers that counters, sizes and offsets of a file rarely are."""

_ENDS = 400  # Bytes at either end of a file, where most formats have their structure.


def mutate_bytes(data: bytes, rng: np.random.Generator, others: Sequence[bytes] = ()) -> bytes:
    """Damage a file as disks, networks, people and ill will do: one to three changes.

    Half of them are near the beginning or the end. ``others`` are files that parts may come from.
    """
    changed = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        if not changed:
            break
        start = _place(len(changed), rng)
        length = int(2 ** rng.uniform(0, 10))
        part = slice(start, start + length)
        match rng.integers(0, 10):
            case 0:
                changed[start] ^= 1 << int(rng.integers(0, 8))
            case 1:
                for place in range(start, min(start + int(rng.integers(1, 5)), len(changed))):
                    changed[place] = int(rng.integers(0, 256))
            case 2:
                size = int(rng.choice([1, 2, 4, 8]))
                number = EXTREMES[rng.integers(0, len(EXTREMES))] % 256**size
                little = bool(rng.integers(0, 2))
                changed[start : start + size] = number.to_bytes(size, 'little' if little else 'big')
            case 3:
                del changed[start:]
            case 4:
                del changed[part]
            case 5:
                changed[start:start] = rng.bytes(length)
            case 6:
                changed[start:start] = changed[part]
            case 7:
                changed[part] = bytes([rng.choice([0, 255])]) * len(changed[part])
            case 8:
                changed[part] = rng.bytes(len(changed[part]))
            case 9:
                other = others[rng.integers(0, len(others))] if others else bytes(changed)
                begin = int(rng.integers(0, max(len(other), 1)))
                changed[part] = other[begin : begin + length]
    return bytes(changed)


def _place(size: int, rng: np.random.Generator) -> int:
    start = int(rng.integers(0, size))
    match rng.integers(0, 4):
        case 0:
            return min(start, int(rng.integers(0, _ENDS)))
        case 1:
            return max(start, size - 1 - int(rng.integers(0, _ENDS)))
    return start


def mutate_json(value: Any, rng: np.random.Generator) -> Any:
    """Change one to three places of a value of JSON types; the value itself stays."""
    value = {'': copy.deepcopy(value)}
    for _ in range(rng.integers(1, 4)):
        places = list(_places(value))
        holder, key = places[rng.integers(0, len(places))]
        match rng.integers(0, 6):
            case 0 | 1 | 2:
                holder[key] = copy.deepcopy(STRANGE[rng.integers(0, len(STRANGE))])
            case 3 if holder is not value:
                del holder[key]
            case 4 if isinstance(holder[key], (int, float)):
                holder[key] *= int(rng.choice([-1, 2, 1000, 10**6]))
            case 5 if isinstance(holder, dict) and holder is not value:
                holder[f'{key}x'] = holder.pop(key)
    return value.get('')


def mutate_json_text(value: Any, rng: np.random.Generator) -> bytes:
    """Mutate a value and write it down; sometimes as text that is hardly JSON any more."""
    match rng.integers(0, 8):
        case 0:
            return mutate_bytes(json.dumps(value).encode(), rng)
        case 1 if rng.random() < 0.3:
            return b'[' * 100_000
        case _:
            return json.dumps(mutate_json(value, rng)).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, entry in list(entries):
        yield value, key
        if isinstance(entry, (dict, list)):
            yield from _places(entry)


class TooLong(BaseException):
    """Not an Exception, so that no reader takes it for a fault of its input."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TooLong after some seconds."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooLong(f'{seconds} s have passed')

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def guarded(seconds: float = 10, memory: int = 2 << 30) -> Iterator[None]:
    """Raise TooLong after some seconds, and MemoryError beyond some bytes more than there are."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path('/proc/self/statm').read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory, limits[1]))
    try:
        with time_limit(seconds):
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def lacked_memory(error: BaseException | None) -> bool:
    """Whether an error comes of one that says that there was not enough memory."""
    while error is not None:
        if isinstance(error, MemoryError) or 'allocate' in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
