"""Settings of training runs."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from training.bundled.settings import load_settings
from training.loop.settings import SettingsError

CONFIGS = sorted(Path('training/configs').glob('tabletop*.yaml'))

MINIMAL = """
name: x
model: {architecture: clipseg}
frozen: frozen.safetensors
data: {folder: data}
stages: [{iterations: 60, input_size: 64}, {iterations: 40, input_size: 96}]
warmup: 10
decay: 20
"""


def write(folder: Path, text: str) -> Path:
    path = folder / 'settings.yaml'
    path.write_text(text)
    return path


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_shipped_settings_are_valid(path):
    assert load_settings(path).iterations > 0


def test_unknown_keys_are_errors(tmp_path):
    with pytest.raises(SettingsError, match='learning_rat'):
        load_settings(write(tmp_path, MINIMAL + 'learning_rat: 0.1\n'))


def test_stages_follow_each_other(tmp_path):
    settings = load_settings(write(tmp_path, MINIMAL))
    assert settings.iterations == 100
    assert [settings.stage(i).input_size for i in (0, 59, 60, 99)] == [64, 64, 96, 96]


def test_rate_warms_up_holds_and_falls_to_zero(tmp_path):
    settings = load_settings(write(tmp_path, MINIMAL))
    rates = [settings.rate_factor(i) for i in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10:80] == pytest.approx([1] * 70)
    falling = rates[80:]
    assert all(a > b for a, b in itertools.pairwise(falling))
    assert rates[100] == pytest.approx(0)
