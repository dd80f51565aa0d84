"""The processes of the node's benchmark: started, waited for, and ended with what they took."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from training.benchmarks.node_cases import BenchmarkError

ROOT = Path(__file__).parents[2]
PROMPTS = 'a red mug; the book; something to drink from; a bottle'
START_TIMEOUT = 90.0
SUBJECTS = ('own', 'plain', 'plain-bytes')
"""The node, and the plain one, which hands pixels to messages as numpy arrays or as bytes."""


def prepare_environment(domain: int) -> None:
    """Gives the processes a ROS domain of their own and the package's Fast DDS profile."""
    os.environ['ROS_DOMAIN_ID'] = str(domain)
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    os.environ.setdefault('FASTDDS_DEFAULT_PROFILES_FILE', str(ROOT / 'config' / 'fastdds.xml'))
    os.environ['RCUTILS_COLORIZED_OUTPUT'] = '0'
    # Checks each element of a message, refuses what the plain node does, and is off by default.
    os.environ.pop('ROS_PYTHON_CHECK_FIELDS', None)
    os.environ['PYTHONPATH'] = os.pathsep.join(
        filter(None, [str(ROOT), os.environ.get('PYTHONPATH', '')])
    )


class Process:
    """A process whose output goes to a file.

    Args:
        name: What messages call it.
        module: Run with ``python -m``.
        arguments: Of the module.
        log: Where its output goes.
    """

    def __init__(self, name: str, module: str, arguments: Sequence[str], log: Path) -> None:
        self.name, self._log = name, log
        with log.open('wb') as output:
            self._process = subprocess.Popen(
                [sys.executable, '-u', '-m', module, *arguments],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.usage = psutil.Process(self._process.pid)

    def output(self) -> str:
        """Returns what it has written so far."""
        return self._log.read_text(encoding='utf-8', errors='replace')

    def wait_for(self, text: str, timeout: float) -> None:
        """Waits until it writes something.

        Raises:
            BenchmarkError: It does not, or ends.
        """
        deadline = time.monotonic() + timeout
        while text not in self.output():
            self._check(self._process.poll() is None and time.monotonic() < deadline, text)
            time.sleep(0.02)

    def check_running(self) -> None:
        """Makes sure that it has not ended.

        Raises:
            BenchmarkError: It has.
        """
        self._check(self._process.poll() is None, 'the end of the measurement')

    def join(self, timeout: float) -> str:
        """Waits for its end and returns its last line.

        Raises:
            BenchmarkError: It fails, or does not end.
        """
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            status = None
        self._check(status == 0, 'a good end')
        return self.output().splitlines()[-1]

    def stop(self, timeout: float = 20.0) -> None:
        """Ends it as Ctrl-C does, so that it takes its shared memory with it."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _check(self, good: bool, wanted: str) -> None:
        if not good:
            end = '\n'.join(self.output().splitlines()[-15:])
            raise BenchmarkError(f'{self.name}: waited for {wanted!r} in vain; it said:\n{end}')


def names_of(cameras: int) -> list[str]:
    """The namespaces of several cameras' nodes; none for one camera."""
    return [f'camera_{number}' for number in range(1, cameras + 1)] if cameras > 1 else []


def start_node(
    subject: str, model: str, folder: Path, cameras: int = 1, max_batch: int = 0
) -> Process:
    """Starts a node, or that of each camera, and waits until it is ready.

    Args:
        subject: One of :data:`SUBJECTS`.
        model: ``stand-in:MILLISECONDS``, or a name.
        folder: For its output.
        cameras: How many; several need a model that has a name.
        max_batch: The nodes' parameter of that name, where there are several.
    """
    ros = ['--ros-args', '-p', f"prompt:='{PROMPTS}'"]
    if subject != 'own':
        assign = 'bytes' if subject == 'plain-bytes' else 'numpy'
        module = 'training.benchmarks.node_peers.plain_node'
        arguments = ['--model', model, '--prompts', PROMPTS, '--assign', assign]
    elif model.startswith('stand-in:'):
        module = 'training.benchmarks.node_peers.stand_in'
        arguments = ['--milliseconds', model.partition(':')[2], *ros]
    elif cameras > 1:
        module = 'clipseg_ros.segment_cameras_node'
        shared = ['-p', f"model:='{model}'", '-p', f'max_batch:={max_batch}', '-r', 'image:=/image']
        arguments = [*names_of(cameras), *ros, *shared]
    else:
        module = 'clipseg_ros.segment_node'
        arguments = [*ros, '-p', f"model:='{model}'"]
    node = Process(f'the node ({subject})', module, arguments, folder / f'{subject}.log')
    try:
        for name in names_of(cameras) or ['']:
            node.wait_for(f'{name}.clipseg]: active:' if name else 'active:', START_TIMEOUT)
    except BenchmarkError:
        node.stop()
        raise
    return node


@contextmanager
def running_node(
    subject: str, model: str, folder: Path, cameras: int = 1, max_batch: int = 0
) -> Iterator[Process]:
    """:func:`start_node`, and stops it."""
    node = start_node(subject, model, folder, cameras, max_batch)
    try:
        yield node
    finally:
        node.stop()
