"""ClsCLIP+ in tables: regions of a detector, of the truth, and boxes as masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from test_configs import write_voc

from clipseg_model import Segmenter
from clipseg_model.weights.checkpoints import load_checkpoint, save_checkpoint
from clipseg_model.zoom import torchvision_detectors
from clipseg_model.zoom.detectors import Detection, DetectorProposals
from tests.training.tiny_runs import tiny_settings
from training.datasets.pascal import Pascal5i, PascalSettings
from training.datasets.samples import Sample
from training.evaluation.modes import Evaluation, EvaluationError, evaluate
from training.loop.learner import begin_model
from training.papers.published import Table, load_published
from training.papers.regions import BoxesAsMasks, true_boxes, zoom_for
from training.papers.table import Options, run_table

pytestmark = pytest.mark.usefixtures('one_thread')

#: Where the pictures of write_voc have their things, and how far a detector is off.
BOX = (8.0, 8.0, 80.0, 80.0)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory) -> Path:
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp('weights') / 'tiny.safetensors'
    save_checkpoint(path, begin_model(tiny_settings())[0], {'name': 'tiny', 'input_size': 64})
    return path


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('data')
    (root / 'VOCdevkit').mkdir()
    write_voc(root / 'VOCdevkit')
    return root


class Detector:
    """Sees an airplane, as COCO calls it, in every picture, and a person that nobody asks for."""

    categories = ('__background__', 'airplane', 'bicycle', 'bird', 'boat', 'bottle', 'person')

    def __call__(self, image, names):
        return [Detection('airplane', 0.9, BOX), Detection('person', 0.9, (0.0, 0.0, 9.0, 9.0))]


def test_table_7_beside_the_truth(checkpoint, data, monkeypatch):
    monkeypatch.setattr(torchvision_detectors, 'load_detector', lambda *_, **__: Detector())
    models = {'Detector': str(checkpoint), 'Manual boxes': str(checkpoint)}
    options = Options(data, Path('none'), models, seen=True)
    report = run_table('clsclip+/7', options, list(models), None, Accelerator(cpu=True))
    found = {row.name: [cell.measured for cell in cells] for row, cells in report.rows}
    model, card = load_checkpoint(checkpoint)
    source = Pascal5i(PascalSettings(folder=data / 'VOCdevkit/VOC2012', fold=0, split='val'))
    how = Evaluation('native', template='plain')
    for name, kind in (('Detector', 'detector'), ('Manual boxes', 'manual')):
        zoom = zoom_for(kind, 'any', 'cpu')
        tally = evaluate(
            model, card, source, how, Accelerator(cpu=True), source.protocol(0), zoom=zoom
        )
        assert found[name] == [pytest.approx(100 * tally.figure('miou_classes', 0.5))]
    # A person's region is no airplane's, and a bicycle has no region: it is found nowhere.
    assert found['Detector'] < found['Manual boxes']


def test_table_6_takes_the_boxes_for_masks(data, monkeypatch):
    monkeypatch.setattr(torchvision_detectors, 'load_detector', lambda *_, **__: Detector())
    row = "Detector's boxes"
    # No model is named, and none was trained: the row needs none.
    options = Options(data, Path('none'), changes=['fold=0'])
    report = run_table('clsclip+/6', options, [row], None, Accelerator(cpu=True))
    found = dict(zip(['mIoU', 'FB-IoU'], [c.measured for c in report.rows[0][1]], strict=True))
    # One class of five is detected, and its boxes are the truth.
    assert found['mIoU'] == pytest.approx(100 / 5, abs=0.01)


def test_boxes_as_masks_are_the_boxes(checkpoint):
    segmenter = Segmenter(*load_checkpoint(checkpoint), 'cpu')
    detect = Detector()
    segmenter.zoom = BoxesAsMasks(DetectorProposals(detect, detect.categories))
    image = np.zeros((96, 128, 3), np.uint8)
    found = segmenter.segment(image, ['aeroplane', 'bicycle'])
    truth = np.zeros((96, 128), bool)
    truth[8:80, 8:80] = True
    assert np.array_equal(found.results[0].mask, truth)
    assert not found.results[1].mask.any()


def test_true_boxes_are_around_the_parts_of_the_truth():
    mask = np.zeros((40, 50), bool)
    mask[2:12, 3:8] = True
    mask[20:22, 30:45] = True
    sample = Sample('one', 'thing', np.zeros((40, 50, 3), np.uint8), mask)
    assert sorted(true_boxes(sample)) == [(3, 2, 5, 10), (30, 20, 15, 2)]
    nothing = Sample('none', 'thing', sample.image, np.zeros_like(mask))
    assert true_boxes(nothing) == []


def test_a_detector_that_is_not_here_is_the_reason_why_a_row_was_not_run(
    checkpoint, data, tmp_path, monkeypatch
):
    monkeypatch.setenv('CLIPSEG_MODELS', str(tmp_path))
    options = Options(data, Path('none'), {'ClsCLIP+': str(checkpoint)}, ['fold=0'], seen=True)
    report = run_table('clsclip+/4b', options, None, None, Accelerator(cpu=True))
    (reason,) = report.not_run()
    assert 'clipseg download fasterrcnn_resnet50_fpn_v2' in reason


def test_zoom_is_of_native_mode(checkpoint, data):
    source = Pascal5i(PascalSettings(folder=data / 'VOCdevkit/VOC2012', fold=0, split='val'))
    model, card = load_checkpoint(checkpoint)
    zoom = zoom_for('manual', 'any', 'cpu')
    with pytest.raises(EvaluationError, match='native mode'):
        evaluate(
            model, card, source, Evaluation('paper', size=64), Accelerator(cpu=True), zoom=zoom
        )
    table = load_published().table('clsclip+/4b').model_dump()
    with pytest.raises(ValueError, match='of native mode'):
        Table(**{**table, 'mode': 'paper'})


def test_the_tables_of_clsclip_plus_look_at_the_papers_regions():
    tables = load_published().tables
    assert [row.regions for row in tables['clsclip+/7'].rows] == ['detector', 'manual']
    assert [row.regions for row in tables['clsclip+/6'].rows] == ['boxes', 'detector']


def test_each_fold_stands_beside_the_paper(checkpoint, data, tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision_detectors, 'load_detector', lambda *_, **__: Detector())
    models = {'ClsCLIP+': str(checkpoint)}
    options = Options(data, Path('none'), models, samples=1, seen=True, changes=['fold=0'])
    report = run_table('clsclip+/4b', options, None, tmp_path / 'out', Accelerator(cpu=True))
    ((_, cells),) = report.rows
    assert [cell.column for cell in cells] == [*(f'fold {n}' for n in range(4)), 'mean', 'FB-IoU']
    assert [cell.published for cell in cells] == [75.4, 79.2, 60.4, 71.1, 71.5, 80.6]
    assert all(cell.measured is not None for cell in cells)
    assert len(list((tmp_path / 'out').glob('samples_ClsCLIP+_folds_?.csv'))) == 4
