"""Validation during training: prompts for what is there, and for what is not."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from tests.training.tiny_runs import log, tiny_settings
from training.datasets.folder import FolderData, FolderSettings
from training.loop.learner import Learner, begin_model
from training.loop.stopping import StopRequest
from training.loop.validation import Validator
from training.metrics.pixels import BINS
from training.train import train

pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture
def folder(tmp_path) -> Path:
    """Six pictures with one of two things each, and a seventh with both."""
    rng = np.random.default_rng(0)
    for number in range(7):
        (tmp_path / 'images').mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8)).save(
            tmp_path / f'images/{number}.png'
        )
        for phrase in ('mug', 'book') if number == 6 else (('mug', 'book')[number % 2],):
            (tmp_path / f'masks/{phrase}').mkdir(parents=True, exist_ok=True)
            mask = np.zeros((48, 64), np.uint8)
            mask[8:24, 8:32] = 255
            Image.fromarray(mask).save(tmp_path / f'masks/{phrase}/{number}.png')
    return tmp_path


def validator(folder: Path, samples: int | None = None, **data) -> Validator:
    data = {'dataset': 'folder', 'folder': str(folder), **data}
    settings = tiny_settings(validation={'data': data, 'samples': samples})
    return Validator(settings.validation, settings.prompts, batch=3, workers=0, seed=0)


def measure(one: Validator):
    torch.manual_seed(0)
    learner = Learner(begin_model(tiny_settings())[0])
    return one.validate(learner, Accelerator(cpu=True), 0, StopRequest())


def test_absent_things_are_asked_for_too_by_default(folder):
    whole = measure(validator(folder))
    # Eight masks; six pictures lack one of the two things, the seventh lacks none.
    assert whole.samples == 8 + 6
    bare = measure(validator(folder, negatives=0.0))
    assert (bare.samples, bare.absent_area) == (8, None)
    assert 0 <= whole.absent_area <= 1
    assert 'absent_area' in whole.scalars()
    assert 'absent_area' not in bare.scalars()
    # What is on in pictures without the thing counts against the model.
    assert whole.iou_fg < bare.iou_fg


def test_a_threshold_that_answers_to_absent_things_is_not_chosen(folder, monkeypatch):
    """A model that is sure of what is there, and half sure of anything else that is asked for."""
    one = validator(folder)

    class Credulous(torch.nn.Module):
        def forward(self, load):
            there = torch.tensor([bool(mask.any()) for mask in load.batch.masks])
            levels = torch.where(load.batch.masks > 0.5, 0.3, 0.05)
            levels[~there] = 0.2
            return torch.zeros(()), levels.logit()

    measured = one.validate(Credulous(), Accelerator(cpu=True), 0, StopRequest())
    assert measured.iou_fg == 1
    assert 0.2 < measured.threshold <= 0.3
    assert measured.absent_area == 0
    alone = validator(folder, negatives=0.0)
    low = alone.validate(Credulous(), Accelerator(cpu=True), 0, StopRequest()).threshold
    assert low <= 0.2 + 1 / BINS


def test_half_of_a_limited_number_are_of_absent_things(folder):
    limited = validator(folder, samples=4)
    assert limited.indices == [0, 7]
    # The last picture lacks nothing.
    assert measure(limited).samples == 2 + 1


def test_a_data_set_of_one_class_is_measured_without(folder):
    for name in ('book', 'mug'):
        for path in (folder / 'masks/book').glob('*') if name == 'book' else ():
            path.unlink()
    (folder / 'masks/book').rmdir()
    found = measure(validator(folder))
    assert found.absent_area is None
    assert found.samples == 4


def test_the_curves_of_a_run_are_a_picture_beside_its_log(folder, tmp_path):
    from training.loop.curves import draw_curves

    data = {'dataset': 'folder', 'folder': str(folder)}
    settings = tiny_settings(validation={'data': data, 'every': 1}, iterations=2)
    train(settings, tmp_path / 'run')
    with Image.open(tmp_path / 'run/curves.png') as picture:
        assert picture.size[0] > 600
        whole = picture.size
    (tmp_path / 'bare.jsonl').write_text('{"iteration": 1, "loss": 0.7}\n')
    (tmp_path / 'bare.png').write_bytes(draw_curves(tmp_path / 'bare.jsonl'))
    with Image.open(tmp_path / 'bare.png') as picture:
        # Without a validation there is one panel.
        assert picture.size[1] < whole[1]
    (tmp_path / 'bare.jsonl').write_text('')
    assert draw_curves(tmp_path / 'bare.jsonl') is None


def test_every_sample_of_a_validation_has_a_line(folder, tmp_path):
    data = {'dataset': 'folder', 'folder': str(folder)}
    settings = tiny_settings(validation={'data': data, 'every': 1}, iterations=2)
    train(settings, tmp_path / 'run')
    for line in (line for line in log(tmp_path / 'run') if 'validation' in line):
        path = tmp_path / f'run/validation/{line["iteration"]:06d}.csv'
        rows = list(csv.DictReader(path.open()))
        assert len(rows) == line['samples'] == 8 + 6
        both, either = (sum(int(row[name]) for row in rows) for name in ('intersection', 'union'))
        assert line['validation']['iou_fg'] == pytest.approx(both / either, abs=1e-5)
        absent = [row for row in rows if row['truth'] == '0']
        assert len(absent) == 6
        area = sum(int(row['mask']) for row in absent) / sum(int(row['pixels']) for row in absent)
        assert line['validation']['absent_area'] == pytest.approx(area, abs=1e-5)
        # Each mask, and what a picture of one thing is asked for besides.
        assert sorted((row['key'], row['phrase']) for row in rows if row['truth'] != '0') == sorted(
            (sample.key, sample.phrase)
            for sample in FolderData(FolderSettings(folder=folder)).each()
        )
        assert {row['phrase'] for row in absent} == {'book', 'mug'}


def test_a_validation_shows_how_far_it_is(folder, capsys):
    measure(validator(folder))
    assert 'validation: ' in capsys.readouterr().err


def test_the_remedy_is_named_where_absent_things_light_up(folder, tmp_path, capsys):
    data = {'dataset': 'folder', 'folder': str(folder)}
    settings = tiny_settings(validation={'data': data, 'every': 1}, iterations=1)
    train(settings, tmp_path / 'run')
    (line,) = [line for line in log(tmp_path / 'run') if 'validation' in line]
    assert line['validation']['absent_area'] > 0.01
    said = capsys.readouterr().err
    assert '--calibrate --empty 0.9' in said
    assert f'{line["validation"]["absent_area"]:.1%} of the picture' in said
