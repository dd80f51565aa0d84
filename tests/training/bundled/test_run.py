"""The loop of both trainings of bundled models: lock, SIGTERM, losses that are not finite."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.training.bundled.test_optimizers import settings
from training.bundled.run import LOG_EVERY, Training, run
from training.loop.processes import begin_accelerator
from training.loop.run_folder import RunError
from training.loop.stopping import RunStopped

pytestmark = pytest.mark.usefixtures('one_thread')

HOLD = """
import sys, time
from pathlib import Path
from training.loop.run_folder import RunFolder
with RunFolder(Path(sys.argv[1])).claimed():
    print('claimed', flush=True)
    time.sleep(100)
"""


class Fit(Training):
    """Fits a layer to a number that differs from step to step."""

    def __init__(self, length: int, stop_at: int | None = None, break_at: int | None = None):
        torch.manual_seed(0)
        self.module = nn.ModuleDict(
            {'towers': nn.ModuleDict({'blocks': nn.ModuleList([nn.Linear(3, 3)])})}
        )
        self._length, self._stop_at, self._break_at = length, stop_at, break_at

    def steps(self, start):
        layer = self.module['towers']['blocks'][0]
        for iteration in range(start, self._length):
            if iteration + 1 == self._stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            loss = (layer(torch.ones(1, 3)) - iteration).square().mean()
            if iteration == self._break_at:
                loss = loss * float('nan')
            yield {'bce': loss}, {'scenes': [iteration, 7]}


def fit(folder: Path, resume: bool = False, **changes) -> None:
    length = 2 * LOG_EVERY
    chosen = settings(
        stages=[{'iterations': length, 'input_size': 64}], decay=length, save_every=length
    )
    accelerator = begin_accelerator(device='cpu')
    run(chosen, folder, accelerator, lambda: Fit(length, **changes), resume)


def test_sigterm_writes_a_state_that_the_run_goes_on_from(tmp_path):
    fit(tmp_path / 'whole')
    before = signal.getsignal(signal.SIGTERM)
    stop = LOG_EVERY + 5
    with pytest.raises(RunStopped, match=f'state.pt is of iteration {stop}; go on with --resume'):
        fit(tmp_path / 'parts', stop_at=stop)
    assert signal.getsignal(signal.SIGTERM) is before
    with pytest.raises(RunError, match='exists: give --resume'):
        fit(tmp_path / 'parts')
    fit(tmp_path / 'parts', resume=True)
    whole, parts = (
        torch.load(tmp_path / name / 'state.pt', weights_only=True) for name in ('whole', 'parts')
    )
    assert parts['iteration'] == 2 * LOG_EVERY
    for part in ('module', 'average'):
        for name, value in whole[part].items():
            assert torch.equal(value, parts[part][name]), name
    lines = [json.loads(line) for line in (tmp_path / 'parts/log.jsonl').open()]
    assert [line['iteration'] for line in lines] == [LOG_EVERY, 2 * LOG_EVERY]
    assert lines[0]['bce'] > 0


def test_a_folder_that_another_run_writes_to_is_refused(tmp_path):
    command = [sys.executable, '-c', HOLD, str(tmp_path)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == 'claimed\n'
        with pytest.raises(RunError, match=f'in use by process {holder.pid} on '):
            fit(tmp_path)
        assert not (tmp_path / 'state.pt').exists()
    finally:
        holder.kill()
        holder.wait()


def test_what_made_a_loss_that_is_not_finite_is_written_down(tmp_path):
    with pytest.raises(RunError, match=r"iteration 3: \{'bce': nan\}.*non_finite_3_0\.json"):
        fit(tmp_path, break_at=3)
    written = json.loads((tmp_path / 'non_finite_3_0.json').read_text())
    assert written == {'losses': {'bce': 'nan'}, 'scenes': [3, 7]}
