"""A back end that answers what a test says, and the console around it, served in a thread."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipseg_model.errors import PromptError
from clipseg_ros.console.app import Served, make_server
from clipseg_ros.console.back_ends.base import (
    Answer,
    BackEnd,
    Choice,
    ConsoleError,
    Status,
    Trouble,
)
from clipseg_ros.console.cards import Card, Cards
from clipseg_ros.console.shots import Found, Shot, encode_values

HEIGHT, WIDTH = 48, 64


class StandIn:
    """Finds the upper left quarter for every prompt but one called `unreadable`."""

    kind = 'alone'

    def __init__(self) -> None:
        self.cards: Cards = ()
        self.watched: list[frozenset[str] | None] = []
        self.troubles: tuple[Trouble, ...] = ()
        self.values: dict[str, Any] = {}
        self.pictures: list[NDArray[np.uint8]] = []
        self.rgb = np.full((HEIGHT, WIDTH, 3), (10, 200, 30), np.uint8)
        self.closed = False

    def start(self, show: Callable[[Shot], None], tell: Callable[[], None]) -> None:
        self.show, self.tell = show, tell

    def close(self) -> None:
        self.closed = True

    def watch(self, layers: frozenset[str] | None) -> None:
        self.watched.append(layers)

    def status(self) -> Status:
        source = (Choice('one', 'one'),)
        return Status('one', 'small', 'cpu', {}, self.troubles, source, 'one', takes_pictures=True)

    def change(self, cards: Sequence[Card]) -> str:
        if any(card.phrase == 'unreadable' for card in cards):
            raise PromptError('the model cannot read it: write another word')
        self.cards = tuple(replace(card, id=n) for n, card in enumerate(cards, start=1))
        return f'{len(cards)} active'

    def cards_to_save(self) -> Cards:
        return self.cards

    def set_values(self, values: dict[str, Any]) -> str:
        self.values.update(values)
        return 'changed'

    def choose(self, what: str, key: str) -> str:
        raise ConsoleError('/srv/somebody/models/secret.pt is not there')

    def step(self, by: int, playing: bool | None = None) -> str:
        raise RuntimeError('/srv/somebody has a bug')

    def take_picture(self, rgb: NDArray[np.uint8], name: str) -> str:
        self.pictures.append(rgb)
        return f'{name} taken'

    def answer(self, rgb: NDArray[np.uint8], cards: Sequence[Card]) -> Answer:
        return Answer(self.labels(), tuple(self.found()))

    def labels(self) -> NDArray[np.uint8]:
        labels = np.zeros((HEIGHT, WIDTH), np.uint8)
        labels[: HEIGHT // 2, : WIDTH // 2] = 1
        return labels

    def found(self) -> list[Found]:
        return [Found(card.id, card.name, 0.8, True, 768) for card in self.cards]

    def push(self, stamp: float | None = None) -> None:
        """Shows a picture now."""
        layers = {'labels': encode_values(self.labels())}
        at = time.time() if stamp is None else stamp
        self.show(Shot(at, WIDTH, HEIGHT, lambda: self.rgb, layers, self.found(), segmented=True))


class Client:
    """Talks HTTP to a console, as a program that lies about itself where it is told to."""

    def __init__(self, port: int) -> None:
        self.port = port

    @property
    def host(self) -> str:
        return f'127.0.0.1:{self.port}'

    def ask(
        self,
        path: str,
        method: str = 'GET',
        body: bytes | None = None,
        timeout: float = 20.0,
        **headers: str,
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=timeout)
        try:
            given = {name.replace('_', '-'): value for name, value in headers.items()}
            connection.request(method, path, body, given)
            answer = connection.getresponse()
            said = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, said, answer.read()
        finally:
            connection.close()

    def do(self, name: str, /, **body: Any) -> tuple[int, dict[str, Any]]:
        status, _, text = self.ask(f'/do/{name}', 'POST', json.dumps(body).encode())
        return status, json.loads(text)


@contextmanager
def served(back_end: BackEnd, **options: Any) -> Iterator[tuple[Client, list[str]]]:
    """A console in a thread of its own, and the lines that it says."""
    lines: list[str] = []
    server, bound = make_server(back_end, Served(**{'port': 0, **options}), lines.append)
    port = bound.getsockname()[1]
    thread = threading.Thread(target=server.run, kwargs={'sockets': [bound]})
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not lines:
            assert time.monotonic() < deadline, 'the console does not start'
            time.sleep(0.01)
        yield Client(port), lines
    finally:
        server.should_exit = True
        thread.join(20)
        bound.close()
        assert not thread.is_alive(), 'the console does not end'
