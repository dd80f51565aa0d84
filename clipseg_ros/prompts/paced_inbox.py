"""Pacing of commands that may come in a flood: the newest of each kind takes effect.

A thousand messages a second would keep the executor busy even if they were dropped at once. So the
executor does not take messages of a topic that sends too fast for a moment, while the middleware
keeps the newest.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from clipseg_ros.ros.callback_groups import Gate
from clipseg_ros.ros.timing import create_steady_timer

_PERIOD = 0.02

_BURST = 2
"""Messages of a kind that are taken in a period."""


class _PacedGate(Gate):
    """The callback group of one topic, with the messages taken in this period."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = 0


class PacedInbox:
    """Holds the newest command of each kind until it may take effect, in the node's executor.

    The first command takes effect at once. One that comes too soon after it waits, and a newer one
    of its kind replaces it. Commands of several kinds take effect in the order in which they came.
    """

    def __init__(self, node: Any) -> None:
        self._node = node
        self._waiting: dict[str, tuple[Callable[[], None], float]] = {}
        self._free_at = 0.0
        self._gates: dict[str, _PacedGate] = {}
        self._timer: Any = None

    def open(self) -> None:
        """Begin to take commands."""
        self._timer = create_steady_timer(self._node, _PERIOD, self._look)
        self._timer.cancel()

    def close(self) -> None:
        """Drop the waiting commands, and take no more."""
        self.clear()
        self._gates.clear()
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
        self._timer = None

    def gate(self, kind: str) -> Any:
        """Return the callback group of the topic whose messages are commands of a kind."""
        return self._gates.setdefault(kind, _PacedGate())

    def put(self, kind: str, act: Callable[[], None], pause: float) -> None:
        """Take a command, in place of a waiting one of its kind.

        ``pause`` is the time until the next command may take effect, seconds.
        """
        self._waiting.pop(kind, None)
        self._waiting[kind] = act, pause
        if time.monotonic() >= self._free_at:
            self.settle()
        gate = self._gates.get(kind)
        if gate is not None:
            gate.taken += 1
            gate.shut = gate.taken >= _BURST
        if self._timer is not None and self._timer.is_canceled():
            self._timer.reset()

    def settle(self) -> None:
        """Let all waiting commands take effect."""
        waiting, self._waiting = self._waiting, {}
        for act, _ in waiting.values():
            act()
        if waiting:
            self._free_at = time.monotonic() + max(pause for _, pause in waiting.values())

    def clear(self, kind: str | None = None) -> None:
        """Drop the waiting commands, all or those of one kind."""
        if kind is None:
            self._waiting.clear()
        else:
            self._waiting.pop(kind, None)

    def _look(self) -> None:
        busy = bool(self._waiting) or any(gate.taken for gate in self._gates.values())
        for gate in self._gates.values():
            gate.taken, gate.shut = 0, False
        if time.monotonic() >= self._free_at:
            self.settle()
        if not busy:
            self._timer.cancel()
