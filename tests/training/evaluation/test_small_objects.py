"""The measurement of zoom: what it asks, and what it counts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from clipseg_model.model_card import ModelCard
from clipseg_model.prompts import Prompt
from clipseg_model.segmentation import PromptResult, Segmentation
from clipseg_model.zoom.refinement import Zoom
from training.evaluation import small_objects


class Oracle:
    """Gets a question right with zoom, and has nothing on, or all, without."""

    card = ModelCard('oracle', 'none', {}, 64)

    def __init__(self, truths: dict[str, np.ndarray], without: float) -> None:
        self.truths, self.without, self.zoom = truths, without, None

    def prepare(self, prompts: list[str]) -> None:
        pass

    def segment(self, image: np.ndarray, prompts: list[str]) -> Segmentation:
        (text,) = prompts
        truth = self.truths[text]
        logits = np.where(truth, 4, -4) if self.zoom else np.full(truth.shape, self.without)
        result = PromptResult(Prompt(text), 0.5, 1.0, True, logits.astype(np.float32), *truth.shape)
        return Segmentation(*truth.shape, [result], 'oracle')


def test_questions_are_grouped_by_size():
    views = list(small_objects.views_with_questions('val', 2, 320, 240, seed=0))
    assert len(views) == 4
    groups = set()
    for rgb, questions in views:
        assert rgb.shape == (240, 320, 3)
        for question in questions:
            groups.add(question.group)
            share = question.truth.mean()
            if question.group == small_objects.ABSENT:
                assert share == 0
            else:
                low, high, _ = small_objects.SIZES[question.group]
                assert low <= share <= high
    assert {'1 to 10 %', 'above 10 %', small_objects.ABSENT} <= groups


def test_figures():
    truths = {name: np.zeros((100, 100), bool) for name in ('small', 'large', 'absent')}
    truths['small'][:5, :10] = True
    truths['large'][:50] = True
    rgb = np.zeros((100, 100, 3), np.uint8)
    questions = [
        small_objects.Question('small', truths['small'], '0.3 to 1 %'),
        small_objects.Question('large', truths['large'], 'above 10 %'),
        small_objects.Question('absent', truths['absent'], small_objects.ABSENT),
    ]
    sides = small_objects.ask_both_ways(Oracle(truths, 4.0), Zoom(), iter([(rgb, questions)] * 2))
    report = small_objects.report_of(sides)
    rows = report['groups']
    assert rows[small_objects.SMALL]['prompts'] == rows['0.3 to 1 %']['prompts'] == 2
    assert rows[small_objects.SMALL]['whole']['iou_fg'] == pytest.approx(0.005)
    assert rows['above 10 %']['whole']['iou_fg'] == pytest.approx(0.5)
    assert rows[small_objects.SMALL]['zoom']['iou_fg'] == rows['above 10 %']['zoom']['iou_fg'] == 1
    assert rows[small_objects.ABSENT]['whole'] == {'kept_out': 0.0, 'area_on': 1.0}
    assert rows[small_objects.ABSENT]['zoom'] == {'kept_out': 1.0, 'area_on': 0.0}
    assert '1 to 10 %' not in rows


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    output = tmp_path / 'zoom.json'
    arguments = ['tabletop', '--split', 'val', '--scenes', '1', '--width', '320', '--height', '240']
    monkeypatch.setattr(sys, 'argv', ['small_objects', *arguments, '--output', str(output)])
    small_objects.main()
    report = json.loads(output.read_text())
    assert report['zoom']['proposer']['low'] == 0.1
    assert report['cost']['zoom']['regions'] > 0
    assert report['cost']['zoom']['median_ms'] > report['cost']['whole']['median_ms'] > 0
    assert 'with zoom' in capsys.readouterr().out
