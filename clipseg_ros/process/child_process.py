"""A program in a process of its own: started, listened to, waited for, and ended cleanly."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def _end_with_parent() -> None:
    """Ask Linux to interrupt this process when the thread that started it ends."""
    # A shell starts what it runs in the background deaf to this signal, and children inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Not a session, which keeps Ctrl-C away too: Linux shares the processor out by sessions (see
    # sched(7), autogroup), and a node alone in one missed half of its images on a busy machine.
    os.setpgid(0, 0)
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


class ChildError(RuntimeError):
    """A process ended or kept silent unexpectedly; the message has the end of its output."""


class ChildProcess:
    """A running process; as a context manager it is stopped at the end.

    It has a process group of its own: Ctrl-C in the terminal reaches the parent alone, which then
    stops its children in order.

    Args:
        name: What messages call it.
        command: Program and arguments.
        log: File that its output replaces; None keeps the output in an unnamed temporary file.
        environment: None for that of this process.
        folder: Its working folder; None for that of this process.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        log: Path | None = None,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.name = name
        self.log = log
        if log is None:
            self._output = tempfile.TemporaryFile()  # noqa: SIM115 - read while the process lives
        else:
            log.parent.mkdir(parents=True, exist_ok=True)
            self._output = log.open('w+b')
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env=None if environment is None else dict(environment),
            preexec_fn=_end_with_parent,
        )

    def __enter__(self) -> ChildProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    @property
    def output(self) -> str:
        """What the process has written so far."""
        file = self._output.fileno()
        return os.pread(file, os.fstat(file).st_size, 0).decode(errors='replace')

    @property
    def lines(self) -> list[str]:
        """The lines that the process has written so far, complete ones alone while it runs."""
        whole = not self.running
        text = self.output
        return (text if whole else text[: text.rfind('\n') + 1]).splitlines()

    def tail(self, lines: int = 15) -> str:
        """Return the last lines of the output."""
        return '\n'.join(self.output.splitlines()[-lines:])

    def wait_for(self, text: str, timeout: float = 40.0, since: int = 0) -> str:
        """Wait until the process writes a line that contains a text; return the first.

        Args:
            text: Any part of the line.
            timeout: Seconds.
            since: Number of lines at the start that do not count.

        Raises:
            ChildError: There is none in time, or the process ends without it.
        """
        deadline = time.monotonic() + timeout
        while True:
            ended = not self.running
            for line in self.lines[since:]:
                if text in line:
                    return line
            if ended:
                self.check()
            if time.monotonic() > deadline:
                self._fail(f'did not say {text!r} within {timeout:g} s')
            time.sleep(0.02)

    def check(self) -> None:
        """Raise :class:`ChildError` if the process has ended."""
        status = self._process.poll()
        if status is not None:
            ending = f'signal {-status}' if status < 0 else f'exit status {status}'
            self._fail(f'has ended ({ending})')

    def join(self, timeout: float) -> int:
        """Wait until the process ends by itself; return its exit status as :meth:`stop` does.

        Raises:
            ChildError: It is still running after ``timeout`` seconds.
        """
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._fail(f'is still running after {timeout:g} s')

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        self._process.send_signal(number)

    def stop(
        self, signals: Sequence[int] = (signal.SIGINT, signal.SIGTERM), patience: float = 10.0
    ) -> int:
        """End the process: ask with each of the signals, then kill.

        Args:
            signals: Sent in this order, as long as the process is running.
            patience: Seconds to wait after each of them.

        Returns:
            Its exit status, negative where a signal ended it.
        """
        for number in signals:
            self.send_signal(number)
            try:
                return self._process.wait(patience)
            except subprocess.TimeoutExpired:
                continue
        self._process.kill()
        return self._process.wait()

    def _fail(self, problem: str) -> NoReturn:
        where = 'its output' if self.log is None else str(self.log)
        raise ChildError(f'{self.name} {problem}. The end of {where}:\n{self.tail()}')
