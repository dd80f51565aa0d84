"""Ctrl-C pressed twice, and the exit status of what `ros2 run` and `ros2 launch` start."""

from __future__ import annotations

import signal
import time

import pytest
from ros_peers import ROOT, NodeProcess, shared_memory_files


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


@pytest.mark.parametrize(
    ('executable', 'arguments', 'words'),
    [
        ('segment', ['-p', 'threshold:=5.0'], 'threshold'),
        ('camera', ['-p', 'source:=/no/such/folder'], '/no/such/folder'),
        ('segment', ['--params-file', '/no/such/file.yaml'], '/no/such/file.yaml'),
    ],
)
def test_what_cannot_start_fails(
    domain: int, executable: str, arguments: list[str], words: str
) -> None:
    process = NodeProcess(str(ROOT / 'scripts' / executable), script=['--ros-args', *arguments])
    assert process.join(40) == 1, process.output
    process.stop()
    assert 'cannot start' in process.output
    assert words in process.output
    assert 'Traceback' not in process.output
