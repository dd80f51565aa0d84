"""The processes of a run: as many as were asked for, or an error."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from accelerate.state import AcceleratorState

from training.loop.processes import begin_accelerator
from training.loop.run_folder import RunError

ASKED = 'from training.loop.processes import begin_accelerator; begin_accelerator()'


@pytest.fixture
def launched(monkeypatch) -> pytest.MonkeyPatch:
    """A process as accelerate launch starts it on a CPU."""
    for name in ('WORLD_SIZE', 'RANK', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('ACCELERATE_MIXED_PRECISION', 'no')
    monkeypatch.setenv('ACCELERATE_USE_CPU', 'True')
    yield monkeypatch
    AcceleratorState._reset_state(True)


def test_several_processes_that_were_never_started_are_missed(launched):
    launched.setenv('MASTER_ADDR', '127.0.0.1')
    launched.setenv('MASTER_PORT', '29500')
    with pytest.raises(RunError, match='torchrun --standalone --nproc_per_node'):
        begin_accelerator()


def test_a_single_process_is_what_it_is(launched):
    assert begin_accelerator().num_processes == 1


@pytest.mark.slow
def test_accelerate_launch_with_two_processes_on_a_cpu_is_two_or_an_error(tmp_path):
    script = tmp_path / 'asks.py'
    script.write_text(ASKED)
    launch = ['-m', 'accelerate.commands.launch', '--num_processes', '2', '--cpu', str(script)]
    environment = {**os.environ, 'HF_HOME': str(tmp_path)}
    done = subprocess.run(
        [sys.executable, *launch], capture_output=True, text=True, timeout=280, env=environment
    )
    assert done.returncode != 0
    assert 'starts a single process on a CPU' in done.stderr
