"""Python processes that have imported torch already: forked off one that did so once.

A node that is started as users start it spends most of its first seconds on imports, and the tests
start dozens. One of these has environment, working folder, arguments, output and process group of
its own, ends as any other, and differs in one respect: most of its imports are done. Tests of how
a process starts start it afresh (``NodeProcess(..., afresh=True)``).
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Not rclpy: the tracing library that it loads (LTTng) starts threads, which a fork has not, and its
# end would crash.
IMPORTS = (
    'clipseg_model.registry',
    'clipseg_model.modeling.clipseg',
    'clipseg_model.modeling.bundled.small_clip',
)
_LARGEST = 1 << 17
_PR_SET_PDEATHSIG = 1


class WarmPython:
    """A process that forks others; it ends with the one that made it."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, '-u', __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                cwd=folder,
                env=dict(environment),
                start_new_session=False,
            )
        self._lock = threading.Lock()
        self._ended: dict[int, int] = {}

    def start(
        self, words: Sequence[str], output: int, folder: Path, environment: Mapping[str, str]
    ) -> WarmProcess:
        """Start a process.

        Args:
            words: Arguments of Python: ``-m`` and a module, or a file, and what these get.
            output: Descriptor of the file for what it writes.
            folder: Its working folder.
            environment: All of its variables.
        """
        asked = {'words': list(words), 'folder': str(folder), 'environment': dict(environment)}
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(asked).encode()], [output])
            while True:
                told = self._receive()
                if 'pid' in told:
                    return WarmProcess(self, told['pid'])

    def status_of(self, pid: int) -> int | None:
        """Return the exit status of a process, negative where a signal ended it."""
        with self._lock:
            while pid not in self._ended and select.select([self._socket], [], [], 0)[0]:
                self._receive()
            return self._ended.get(pid)

    def _receive(self) -> dict[str, int]:
        data = self._socket.recv(_LARGEST)
        assert data, f'it has ended with {self._server.wait()}'
        told: dict[str, int] = json.loads(data)
        if 'ended' in told:
            self._ended[told['ended']] = told['status']
        return told

    def close(self) -> None:
        """End it."""
        self._socket.close()
        self._server.wait(10)


class WarmProcess:
    """What ``subprocess.Popen`` is of an ordinary process, as far as ChildProcess asks."""

    def __init__(self, server: WarmPython, pid: int) -> None:
        self._server, self.pid = server, pid

    def poll(self) -> int | None:
        return self._server.status_of(self.pid)

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            time.sleep(0.01)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def serve(asking: socket.socket) -> tuple[dict[str, Any], int] | None:
    """Fork for each request; return it in the new process, and None when nobody is left."""
    woken, wakes = socket.socketpair()
    for end in (woken, wakes):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
    while True:
        ready, _, _ = select.select([asking, woken], [], [])
        if woken in ready:
            woken.recv(1 << 10)
            while (ended := _reap()) is not None:
                asking.send(json.dumps(ended).encode())
        if asking not in ready:
            continue
        data, (*outputs,), _, _ = socket.recv_fds(asking, _LARGEST, 1)
        if not data:
            return None
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for end in (asking, woken, wakes):
                end.close()
            return json.loads(data), outputs[0]
        os.close(outputs[0])
        asking.send(json.dumps({'pid': pid}).encode())


def _reap() -> dict[str, int] | None:
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return {'ended': pid, 'status': os.waitstatus_to_exitcode(status)} if pid else None


def become(asked: dict[str, Any], output: int) -> None:
    """Make of this process what was asked for, and run it."""
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.chdir(asked['folder'])
    os.environ.clear()
    os.environ.update(asked['environment'])
    words = asked['words']
    if words[0] == '-m':
        sys.argv, sys.path[0] = words[1:], asked['folder']
        runpy.run_module(words[1], run_name='__main__', alter_sys=True)
    else:
        sys.argv, sys.path[0] = words, str(Path(words[0]).parent)
        runpy.run_path(words[0], run_name='__main__')


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who made this process.
    os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')  # As tune_process() does for a node.
    for name in IMPORTS:
        importlib.import_module(name)
    assert 'rclpy' not in sys.modules
    gc.freeze()
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    if request is not None:
        become(*request)


if __name__ == '__main__':
    main()
