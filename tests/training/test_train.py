"""The papers' recipe: tiny runs end to end, what they leave behind, and what stops them."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from phrasecut_files import write_phrasecut
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from clipseg_model import create_model
from clipseg_model.weights.checkpoints import load_card, load_checkpoint
from tests.training.tiny_runs import log, losses, stop_after, tiny, tiny_settings, write
from training.loop.learner import follow_card
from training.loop.run_folder import RunError
from training.train import main, train

pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture(scope='module')
def whole(tmp_path_factory) -> Path:
    """Folder of a run of six iterations in one go."""
    folder = tmp_path_factory.mktemp('runs') / 'whole'
    train(tiny_settings(), folder)
    return folder


def test_a_run_records_itself(whole):
    assert yaml.safe_load((whole / 'config.yaml').read_text())['batch_size'] == 4
    record = json.loads((whole / 'run_000000.json').read_text())
    assert len(record['commit'].removesuffix('-dirty')) == 40
    assert record['packages']['torch'] == importlib.metadata.version('torch')
    assert record['processes'] == 1
    assert sorted(losses(whole)) == [1, 2, 3, 4, 5, 6]
    measured = [line for line in log(whole) if 'validation' in line]
    assert [line['iteration'] for line in measured] == [3, 6]
    assert not list(whole.glob('.*.part'))


def test_the_rate_falls_along_a_cosine_once_or_in_every_cycle(whole, tmp_path):
    def rates(folder: Path) -> list[float]:
        return [line['rate'] for line in log(folder) if 'rate' in line]

    once = [1e-4 + 9e-4 * (1 + math.cos(math.pi * step / 6)) / 2 for step in range(6)]
    assert rates(whole) == pytest.approx(once)
    schedule = {'kind': 'cyclic', 'cycle_epochs': 1.2, 'final_rate': 0}
    train(tiny_settings(schedule=schedule, validation=None), tmp_path / 'cycles')
    # 1.2 epochs of ten samples are three steps of four.
    assert rates(tmp_path / 'cycles') == pytest.approx(2 * [1e-3, 7.5e-4, 2.5e-4])


def test_tensorboard_shows_scalars_and_pictures(whole):
    events = EventAccumulator(str(whole / 'tensorboard'), {'images': 0, 'scalars': 0})
    events.Reload()
    shown = {event.step: event.value for event in events.Scalars('train/loss')}
    assert shown == pytest.approx(losses(whole))
    assert [event.step for event in events.Scalars('validation/iou_fg')] == [3, 6]
    picture = events.Images('validation/0')[0]
    # Picture, truth and prediction side by side.
    assert (picture.width, picture.height) == (3 * 64, 64)


def test_what_comes_out_segments_with_the_weights_of_the_best_validation(whole):
    best = torch.load(whole / 'best.pt', weights_only=True)
    measured = {
        line['iteration']: line['validation'] for line in log(whole) if 'validation' in line
    }
    assert best['step'] == max(measured, key=lambda step: measured[step]['iou_fg'])
    model, card = load_checkpoint(whole / 'model.safetensors')
    for name, value in best['trained'].items():
        assert torch.equal(model.state_dict()[name], value), name
    assert card.name == 'tiny'
    assert card.threshold == measured[best['step']]['threshold']
    assert card.details['run']['batch_size'] == 4
    assert card.details['iterations'] == 6
    segmenter = create_model(whole / 'model.safetensors', device='cpu')
    result = segmenter.segment(np.zeros((50, 70, 3), np.uint8), ['red'])
    assert result.labels().shape == (50, 70)


def test_towers_stay_and_the_decoder_learns(whole):
    from training.loop.learner import begin_model

    torch.manual_seed(0)
    before = begin_model(tiny_settings())[0].state_dict()
    after = load_file(whole / 'model.safetensors')
    same = {name: torch.equal(value, after[name]) for name, value in before.items()}
    assert all(kept == name.startswith('backbone.') for name, kept in same.items())


def test_parts_of_a_batch_learn_as_the_whole_batch(whole, tmp_path):
    train(tiny_settings(accumulate=4), tmp_path / 'parts')
    for step, loss in losses(whole).items():
        assert losses(tmp_path / 'parts')[step] == pytest.approx(loss, abs=1e-5)


IGNORED = {'dataset': 'tests.training.tiny_runs:Shapes', 'samples': 16, 'ignored': True}


@pytest.fixture(scope='module')
def ignoring(tmp_path_factory) -> Path:
    """Folder of a run on pictures of which parts do not count."""
    folder = tmp_path_factory.mktemp('runs') / 'ignoring'
    train(tiny_settings(data=IGNORED, batch_size=8), folder)
    return folder


@pytest.mark.parametrize('parts', [2, 8])
def test_where_pixels_are_ignored_the_loss_does_not_depend_on_the_parts(ignoring, tmp_path, parts):
    settings = tiny_settings(data=IGNORED, batch_size=8, accumulate=parts)
    train(settings, tmp_path / 'parts')
    for step, loss in losses(ignoring).items():
        assert losses(tmp_path / 'parts')[step] == pytest.approx(loss, abs=1e-5)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_samples(tmp_path):
    data = {'dataset': 'tests.training.tiny_runs:Shapes', 'not_finite': 5}
    with pytest.raises(RunError, match='shape 5'):
        train(tiny_settings(data=data), tmp_path / 'run')
    (path,) = (tmp_path / 'run').glob('non_finite_*.json')
    record = json.loads(path.read_text())
    assert 'shape 5' in [sample['key'] for sample in record['samples']]
    assert len(record['samples']) == 4
    if (tmp_path / 'run/last.pt').exists():
        state = torch.load(tmp_path / 'run/last.pt', weights_only=True)
        assert state['step'] <= record['iteration']
        assert all(value.isfinite().all() for value in state['trained'].values())


def test_broken_records_are_skipped_counted_and_reported(tmp_path, capsys):
    data = {'dataset': 'tests.training.tiny_runs:Shapes', 'broken': 2}
    train(tiny_settings(data=data, iterations=5, validation=None), tmp_path / 'run')
    # Ten samples in batches of four: in five iterations each comes twice.
    card = load_card(tmp_path / 'run/model.safetensors')
    assert card.details['skipped']['missing image'] >= 2
    errors = capsys.readouterr().err
    assert 'shape 2 is not there' in errors
    assert 'broken records that were skipped' in errors


def test_records_that_are_broken_when_the_data_are_opened_are_told_and_counted(tmp_path, capsys):
    folder = write_phrasecut(tmp_path)
    for split, number in (('train', 1), ('val', 0)):
        path = folder / f'refer_{split}.json'
        records = json.loads(path.read_text())
        records.insert(0, {**records[number], 'Polygons': [5]})
        path.write_text(json.dumps(records))
    data = {'dataset': 'phrasecut', 'folder': str(folder), 'bad_records': 'skip'}
    validation = {'data': {**data, 'split': 'val', 'crop': 'none'}, 'every': 9}
    settings = tiny_settings(data=data, validation=validation, iterations=2)
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            train(settings, tmp_path / 'run')
    train(settings, tmp_path / 'run', resume=True)
    errors = capsys.readouterr().err
    assert 'broken records, left out:\nbad polygon: 1, for example' in errors
    assert 'broken records of validation, left out:\nbad polygon: 1, for example' in errors
    assert 'task 11__11001__11002, has' in errors
    assert 'broken records that were skipped: 1 bad polygon' in errors
    # Counted once, although the data were opened twice.
    card = load_card(tmp_path / 'run/model.safetensors')
    assert card.details['skipped'] == {'bad polygon': 1}


def test_broken_records_end_the_run_where_the_settings_say_so(tmp_path):
    from training.datasets.samples import BadRecord

    data = {'dataset': 'tests.training.tiny_runs:Shapes', 'broken': 2, 'policy': 'raise'}
    with pytest.raises(BadRecord, match='shape 2 is not there'):
        train(tiny_settings(data=data), tmp_path / 'run')


def test_the_card_names_the_method_of_prompt_images(tmp_path):
    prompts = {**tiny()['prompts'], 'method': 'blur_10_crop'}
    train(tiny_settings(prompts=prompts, iterations=1, validation=None), tmp_path / 'run')
    trained = tmp_path / 'run/model.safetensors'
    assert load_card(trained).visual_method == 'blur_10_crop'
    settings = tiny_settings(model=None, towers=None, init_from=str(trained))
    assert follow_card(settings).prompts.method == 'blur_10_crop'


def test_fine_tuning_begins_with_the_weights_of_another_model(whole, tmp_path):
    started = tiny_settings(
        model=None,
        towers=None,
        init_from=str(whole / 'model.safetensors'),
        iterations=1,
        schedule={'rate': 1e-9, 'final_rate': 0},
    )
    train(started, tmp_path / 'run')
    before, after = (load_file(path / 'model.safetensors') for path in (whole, tmp_path / 'run'))
    assert before.keys() == after.keys()
    assert all(torch.allclose(value, after[name], atol=1e-6) for name, value in before.items())
    assert load_card(tmp_path / 'run/model.safetensors').details['init_from']['name'] == 'tiny'


def test_the_bundled_model_can_be_fine_tuned(tmp_path):
    settings = tiny_settings(
        model=None, towers=None, init_from='tabletop', iterations=2, validation=None
    )
    out = train(settings, tmp_path / 'run')
    assert create_model(out, device='cpu').card.architecture == 'clipseg'


def test_half_precision_learns_much_the_same(whole, tmp_path):
    train(tiny_settings(mixed_precision='bf16'), tmp_path / 'run')
    for step, loss in losses(whole).items():
        assert losses(tmp_path / 'run')[step] == pytest.approx(loss, abs=0.02)


def test_fp16_without_a_gpu_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(RunError, match='mixed_precision=bf16'):
        train(tiny_settings(mixed_precision='fp16'), tmp_path / 'run')


def test_it_learns(tmp_path):
    data = {'dataset': 'tests.training.tiny_runs:Shapes', 'samples': 12}
    validation = {'data': data, 'every': 120, 'samples': 12}
    settings = tiny_settings(
        data=data, validation=validation, iterations=120, batch_size=6, log_every=30
    )
    train(settings, tmp_path / 'run')
    run = losses(tmp_path / 'run')
    assert run[120] < 0.8 * run[30]


def run(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, '-m', *map(str, arguments)]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=280, env=environment, **options
    )


@pytest.mark.slow
def test_two_processes_learn_as_one(ignoring, tmp_path):
    """Also where they have unlike shares of the pixels that count."""
    config = write(tmp_path / 'tiny.yaml', data=IGNORED, batch_size=8)
    done = run(
        'torch.distributed.run', '--standalone', '--nproc_per_node', 2,
        '-m', 'training.train', config, '--output', tmp_path / 'run',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / 'run/run_000000.json').read_text())['processes'] == 2
    for step, loss in losses(ignoring).items():
        assert losses(tmp_path / 'run')[step] == pytest.approx(loss, abs=1e-5)
    one, two = (
        [line for line in log(folder) if 'validation' in line]
        for folder in (ignoring, tmp_path / 'run')
    )
    assert [line['samples'] for line in two] == [4, 4]
    assert two[0]['validation']['ap'] == pytest.approx(one[0]['validation']['ap'], abs=1e-3)


def test_the_command_line(tmp_path, monkeypatch):
    config = write(tmp_path / 'tiny.yaml')
    output = ('--output', str(tmp_path / 'run'))
    first = [*output, '--set', 'iterations=2', '--set', 'save_every=1']
    monkeypatch.setattr(sys, 'argv', ['train', str(config), *first])
    main()
    assert (tmp_path / 'run/model.safetensors').is_file()
    monkeypatch.setattr(sys, 'argv', ['train', str(config), *output])
    with pytest.raises(SystemExit, match='--resume'):
        main()
    monkeypatch.setattr(sys, 'argv', ['train', str(config), '--set', 'batchsize=2'])
    with pytest.raises(SystemExit, match='batchsize'):
        main()
