"""Evaluation on any data set: two modes, exact figures, and what stops it."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from phrasecut_files import write_phrasecut
from PIL import Image

from clipseg_model import Segmenter
from clipseg_model.model_card import ModelCard
from tests.training.tiny_runs import Shapes, ShapesSettings, tiny_settings
from training.datasets.phrasecut import PhraseCut, PhraseCutSettings
from training.datasets.refmatte import RefMatte, RefMatteSettings
from training.datasets.samples import sample_rng
from training.evaluation import data_command
from training.evaluation.modes import Evaluation, EvaluationError, evaluate, paper_prompts
from training.loop.learner import begin_model
from training.loop.prompting import square
from training.metrics.classes import SampleIous
from training.metrics.pixels import PixelStatistics
from training.metrics.tally import Tally

pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(3)
    return begin_model(tiny_settings())[0].eval()


@pytest.fixture(scope='module')
def card(model):
    fields = {'name': 'tiny', 'input_size': 64, 'threshold': 0.45, 'prompt_ground': 'mean'}
    return ModelCard.from_stored(fields, model.config(), Path('tiny.safetensors'))


@pytest.fixture(scope='module')
def phrases(tmp_path_factory) -> PhraseCut:
    folder = write_phrasecut(tmp_path_factory.mktemp('data'))
    return PhraseCut(PhraseCutSettings(folder=folder, split='train', crop='none'))


def cpu() -> Accelerator:
    return Accelerator(cpu=True)


def wanted_iou(tally: Tally, threshold: float, planes: list[tuple]) -> None:
    """Figures of whole arrays, by their definitions; probabilities go by levels of 1/200."""
    found = [(np.floor(p.astype(np.float32) * 200) / 200 >= threshold - 1e-9, t) for p, t in planes]
    both = sum(int((m & t).sum()) for m, t in found)
    either = sum(int((m | t).sum()) for m, t in found)
    assert tally.figure('iou_fg', threshold) == pytest.approx(both / either)
    each = [(m & t).sum() / (m | t).sum() for m, t in found]
    assert tally.figure('miou_samples', threshold) == pytest.approx(np.mean(each), abs=1e-8)


class TestPaperMode:
    @pytest.mark.parametrize('fit', ['squeeze', 'pad'])
    def test_figures_are_of_squares_as_training_makes_them(self, model, card, phrases, fit):
        how = Evaluation('paper', size=96, batch=3, fit=fit)
        tally = evaluate(model, card, phrases, how, cpu())
        segmenter = Segmenter(model, replace(card, input_size=96), 'cpu')
        planes = []
        for index in range(len(phrases)):
            sample = phrases.load(index, sample_rng(0, 0, index))
            image, truth, valid = square(sample, 96, fit)
            mean = torch.tensor(model.backbone.mean).view(3, 1, 1)
            std = torch.tensor(model.backbone.std).view(3, 1, 1)
            with torch.no_grad():
                features = model.encode_image(((image - mean) / std)[None])
                condition = torch.from_numpy(segmenter.embed([sample.phrase]))[None]
                logits = model.decode(features, condition)[0, 0]
            on = valid[0].numpy()
            planes.append((logits.sigmoid().numpy()[on], truth[0].numpy()[on] > 0.5))
        wanted_iou(tally, 0.45, planes)
        counted = tally.pixels().foreground.sum() + tally.pixels().background.sum()
        assert counted == sum(truth.size for _, truth in planes)
        assert (counted == len(phrases) * 96 * 96) == (fit == 'squeeze')

    def test_the_default_is_the_papers_square(self, model, card):
        assert Evaluation('paper').described(card)['pixels'] == '352 × 352'
        tally = evaluate(model, card, Shapes(ShapesSettings(samples=2)), Evaluation('paper'), cpu())
        assert tally.pixels().foreground.sum() + tally.pixels().background.sum() == 2 * 352**2

    def test_prompt_images_fade_to_what_the_card_says(self, model, card):
        mean = paper_prompts(card, model, Evaluation('paper')).ground
        assert mean == pytest.approx([255 * level for level in model.backbone.mean])
        black = replace(card, prompt_ground='black')
        assert paper_prompts(black, model, Evaluation('paper')).ground == (0, 0, 0)

    # A loading process is a fork; twice, one in a worker of pytest-xdist took the worker with it.
    @pytest.mark.parametrize('workers', [0, pytest.param(1, marks=pytest.mark.slow)])
    def test_batches_and_workers_change_nothing(self, model, card, phrases, workers):
        reports = [
            evaluate(model, card, phrases, Evaluation('paper', size=64, **how), cpu()).report()
            for how in ({'batch': 1}, {'batch': 4}, {'batch': 2, 'workers': workers})
        ]
        assert reports[1]['at'] == reports[2]['at']
        for one in reports[1:]:
            assert one['ap'] == pytest.approx(reports[0]['ap'], abs=2e-3)

    @pytest.mark.parametrize('mode', ['paper', 'native'])
    def test_what_was_counted_so_far_is_told(self, model, card, phrases, monkeypatch, capsys, mode):
        monkeypatch.setattr('training.evaluation.modes.PARTIAL_EVERY_S', -1.0)
        told: list[int] = []
        how = Evaluation(mode, size=64, batch=1)
        tally = evaluate(
            model,
            card,
            phrases,
            how,
            cpu(),
            [0, 1, 2],
            partial=lambda so_far: told.append(so_far.pixels().samples),
        )
        assert told == [1, 2, 3]
        assert tally.pixels().samples == 3
        assert '/3 [' in capsys.readouterr().err


class TestNativeMode:
    def test_figures_are_of_the_pictures_own_pixels(self, model, card, phrases):
        tally = evaluate(model, card, phrases, Evaluation('native'), cpu())
        segmenter = Segmenter(model, card, 'cpu')
        planes, areas = [], 0
        for index in range(len(phrases)):
            sample = phrases.load(index, sample_rng(0, 0, index))
            (result,) = segmenter.segment(sample.image, [sample.phrase]).results
            planes.append((result.probability, sample.mask))
            areas += sample.mask.size
        wanted_iou(tally, 0.45, planes)
        assert tally.pixels().foreground.sum() + tally.pixels().background.sum() == areas

    def test_support_images_are_asked_with(self, model, card):
        source = Shapes(ShapesSettings(samples=6))
        tally = evaluate(model, card, source, Evaluation('native', 'image'), cpu())
        assert tally.pixels().samples == 3
        assert tally.skipped == {'no support image': 3}
        texts = evaluate(model, card, source, Evaluation('native', 'text'), cpu())
        assert texts.pixels().samples == 6

    def test_masks_respect_presence_and_absent_prompts_are_counted(self, model, card, phrases):
        negatives = phrases.settings.model_copy(update={'negatives': 1.0})
        shy = replace(card, presence_threshold=1.0)
        tally = evaluate(model, shy, PhraseCut(negatives), Evaluation('native'), cpu())
        report = tally.report()
        assert report['absent'] == report['samples'] == len(phrases)
        assert 0 < report['absent_area_on']['0.45'] <= 1
        found = evaluate(model, shy, phrases, Evaluation('native'), cpu()).report()
        assert found['mean_iou_of_masks'] == 0
        assert found['at']['0.45']['iou_fg'] > 0


def test_mattes_are_measured_where_there_are_some(model, card, tmp_path):
    for part in ('image', 'mask'):
        (tmp_path / part).mkdir()
    rng = np.random.default_rng(0)
    picture = cv2.resize(rng.integers(0, 255, (4, 6, 3), np.uint8), (60, 40))
    Image.fromarray(picture).save(tmp_path / 'image/p.png')
    alpha = np.tile(np.linspace(0, 255, 60).astype(np.uint8), (40, 1))
    Image.fromarray(alpha).save(tmp_path / 'mask/p_0.png')
    entries = {'p_0': {'image_name': 'p', 'expressions': ['the dog', 'a lively dog']}}
    (tmp_path / 'refmatte_rw100_label.json').write_text(json.dumps(entries))
    labels = tmp_path / 'refmatte_rw100_label.json'
    folders = {'images': tmp_path / 'image', 'mattes': tmp_path / 'mask'}
    data = RefMatte(RefMatteSettings(labels=labels, **folders))
    tally = evaluate(model, card, data, Evaluation('native'), cpu())
    segmenter = Segmenter(model, card, 'cpu')
    off = [
        np.abs(segmenter.segment(picture, [phrase]).results[0].probability - alpha / 255)
        for phrase in ('the dog', 'a lively dog')
    ]
    assert tally.figure('matting.per_matte.mad') == pytest.approx(np.mean(off), abs=1e-5)
    assert tally.report()['matting']['expressions'] == 2
    assert tally.report()['matting']['mattes'] == 1


def test_mean_over_samples_is_the_formula_at_every_threshold():
    rng = np.random.default_rng(1)
    ious, each = SampleIous(), []
    for _ in range(7):
        probability = rng.random((9, 11)).astype(np.float32)
        truth = rng.random((9, 11)) < 0.3
        one = PixelStatistics()
        one.add(probability, truth)
        ious.add(one)
        levels = np.floor(probability * 200)
        masks = [levels >= step for step in range(201)]
        each.append([(m & truth).sum() / (m | truth).sum() for m in masks])
    ious.add(PixelStatistics())
    assert ious.samples == 7
    np.testing.assert_allclose(ious.mean_iou(), np.mean(each, axis=0), atol=1e-8)
    with pytest.raises(ValueError, match='no sample'):
        SampleIous().mean_iou()


def test_pixels_that_do_not_count_are_in_no_figure():
    rng = np.random.default_rng(4)
    probability = rng.random((8, 10)).astype(np.float32)
    truth, valid = rng.random((2, 8, 10)) < 0.5
    tally = Tally(0.5)
    mask = probability > 0.5
    tally.add(probability, mask, 0.7, truth, valid, class_id=3)
    inside = (mask & truth & valid).sum() / ((mask | truth) & valid).sum()
    assert tally.prompts.mean_iou() == pytest.approx(inside)
    assert tally.figure('miou_samples', 0.5) == pytest.approx(inside)
    assert tally.figure('miou_classes', 0.5) == pytest.approx(inside)
    # Nothing of it is true where it counts.
    tally.add(probability, mask, 0.7, truth & ~valid, valid, class_id=3)
    assert tally.report()['absent'] == 1
    assert tally.prompts.absent.sum() == 1


def test_broken_records_are_counted_and_reported(model, card):
    source = Shapes(ShapesSettings(samples=4, broken=2, visual=False))
    tally = evaluate(model, card, source, Evaluation('native'), cpu())
    assert tally.skipped == {'missing image': 1}
    assert tally.pixels().samples == 3


def test_random_crops_are_refused(model, card, phrases):
    cropped = PhraseCut(phrases.settings.model_copy(update={'crop': 'random'}))
    with pytest.raises(EvaluationError, match='crop: none'):
        evaluate(model, card, cropped, Evaluation('native'), cpu())


class TestCommand:
    @pytest.fixture(autouse=True)
    def _where(self, repository, monkeypatch):
        monkeypatch.chdir(repository)

    data = "{dataset: 'tests.training.tiny_runs:Shapes', samples: 4, visual: false}"

    def test_the_result_says_its_mode(self, tmp_path, capsys):
        for mode in ('paper', 'native'):
            data_command.main(
                ['tabletop', '--mode', mode, '--data', self.data, '--threshold', '0.3']
                + ['--output', str(tmp_path / f'{mode}.json')]
                + (['--size', '64'] if mode == 'paper' else [])
            )
        paper, native = (
            json.loads((tmp_path / f'{mode}.json').read_text()) for mode in ('paper', 'native')
        )
        assert (paper['mode'], paper['pixels'], paper['fit']) == ('paper', '64 × 64', 'squeeze')
        assert (native['mode'], native['pixels']) == ('native', "the pictures' own")
        assert native['input_size'] == 256
        assert native['data']['samples'] == 4
        assert set(native['at']) == {'0.3', f'{native["threshold"]:g}'}
        assert native['best']['iou_fg']['value'] >= native['at']['0.3']['iou_fg']
        assert 'native mode' in capsys.readouterr().out

    @pytest.mark.parametrize('mode', ['paper', 'native'])
    def test_records_that_are_broken_when_the_data_are_opened_are_told(
        self, tmp_path, capsys, mode
    ):
        folder = write_phrasecut(tmp_path)
        path = folder / 'refer_train.json'
        records = json.loads(path.read_text())
        path.write_text(json.dumps([{**records[1], 'Polygons': [5]}, *records[2:5]]))
        data = f'{{dataset: phrasecut, folder: {folder}, crop: none, bad_records: skip}}'
        output = tmp_path / 'found.json'
        data_command.main(
            ['tabletop', '--mode', mode, '--data', data, '--output', str(output)]
            + (['--size', '64'] if mode == 'paper' else [])
        )
        found = json.loads(output.read_text())
        assert (found['skipped'], found['samples']) == ({'bad polygon': 1}, 3)
        told = capsys.readouterr()
        assert 'left out, bad polygon: 1' in told.out
        assert 'task 11__11001__11002, has' in told.err

    def test_an_evaluation_that_breaks_off_leaves_what_it_had(self, tmp_path, monkeypatch):
        monkeypatch.setattr('training.evaluation.modes.PARTIAL_EVERY_S', -1.0)
        kept = data_command.write_figures

        def then_broken_off(path, report):
            kept(path, report)
            if report['samples'] == 2:
                raise KeyboardInterrupt

        command = ['tabletop', '--mode', 'native', '--data', self.data]
        output, samples = tmp_path / 'found.json', tmp_path / 'samples.csv'
        command += ['--csv', str(samples)]
        with monkeypatch.context() as patch:
            patch.setattr(data_command, 'write_figures', then_broken_off)
            with pytest.raises(KeyboardInterrupt):
                data_command.main([*command, '--output', str(output)])
        found = json.loads(output.read_text())
        assert (found['complete'], found['samples'], found['mode']) == (False, 2, 'native')
        assert [row['index'] for row in csv.DictReader(samples.open())] == ['0', '1']
        data_command.main([*command, '--output', str(output)])
        found = json.loads(output.read_text())
        assert found['samples'] == 4
        assert 'complete' not in found
        assert len(samples.read_text().splitlines()) == 1 + 4

    def test_a_mode_is_wanted(self, capsys):
        with pytest.raises(SystemExit):
            data_command.main(['tabletop', '--data', self.data])
        assert '--mode' in capsys.readouterr().err

    @pytest.mark.parametrize(
        ('more', 'message'),
        [
            (['--mode', 'native', '--fit', 'pad'], 'of paper mode'),
            (['--mode', 'native', '--threshold', '1.5'], 'strictly between'),
            (['--mode', 'paper', '--template', 'ensemble'], 'is 9 captions'),
            (['--mode', 'native', '--data', '{folder: x}'], 'names no data set'),
            (['--mode', 'native', '--data', 'nowhere.yaml'], 'cannot be read'),
            (['--mode', 'native', '--data', '{dataset: folder, folder: nowhere}'], 'nowhere'),
        ],
    )
    def test_mistakes_are_named(self, more, message):
        with pytest.raises(SystemExit, match=message):
            data_command.main(['tabletop', '--data', self.data, *more])

    def test_a_file_of_a_training_run_brings_its_validation_data(self):
        found = data_command.read_data('training/configs/clipseg_pc_plus.yaml')
        assert found['split'] == 'val'

    @pytest.mark.slow
    def test_two_processes_report_what_one_reports(self, repository, tmp_path):
        outputs = [tmp_path / 'one.json', tmp_path / 'two.json']
        command = ['-m', 'training.evaluate', 'data', 'tabletop', '--mode', 'native']
        command += ['--data', self.data, '--device', 'cpu', '--output']
        run = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2']
        environment = {'PYTHONPATH': str(repository), 'OMP_NUM_THREADS': '1'}
        data_command.main([*command[3:], str(outputs[0])])
        subprocess.run(
            [sys.executable, *run, *command, str(outputs[1])],
            check=True, cwd=repository, env={**os.environ, **environment}, timeout=200,
            capture_output=True,
        )  # fmt: skip
        one, two = (json.loads(path.read_text()) for path in outputs)
        assert (one.pop('processes'), two.pop('processes')) == (1, 2)
        assert one == two
