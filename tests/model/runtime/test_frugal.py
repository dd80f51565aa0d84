"""Memory and threads of a model without torch: what it takes while it works, and gives back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.without_torch import told_by

POOLS = 4
"""Of encoder, decoder, text tower and OpenCV; they compute one after the other."""


def run(threads: int) -> dict[str, Any]:
    return told_by(Path(__file__).with_name('frugal_process.py'), threads)[0]


@pytest.fixture(scope='module')
def one() -> dict[str, Any]:
    return run(1)


@pytest.fixture(scope='module')
def two() -> dict[str, Any]:
    return run(2)


def test_a_model_that_is_freed_leaves_nothing(one: dict[str, Any]) -> None:
    before, (first, *later) = one['memory before'], one['memory after']
    assert one['memory idle'] > before + 20, 'a model was there'
    # Measured: 4 to 5 MB, which is the C library's and ONNX Runtime's; and no more with each model.
    assert first < before + 8
    assert max(later) < first + 2


def test_a_model_that_waits_keeps_no_memory_of_frames(one: dict[str, Any]) -> None:
    """Measured: 30 MB of weights when idle, and 23 MB more at work."""
    assert one['memory idle'] < one['memory before'] + 38
    assert one['memory at work'] < one['memory idle'] + 35


def test_one_thread_is_one_for_runtime_and_opencv(one: dict[str, Any]) -> None:
    assert one['workers'] == 1
    assert one['threads'] == one['threads before']


def test_threads_are_as_many_as_are_asked_for(two: dict[str, Any]) -> None:
    assert 1 < two['workers'] <= 1 + POOLS
    assert two['threads'] <= two['threads before'] + POOLS
    assert two['at once'] < 2.2


def test_threads_that_wait_do_not_spin(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert max(one['idle seconds'], two['idle seconds']) < 0.02
