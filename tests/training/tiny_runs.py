"""Runs of training that take a moment: tiny towers with random weights, small pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from numpy.typing import NDArray
from pydantic import Field

from training.datasets.samples import (
    BadRecord,
    BadRecords,
    Sample,
    SampleSource,
    StrictSettings,
    Support,
)
from training.loop.run_folder import RunFolder
from training.loop.settings import Settings
from training.train import train

#: A CLIP of open_clip's, made small.
TINY_BACKBONE: dict[str, Any] = {
    'embed_dim': 24,
    'quick_gelu': True,
    'vision_cfg': {
        'image_size': 64,
        'layers': 12,
        'width': 32,
        'head_width': 16,
        'patch_size': 16,
    },
    'text_cfg': {'context_length': 77, 'vocab_size': 49408, 'width': 16, 'heads': 2, 'layers': 1},
}
COLOURS = {'red': (220, 40, 40), 'green': (40, 200, 60), 'blue': (50, 60, 220)}


class ShapesSettings(StrictSettings):
    """Squares on grey."""

    samples: int = Field(10, ge=1)
    broken: int | None = None
    not_finite: int | None = None
    visual: bool = True
    ignored: bool = False
    folder: Path | None = None
    policy: str = 'skip'


class Shapes(SampleSource):
    """Pictures of one coloured square on noise; every second one has a support image."""

    Settings = ShapesSettings

    def __init__(self, settings: ShapesSettings) -> None:
        self.settings = settings
        self.problems = BadRecords(settings.policy)

    def __len__(self) -> int:
        return self.settings.samples

    def key(self, index: int) -> str:
        return f'shape {index}'

    def load(self, index: int, rng: np.random.Generator) -> Sample:
        if index == self.settings.broken:
            raise BadRecord('missing image', f'shape {index} is not there')
        phrase = sorted(COLOURS)[index % 3]
        image, mask = _drawn(phrase, rng)
        if index == self.settings.not_finite:
            return Sample(
                self.key(index), phrase, image, mask, alpha=np.full((64, 64), np.nan, 'f')
            )
        valid = None
        if self.settings.ignored:
            # Of some samples nearly nothing counts.
            valid = np.zeros((64, 64), bool)
            valid[: 3 + 13 * (index % 5), :] = True
        support = None
        if self.settings.visual and index % 2:
            support = Support('another', *_drawn(phrase, rng))
        return Sample(self.key(index), phrase, image, mask, valid, support)


def _drawn(phrase: str, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    image = rng.integers(90, 160, (64, 64, 3)).astype(np.uint8)
    top, left = rng.integers(0, 40, 2)
    mask = np.zeros((64, 64), bool)
    mask[top : top + 24, left : left + 24] = True
    image[mask] = COLOURS[phrase]
    return image, mask


def tiny(**changes: Any) -> dict[str, Any]:
    """Return the settings of a run of six iterations."""
    data = {'dataset': 'tests.training.tiny_runs:Shapes'}
    return {
        'name': 'tiny',
        'model': {
            'architecture': 'clipseg',
            'backbone': {
                'type': 'open_clip',
                'architecture': 'ViT-B-16-quickgelu',
                'overrides': TINY_BACKBONE,
            },
            'layers': [1, 3],
            'decoder': {'dim': 16, 'feedforward': 32, 'head': 'plain'},
        },
        'towers': 'random',
        'data': data,
        'prompts': {'size': 64},
        'validation': {'data': {**data, 'samples': 4}, 'every': 3},
        'batch_size': 4,
        'iterations': 6,
        'mixed_precision': 'no',
        'workers': 0,
        'save_every': 2,
        'log_every': 1,
        'pictures': 1,
        **changes,
    }


def tiny_settings(**changes: Any) -> Settings:
    """Return the same, validated."""
    return Settings(**tiny(**changes))


def write(path: Path, **changes: Any) -> Path:
    """Write the same as a YAML file."""
    path.write_text(yaml.safe_dump(tiny(**changes)))
    return path


def log(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's log."""
    return [json.loads(line) for line in (folder / 'log.jsonl').read_text().splitlines()]


def losses(folder: Path) -> dict[int, float]:
    """Return the loss of each iteration of a run."""
    return {line['iteration']: line['loss'] for line in log(folder) if 'loss' in line}


def assert_same_run(one: Path, other: Path) -> None:
    """Make sure that two runs came to the same, bit by bit."""
    first, second = (torch.load(folder / 'last.pt', weights_only=True) for folder in (one, other))
    assert first['step'] == second['step']
    for key in ('trained', 'optimizer'):
        flat = [_flat(state[key]) for state in (first, second)]
        assert flat[0].keys() == flat[1].keys()
        assert all(torch.equal(value, flat[1][name]) for name, value in flat[0].items())
    assert losses(one) == losses(other)
    rates = [[line['rate'] for line in log(folder) if 'rate' in line] for folder in (one, other)]
    assert rates[0] == rates[1]


def _flat(value: Any, prefix: str = '') -> dict[str, torch.Tensor]:
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    else:
        return {prefix: torch.as_tensor(0 if value is None else value)}
    return {k: v for key, part in items for k, v in _flat(part, f'{prefix}.{key}').items()}


def assert_resuming_changes_nothing(settings: Settings, folder: Path, monkeypatch: Any) -> None:
    """Train at once, and with a stop after four of six steps: both runs have to be the same."""
    train(settings, folder / 'whole')
    assert len(losses(folder / 'whole')) == 6
    AcceleratorState._reset_state(True)
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            train(settings, folder / 'parts')
    AcceleratorState._reset_state(True)
    train(settings, folder / 'parts', resume=True)
    assert_same_run(folder / 'whole', folder / 'parts')


def stop_after(monkeypatch: Any, step: int) -> None:
    """Make a run break off when it has written the checkpoint of a step."""
    original = RunFolder.save

    def save(self, path, state):
        original(self, path, state)
        if path.name == 'last.pt' and state['step'] == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, 'save', save)
