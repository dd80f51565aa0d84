"""How fast and how late the page shows what a camera publishes, by time codes in the pictures."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from page_driver import Page, running_browser
from ros_peers import NodeProcess, Peer
from scene_camera import SceneCamera
from sensor_msgs.msg import Image

from clipseg_ros.ros.interfaces import load_interfaces

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.timeout(300)]

RATE, BITS, BLOCK = 20.0, 31, 20
SECONDS = 15.0

# Notes, for every picture that has been drawn, when it was on the screen and which time is in it.
_WATCH = """async ({bits, block}) => {
    const {onShot} = await import('/page/stream.js');
    const canvas = document.querySelector('.picture canvas');
    globalThis.noted = [];
    globalThis.newest = null;
    onShot(() => {
        const row = canvas.getContext('2d').getImageData(0, block / 2, bits * block, 1).data;
        let code = 0;
        for (let bit = 0; bit < bits; bit += 1) {
            code = code * 2 + (row[4 * (bit * block + block / 2)] > 127 ? 1 : 0);
        }
        globalThis.newest = code;
        requestAnimationFrame(() => globalThis.noted.push([code, Date.now() % 2 ** bits]));
    });
    globalThis.ages = [];
    setInterval(() => {
        if (globalThis.newest !== null) {
            globalThis.ages.push(Date.now() % 2 ** bits - globalThis.newest);
        }
    }, 50);
}"""


class ClockCamera(SceneCamera):
    """Writes the milliseconds of each picture's stamp into its first rows."""

    def message(self) -> Image:
        message = self._peer.stamped(self.rgb)
        stamp = message.header.stamp
        code = (stamp.sec * 1000 + stamp.nanosec // 1_000_000) % 2**BITS
        pixels: NDArray[np.uint8] = np.frombuffer(message.data, np.uint8).reshape(480, 640, 3)
        for bit in range(BITS):
            on = code >> (BITS - 1 - bit) & 1
            pixels[:BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 255 if on else 0
        return message


class Bottleneck:
    """Passes connections on to a port at so many bytes a second."""

    def __init__(self, port: int, rate: float) -> None:
        self._target, self._rate = port, rate
        self._listener = socket.create_server(('127.0.0.1', 0))
        self.port = self._listener.getsockname()[1]
        self._free = 0.0
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(('127.0.0.1', self._target))
            # A slow line has no megabytes of buffers before it.
            far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            for one, other, slow in ((near, far, False), (far, near, True)):
                threading.Thread(target=self._pump, args=(one, other, slow), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket, slow: bool) -> None:
        try:
            while data := one.recv(4096):
                if slow:
                    with self._lock:
                        begin = max(self._free, time.monotonic())
                        self._free = begin + len(data) / self._rate
                    time.sleep(max(0.0, self._free - time.monotonic()))
                other.sendall(data)
        except OSError:
            pass
        finally:
            one.close()
            other.close()


@pytest.fixture(scope='module')
def browser() -> Iterator[Any]:
    with running_browser() as made:
        yield made


@pytest.fixture(scope='module')
def console(own_domain: int, built: dict[str, str]) -> Iterator[NodeProcess]:
    """The console in a process of its own, on a node with a prompt and a camera at 20 Hz."""
    if load_interfaces() is None:
        pytest.skip('the messages of clipseg_ros are not built (make interfaces)')
    environment = {**built, 'ROS_DOMAIN_ID': str(own_domain)}
    with ExitStack() as stack:
        peer = Peer(own_domain)
        stack.callback(peer.close)
        scene = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
        rgb = scene.repeat(16, axis=0).repeat(16, axis=1)
        camera = ClockCamera(peer, rgb, RATE)
        stack.callback(camera.close)
        node = NodeProcess(
            'clipseg_ros.segment_node',
            {'model': 'tabletop', 'prompt': "'the mug'"},
            environment=environment,
        )
        stack.callback(lambda: node.stop(patience=40.0))
        node.wait_for('active: tabletop', 120.0)
        words = ['-m', 'clipseg_ros.command', 'console', '--node', '/clipseg', '--port', '0']
        made = NodeProcess('-m', script=words[1:], environment=environment, afresh=True)
        stack.callback(lambda: made.stop(patience=40.0))
        made.wait_for('The console: ', 120.0)
        yield made


def address_of(console: NodeProcess) -> tuple[str, int]:
    found = re.search(r'http://127\.0\.0\.1:(\d+)/', console.output)
    assert found is not None
    return found.group(), int(found.group(1))


def share_of_a_core(process: int, seconds: float, page: Page | None = None) -> float:
    one = psutil.Process(process)
    before = sum(one.cpu_times()[:2])
    begin = time.monotonic()
    if page is None:
        time.sleep(seconds)
    else:
        page.page.wait_for_timeout(1000 * seconds)
    return float((sum(one.cpu_times()[:2]) - before) / (time.monotonic() - begin))


def test_frames_and_latency(browser: Any, console: NodeProcess) -> None:
    address, _ = address_of(console)
    page = Page(browser, address)
    try:
        page.wait_for(lambda: page.names() == ['the mug'], what='the prompt')
        page.page.wait_for_timeout(5000)
        page.page.evaluate(_WATCH, {'bits': BITS, 'block': BLOCK})
        used = share_of_a_core(console.pid, SECONDS, page)
        noted = page.page.evaluate('globalThis.noted')
    finally:
        page.close()
    late = np.array([shown - code for code, shown in noted])
    rate = len({code for code, _ in noted}) / SECONDS
    time.sleep(8.0)
    idle = share_of_a_core(console.pid, 10.0)
    print(
        f'{rate:.1f} pictures a second; stamp to screen {np.median(late):.0f} ms (median), '
        f'{np.percentile(late, 95):.0f} ms (95 %); {used:.0%} of a core, {idle:.1%} without one'
    )
    assert rate >= 15
    assert np.median(late) <= 150
    assert used <= 0.6
    assert idle <= 0.05


def test_a_slow_line(browser: Any, console: NodeProcess) -> None:
    _, port = address_of(console)
    line = Bottleneck(port, 125_000)
    page = Page(browser, f'http://127.0.0.1:{line.port}/')
    try:
        page.wait_for(lambda: page.names() == ['the mug'], what='the prompt')
        page.page.wait_for_timeout(8000)
        page.page.evaluate(_WATCH, {'bits': BITS, 'block': BLOCK})
        page.page.wait_for_timeout(1000 * SECONDS)
        ages, noted = page.page.evaluate('[globalThis.ages, globalThis.noted]')
    finally:
        page.close()
        line.close()
    print(f'1 Mbit/s: {len(noted) / SECONDS:.1f} pictures a second, at most {max(ages)} ms old')
    assert len(noted) >= SECONDS
    assert max(ages) < 1000
