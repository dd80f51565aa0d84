"""The measurement of a camera that stands still: what it films, and what it counts."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipseg_model.prompts import Prompt
from clipseg_model.segmentation import PromptResult, Segmentation
from clipseg_model.video.still import StillDetector
from training.evaluation import still_camera


class Threshold:
    """Finds what is bright, and says each second time that it reused an encoding."""

    def __init__(self, least: int, reuses: bool = False) -> None:
        self.least, self.reuses, self.still = least, reuses, StillDetector()
        self.asked: list[list[str]] = []

    def segment(self, image: np.ndarray, prompts: list[str]) -> Segmentation:
        self.asked.append(prompts)
        logits = np.where(image[..., 0] >= self.least, 4, -4).astype(np.float32)
        results = [
            PromptResult(Prompt(text), 0.5, 1.0, True, logits, *logits.shape) for text in prompts
        ]
        reused = self.reuses and len(self.asked) % 2 == 0
        return Segmentation(*logits.shape, results, 'threshold', reused)


@pytest.fixture
def clip() -> still_camera.Clip:
    """Four frames; in the last two a thing of level 200 has come, half of it in shade."""
    instances = np.zeros((4, 8, 8), np.uint8)
    instances[2:, :4] = 7
    levels = np.full((4, 8, 8), 20, np.uint8)
    levels[2:, :4], levels[2:, 2:4] = 200, 100
    images = np.repeat(levels[..., None], 3, axis=3)
    return still_camera.Clip(images, instances, np.array([0, 0, 1, 0], bool), ['thing'], [[7]])


def test_counts(clip: still_camera.Clip) -> None:
    settings = [
        still_camera.Setting('exact', Threshold(50)),  # type: ignore[arg-type]
        still_camera.Setting('half', Threshold(150, reuses=True)),  # type: ignore[arg-type]
    ]
    still_camera.run_settings(settings, clip, 0.0, 0)
    exact, half = (setting.row() for setting in settings)
    assert (exact['iou_fg'], exact['miou'], exact['miou_moving'], exact['kept']) == (1, 1, 1, 1)
    assert (half['iou_fg'], half['miou'], half['miou_moving'], half['kept']) == (0.5, 0.5, 0.5, 0.5)
    assert (exact['encoded'], half['encoded'], half['moving']) == (1.0, 0.5, 0.25)
    assert np.isnan(exact['ms_reused'])
    assert half['ms_reused'] > 0
    # Where nothing is there yet, what is found all the same counts in the sum alone.
    wrong = still_camera.Setting('wrong', Threshold(0))  # type: ignore[arg-type]
    still_camera.run_settings([wrong], clip, 0.0, 0)
    assert wrong.row()['iou_fg'] == 0.25
    assert wrong.row()['miou'] == 0.5


def test_every_setting_sees_the_same_noise(clip: still_camera.Clip) -> None:
    one, other = (list(still_camera.noisy_frames(clip, 3.0, 5)) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one[0], one[1]), 'another noise in each frame'
    assert np.std(one[0].astype(float) - clip.images[0]) == pytest.approx(3.0, rel=0.3)


def test_films_what_arrives_and_what_is_pushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(still_camera, 'WIDTH', 128)
    monkeypatch.setattr(still_camera, 'HEIGHT', 96)
    monkeypatch.setattr(still_camera, 'STAGES', (2, 2, 1, 2, 2))
    monkeypatch.setattr(still_camera, 'STEP', 0.03)
    [clip] = still_camera.load_clips(tmp_path, [0])
    assert clip.images.shape == (9, 96, 128, 3)
    assert clip.moving.tolist() == [False, False, True, True, False, True, True, False, False]
    same = [np.array_equal(one, other) for one, other in pairwise(clip.instances)]
    assert same == [True, False, False, True, False, False, True, True]
    came = set(np.unique(clip.instances[4])) - set(np.unique(clip.instances[0]))
    assert len(came) == 1
    assert 0 < len(clip.prompts) <= still_camera.PROMPTS
    assert clip.truth(4).shape == (len(clip.prompts), 96, 128)
    assert clip.truth(4).any(axis=(1, 2)).all()
    monkeypatch.setattr(still_camera, 'record', lambda seed: pytest.fail('it is there already'))
    [again] = still_camera.load_clips(tmp_path, [0])
    np.testing.assert_array_equal(again.images, clip.images)
    assert again.prompts == clip.prompts


def test_on_the_command_line(
    tmp_path: Path, clip: still_camera.Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    def clips(*_: Any) -> Any:
        yield clip

    monkeypatch.setattr(still_camera, 'load_clips', clips)
    words = ['tabletop', '--clips', tmp_path, '--scenes', 1, '--below', 6, '--input-sizes', 64,
             '--noise', 1, '--device', 'cpu', '--output', tmp_path / 'found.json']  # fmt: skip
    still_camera.main([str(word) for word in words])
    report = json.loads((tmp_path / 'found.json').read_text())
    names = [row['setting'] for row in report['rows']]
    assert names == ['exact', 'reuse_below 6', 'input_size 64']
    # The first frame, and the one in which the thing came.
    assert [row['encoded'] for row in report['rows']] == [1.0, 0.5, 1.0]
