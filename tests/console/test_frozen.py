"""Frozen pictures: whose they are, what is marked in them, and what they are segmented again by."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from console_server import Client, StandIn, served
from numpy.typing import NDArray
from websockets.sync.client import ClientConnection, connect

from clipseg_ros.console.back_ends.base import Answer
from clipseg_ros.console.shots import Found, encode_values


class Changing(StandIn):
    """Scores 0.3 in what is live, and 0.9 in what stands still."""

    score = 0.3

    def found(self) -> list[Found]:
        return [Found(1, card.name, self.score, self.score > 0.5, 768) for card in self.cards]

    def answer(self, rgb: NDArray[np.uint8], cards: Any) -> Answer:
        found = tuple(replace(one, score=0.9, presence=True) for one in self.found())
        instances = np.full(rgb.shape[:2], 7, np.uint8)
        layers = {'instances': lambda: encode_values(instances)}
        return Answer(np.full(rgb.shape[:2], 1, np.uint8), found, layers)


@pytest.fixture
def back_end() -> Changing:
    return Changing()


@pytest.fixture
def client(back_end: Changing) -> Iterator[Client]:
    with served(back_end) as (made, _):
        made.do('add', text='the mug')
        yield made


def shown(back_end: Changing, shots: ClientConnection, browser: str, after: int) -> int:
    """The number of a new picture that a browser has got."""
    shots.send(json.dumps({'after': after, 'browser': browser}))
    time.sleep(0.05)
    back_end.push()
    return int(header(shots.recv(timeout=10))['number'])


def header(data: Any) -> dict[str, Any]:
    length = int.from_bytes(data[:4], 'little')
    return dict(json.loads(data[4 : 4 + length]))


def compare(client: Client, **body: Any) -> dict[str, Any]:
    status, _, data = client.ask('/compare', 'POST', json.dumps(body).encode())
    assert status == 200, data
    return header(data)


def test_what_one_browser_freezes_drops_nothing_of_another(
    client: Client, back_end: Changing
) -> None:
    with (
        connect(f'ws://{client.host}/shots', compression=None) as mine,
        connect(f'ws://{client.host}/shots', compression=None) as other,
    ):
        number = shown(back_end, mine, 'mine', 0)
        assert client.ask(f'/freeze/{number}?browser=mine')[0] == 200
        last = number
        for _ in range(2):
            last = shown(back_end, mine, 'mine', last)
        for count in range(30):
            last = shown(back_end, other, 'other', last)
            # By its own name, and by names that nobody goes by.
            name = 'other' if count % 2 else f'nobody{count}'
            assert client.ask(f'/freeze/{last}?browser={name}')[0] == 200
        assert compare(client, number=number)['number'] == number
        # Those of the other are few, too.
        assert client.ask(f'/freeze/{number + 4}?browser=other')[0] == 400


def test_what_is_marked_is_what_is_shown(client: Client, back_end: Changing) -> None:
    with connect(f'ws://{client.host}/shots', compression=None) as shots:
        number = shown(back_end, shots, 'mine', 0)
        assert client.ask(f'/freeze/{number}?browser=mine')[0] == 200
        back_end.score = 0.6
        live = shown(back_end, shots, 'mine', number)
        marked = [client.do('mark', name='the mug', right=True, number=one)[1]['said']
                  for one in (number, live)]  # fmt: skip
        assert marked == [
            "'the mug' is not there, at a score of 0.30",
            "'the mug' is there, at a score of 0.60",
        ]
        # Segmented again by another threshold of all, nothing of what is kept changes.
        compare(client, number=number, threshold=0.9)
        assert (
            'score of 0.30'
            in client.do('mark', name='the mug', right=True, number=number)[1]['said']
        )
        compare(client, number=number)
        assert (
            'score of 0.90'
            in client.do('mark', name='the mug', right=True, number=number)[1]['said']
        )
        status, said = client.do('mark', name='a bowl', right=True, number=number)
        assert (status, said['error']) == (400, "nothing is shown of 'a bowl' yet")
        # A click in it takes what is shown there now: the whole picture.
        client.do('pick', number=number, x=60, y=40, name='all')
        mask = next(card for card in back_end.cards if card.name == 'all').example.mask  # type: ignore[union-attr]
        assert mask is not None
        assert mask.all()


def test_a_frozen_picture_has_the_layers_that_are_wanted(
    client: Client, back_end: Changing
) -> None:
    with connect(f'ws://{client.host}/shots', compression=None) as shots:
        number = shown(back_end, shots, 'mine', 0)
        parts = compare(client, number=number)['parts']
        assert {name for name, _ in parts} == {'picture', 'labels'}
        parts = compare(client, number=number, layers=['instances', 'overlay'])['parts']
        assert {name for name, _ in parts} == {'picture', 'labels', 'instances'}
