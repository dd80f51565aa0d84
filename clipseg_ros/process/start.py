"""The first seconds of a process, in which it imports what it needs and can just end."""

from __future__ import annotations

import os
import signal
from typing import Any

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM)

INTERRUPTED = 130
"""Exit status of a command that Ctrl-C has kept from its work."""


def end_at_once_if_asked(status: int = 0) -> None:
    """Let SIGINT and SIGTERM end this process with one line, and a status: 0 as they end a node.

    An exception in the middle of an import may surface as any error, with a traceback out of
    somebody's library. :func:`clipseg_ros.process.runner.run_nodes` ends this, or
    :func:`take_signals_as_usual`: call it before anything begins that has to be left in order.
    """

    def end(*_: Any) -> None:
        # Not print(): its stream may be in use.
        os.write(2, b'interrupted while starting: nothing had begun\n')
        os._exit(status)

    for number in ENDING_SIGNALS:
        signal.signal(number, end)


def take_signals_as_usual() -> None:
    """Give these signals back what Python starts with."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
