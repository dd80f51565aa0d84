"""Memory of the console on a real node while browsers come and go."""

from __future__ import annotations

import gc
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import psutil
import pytest
from console_server import Client, served
from ros_peers import NodeProcess, Peer, wait_until
from scene_camera import SceneCamera
from websockets.sync.client import connect

from clipseg_ros.console import cards as editing
from clipseg_ros.console.back_ends.ros import RosBackEnd
from clipseg_ros.demo.scenes import make_scene
from clipseg_ros.ros.interfaces import load_interfaces

MINUTES = float(os.environ.get('CLIPSEG_CONSOLE_MINUTES', '5'))
RECONNECTIONS = 50
LAYERS = [['labels'], ['labels', 'heat'], ['labels', 'instances'], ['overlay']]


@pytest.fixture
def back_end(own_domain: int, built: dict[str, str]) -> Iterator[RosBackEnd]:
    if load_interfaces() is None:
        pytest.skip('the messages of clipseg_ros are not built (make interfaces)')
    with ExitStack() as stack:
        peer = Peer(own_domain)
        stack.callback(peer.close)
        camera = SceneCamera(peer, make_scene(1, 640, 480).rgb, rate=10.0)
        stack.callback(camera.close)
        environment = {**built, 'ROS_DOMAIN_ID': str(own_domain)}
        parameters = {'model': 'tabletop', 'threads': 1, 'prompt': "'the mug; yellow plate'"}
        node = NodeProcess('clipseg_ros.segment_node', parameters, environment=environment)
        stack.callback(lambda: node.stop(patience=60.0))
        node.wait_for('active: tabletop', 120.0)
        yield RosBackEnd(['/clipseg'], domain_id=own_domain)


def look(client: Client, seconds: float, layers: list[str]) -> int:
    """Gets segmented pictures as a browser does, and goes; returns how many came."""
    count = last = 0
    end = time.monotonic() + seconds
    with connect(f'ws://{client.host}/shots', max_size=None, compression=None) as shots:
        # One picture at least, so that every subscription has been at work.
        while time.monotonic() < end or not count:
            assert time.monotonic() < end + 60, f'no picture with {layers}'
            shots.send(json.dumps({'after': last, 'layers': layers}))
            data = shots.recv(timeout=60)
            assert isinstance(data, bytes)
            length = int.from_bytes(data[:4], 'little')
            header = json.loads(data[4 : 4 + length])
            last = header['number']
            count += header['segmented']
    return count


def megabytes() -> float:
    gc.collect()
    return float(psutil.Process().memory_info().rss / 1e6)


def subscriptions(back_end: RosBackEnd) -> int:
    return len(list(back_end._peer.node.subscriptions))


@pytest.mark.slow
@pytest.mark.timeout(MINUTES * 60 + 600)
def test_memory_is_flat_over_reconnections(back_end: RosBackEnd) -> None:
    with served(back_end) as (client, _):
        wait_until(lambda: back_end.cards, 30.0, 'the prompts of the node')
        seconds = MINUTES * 60
        for layers in LAYERS:
            look(client, 0.2 * seconds / len(LAYERS), layers)
        wait_until(lambda: back_end._layers is None, 30.0, 'the end of the browsers')
        idle, threads, before = subscriptions(back_end), threading.active_count(), megabytes()
        pictures = 0
        for number in range(RECONNECTIONS):
            layers = LAYERS[number % len(LAYERS)]
            pictures += look(client, 0.8 * seconds / RECONNECTIONS, layers)
            wait_until(lambda: back_end._layers is None, 30.0, 'the end of the browser')
            # Nobody looks, so nothing but what is always followed is subscribed to.
            assert subscriptions(back_end) == idle
        after = megabytes()
        print(f'{pictures} pictures: {before:.0f} MB, {after:.0f} MB')
        assert after - before < 15
        assert threading.active_count() <= threads + 2
        # It still works.
        back_end.change(editing.added(back_end.cards, 'a bowl'))
        assert [card.name for card in back_end.cards] == ['the mug', 'yellow plate', 'a bowl']
