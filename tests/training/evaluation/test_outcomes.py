"""What is kept of each sample: a CSV file, masks as PhraseCut's evaluator reads them, subsets."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from phrasecut_files import write_phrasecut
from PIL import Image, ImageDraw

from clipseg_model.model_card import ModelCard
from clipseg_model.weights.checkpoints import save_checkpoint
from tests.training.tiny_runs import Shapes, ShapesSettings, tiny_settings
from training.datasets.phrasecut import PhraseCut, PhraseCutSettings
from training.datasets.phrasecut_files.subsets import Ranks, Structure
from training.datasets.samples import DataError
from training.evaluation import data_command
from training.evaluation.modes import Evaluation, evaluate
from training.evaluation.outcomes import OutcomeError, Outcomes
from training.loop.learner import begin_model
from training.metrics.outcomes import Outcome, by_subset, figures

pytestmark = pytest.mark.usefixtures('one_thread')
COUNTS = {'cat': [['car', 9], ['mug', 5]], 'att': [['blue', 7], ['red', 3]], 'rel': []}


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory) -> Path:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp('weights') / 'tiny.safetensors'
    save_checkpoint(path, begin_model(tiny_settings())[0], {'name': 'tiny', 'input_size': 64})
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = write_phrasecut(tmp_path)
    (folder / 'name_att_rel_count.json').write_text(json.dumps(COUNTS))
    return folder


def publishers_evaluation(folder: Path, predictions: Path) -> dict[str, float]:
    """IoU of each task by the steps of PhraseCut's evaluator, from its files and the masks."""
    ious = {}
    for task in json.loads((folder / 'refer_train.json').read_text()):
        path = predictions / f'{task["task_id"]}.png'
        if not path.exists():
            continue
        with Image.open(path) as image:
            width, height = image.size
            predicted = np.array(image)
        # It is reshaped to this there, which fails for a picture with colours.
        assert predicted.shape == (height, width)
        truth = np.zeros((height, width))
        for instance in task['Polygons']:
            for polygon in instance:
                drawn = Image.new('L', (width, height), 0)
                corners = [(int(x), int(y)) for x, y in polygon]
                ImageDraw.Draw(drawn).polygon(corners, outline=1, fill=1)
                truth += np.array(drawn)
        both = np.logical_and(truth > 0, predicted > 0).sum()
        ious[task['task_id']] = both / ((truth + predicted) > 0).sum()
    return ious


def run(checkpoint: Path, folder: Path, *more: str) -> dict:
    data = f'{{dataset: phrasecut, folder: {folder}, crop: none, rasteriser: pillow}}'
    words = [str(checkpoint), '--data', data, '--device', 'cpu', *more]
    return data_command.run(data_command.make_parser().parse_args(words))


def test_masks_are_what_phrasecuts_evaluator_reads(checkpoint, folder, tmp_path):
    out, table = tmp_path / 'masks', tmp_path / 'samples.csv'
    result = run(
        checkpoint, folder, '--mode', 'native', '--predictions', str(out), '--csv', str(table)
    )
    theirs = publishers_evaluation(folder, out)
    assert len(theirs) == result['samples'] == 7
    assert len(set(theirs.values())) > 3
    rows = list(csv.DictReader(table.open()))
    assert [row['index'] for row in rows] == [str(number) for number in range(7)]
    found = {row['key']: float(row['iou']) for row in rows}
    assert found == pytest.approx(theirs, abs=1e-6)
    ious = np.array(list(theirs.values()))
    assert result['mean_iou_of_masks'] == pytest.approx(ious.mean())
    assert result['subsets']['all']['mean_iou'] == pytest.approx(ious.mean())
    for limit in (0.5, 0.6, 0.7, 0.8, 0.9):
        share = float((ious > limit).mean())
        assert result['accuracy_of_masks'][f'{limit:g}'] == share
        assert result['subsets']['all']['accuracy'][f'{limit:g}'] == share
    red = [theirs[row['key']] for row in rows if row['phrase'].startswith('red')]
    assert result['subsets']['p_att']['count'] > len(red) == 3
    cars = [theirs[row['key']] for row in rows if row['phrase'].endswith('car')]
    assert result['subsets']['c20']['count'] == len(cars) + 1  # and the mug
    assert result['subsets']['i_multi']['mean_iou'] == pytest.approx(theirs['11__11001__11002'])


def test_paper_mode_keeps_the_figures_of_its_squares(checkpoint, folder, tmp_path):
    table = tmp_path / 'samples.csv'
    how = ('--mode', 'paper', '--size', '64', '--csv', str(table))
    result = run(checkpoint, folder, *how)
    rows = list(csv.DictReader(table.open()))
    assert {row['pixels'] for row in rows} == {str(64 * 64)}
    ious = [int(row['intersection']) / int(row['union']) for row in rows]
    assert result['mean_iou_of_masks'] == pytest.approx(np.mean(ious), abs=1e-8)
    with pytest.raises(data_command.EvaluationError, match='need --mode native'):
        run(checkpoint, folder, '--mode', 'paper', '--predictions', str(tmp_path / 'x'))


def test_files_of_counts_that_are_missing_or_broken(checkpoint, folder, tmp_path):
    counts = folder / 'name_att_rel_count.json'
    counts.write_text('{"cat": 5}')
    data = PhraseCut(PhraseCutSettings(folder=folder, crop='none'))
    with pytest.raises(DataError, match=r'name_att_rel_count\.json has no lists "cat" and "att"'):
        Outcomes(data)
    counts.unlink()
    with pytest.raises(DataError, match=r'name_att_rel_count\.json does not exist'):
        run(checkpoint, folder, '--mode', 'native', '--csv', str(tmp_path / 'samples.csv'))
    # Figures that need no counts need no file of them.
    assert 'subsets' not in run(checkpoint, folder, '--mode', 'paper', '--size', '64')


def test_other_data_sets_have_lines_but_no_masks_by_task(tmp_path):
    torch.manual_seed(3)
    model = begin_model(tiny_settings())[0].eval()
    card = ModelCard.from_stored({'name': 'tiny', 'input_size': 64}, model.config(), Path('x'))
    source = Shapes(ShapesSettings(samples=3))
    outcomes = Outcomes(source)
    evaluate(model, card, source, Evaluation('native'), Accelerator(cpu=True), None, outcomes)
    assert [outcome.index for outcome in outcomes.listed] == [0, 1, 2]
    assert by_subset(outcomes.listed) == {}
    with pytest.raises(OutcomeError, match='form of PhraseCut'):
        Outcomes(source, tmp_path)


class TestSubsets:
    ranks = Ranks(
        {f'thing{number}': number for number in range(600)},
        {f'kind{number}': number for number in range(300)},
    )

    def found(self, share=0.1, **changes) -> set[str]:
        fields = {
            'name': 'thing0',
            'attributes': (),
            'relations': 0,
            'instances': 1,
            'kind': 'name',
            **changes,
        }
        return set(self.ranks.subsets(Structure(**fields), share))

    @pytest.mark.parametrize(
        ('rank', 'wanted'),
        [
            (0, {'c20', 'c100', 'c500'}),
            (19, {'c20', 'c100', 'c500'}),
            (20, {'c21-100', 'c100', 'c500'}),
            (99, {'c21-100', 'c100', 'c500'}),
            (100, {'c101-500', 'c500'}),
            (499, {'c101-500', 'c500'}),
            (500, {'c500+'}),
            (9999, {'c500+'}),
        ],
    )
    def test_categories(self, rank, wanted):
        assert {n for n in self.found(name=f'thing{rank}') if n.startswith('c')} == wanted

    @pytest.mark.parametrize(
        ('ranks', 'wanted'),
        [
            ((), {'a200+'}),  # as the publisher's code has it
            ((250,), {'a200+'}),
            ((250, 30), {'a21-100', 'a100', 'a200'}),
            ((199, 5), {'a20', 'a100', 'a200'}),
            ((150,), {'a101-200', 'a200'}),
        ],
    )
    def test_attributes(self, ranks, wanted):
        found = self.found(attributes=tuple(f'kind{rank}' for rank in ranks))
        assert {name for name in found if name.startswith('a') and name != 'all'} == wanted
        assert ('p_att' in found, 'p_attm' in found) == (len(ranks) > 0, len(ranks) > 1)

    def test_phrases_regions_and_instances(self):
        assert {'p_rel', 'p_relm', 'p_att_rel', 'p_rel+'} <= self.found(
            relations=2, attributes=('kind0',), kind='relation'
        )
        assert not {'p_rel', 'p_relm', 'p_att_rel', 'p_rel+', 'p_verbose'} & self.found()
        assert 'p_verbose' in self.found(kind='verbose')
        shares = {0.0199: 's_small', 0.02: 's_mid', 0.2: 's_mid', 0.2001: 's_large'}
        for share, name in shares.items():
            assert {n for n in self.found(share) if n.startswith('s_')} == {name}
        counts = {1: 'i_single', 2: 'i_multi', 4: 'i_multi', 5: 'i_many', 0: None}
        for count, name in counts.items():
            found = {n for n in self.found(instances=count) if n.startswith('i_')}
            assert found == ({name} if name else set())


def test_figures_by_hand():
    def outcome(both: int, either: int, *subsets: str, truth: int = 9) -> Outcome:
        known = {'index': 0, 'key': '', 'phrase': '', 'class_id': None, 'score': 1.0}
        return Outcome(
            **known, pixels=99, truth=truth, mask=9, intersection=both, union=either,
            subsets=subsets,
        )  # fmt: skip

    listed = [outcome(1, 2, 'x'), outcome(9, 10, 'x', 'y'), outcome(0, 8, 'y', truth=0)]
    found = by_subset(listed)
    assert found['x'] == {
        'count': 2,
        'mean_iou': pytest.approx(0.7),
        'cumulative_iou': pytest.approx(10 / 12),
        # 0.5 is not above 0.5.
        'accuracy': {'0.5': 0.5, '0.6': 0.5, '0.7': 0.5, '0.8': 0.5, '0.9': 0.0},
    }
    # An absent thing has no IoU.
    assert found['y']['count'] == 1
    assert figures(listed[:1])['cumulative_iou'] == 0.5
