"""Memory of the console over half an hour of pictures and 50 browsers that come and go."""

from __future__ import annotations

import gc
import json
import os
import threading
import time
from collections.abc import Iterator

import numpy as np
import psutil
import pytest
from console_server import Client, StandIn, served
from websockets.sync.client import connect

from clipseg_ros.console import cards as editing
from clipseg_ros.console.shots import Found, Shot, encode_values

MINUTES = float(os.environ.get('CLIPSEG_CONSOLE_MINUTES', '30'))
RATE = 20.0
BROWSERS = 50


class LiveStandIn(StandIn):
    """Shows another picture 20 times a second."""

    def push_all(self, until: threading.Event) -> None:
        generator = np.random.default_rng(0)
        self.change(editing.added((), 'the mug; a bowl'))
        while not until.wait(1 / RATE):
            rgb = np.full((480, 640, 3), int(generator.integers(256)), np.uint8)
            rgb[100:300, 100:300] = generator.integers(0, 255, (200, 200, 3), dtype=np.uint8)
            labels = np.zeros((480, 640), np.uint8)
            labels[50:200, 100:400] = 1
            found = [Found(1, 'the mug', float(generator.random()), True, 45_000)]
            layers = {'labels': encode_values(labels)}
            shot = Shot(time.time(), 640, 480, lambda rgb=rgb: rgb, layers, found, None, True)
            self.show(shot)


@pytest.fixture
def client() -> Iterator[Client]:
    back_end = LiveStandIn()
    ends = threading.Event()
    with served(back_end) as (made, _):
        thread = threading.Thread(target=back_end.push_all, args=(ends,))
        thread.start()
        yield made
        ends.set()
        thread.join()


def look(client: Client, seconds: float) -> int:
    """Gets pictures and state as a browser does; returns how many pictures came."""
    count = last = 0
    end = time.monotonic() + seconds
    with (
        connect(f'ws://{client.host}/shots', max_size=None, compression=None) as shots,
        connect(f'ws://{client.host}/state', max_size=None, compression=None) as state,
    ):
        while time.monotonic() < end:
            shots.send(json.dumps({'after': last, 'layers': ['labels']}))
            data = shots.recv(timeout=10)
            assert isinstance(data, bytes)
            length = int.from_bytes(data[:4], 'little')
            last = json.loads(data[4 : 4 + length])['number']
            count += 1
            try:
                while True:
                    state.recv(timeout=0)
            except TimeoutError:
                continue
    return count


def megabytes() -> float:
    gc.collect()
    return float(psutil.Process().memory_info().rss / 1e6)


@pytest.mark.slow
@pytest.mark.timeout(MINUTES * 60 + 300)
def test_memory_is_flat(client: Client) -> None:
    look(client, MINUTES * 60 * 0.1)
    before = megabytes()
    pictures = look(client, MINUTES * 60 * 0.5)
    streamed = megabytes()
    for _ in range(BROWSERS):
        pictures += look(client, max(0.5, MINUTES * 60 * 0.4 / BROWSERS))
    after = megabytes()
    print(f'{pictures} pictures: {before:.0f} MB, {streamed:.0f} MB, {after:.0f} MB')
    assert streamed - before < 15
    assert after - before < 15
    assert len(threading.enumerate()) < 60
