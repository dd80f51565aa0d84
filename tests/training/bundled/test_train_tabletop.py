"""Training end to end: a few steps, resume, export, evaluation."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from accelerate.state import AcceleratorState

from clipseg_model import create_model
from training.bundled.inputs import draw_window
from training.bundled.settings import Settings


def settings(rendered: Path, frozen: tuple[Path, dict[str, int]], iterations: int) -> dict:
    path, sizes = frozen
    backbone = {'type': 'small_clip', 'width': 32, 'num_blocks': 2, 'text_width': 32, **sizes}
    return {
        'name': 'tiny',
        'model': {
            'architecture': 'clipseg',
            'backbone': backbone,
            'layers': [0, 1],
            'decoder': {'dim': 16, 'feedforward': 32, 'head': 'refined'},
        },
        'frozen': str(path),
        'data': {'folder': str(rendered), 'support_size': 64},
        'stages': [
            {'iterations': 2, 'input_size': 64, 'batch': 2},
            {'iterations': iterations - 2, 'input_size': 96, 'batch': 2},
        ],
        'stem_from': 9,
        'warmup': 2,
        'decay': 2,
        'save_every': 2,
    }


def run(module: str, *arguments: object) -> None:
    """Runs a command in this process, and leaves the settings of torch as they were."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [module, *map(str, arguments)])
        try:
            importlib.import_module(module).main()
        finally:
            torch.set_num_threads(threads)
            AcceleratorState._reset_state(True)


@pytest.fixture(scope='module')
def trained(rendered, frozen, tmp_path_factory) -> Path:
    """Folder of a run of four iterations that was resumed for two more."""
    folder = tmp_path_factory.mktemp('runs')
    config = folder / 'tiny.yaml'
    for iterations, resume in ((4, []), (6, ['--resume'])):
        config.write_text(yaml.safe_dump(settings(rendered, frozen, iterations)))
        run('training.train_tabletop', config, '--output', folder / 'run', *resume)
    return folder / 'run'


def test_a_run_records_itself_and_resumes(trained):
    state = torch.load(trained / 'state.pt', weights_only=True)
    assert state['iteration'] == 6
    records = [json.loads(p.read_text()) for p in sorted(trained.glob('run_*.json'))]
    assert [record['start'] for record in records] == [0, 4]
    assert len(records[0]['commit'].removesuffix('-dirty')) == 40


def test_frozen_parts_stay_and_the_rest_learns(trained, frozen):
    from safetensors.torch import load_file

    state = torch.load(trained / 'state.pt', weights_only=True)
    module, average = state['module'], state['average']
    trained_blocks = tuple(f'stem.blocks.{index}.' for index in range(9, 11))
    for key, value in load_file(frozen[0]).items():
        stays = torch.equal(module[f'model.backbone.{key}'], value)
        assert stays != key.startswith(trained_blocks), key
    weight = 'model.decoder.head.conv.weight'
    assert not torch.equal(module[weight], average[weight])


@pytest.mark.slow
def test_two_processes_go_on_from_the_weights_of_another_run(trained, rendered, frozen, tmp_path):
    config = tmp_path / 'tiny.yaml'
    config.write_text(yaml.safe_dump(settings(rendered, frozen, 4)))
    command = [
        sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2',
        '-m', 'training.train_tabletop', config, '--output', tmp_path / 'run',
        '--init-from', trained / 'state.pt',
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    state = torch.load(tmp_path / 'run/state.pt', weights_only=True)
    assert state['iteration'] == 4
    run('training.export', tmp_path / 'run', tmp_path / 'grown.safetensors', '--input-size', 96)
    card = create_model(tmp_path / 'grown.safetensors').card
    assert card.name == 'grown'
    runs = [(record['start'], record['processes']) for record in card.details['runs']]
    assert runs == [(0, 1), (4, 1), (0, 2)]


def test_a_run_is_not_overwritten(trained, rendered, frozen, tmp_path):
    config = tmp_path / 'tiny.yaml'
    config.write_text(yaml.safe_dump(settings(rendered, frozen, 4)))
    with pytest.raises(SystemExit, match='--resume'):
        run('training.train_tabletop', config, '--output', trained)


@pytest.mark.slow
@pytest.mark.ci
def test_export_evaluate_and_use(trained, rendered, tmp_path):
    checkpoint = tmp_path / 'tiny.safetensors'
    report_path = tmp_path / 'report.json'
    run('training.export', trained, checkpoint, '--input-size', 96)
    run(
        'training.evaluate', checkpoint, '--data', rendered, '--calibrate', 'val',
        '--split', 'test', '--split', 'unseen_pairs', '--output', report_path, '--threads', 1,
    )  # fmt: skip
    report = json.loads(report_path.read_text())
    assert 0 < report['calibration']['threshold'] < 1
    assert report['test']['scenes'] == 3
    assert {'all_text', 'name', 'colour'} <= report['test']['groups'].keys()
    assert 0 <= report['test']['groups']['all_text']['iou_fg'] <= 1
    assert report['test']['absent']['prompts'] > 0
    run('training.export', trained, checkpoint, '--input-size', 96, '--evaluation', report_path)
    card = create_model(checkpoint).card
    assert card.threshold == report['calibration']['threshold']
    assert card.details['measured']['test']['scenes'] == 3
    result = create_model(checkpoint).segment(np.zeros((60, 80, 3), np.uint8), ['the mug'])
    assert result.labels().shape == (60, 80)


def test_windows_are_square_or_four_to_three():
    rng = np.random.default_rng(0)
    shapes = {draw_window(288, 224, 0.5, rng)[1] for _ in range(50)}
    assert shapes == {(224, 224), (192, 256)}
    rows, _ = draw_window(288, 224, 1.0, rng)
    assert rows.stop - rows.start == 216
    assert 0 <= rows.start <= 72


def test_settings_of_a_tiny_run_are_valid(rendered, frozen):
    assert Settings(**settings(rendered, frozen, 4)).iterations == 4
