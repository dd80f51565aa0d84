"""A line before something that serves one thread at a time, or several who want the same."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

ItemT = TypeVar('ItemT')


@dataclass(eq=False)
class _Ticket(Generic[ItemT]):
    """A place in the line.

    Attributes:
        items: What shall be served with those of others, if anything: one, or none.
        kind: Items of the same kind may be served together.
        most: Most items that may be served with it, itself included.
        called: Set when it is its turn, or when it has been served.
        served: Whether another has had it served.
    """

    items: tuple[ItemT, ...] = ()
    kind: Hashable = None
    most: int = 1
    called: threading.Event = field(default_factory=threading.Event)
    served: bool = False


class Turns(Generic[ItemT]):
    """A lock that is given to who has waited for longest, so that nobody starves.

    Python's own locks may go to the same thread again and again. Who has it may ask for it again.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[_Ticket[ItemT]] = deque()
        self._taken = False
        self._holder: int | None = None

    @contextmanager
    def mine(self) -> Iterator[None]:
        """Waits for the turn, and passes it on at the end."""
        if self._holder == threading.get_ident():
            yield
            return
        self._wait(_Ticket())
        try:
            yield
        finally:
            self._pass_on()

    def together(
        self, item: ItemT, kind: Hashable, most: int, serve: Callable[[list[ItemT]], None]
    ) -> None:
        """Has an item served together with those of its kind that wait when its turn comes.

        It waits for no item that is not there yet. Whose turn it is has all of them served, so one
        may be served before its turn, never after it.

        Args:
            item: What shall be served.
            kind: Items of the same kind may be served together.
            most: Most items that may be served with it, itself included; where those who wait
                differ, the least of theirs counts.
            serve: Serves items, in this thread or in that of another of them. What it raises is
                raised in the thread that called it alone, so it should leave the outcome with each
                item.
        """
        ticket = _Ticket((item,), kind, most)
        self._wait(ticket)
        if ticket.served:
            return
        joined = self._join(ticket)
        try:
            serve([item, *(one for other in joined for one in other.items)])
        finally:
            for other in joined:
                other.served = True
                other.called.set()
            self._pass_on()

    def _wait(self, ticket: _Ticket[ItemT]) -> None:
        with self._guard:
            if self._taken:
                self._waiting.append(ticket)
            else:
                self._taken = True
                ticket.called.set()
        ticket.called.wait()
        if not ticket.served:
            self._holder = threading.get_ident()

    def _join(self, first: _Ticket[ItemT]) -> list[_Ticket[ItemT]]:
        """Takes those out of the line who may be served with who has the turn."""
        joined: list[_Ticket[ItemT]] = []
        most = first.most
        with self._guard:
            for other in tuple(self._waiting):
                size = 2 + len(joined)
                if other.items and other.kind == first.kind and size <= min(most, other.most):
                    most = min(most, other.most)
                    joined.append(other)
                    self._waiting.remove(other)
        return joined

    def _pass_on(self) -> None:
        with self._guard:
            self._holder = None
            if self._waiting:
                self._waiting.popleft().called.set()
            else:
                self._taken = False
