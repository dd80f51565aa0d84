"""The ablation on the tabletop world: its rows, one cache for all of them, and its table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from clipseg_model import create_model
from clipseg_model.prompts import Prompt
from clipseg_model.segmentation import PromptResult
from tests.training.tiny_runs import stop_after
from training.loop.learner import begin_model
from training.papers import ablation as module
from training.papers.ablation import (
    CONFIGS,
    ROWS,
    Asked,
    evaluate_row,
    report,
    row_settings,
    run_row,
)
from training.train import train

#: What is no part of a row's budget.
FREE = {'name', 'model', 'data'}
SMALL = [
    'data.views=6',
    'data.phrases=2',
    'validation.data.views=3',
    'validation.every=10',
    'iterations=20',
    'batch_size=4',
    'save_every=10',
    'prompts.size=96',
    'pictures=1',
]
#: Rows that run in the default suite, one of each architecture; the others differ in numbers, and
#: take longer together than it may.
QUICK = ('pc_plus', 'clsclip')


pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture(autouse=True)
def _few_views(monkeypatch):
    monkeypatch.setattr(module, 'VIEWS', 3)


def losses(folder: Path) -> list[float]:
    lines = map(json.loads, (folder / 'log.jsonl').read_text().splitlines())
    return [line['loss'] for line in lines if 'loss' in line]


def test_there_is_a_file_for_each_row_and_no_other():
    assert {path.stem for path in CONFIGS.glob('*')} == ROWS.keys()


@pytest.mark.parametrize('row', ROWS)
def test_every_row_has_the_same_budget(row, rendered):
    reference = row_settings('pc_plus', rendered, 0).model_dump()
    settings = row_settings(row, rendered, 0)
    assert settings.name == row
    assert settings.towers == 'clipseg_model/weights/tabletop.safetensors'
    changed = {key for key, value in settings.model_dump().items() if value != reference[key]}
    assert changed <= FREE
    # One thing at a time: the data or the model.
    if row != 'pc_plus':
        assert len(changed - {'name'}) == 1
    drawn = {
        key: value for key, value in settings.data.items() if value != reference['data'].get(key)
    }
    assert drawn.keys() <= {'dataset', 'visual', 'negatives'}
    model, _ = begin_model(settings)
    assert model.config()['decoder'] == settings.model['decoder']
    size = settings.prompts.size
    logits = model(torch.zeros(1, 3, size, size), model.embed_texts(['a mug', 'red'])[None])
    assert logits.shape == (1, 2, size, size)


@pytest.mark.parametrize(
    'row',
    [pytest.param(row, marks=() if row in QUICK else pytest.mark.slow) for row in ROWS],
)
def test_a_row_trains_saves_resumes_and_evaluates(row, rendered, tmp_path, monkeypatch):
    run = tmp_path / f'{row}-0'
    with monkeypatch.context() as patch:
        stop_after(patch, 10)
        with pytest.raises(KeyboardInterrupt):
            run_row(row, 0, rendered, tmp_path, SMALL)
    assert torch.load(run / 'last.pt', weights_only=True)['step'] == 10
    assert not (run / 'figures.json').exists()
    run_row(row, 0, rendered, tmp_path, SMALL)
    assert np.isfinite(losses(run)).all()
    figures = json.loads((run / 'figures.json').read_text())
    assert (figures['row'], figures['seed'], figures['iterations']) == (row, 0, 20)
    assert figures['text']['prompts'] == figures['absent']['prompts'] == 12
    for section, key in ((c[1], c[2]) for c in module.COLUMNS):
        if section != 'image':
            assert 0 <= figures[section][key] <= 1, key
    # What is finished is left alone.
    before = (run / 'model.safetensors').stat().st_mtime_ns
    run_row(row, 0, rendered, tmp_path, SMALL)
    assert (run / 'model.safetensors').stat().st_mtime_ns == before


def test_models_share_a_cache_and_learn_as_without_it(rendered, tmp_path, monkeypatch):
    small = [*SMALL, 'iterations=3', 'log_every=1', 'validation=null']
    caches = []
    original = module.cache

    def counting(settings, folder, *rest, **named):
        caches.append((folder, len(list(folder.glob('*.tar')))))
        return original(settings, folder, *rest, **named)

    monkeypatch.setattr(module, 'cache', counting)
    for row, seed in (('one_tap', 0), ('clsclip', 1), ('no_visual', 0)):
        settings = row_settings(row, rendered, seed, small)
        place = module.cached(settings, tmp_path / 'activations')
        live, stored = tmp_path / f'{row}-live', tmp_path / f'{row}-stored'
        train(settings, live)
        train(settings.model_copy(update={'activations': str(place)}), stored)
        assert len(losses(live)) == 3
        np.testing.assert_allclose(losses(stored), losses(live), rtol=1e-3)
    # The second row found what the first had cached; the third has other data.
    assert caches[0][0] == caches[1][0] != caches[2][0]
    assert [count for _, count in caches] == [0, 1, 0]


def result(probability: np.ndarray, score: float) -> PromptResult:
    logits = np.log(probability / (1 - probability)).astype(np.float32)
    height, width = logits.shape
    return PromptResult(Prompt('x'), 0.5, score, True, logits, height, width)


def test_figures_are_those_of_their_definitions():
    asked = Asked()
    truth = np.zeros((4, 5), bool)
    truth[:2] = True
    found = np.full((4, 5), 0.1)
    found[1:3] = 0.9
    asked.add(result(found, 0.8), truth, 0.5)
    nothing = np.zeros((4, 5), bool)
    false = np.full((4, 5), 0.2)
    false[0, :4] = 0.7
    asked.add(result(false, 0.9), nothing, 0.5)
    asked.add(result(np.full((4, 5), 0.2), 0.3), nothing, 0.5)
    present, absent = asked.present_row(0.5), asked.absent_row()
    assert present['prompts'] == 1
    assert present['miou'] == pytest.approx(5 / 15)
    assert present['iou_fg'] == pytest.approx(5 / 15)
    assert absent == {
        'prompts': 2,
        'area_on': pytest.approx(0.1),
        'kept_out': 0.5,
        'presence_auroc': 0.5,
    }


def test_the_bundled_model_is_measured_as_good(rendered):
    """The towers come from it, so that a fault of the measurement would show here."""
    figures = evaluate_row(create_model('tabletop', device='cpu'), rendered, 4)
    assert figures['text']['ap'] > 0.6
    assert figures['absent']['presence_auroc'] > 0.8
    assert figures['absent']['area_on'] < 0.05


def test_the_table_has_means_and_ranges_and_says_what_was_not_run(tmp_path):
    for seed, ap in ((0, 0.5), (1, 0.6)):
        folder = tmp_path / f'pc-{seed}'
        folder.mkdir()
        shown = {'prompts': 9, 'miou': 0.25, 'iou_fg': 0.25, 'ap': ap}
        absent = {'prompts': 9, 'area_on': 0.0125, 'kept_out': 0.5, 'presence_auroc': 0.75}
        figures = {'row': 'pc', 'seed': seed, 'trained_weights': 12345, 'text': shown}
        figures |= {'image': shown, 'absent': absent}
        (folder / 'figures.json').write_text(json.dumps(figures))
    table = report(tmp_path)
    assert (tmp_path / 'report.md').read_text() == table
    assert len(json.loads((tmp_path / 'report.json').read_text())) == 2
    rows = {line.split(' | ')[0].strip('| '): line for line in table.splitlines()[2:]}
    assert rows.keys() == set(ROWS.values())
    assert '| 0, 1 | 12,345 | 0.250 ± 0.000 ' in rows['CLIPSeg (PC)']
    assert '| 0.550 ± 0.050 |' in rows['CLIPSeg (PC)']
    assert '| 1.25 ± 0.00 % | 50.0 ± 0.0 % | 0.750 ± 0.000 |' in rows['CLIPSeg (PC)']
    assert rows['ClsCLIP (PC+)'].startswith('| ClsCLIP (PC+) | not run |')
    columns = table.splitlines()[0].count('|')
    assert {line.count('|') for line in table.splitlines()} == {columns}


def test_the_command_leaves_rows_that_another_one_is_at(rendered, tmp_path, monkeypatch, capsys):
    run: list[str] = []
    monkeypatch.setattr(module, 'run_row', lambda row, seed, *_: run.append(f'{row}-{seed}'))
    arguments = ['tabletop_ablation', str(rendered), str(tmp_path), '--rows', 'pc', 'd16']
    monkeypatch.setattr('sys.argv', [*arguments, '--seeds', '0', '1'])
    with module.claimed(tmp_path / 'locks' / 'pc-0', wait=False) as free:
        assert free
        module.main()
    assert run == ['d16-0', 'pc-1', 'd16-1']
    assert '| CLIPSeg (PC) | not run |' in capsys.readouterr().out
    monkeypatch.undo()
    monkeypatch.setattr('sys.argv', [*arguments, '--set', 'no_such_key=1'])
    with pytest.raises(SystemExit, match='no_such_key'):
        module.main()
