"""The papers' tables: what was published, and that rows are measured by their protocols."""

from __future__ import annotations

import csv
import json
import os
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from phrasecut_files import write_phrasecut
from PIL import Image
from test_configs import write_coco, write_voc

from clipseg_model.prompting.templates import TEMPLATES
from clipseg_model.weights.checkpoints import load_checkpoint, save_checkpoint
from tests.training.tiny_runs import tiny_settings
from training import benchmark
from training.datasets.pascal import VOC_NAMES, Pascal5i, PascalSettings, PascalZeroShot
from training.datasets.phrasecut import PhraseCut, PhraseCutSettings
from training.evaluation import modes
from training.evaluation.modes import Evaluation, evaluate
from training.loop.learner import begin_model
from training.loop.settings import load_settings
from training.metrics.classes import ConfusionMatrix
from training.metrics.tally import CURVES, SCALARS
from training.papers import table as benchmark_table
from training.papers.published import TableError, filled, load_published
from training.papers.table import Options, run_table, samples_file

CONFIGS = Path(__file__).parents[3] / 'training' / 'configs'


pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory) -> Path:
    torch.manual_seed(5)
    model = begin_model(tiny_settings())[0]
    path = tmp_path_factory.mktemp('weights') / 'tiny.safetensors'
    save_checkpoint(path, model, {'name': 'tiny', 'input_size': 64, 'prompt_ground': 'mean'})
    return path


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    """Small files of the publishers' formats, where the tables look for them."""
    root = tmp_path_factory.mktemp('data')
    write_phrasecut(root)
    (root / 'VOCdevkit').mkdir()
    voc = write_voc(root / 'VOCdevkit')
    names = [f'val_{number}' for number in range(1, 21)]
    (voc / 'ImageSets/Segmentation/val.txt').write_text('\n'.join(names))
    # Those files show classes of the first fold alone.
    for number in range(6, 21):
        picture = np.random.default_rng(number).integers(0, 256, (96, 128, 3), np.uint8)
        Image.fromarray(picture).save(voc / f'JPEGImages/val_{number}.jpg')
        labels = np.zeros((96, 128), np.uint8)
        labels[: 60 + number, 8:80] = number
        labels[90:] = 255
        Image.fromarray(labels).save(voc / f'SegmentationClass/val_{number}.png')
    (root / 'coco').mkdir()
    write_coco(root / 'coco')
    return root


def measured(report) -> dict[str, list[float | None]]:
    return {row.name: [cell.measured for cell in cells] for row, cells in report.rows}


class TestPublished:
    def test_numbers_that_the_paper_has(self):
        published = load_published()
        three = {row.name: row.values for row in published.table('clipseg/3').rows}
        assert three['CLIPSeg (PC+)'] == [43.4, 54.7, 76.7]
        assert three['CLIPSeg (PC, D = 128)'] == [48.2, 56.5, 78.2]
        five = {row.name: row.values for row in published.table('clipseg/5').rows}
        assert five['CLIPSeg (PC+)'] == [59.5, 75.0, 82.3]
        assert {f'clipseg/{number}' for number in range(1, 10)} < published.tables.keys()

    def test_every_source_says_what_was_read(self):
        for source in load_published().sources.values():
            assert source.url.startswith('https://')
            assert source.read

    def test_every_row_can_be_trained_by_the_command_that_is_named(self):
        checked = 0
        for table in load_published().tables.values():
            for row in table.rows:
                for part in table.parts.values() if row.config else ():
                    for variant in part.variants():
                        changes = [*row.set, *([] if row.whole else part.set)]
                        name = row.run_name(part, variant)
                        changes = [filled(change, variant) for change in [*changes, f'name={name}']]
                        settings = load_settings(CONFIGS / f'{row.config}.yaml', changes)
                        assert settings.name == name
                        checked += 1
        assert checked > 60

    def test_runs_of_different_settings_have_different_names(self):
        meant: dict[str, str] = {}
        for table in load_published().tables.values():
            for row in table.rows:
                for part in table.parts.values() if row.config else ():
                    for variant in part.variants():
                        command = row.train_command(part, variant)
                        assert meant.setdefault(row.run_name(part, variant), command) == command

    def test_parts_and_columns_mean_something(self):
        for table in load_published().tables.values():
            for part in table.parts.values():
                assert len(TEMPLATES[part.template]) == 1
            for column in table.columns:
                if column.metric in CURVES:
                    assert column.at is not None
                elif column.metric is not None and not column.metric.startswith('matting.'):
                    classes = ('seen', 'unseen', 'seen_published', 'unseen_published')
                    assert column.metric in (*SCALARS, *classes)
                    assert column.at is None

    def test_folds_are_filled_in(self):
        text = {'fold': '{fold}', 'set': ['a/{fold}', 'b={x: {fold}}']}
        assert filled(text, {'fold': 2}) == {'fold': 2, 'set': ['a/2', 'b={x: 2}']}

    def test_an_unknown_table_is_named(self):
        with pytest.raises(TableError, match=r"no table 'clipseg/33'; there are clipseg/1,"):
            load_published().table('clipseg/33')


def test_table_3_measures_phrasecut_at_the_papers_threshold(checkpoint, data, tmp_path, repository):
    rows = ['CLIPSeg (PC+)', 'CLIP-Deconv']
    options = Options(
        data, tmp_path, {rows[0]: str(checkpoint)}, ['split=val_miniv'], size=64, batch=2
    )
    report = run_table('clipseg/3', options, rows, tmp_path / 'out', Accelerator(cpu=True))
    model, card = load_checkpoint(checkpoint)
    folder = data / 'VGPhraseCut_v0'
    source = PhraseCut(PhraseCutSettings(folder=folder, split='val_miniv', crop='none'))
    how = Evaluation('paper', template='plain', size=64)
    tally = evaluate(model, card, source, how, Accelerator(cpu=True))
    wanted = [tally.figure('miou_samples', 0.3), tally.figure('iou_fg', 0.3)]
    wanted += [tally.figure('ap_published'), tally.figure('ap')]
    np.testing.assert_allclose(measured(report)[rows[0]], np.array(wanted) * 100, atol=1e-4)
    assert measured(report)['CLIP-Deconv'] == [None] * 4
    reasons = report.not_run()
    (training,) = (reason for reason in reasons if 'clip_deconv' in reason)
    assert training.endswith('python -m training.train training/configs/clip_deconv.yaml')
    assert 'MDETR' in reasons['not asked for (--row)']

    text = (tmp_path / 'out/table.md').read_text()
    assert f'| CLIPSeg (PC+) | 0.3 | 43.4 / **{100 * wanted[0]:.1f}** |' in text
    assert '| MDETR |  | 53.7 / – | – / – | – / – | – / – |' in text
    assert '| IoU_FG | AP (as published) | AP |' in text
    assert 'mode paper, pixels 64 × 64' in text
    lines = list(csv.DictReader((tmp_path / 'out/table.csv').open()))
    assert len(lines) == 40
    assert float(lines[1]['difference']) == pytest.approx(100 * wanted[1] - 54.7, abs=1e-4)
    assert lines[1]['mode'] == 'paper'
    plot = ElementTree.fromstring((tmp_path / 'out/table.svg').read_text())
    # One panel for each column: the published numbers, and the one that was measured.
    svg = '{http://www.w3.org/2000/svg}'
    for number in range(4):
        published = sum(cells[number].published is not None for _, cells in report.rows)
        for name, count in (('published', published), ('measured', 1)):
            assert len(plot.findall(f'.//{svg}g[@id="{name} {number}"]//{svg}use')) == count
    samples = list(csv.DictReader((tmp_path / 'out/samples_CLIPSeg_PC+_test.csv').open()))
    assert len(samples) == tally.pixels().samples
    of_masks = tally.report([])['mean_iou_of_masks']
    assert np.mean([float(one['iou']) for one in samples]) == pytest.approx(of_masks, abs=1e-5)
    result = json.loads((tmp_path / 'out/table.json').read_text())
    assert result['rows'][0]['cells'][0]['measured'] == pytest.approx(100 * wanted[0], abs=1e-4)
    assert result['source']['where'] == 'Table 3'


@pytest.fixture
def of_folds(checkpoint, tmp_path) -> str:
    """A checkpoint for each fold and part, all the same here."""
    for name in ('0', '1', '2', '3', 'unseen-4', 'unseen-10'):
        (tmp_path / f'tiny-{name}.safetensors').write_bytes(checkpoint.read_bytes())
    return f'{tmp_path}/tiny-{{fold}}.safetensors'


def test_folds_are_averaged_and_the_caption_is_the_protocols(checkpoint, data, tmp_path, of_folds):
    row = 'CLIPSeg (PC+)'
    options = Options(data, tmp_path, {row: of_folds}, size=64)
    found = measured(run_table('clipseg/7', options, [row], None, Accelerator(cpu=True)))[row]
    model, card = load_checkpoint(checkpoint)
    wanted = []
    for fold in range(4):
        folder = data / 'VOCdevkit/VOC2012'
        source = Pascal5i(PascalSettings(folder=folder, fold=fold, split='val'))
        how = Evaluation('paper', template='fixed', fit='pad', size=64)
        tally = evaluate(model, card, source, how, Accelerator(cpu=True), source.protocol(0))
        figures = [tally.figure('miou_classes', 0.3), tally.figure('iou_bin', 0.3)]
        wanted.append([*figures, tally.figure('ap_published'), tally.figure('ap')])
    assert len({tuple(figures) for figures in wanted}) == 4
    folds = [100 * figures[0] for figures in wanted]
    np.testing.assert_allclose(found, [*(100 * np.mean(wanted, axis=0)), *folds])


def test_samples_of_every_measurement_have_a_file_of_their_own():
    for table in load_published().tables.values():
        names = [
            samples_file(row.name, key, variant)
            for row in table.rows
            for key, part in table.parts.items()
            for variant in part.variants()
        ]
        assert len(set(names)) == len(names)
    assert samples_file('CLIPSeg (PC, D = 128)', 'folds', {'fold': 2}) == (
        'samples_CLIPSeg_PC_D_128_folds_2.csv'
    )


def test_samples_so_far_are_kept_while_a_row_is_measured(checkpoint, data, tmp_path, monkeypatch):
    monkeypatch.setattr(modes, 'PARTIAL_EVERY_S', 0.0)
    lengths = []
    original = benchmark_table.write_csv

    def write(path, listed):
        listed = list(listed)
        lengths.append(len(listed))
        original(path, listed)

    monkeypatch.setattr(benchmark_table, 'write_csv', write)
    row = 'CLIPSeg (PC+)'
    options = Options(data, tmp_path, {row: str(checkpoint)}, ['split=train'], size=64, batch=2)
    run_table('clipseg/3', options, [row], tmp_path / 'out', Accelerator(cpu=True))
    assert lengths == [2, 4, 6, 7, 7]


class TestInterrupted:
    row = 'CLIPSeg (PC+)'

    @pytest.fixture
    def run(self, data, tmp_path, of_folds, monkeypatch):
        """Runs the row, and counts the folds that are measured."""
        measurements = []
        original = benchmark_table.evaluate

        def evaluate_until(*arguments, stop=None, **more):
            if len(measurements) == stop:
                raise KeyboardInterrupt
            measurements.append(arguments)
            return original(*arguments, **more)

        def run(out, stop=None, samples=2):
            measurements.clear()
            monkeypatch.setattr(benchmark_table, 'evaluate', partial(evaluate_until, stop=stop))
            options = Options(data, tmp_path, {self.row: of_folds}, size=64, samples=samples)
            report = run_table('clipseg/7', options, [self.row], out, Accelerator(cpu=True))
            return measured(report)[self.row], len(measurements)

        return run

    @pytest.mark.slow
    def test_a_row_keeps_its_finished_folds_and_goes_on(self, run, tmp_path, capsys):
        whole = run(tmp_path / 'whole')
        assert whole[1] == 4
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / 'parts', stop=3)
        assert run(tmp_path / 'parts') == (whole[0], 1)
        assert capsys.readouterr().err.count('kept from before: CLIPSeg (PC+)') == 3
        assert run(tmp_path / 'parts') == (whole[0], 0)

    @pytest.mark.slow
    def test_what_was_measured_otherwise_does_not_count(self, run, tmp_path):
        run(tmp_path / 'out')
        assert run(tmp_path / 'out', samples=1)[1] == 4
        checkpoint = tmp_path / 'tiny-2.safetensors'
        os.utime(checkpoint, (1, 1))
        assert run(tmp_path / 'out')[1] == 1

    def test_a_damaged_file_is_named(self, run, tmp_path):
        (tmp_path / 'out').mkdir()
        (tmp_path / 'out/finished.json').write_text('[{')
        with pytest.raises(TableError, match=r'finished\.json cannot be read: .* Remove it'):
            run(tmp_path / 'out')


class TestOneCheckpointForAllFolds:
    row = 'CLIPSeg (PC+)'

    def test_it_is_refused(self, checkpoint, data, tmp_path):
        options = Options(data, tmp_path, {self.row: str(checkpoint)}, size=64, samples=1)
        report = run_table('clipseg/5', options, [self.row], None, Accelerator(cpu=True))
        assert measured(report)[self.row] == [None] * 8
        (reason,) = (reason for reason in report.not_run() if 'one checkpoint' in reason)
        assert 'named with {fold} in place of 0, 1, 2, 3; --seen-in-training' in reason

    @pytest.mark.parametrize(
        ('table', 'refused'), [('clipseg/4', 8), ('clipseg/8', 9), ('clipseg/7', 8)]
    )
    def test_parts_with_a_run_of_their_own_refuse_it_too(self, table, refused, data, tmp_path):
        options = Options(data, tmp_path, {self.row: 'missing'}, size=64, samples=1)
        report = run_table(table, options, [self.row], None, Accelerator(cpu=True))
        (_, cells), *_ = ((row, cells) for row, cells in report.rows if row.name == self.row)
        assert sum('is one checkpoint' in cell.reason for cell in cells) == refused

    def test_it_is_marked(self, checkpoint, data, tmp_path):
        models = {self.row: str(checkpoint)}
        options = Options(data, tmp_path, models, size=64, samples=1, seen=True)
        out = tmp_path / 'out'
        report = run_table('clipseg/7', options, [self.row], out, Accelerator(cpu=True))
        assert None not in measured(report)[self.row][:2]
        assert f'| {self.row} (seen in training) | 0.3 |' in (out / 'table.md').read_text()
        marks = {r['mark'] for r in csv.DictReader((out / 'table.csv').open()) if r['measured']}
        assert marks == {'seen in training'}

    def test_rows_without_folds_take_it(self, checkpoint, data, tmp_path):
        options = Options(data, tmp_path, {self.row: str(checkpoint)}, ['split=miniv'], size=64)
        report = run_table('clipseg/3', options, [self.row], None, Accelerator(cpu=True))
        assert None not in measured(report)[self.row]
        (_, cells), *_ = ((row, cells) for row, cells in report.rows if row.name == self.row)
        assert {cell.mark for cell in cells} == {''}


def test_zero_shot_asks_for_all_classes_at_once(checkpoint, data, tmp_path, of_folds, capsys):
    row = 'CLIPSeg (PC+)'
    options = Options(data, tmp_path, {row: of_folds.replace('{fold}', '{part}')}, size=64)
    report = run_table('clipseg/4', options, [row], tmp_path / 'out', Accelerator(cpu=True))
    found = measured(report)[row]
    assert '/20 [' in capsys.readouterr().err
    model, _ = load_checkpoint(checkpoint)
    scenes = PascalZeroShot(data / 'VOCdevkit/VOC2012', 10)
    matrix = ConfusionMatrix.of(21)
    names = [*VOC_NAMES]
    names[1] = 'airplane'
    mean = torch.tensor(model.backbone.mean).view(1, 3, 1, 1)
    std = torch.tensor(model.backbone.std).view(1, 3, 1, 1)
    for scene in scenes.each():
        image = torch.from_numpy(scene.image).permute(2, 0, 1)[None].float()
        image = torch.nn.functional.interpolate(
            image, (64, 64), mode='bilinear', align_corners=True
        )
        labels = torch.nn.functional.interpolate(
            torch.from_numpy(scene.labels)[None, None].float(), (64, 64)
        )
        with torch.no_grad():
            features = model.encode_image((image / 255 - mean) / std)
            chances = model.decode(features, model.embed_texts(names)[None])[0].sigmoid()
        chances[0] *= 3
        matrix.add(chances.argmax(0).numpy(), labels[0, 0].numpy().astype(np.uint8))
    ious = 100 * matrix.ious()
    columns = []
    # As published, "seen" are 16 … 20 (unseen-10) and 10, 14 (unseen-4), "unseen" all others.
    for first in ([16, 17, 18, 19, 20], [10, 14]):
        columns += [ious[first].mean(), np.delete(ious, first).mean()]
    for held_out in ([1, 5, 8, 9, 10, 14, 16, 18, 19, 20], [1, 10, 14, 18]):
        columns += [np.delete(ious, held_out).mean(), ious[held_out].mean()]
    np.testing.assert_allclose(found, columns)
    rows = list(csv.DictReader((tmp_path / 'out/samples_CLIPSeg_PC+_unseen-10.csv').open()))
    assert len({line['key'] for line in rows}) == len(scenes)
    for number, iou in enumerate(ious):
        lines = [line for line in rows if line['class'] == str(number)]
        both, either = (sum(int(line[n]) for line in lines) for n in ('intersection', 'union'))
        np.testing.assert_allclose(100 * both / either if either else np.nan, iou)


def test_coco_is_measured_in_episodes_for_each_fold(of_folds, data, tmp_path):
    row = 'CLIPSeg (COCO)'
    options = Options(data, tmp_path, {row: of_folds}, size=64, samples=4)
    report = run_table('clipseg/6', options, [row], tmp_path / 'out', Accelerator(cpu=True))
    values = measured(report)[row]
    assert all(0 < value < 100 for value in [*values[:2], *values[3:]]), report.not_run()
    assert 'not comparable' in (tmp_path / 'out/table.md').read_text()


def test_checkpoints_of_all_folds_are_wanted_before_any_is_run(checkpoint, data, tmp_path):
    there = tmp_path / 'clipseg_coco-0'
    there.mkdir()
    (there / 'model.safetensors').write_bytes(checkpoint.read_bytes())
    options = Options(data, tmp_path, size=64, samples=1)
    report = run_table('clipseg/6', options, ['CLIPSeg (COCO)'], None, Accelerator(cpu=True))
    (reason,) = (reason for reason in report.not_run() if 'clipseg_coco-1' in reason)
    assert 'clipseg_coco-3' in reason
    assert 'clipseg_coco-0/' not in reason


class TestCommand:
    def test_it_prints_the_table_with_what_is_missing(self, tmp_path, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        benchmark.main(['--table', 'clipseg/3', '--device', 'cpu', '--workers', '0'])
        text = capsys.readouterr().out
        assert '| CLIPSeg (PC, D = 128) | 0.3 | 48.2 / – | 56.5 / – | 78.2 / – | – / – |' in text
        assert 'no checkpoint runs/train/clipseg_pc_d128/model.safetensors' in text

    def test_it_lists_the_tables(self, capsys):
        benchmark.main(['table', '--table', 'list'])
        assert 'refmatte/rw100' in capsys.readouterr().out

    def test_data_that_are_missing_are_named(self, checkpoint, tmp_path, capsys):
        benchmark_table.main(
            [
                *('--table', 'refmatte/rw100', '--model', f'CLIPSeg (ViT-B/16)={checkpoint}'),
                *('--data', str(tmp_path), '--workers', '0', '--device', 'cpu'),
            ]
        )
        assert 'RefMatte is on request' in capsys.readouterr().out

    @pytest.mark.parametrize(
        ('words', 'message'),
        [
            (['--table', 'clipseg/12'], 'no table'),
            (['--table', 'clipseg/3', '--row', 'CLIPSeg'], "no row 'CLIPSeg'; it has CLIPSeg"),
            (['--table', 'clipseg/3', '--model', 'clipseg-rd64'], '2'),
        ],
    )
    def test_mistakes_are_named(self, words, message, capsys):
        with pytest.raises(SystemExit) as stopped:
            benchmark_table.main([*words, '--device', 'cpu'])
        assert message in str(stopped.value)
