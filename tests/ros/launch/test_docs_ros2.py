"""Commands of the docs with the command `ros2` itself, in a shell, word for word.

tests/ros/test_docs_commands.py does what they would do where there is no such command.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

REASON = 'the command `ros2` comes with a ROS 2 installation, not with the pip wheels'
pytest.importorskip('ros2launch', reason=REASON)

from docs_commands import Command, commands, reason_against
from ros_peers import NodeProcess, running_node

from clipseg_ros.ros.interfaces import load_interfaces

pytestmark = [
    pytest.mark.skipif(shutil.which('ros2') is None, reason=REASON),
    pytest.mark.skipif(load_interfaces() is None, reason='the package is not built'),
    pytest.mark.timeout(300),
]

ALL = [one for one in commands() if one.line.startswith('ros2 ') and not reason_against(one)]
TOLD = {
    'param set': 'Set parameter successful',
    'topic pub': 'publishing #1',
    'service call': 'response:',
}
"""What comes of a command."""

STARTED = {
    r'rviz\.launch\.py': 'RViz is not installed',
    'clipseg-rd64-refined': 'clipseg download',
    r'console(\.launch\.py)?\b': 'http://',
    r'run clipseg_ros camera ': 'tabletop at',
    'pc_plus': 'pc_plus',
    '': 'active: ',
}
"""What is said by what a command starts: here is no RViz, and no model that has to be fetched."""


def of_kind(*kinds: str) -> Any:
    chosen = [one for one in ALL if ' '.join(one.line.split()[1:3]) in kinds]
    assert chosen, kinds
    return pytest.mark.parametrize('command', chosen, ids=[f'{c.page}: {c.line}' for c in chosen])


def said_of(command: Command, table: dict[str, str]) -> str:
    return next(said for how, said in table.items() if re.search(how, command.line))


@pytest.fixture(scope='module')
def environment(own_domain: int) -> Iterator[dict[str, str]]:
    made = {**os.environ, 'ROS_DOMAIN_ID': str(own_domain)}
    yield made
    # The command starts it, and it would stay.
    subprocess.run(['ros2', 'daemon', 'stop'], env=made, check=True, capture_output=True)


@pytest.fixture(scope='module')
def node(environment: dict[str, str]) -> Iterator[NodeProcess]:
    parameters = {'device': 'cpu', 'threads': 1, 'prompt': "'mug:the mug'"}
    with running_node(
        'clipseg_ros.segment_node', parameters, environment=environment, ready='active: everyday'
    ) as made:
        yield made


@of_kind('param set', 'topic pub', 'service call')
def test_it_is_taken(node: NodeProcess, environment: dict[str, str], command: Command) -> None:
    done = subprocess.run(
        ['bash', '-c', command.line],
        env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert said_of(command, TOLD) in done.stdout + done.stderr
    assert 'Traceback' not in done.stderr


def test_the_life_of_a_node(node: NodeProcess, environment: dict[str, str]) -> None:
    steps = [one.line for one in ALL if 'lifecycle set' in one.line]
    lines = [
        'ros2 lifecycle set /clipseg deactivate',
        'ros2 lifecycle set /clipseg cleanup',
        *steps,
    ]
    for line in lines:
        done = subprocess.run(
            ['bash', '-c', line],
            env=environment, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert 'Transitioning successful' in done.stdout, line + done.stdout + done.stderr


@of_kind('launch clipseg_ros', 'run clipseg_ros')
def test_it_starts_and_ends(environment: dict[str, str], tmp_path: Path, command: Command) -> None:
    said, log = said_of(command, STARTED), tmp_path / 'output'
    no_rviz = said == STARTED[r'rviz\.launch\.py']
    if no_rviz and shutil.which('rviz2') is not None:
        pytest.skip('RViz is here, and needs a screen')
    with log.open('wb') as file:
        process = subprocess.Popen(
            ['bash', '-c', f'exec {command.line}'],
            env={**environment, 'PYTHONUNBUFFERED': '1'},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 120.0
        while said not in log.read_text() and time.monotonic() < deadline:
            if process.poll() is not None:
                break
            time.sleep(0.1)
        if not no_rviz:
            # Ctrl-C reaches every process of the terminal: `ros2 run` passes none on.
            os.killpg(process.pid, signal.SIGINT)
        status = process.wait(60.0)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    output = log.read_text()
    assert said in output, output
    assert 'Traceback' not in output, output
    assert status == (1 if no_rviz else 0), output
