"""Runs that break off: what they go on with, and what they refuse to go on with."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.tiny_runs import (
    assert_same_run,
    log,
    losses,
    stop_after,
    tiny_settings,
    write,
)
from training.loop.run_folder import RunError, RunFolder
from training.loop.stopping import RunStopped
from training.train import train

pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture(scope='module')
def whole(tmp_path_factory) -> Path:
    """Folder of a run of six iterations in one go."""
    folder = tmp_path_factory.mktemp('runs') / 'whole'
    # As the tests run: the number of threads changes the last bit of a sum.
    torch.set_num_threads(1)
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


def test_a_full_disk_while_logging_is_one_line_and_keeps_the_state(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_settings(), tmp_path / 'run')
    before = (tmp_path / 'run/last.pt').read_bytes()
    log = (tmp_path / 'run/log.jsonl').read_text()
    (tmp_path / 'run/log.jsonl').unlink()
    (tmp_path / 'run/log.jsonl').symlink_to('/dev/full')
    with pytest.raises(RunError, match=r'log\.jsonl could not be written: .*No space left') as said:
        train(tiny_settings(), tmp_path / 'run', resume=True)
    assert '\n' not in str(said.value)
    assert 'last.pt is kept' in str(said.value)
    assert (tmp_path / 'run/last.pt').read_bytes() == before
    (tmp_path / 'run/log.jsonl').unlink()
    (tmp_path / 'run/log.jsonl').write_text(log)
    train(tiny_settings(), tmp_path / 'run', resume=True)
    assert sorted(losses(tmp_path / 'run')) == [1, 2, 3, 4, 5, 6]


def test_a_full_disk_under_tensorboard_is_one_line_too(tmp_path, monkeypatch):
    def full(self, *arguments, **more):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('training.loop.log.SummaryWriter.add_scalar', full)
    with pytest.raises(RunError, match=r'tensorboard could not be written: .*No space left'):
        train(tiny_settings(), tmp_path / 'run')


CLAIM = """
import sys, time
from pathlib import Path
from training.loop.run_folder import RunFolder
with RunFolder(Path(sys.argv[1])).claimed():
    print('claimed', flush=True)
    time.sleep(100)
"""


def test_a_folder_that_a_run_writes_to_is_refused_and_the_holder_named(tmp_path):
    command = [sys.executable, '-c', CLAIM, str(tmp_path)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == 'claimed\n'
        with pytest.raises(RunError, match=f'in use by process {holder.pid} on '):
            train(tiny_settings(), tmp_path)
        assert not (tmp_path / 'log.jsonl').exists()
    finally:
        holder.kill()
        holder.wait()
    # A process that is gone holds nothing, however it went.
    train(tiny_settings(iterations=1, validation=None), tmp_path)


def test_a_file_system_without_locks_is_said_to_be_one(tmp_path, monkeypatch, capsys):
    def without(*arguments):
        raise OSError(errno.ENOSYS, 'Function not implemented')

    monkeypatch.setattr(fcntl, 'lockf', without)
    train(tiny_settings(iterations=1, validation=None), tmp_path)
    assert 'make sure that no other run writes to this folder' in capsys.readouterr().err


def test_data_that_moved_are_gone_on_with_when_told(tmp_path, monkeypatch):
    data = {'dataset': 'tests.training.tiny_runs:Shapes', 'folder': '/old/place'}
    validation = {'data': {**data, 'samples': 4}, 'every': 3}
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_settings(data=data, validation=validation), tmp_path / 'run')
    data = {**data, 'folder': '/new/place'}
    moved = tiny_settings(data=data, validation={**validation, 'data': {**data, 'samples': 4}})
    with pytest.raises(RunError, match=r'/old/place.*/new/place.*add --moved'):
        train(moved, tmp_path / 'run', resume=True)
    other = moved.model_copy(update={'seed': 1})
    with pytest.raises(RunError, match='seed: 0 then, 1 now') as said:
        train(other, tmp_path / 'run', resume=True, moved=True)
    assert '--moved' not in str(said.value)
    train(moved, tmp_path / 'run', resume=True, moved=True)
    train(tiny_settings(), tmp_path / 'whole')
    assert losses(tmp_path / 'run') == losses(tmp_path / 'whole')


def stop_at(monkeypatch, step):
    """Ask the run to stop, by the signal, while it is in a step."""
    from training import train as module

    original = module.step

    def stepping(network, run, parts):
        if run.step + 1 == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(network, run, parts)

    monkeypatch.setattr(module, 'step', stepping)


@pytest.mark.parametrize(
    ('step', 'workers'),
    [(2, 0), (3, 0), (5, 1), (6, 0)],
    ids=['', 'before a validation', 'workers', 'last'],
)
def test_sigterm_writes_a_checkpoint_that_the_run_goes_on_from(
    step, workers, whole, tmp_path, monkeypatch
):
    before = signal.getsignal(signal.SIGTERM)
    settings = tiny_settings(save_every=100, workers=workers)
    with monkeypatch.context() as patch:
        stop_at(patch, step)
        with pytest.raises(RunStopped, match=f'of iteration {step}; go on with --resume'):
            train(settings, tmp_path / 'run')
    assert signal.getsignal(signal.SIGTERM) is before
    assert not (tmp_path / 'run/model.safetensors').exists()
    train(settings, tmp_path / 'run', resume=True)
    assert_same_run(whole, tmp_path / 'run')
    measured = [line['iteration'] for line in log(tmp_path / 'run') if 'validation' in line]
    assert measured == [3, 6]


def test_sigterm_during_a_validation_breaks_it_off(whole, tmp_path, monkeypatch):
    from training.loop import validation

    original = validation._picture

    def asked_meanwhile(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(validation, '_picture', asked_meanwhile)
        with pytest.raises(RunStopped, match='of iteration 3'):
            train(tiny_settings(), tmp_path / 'run')
    train(tiny_settings(), tmp_path / 'run', resume=True)
    assert_same_run(whole, tmp_path / 'run')
    measured = [line['iteration'] for line in log(tmp_path / 'run') if 'validation' in line]
    assert measured == [3, 6]


@pytest.mark.slow
def test_sigterm_to_every_process_of_a_job_ends_it_in_order(tmp_path):
    config = write(tmp_path / 'tiny.yaml', iterations=100000, save_every=100000, validation=None)
    command = [
        sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2',
        '-m', 'training.train', str(config), '--output', str(tmp_path / 'run'),
        '--set', 'workers=1',
    ]  # fmt: skip
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    job = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    until = time.monotonic() + 120
    while not (tmp_path / 'run/log.jsonl').exists() and time.monotonic() < until:
        time.sleep(0.1)
    # As Slurm does: not the launcher alone, but loading processes too.
    os.killpg(job.pid, signal.SIGTERM)
    _, errors = job.communicate(timeout=100)
    assert 'asked to stop' in errors, errors[-3000:]
    assert 'Traceback' not in errors.split('asked to stop')[0]
    assert torch.load(tmp_path / 'run/last.pt', weights_only=True)['step'] > 0


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
