"""Absence and flicker are measured as their scripts say."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clipseg_model.prompts import Prompt
from clipseg_model.segmentation import PromptResult, Segmentation
from training.evaluation import absence, flicker, scripts
from training.evaluation.absence import Scores


def scores(present: list[float], absent: list[float]) -> Scores:
    values = np.array(present + absent)
    there = np.array([True] * len(present) + [False] * len(absent))
    kinds = np.array(['name', 'colour'] * (len(values) // 2 + 1))[: len(values)]
    return Scores(values, there, kinds, 1)


def test_rates() -> None:
    row = absence.rates(scores([0.9, 0.8, 0.4], [0.1, 0.5]), 0.5)
    assert row['found'] == pytest.approx(2 / 3, abs=1e-4)
    assert row['kept_out'] == 0.5, 'a score at the threshold is present'
    assert row['balanced_accuracy'] == pytest.approx((2 / 3 + 0.5) / 2, abs=1e-4)
    assert (row['present'], row['absent']) == (3, 2)


def test_best_threshold_is_the_best_of_all() -> None:
    rng = np.random.default_rng(0)
    asked = scores(
        list(rng.normal(0.7, 0.1, 200).round(2)), list(rng.normal(0.5, 0.1, 300).round(2))
    )
    best = absence.best_threshold(asked)
    reached = absence.rates(asked, best)['balanced_accuracy']
    tried = [absence.rates(asked, t)['balanced_accuracy'] for t in np.unique(asked.scores)]
    assert reached == max(tried)


def test_report_is_by_kind() -> None:
    part = absence.figures_of(scores([0.9, 0.8], [0.1, 0.2]), {'card': 0.5})
    assert part['card']['all']['balanced_accuracy'] == 1.0
    assert part['card']['name']['present'] + part['card']['colour']['present'] == 2


def test_one_view_of_each_scene() -> None:
    views: Any = SimpleNamespace(records=[{'seed': seed} for seed in (3, 3, 5, 5, 4, 4)])
    assert scripts.first_views(views, 10) == [0, 2, 4]
    assert scripts.first_views(views, 2) == [0, 2]


def test_thresholds_are_judged_on_other_scenes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, 'argv', ['absence', 'x', '--data', 'd', '--fix', 'val', '--on', 'val'])
    with pytest.raises(SystemExit):
        absence.main()
    assert 'other scenes' in capsys.readouterr().err


def test_the_script_runs_from_pictures_to_figures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def views(folder: Path) -> Any:
        record = {
            'present': [['bright', 'name', [1]], ['light', 'colour', [1]]],
            'absent': [['dark', 'name', []], ['black', 'colour', []]],
        }
        return SimpleNamespace(
            records=[{**record, 'seed': seed} for seed in range(4)],
            rgb=lambda view: np.full((8, 8, 3), view, np.uint8),
        )

    def segment(image: NDArray[np.uint8], texts: list[str]) -> Any:
        marks = {'bright': 0.9, 'light': 0.8, 'dark': 0.2, 'black': 0.85}
        return SimpleNamespace(results=[SimpleNamespace(score=marks[text]) for text in texts])

    card = SimpleNamespace(presence_threshold=0.5)
    monkeypatch.setattr(absence, 'TabletopViews', views)
    monkeypatch.setattr(
        scripts, 'create_model', lambda *_, **__: SimpleNamespace(card=card, segment=segment)
    )
    output = tmp_path / 'new' / 'figures.json'
    monkeypatch.setattr(sys, 'argv', ['absence', 'x', '--data', 'd', '--output', str(output)])
    absence.main()
    figures = json.loads(output.read_text())['test']
    assert figures['scenes'] == 4
    assert figures['model card']['all']['balanced_accuracy'] == 0.75
    assert figures['model card']['name']['balanced_accuracy'] == 1.0
    assert figures['best on val']['all']['present'] == 8


def bars(widths: list[int]) -> NDArray[np.bool_]:
    """Masks (T, 1, 10, 100), each a bar of a width."""
    made = np.zeros((len(widths), 1, 10, 100), bool)
    for mask, width in zip(made, widths, strict=True):
        mask[..., :width] = True
    return made


def test_flicker_is_change_beyond_that_of_the_truth() -> None:
    truth = bars([20, 30, 40])
    assert flicker.flicker(truth, truth) == [0.0]
    assert flicker.flicker(bars([20, 36, 40]), truth) == [pytest.approx((6 + 6) / 2 / 30)]


def test_lag_is_found_between_frames() -> None:
    moving = np.zeros((40, 1, 4, 200), bool)
    for number, mask in enumerate(moving):
        mask[..., 3 * number : 3 * number + 30] = True
    late = np.roll(moving, 2, axis=0)
    assert flicker.peak(flicker.ious_by_lag(late, moving, 6)) == pytest.approx(2.0, abs=0.05)
    # At 3 px a frame, 4 px behind are 1⅓ frames.
    behind = np.roll(moving, -4, axis=3)[8:]
    assert flicker.peak(flicker.ious_by_lag(behind, moving[8:], 6)) == pytest.approx(
        4 / 3, abs=0.15
    )


def test_smoothing_lowers_flicker_and_delays() -> None:
    rng = np.random.default_rng(0)
    how = flicker.Options(rate=20.0, reset=1.0, hysteresis=0.1, seconds=3)
    image = np.zeros((24, 32, 3), np.uint8)

    def found(logits: NDArray[np.float32]) -> Segmentation:
        result = PromptResult(Prompt('mug'), 0.5, 0.9, True, logits, 24, 32)
        return Segmentation(24, 32, [result], 'x')

    shape = np.full((24, 32), -2.0)
    shape[4:20, 8:24] = 2.0
    frames = [found((shape + rng.normal(0, 2, shape.shape)).astype(np.float32)) for _ in range(60)]
    truth = np.repeat((shape > 0)[None, None], 60, axis=0)
    clip = flicker.Clip([image] * 60, frames, truth)
    plain = flicker.figures_at([clip], 0.0, 0.5, how)
    smooth = flicker.figures_at([clip], 0.3, 0.5, how)
    assert smooth['flicker'] < plain['flicker'] / 2
    assert smooth['iou'] > plain['iou']
    assert plain['appears'] == 0.0
    assert 0.05 <= smooth['appears'] <= 0.5
    assert smooth['restarts'] == 0.0
