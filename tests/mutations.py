"""Damaged inputs for readers: seeded changes of bytes and of JSON, and a guard around each try."""

from __future__ import annotations

import copy
import json
import resource
import signal
from collections.abc import Iterator
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


def mutate_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """Change a few bytes, cut, repeat, insert or blank a part."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        start = int(rng.integers(0, max(len(changed), 1)))
        length = int(2 ** rng.uniform(0, 10))
        part = slice(start, start + length)
        match rng.integers(0, 7):
            case 0 | 1:
                for place in range(start, min(start + int(rng.integers(1, 5)), len(changed))):
                    changed[place] = int(rng.integers(0, 256))
            case 2:
                del changed[start:]
            case 3:
                del changed[part]
            case 4:
                changed[start:start] = rng.bytes(length)
            case 5:
                changed[start:start] = changed[part]
            case 6:
                changed[part] = bytes([rng.choice([0, 255])]) * len(changed[part])
    return bytes(changed)


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
