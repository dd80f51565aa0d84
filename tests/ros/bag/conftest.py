"""A bag, and what the model answers to its images."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from bags import PROMPTS, record, stamped
from ros_peers import picture
from std_msgs.msg import String

from clipseg_model.registry import create_model
from clipseg_model.segmentation import Segmentation


@cache
def _load_once(load: Callable[..., Any], weights: str | Path, **options: Any) -> Any:
    return load(weights, **options)


@pytest.fixture(autouse=True)
def _no_model_is_loaded_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command loads one; these tests call it two hundred times with the same."""
    if find_spec('torch') is None:
        return
    from clipseg_model.weights.checkpoints import load_checkpoint as load

    monkeypatch.setattr(
        'clipseg_model.weights.checkpoints.load_checkpoint',
        lambda weights, **options: copy.deepcopy(_load_once(load, weights, **options)),
    )


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    images = [('/camera/image', stamped(n, 'bgr8' if n % 2 else 'rgb8')) for n in range(4)]
    return record(tmp_path / 'drive', [('/note', String(data='hello')), *images])


@pytest.fixture(scope='module')
def expected(tiny_model: Path) -> Callable[[int], Segmentation]:
    segmenter = create_model(tiny_model, 'cpu', 1)
    return lambda number: segmenter.segment(picture(90, 120, seed=number), PROMPTS)
