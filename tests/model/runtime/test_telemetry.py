"""No runtime asks a name server, opens a connection, or leaves an id in the user's home."""

from __future__ import annotations

import importlib.util
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
QUIET = Path(__file__).with_name('quiet_process.py')

SEGMENT = """
import time
import numpy as np
from clipseg_model import create_model
for runtime in {runtimes!r}:
    segmenter = create_model({checkpoint!r}, 'cpu', runtime=runtime)
    print(segmenter.segment(np.zeros((60, 80, 3), np.uint8), ['mug']).results[0].score)
time.sleep(1)  # Some reports are sent by a thread, after a while.
"""


def _run(home: Path, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {key: os.environ[key] for key in ('PATH', 'LD_LIBRARY_PATH') if key in os.environ}
    ours = {'HOME': str(home), 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    return subprocess.run(
        [sys.executable, str(QUIET), script],
        env={**kept, **ours, **variables},
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    if platform.machine() not in ('x86_64', 'aarch64'):
        pytest.skip('the numbers of system calls of this machine are not known')
    folder = tmp_path / 'home'
    folder.mkdir()
    if _run(folder, 'pass').returncode:
        pytest.skip('this kernel, or what contains us, allows no seccomp filter')
    return folder


def _files(home: Path) -> list[str]:
    return sorted(
        str(path.relative_to(home))
        for path in home.rglob('*')
        if path.is_file() and '.cache/clipseg' not in str(path)
    )


class TestTheMeasurement:
    @pytest.mark.parametrize(
        'script',
        [
            "import socket; socket.getaddrinfo('example.com', 80)",
            "import socket; socket.create_connection(('127.0.0.1', 9))",
            'import socket; socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)',
        ],
    )
    def test_look_ups_and_connections_are_seen(self, home: Path, script: str) -> None:
        assert _run(home, script).returncode == -signal.SIGSYS

    def test_local_sockets_are_not_meant(self, home: Path) -> None:
        assert _run(home, 'import socket; socket.socketpair()').returncode == 0


def _need(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f'{package} is not installed')


@pytest.mark.slow
def test_runtimes(checkpoint: Path, home: Path) -> None:
    """Made, exported and used, one after the other: they share an export, which takes long."""
    runtimes = ('eager', 'onnxruntime', 'openvino')
    for package in runtimes[1:]:
        _need(package)
    done = _run(home, SEGMENT.format(checkpoint=str(checkpoint), runtimes=runtimes))
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 3
    assert min(map(float, done.stdout.split())) > 0
    assert _files(home) == []


@pytest.mark.parametrize(
    'imports',
    [
        'import clipseg_model, nncf',
        'import clipseg_model.quantization, nncf, openvino, onnxruntime',
    ],
)
def test_imports(home: Path, imports: str) -> None:
    for package in ('nncf', 'openvino', 'onnxruntime'):
        _need(package)
    done = _run(home, 'import clipseg_model, nncf, openvino, onnxruntime, time; time.sleep(1)')
    assert done.returncode == 0, done.stderr
    assert _files(home) == []


@pytest.mark.parametrize('package', ['onnxruntime', 'openvino'])
def test_they_would_report_if_they_might(home: Path, package: str) -> None:
    """Without the switch they do: the day that they stop, it can go."""
    _need(package)
    done = _run(home, f'import {package}, time; time.sleep(3)')
    assert done.returncode == -signal.SIGSYS or _files(home)


def test_switches_reach_children_and_libraries(home: Path) -> None:
    script = (
        'import clipseg_model, os, subprocess, sys\n'
        "subprocess.run([sys.executable, '-c', 'import os; print(os.environ[\"ORT_DISABLE_TELEMETRY"
        '"])\'], check=True)\n'
        'from huggingface_hub import constants\n'
        'print(constants.HF_HUB_DISABLE_TELEMETRY)'
    )
    done = _run(home, script, ORT_DISABLE_TELEMETRY='0', HF_HUB_DISABLE_TELEMETRY='0')
    assert done.stdout.split() == ['1', 'True'], done.stderr
