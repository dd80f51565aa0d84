"""A fair lock, whose holder may serve others that wait for the same."""

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
    """A place in the queue, with one item to be served or none; see :meth:`Turns.together`.

    Attributes:
        called: Set when it is its turn, or when it has been served.
        served: Whether it was served in the turn of another.
    """

    items: tuple[ItemT, ...] = ()
    kind: Hashable = None
    most: int = 1
    called: threading.Event = field(default_factory=threading.Event)
    served: bool = False


class Turns(Generic[ItemT]):
    """A reentrant lock that goes to the thread that has waited longest, so that none starves.

    Python's own locks may go to the same thread again and again.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[_Ticket[ItemT]] = deque()
        self._taken = False
        self._holder: int | None = None

    @contextmanager
    def mine(self) -> Iterator[None]:
        """Wait for the turn, and pass it on at the end."""
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
        """Have an item served, together with those of its kind that wait when its turn comes.

        None waits for items that are still to come; an item may be served before its turn, with
        another, but never after it.

        Args:
            item: What is to be served.
            kind: Items of the same kind may be served together.
            most: Most items that may be served with it, itself included; of those that are served
                together, the smallest ``most`` counts.
            serve: Serves items, in the thread of one of them. What it raises is raised in that
                thread alone, so it should store the outcome in each item.
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
        """Remove from the queue and return the tickets that may be served with the first."""
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
