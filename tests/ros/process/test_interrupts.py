"""Ctrl-C pressed twice, and the exit status of what `ros2 run` and `ros2 launch` start."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest
from ros_peers import ROOT, NodeProcess, shared_memory_files

from clipseg_ros.process.runner import run_node
from clipseg_ros.process.start import ENDING_SIGNALS

NOTHING_BEGUN = 'interrupted while starting: nothing had begun'
OF_NODES = ['front', '--ros-args', '-p', 'device:=cpu']


@pytest.mark.parametrize('pause', [0.0, 0.1, 0.4])
def test_more_than_one_interrupt_ends_in_order(domain: int, pause: float) -> None:
    """`ros2 launch` passes the signal on that the terminal has sent already."""
    camera = NodeProcess('clipseg_ros.camera_node', {'rate': 30.0, 'width': 160, 'height': 120})
    camera.wait_for('tabletop at 30 Hz')
    time.sleep(0.5)
    assert shared_memory_files(camera.pid)
    for _ in range(3):
        camera.send_signal(signal.SIGINT)
        time.sleep(pause)
    assert camera.stop() == 0, camera.output
    assert 'Traceback' not in camera.output, camera.output


@pytest.mark.parametrize('number', ENDING_SIGNALS)
def test_signals_while_it_ends_change_nothing(domain: int, number: int) -> None:
    """A thread of rclpy's would go on to wake an executor that is being destroyed."""
    script = Path(__file__).parents[1] / 'processes' / 'interrupted_end.py'
    process = NodeProcess(str(script), script=[str(number)])
    process.wait_for('ready')
    process.send_signal(signal.SIGINT)
    assert process.join(30) == 0, process.output
    process.stop()
    lines = process.lines[process.lines.index('ready') :]
    if 'ignored due to race condition' in process.output:
        # Python's own words for a signal in the very moment from which on it is ignored.
        lines = [line for line in lines if not re.match('Traceback|  |OSError: Signal', line)]
    assert lines == ['ready', 'ending', 'ended'], process.output


@pytest.mark.parametrize('number', ENDING_SIGNALS)
@pytest.mark.parametrize(
    ('executable', 'library'),
    [
        ('segment', 'cv2'),
        ('segment', 'rclpy'),
        ('segment_cameras', 'cv2'),
        ('camera', 'cv2'),
        ('camera', 'rclpy'),
        ('console', 'rclpy'),
    ],
)
def test_a_signal_during_the_first_imports_is_one_line(
    tmp_path: Path, executable: str, library: str, number: int
) -> None:
    process = importing(library, tmp_path, str(ROOT / 'scripts' / executable), *OF_NODES)
    assert process.stop([number]) == 0, process.output
    assert process.lines[1:] == [NOTHING_BEGUN], process.output


@pytest.mark.parametrize(
    ('line', 'library', 'status'),
    [
        ('scripts/console', 'uvicorn', 0),
        ('scripts/console', 'diagnostic_msgs', 0),
        ('-m clipseg_ros.demo', 'cv2', 130),
        ('-m clipseg_ros.demo.console', 'typer', 0),
        ('-m clipseg_ros.demo.console', 'diagnostic_msgs', 0),
        ('-m clipseg_ros.command console', 'uvicorn', 130),
        ('-m clipseg_ros.command segment x.png --prompt mug', 'cv2', 130),
        ('-m clipseg_ros.command bag x --prompt mug -o y', 'numpy', 130),
    ],
)
def test_ctrl_c_while_a_command_imports_is_one_line(
    tmp_path: Path, line: str, library: str, status: int
) -> None:
    process = importing(library, tmp_path, *line.split())
    assert process.stop() == status, process.output
    assert process.lines[1:] == [NOTHING_BEGUN], process.output


def importing(library: str, folder: Path, *words: str) -> NodeProcess:
    """A process of ours in the middle of an import, which takes for ever."""
    (folder / f'{library}.py').write_text(
        f'import sys, time\nprint("importing {library}", flush=True)\n'
        'try:\n    time.sleep(30)\n'
        # As a library may that is interrupted in the middle of its start.
        'except KeyboardInterrupt:\n    raise ImportError("half of it")\n'
    )
    environment = {'PYTHONPATH': f'{folder}:{ROOT}'}
    process = NodeProcess(words[0], script=words[1:], environment=environment)
    process.wait_for(f'importing {library}')
    return process


def test_a_signal_while_a_node_is_made(capfd: pytest.CaptureFixture[str]) -> None:
    def make() -> None:
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in ENDING_SIGNALS}
    try:
        assert run_node(make, ['x']) == 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert capfd.readouterr().err == 'interrupted while starting\n'


def test_exit_on_failure(domain: int) -> None:
    """For supervisors: a node that cannot be configured, or no longer, is no node."""
    given = ['-p', 'exit_on_failure:=true', '-p', 'model:=/no/such.safetensors']
    process = NodeProcess(str(ROOT / 'scripts' / 'segment'), script=['--ros-args', *given])
    assert process.join(60) == 1, process.output
    process.stop()
    [line] = [line for line in process.lines if 'configure failed' in line]
    assert '/no/such.safetensors' in line
    assert 'exit_on_failure: ending' in line
    assert 'Traceback' not in process.output


@pytest.mark.parametrize(
    ('executable', 'arguments', 'words'),
    [
        ('segment', ['-p', 'threshold:=5.0'], ['threshold', '5.0']),
        ('camera', ['-p', 'source:=/no/such/folder'], ['/no/such/folder']),
        ('segment', ['--params-file', '/no/such/file.yaml'], ['/no/such/file.yaml']),
    ],
)
def test_what_cannot_start_fails(
    domain: int, executable: str, arguments: list[str], words: list[str]
) -> None:
    process = NodeProcess(str(ROOT / 'scripts' / executable), script=['--ros-args', *arguments])
    assert process.join(40) == 1, process.output
    process.stop()
    assert 'cannot start' in process.output
    assert all(word in process.output for word in words), process.output
    assert 'Traceback' not in process.output
