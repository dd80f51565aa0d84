"""Being asked to stop: SIGTERM, from Slurm, a container's host or ``kill``, ends a run in order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from training.loop.run_folder import RunError

#: What a shell reports of a process that SIGTERM ended.
EXIT_CODE = 128 + signal.SIGTERM


class RunStopped(RunError):
    """A run was asked to stop, and has written a checkpoint."""


class StopRequest:
    """Whether this process was asked to stop, since :meth:`heard` began."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    def __bool__(self) -> bool:
        return self._asked.is_set()

    def ask(self) -> None:
        """Ask the run to stop after the step that it is in."""
        self._asked.set()

    @contextmanager
    def heard(self) -> Iterator[StopRequest]:
        """Take SIGTERM for a request while the block runs.

        Python hears signals in its main thread alone; in another one this does nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return

        def take(number: int, frame: FrameType | None) -> None:
            self.ask()

        before = signal.signal(signal.SIGTERM, take)
        try:
            yield self
        finally:
            signal.signal(signal.SIGTERM, before)


def leave_stopping_to_the_run(worker: int) -> None:
    """Let a loading process live on when a scheduler signals all processes of a job.

    The step that the run is in needs its samples. It ends when the run does.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
