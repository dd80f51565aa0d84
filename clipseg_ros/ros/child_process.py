"""A node in a process of its own: started with a log file, watched, and stopped cleanly."""

from __future__ import annotations

import ctypes
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def _end_with_parent() -> None:
    """Asks Linux to interrupt this process when its parent ends, however it does."""
    # A shell starts what it runs in the background deaf to this signal, and children inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


class ChildEnded(RuntimeError):
    """A process ended that should have gone on; the message has the end of its log."""


class ChildProcess:
    """A running process; as a context manager it is stopped at the end.

    It has a session of its own: Ctrl-C in the terminal reaches the parent alone, which then
    stops its children in order.

    Args:
        name: What messages call it.
        command: Program and arguments.
        log: File that its output goes to; made anew.
        environment: Its environment variables.
    """

    def __init__(
        self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str]
    ) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open('wb') as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )

    def __enter__(self) -> ChildProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Its number among the processes."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process.poll() is None

    def tail(self, lines: int = 15) -> str:
        """Returns the last lines of its log."""
        text = self.log.read_text(encoding='utf-8', errors='replace')
        return '\n'.join(text.splitlines()[-lines:])

    def check(self) -> None:
        """Returns if the process lives.

        Raises:
            ChildEnded: If it has ended.
        """
        status = self._process.poll()
        if status is not None:
            ending = f'signal {-status}' if status < 0 else f'exit status {status}'
            raise ChildEnded(
                f'{self.name} has ended ({ending}). The end of {self.log}:\n{self.tail()}'
            )

    def stop(self, patience: float = 10.0) -> int:
        """Ends the process: asks, then insists.

        Args:
            patience: Seconds for each of the two polite ways, SIGINT and SIGTERM.

        Returns:
            Its exit status, negative where a signal ended it.
        """
        for request in (signal.SIGINT, signal.SIGTERM):
            if not self.running:
                break
            self._process.send_signal(request)
            try:
                self._process.wait(timeout=patience)
            except subprocess.TimeoutExpired:
                continue
        if self.running:
            self._process.kill()
        return self._process.wait()
