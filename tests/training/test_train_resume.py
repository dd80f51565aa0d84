"""Runs that break off: what they go on with, and what they refuse to go on with."""

from __future__ import annotations

import json
import multiprocessing
import resource
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.tiny_runs import assert_same_run, stop_after, tiny_settings
from training.loop.run_folder import RunError, RunFolder
from training.train import train

pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture(scope='module')
def whole(tmp_path_factory) -> Path:
    """Folder of a run of six iterations in one go."""
    folder = tmp_path_factory.mktemp('runs') / 'whole'
    train(tiny_settings(), folder)
    return folder


@pytest.mark.parametrize('changes', [{}, {'accumulate': 2, 'workers': 2}], ids=['', 'workers'])
def test_a_resumed_run_is_the_same_bit_by_bit(changes, tmp_path, monkeypatch):
    train(tiny_settings(**changes), tmp_path / 'whole')
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_settings(**changes), tmp_path / 'parts')
    assert torch.load(tmp_path / 'parts/last.pt', weights_only=True)['step'] == 4
    torch.manual_seed(99)
    train(tiny_settings(**changes), tmp_path / 'parts', resume=True)
    assert_same_run(tmp_path / 'whole', tmp_path / 'parts')
    assert json.loads((tmp_path / 'parts/run_000004.json').read_text())['start'] == 4


def test_random_numbers_go_on_where_they_were(tmp_path, monkeypatch):
    from training import train as module

    drawn: dict[str, list[float]] = {'whole': [], 'parts': []}

    def step_that_draws(name):
        original = step

        def drawing(*arguments):
            drawn[name].append(torch.rand(()).item())
            return original(*arguments)

        return drawing

    step = module.step
    monkeypatch.setattr(module, 'step', step_that_draws('whole'))
    train(tiny_settings(), tmp_path / 'whole')
    monkeypatch.setattr(module, 'step', step_that_draws('parts'))
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_settings(), tmp_path / 'parts')
    train(tiny_settings(), tmp_path / 'parts', resume=True)
    assert drawn['whole'] == drawn['parts']
    assert len(set(drawn['whole'])) == 6


def test_a_run_is_not_overwritten(whole):
    with pytest.raises(RunError, match='--resume'):
        train(tiny_settings(), whole)


def test_a_run_does_not_go_on_with_other_settings(whole):
    with pytest.raises(RunError, match='batch_size: 4 then, 2 now'):
        train(tiny_settings(batch_size=2), whole, resume=True)


def test_what_touches_no_weights_may_change_on_resume(whole):
    train(tiny_settings(workers=1, save_every=3), whole, resume=True)
    assert torch.load(whole / 'last.pt', weights_only=True)['step'] == 6


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_settings(), tmp_path / 'run')
    before = (tmp_path / 'run/last.pt').read_bytes()
    original = RunFolder.save

    def save_on_a_full_disk(self, path, state):
        if path.name != 'last.pt':
            original(self, path, state)
            return
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            original(self, path, state)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, 'save', save_on_a_full_disk)
        with pytest.raises(
            RunError,
            match=r'File too large; the earlier last\.pt is untouched',
        ):
            train(tiny_settings(), tmp_path / 'run', resume=True)
    assert (tmp_path / 'run/last.pt').read_bytes() == before
    assert not list((tmp_path / 'run').glob('.*.part'))
    train(tiny_settings(), tmp_path / 'run', resume=True)
    assert torch.load(tmp_path / 'run/last.pt', weights_only=True)['step'] == 6


def test_a_damaged_checkpoint_is_named(tmp_path):
    (tmp_path / 'last.pt').write_bytes(b'not a checkpoint')
    with pytest.raises(RunError, match=r'last\.pt is not a readable checkpoint'):
        train(tiny_settings(), tmp_path, resume=True)


def _run_in_child(settings: dict, folder: str) -> None:
    torch.set_num_threads(1)
    train(tiny_settings(**settings), Path(folder), resume=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_random_moments_a_run_loses_no_checkpoint(tmp_path, monkeypatch):
    # More than it can come to while it is killed, on any machine.
    settings = {'iterations': 3000, 'save_every': 1, 'validation': None}
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['training.train', 'tests.training.test_train_resume'])
    rng = np.random.default_rng(0)
    last, kills, steps = tmp_path / 'killed/last.pt', 0, [0]
    while kills < 20:
        child = context.Process(target=_run_in_child, args=(settings, str(tmp_path / 'killed')))
        child.start()
        # A child begins to save as soon as it has read the checkpoint before.
        stamp, until = last.stat().st_mtime_ns if last.exists() else 0, time.monotonic() + 100
        while child.is_alive() and time.monotonic() < until:
            if last.exists() and last.stat().st_mtime_ns != stamp:
                break
            time.sleep(0.005)
        time.sleep(float(rng.uniform(0, 0.12)))
        if not child.is_alive():
            break
        child.kill()
        child.join()
        kills += 1
        steps.append(torch.load(last, weights_only=True)['step'])
        assert steps[-1] >= steps[-2], 'a checkpoint was lost'
    assert kills == 20, f'the run ended after {kills} kills, at {steps}'
    # And what was saved is what a run that nobody kills comes to.
    stop_after(monkeypatch, steps[-1] + 2)
    for name in ('killed', 'whole'):
        with pytest.raises(KeyboardInterrupt):
            train(tiny_settings(**settings), tmp_path / name, resume=True)
    assert_same_run(tmp_path / 'whole', tmp_path / 'killed')
