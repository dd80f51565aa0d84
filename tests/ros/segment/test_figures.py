"""Figures of docs/performance_node.md: idle, images with the profile, one-shot answers.

Slow, and to be run on a machine that does nothing else: `pytest -s -m slow` prints them. Of the
one-shot service, `-k one_shot` makes 1,000 calls, ten a second; FIGURES_CALLS has another number.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from ros_peers import ROOT, NodeProcess, Peer, picture, running_node, stamp_of
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool

from clipseg_ros.ros.interfaces import load_interfaces
from clipseg_ros.ros.qos import image_output, sensor_input

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

INTERFACES: Any = load_interfaces()
CAMERA = str(ROOT / 'training' / 'benchmarks' / 'node_peers' / 'camera.py')
PATIENCE = 600.0
SECONDS = float(os.environ.get('FIGURES_SECONDS', '20'))
CALLS = max(10, int(os.environ.get('FIGURES_CALLS', '1000')))


@pytest.fixture(scope='module')
def node(built: dict[str, str], own_domain: int, tiny_model: Path) -> Iterator[NodeProcess]:
    environment = {**built, 'ROS_DOMAIN_ID': str(own_domain), 'ROS_PYTHON_CHECK_FIELDS': '0'}
    parameters = {'model': tiny_model, 'device': 'cpu', 'threads': 1, 'prompt': "'the mug'"}
    with running_node(
        'clipseg_ros.segment_node', parameters, environment=environment, ready=''
    ) as made:
        made.wait_for('active: tiny', PATIENCE)
        yield made


@pytest.fixture(scope='module')
def asker(own_domain: int) -> Iterator[Peer]:
    made = Peer(own_domain, 'asker')
    yield made
    made.close()


@contextmanager
def camera(
    domain: int, rate: float, size: tuple[int, int], seconds: float
) -> Iterator[NodeProcess]:
    """A camera that publishes whether somebody listens or not, once somebody has."""
    width, height = size
    words = f'--width {width} --height {height} --rate {rate} --seconds {seconds}'.split()
    made = NodeProcess(CAMERA, script=words, environment={'ROS_DOMAIN_ID': str(domain)})
    try:
        made.wait_for('publishing', PATIENCE)
        yield made
    finally:
        made.stop()


def share_of_a_core(process: int, seconds: float) -> float:
    """Processor time of a process over a while, by the wall clock."""
    watched = psutil.Process(process)
    before, started = watched.cpu_times(), time.monotonic()
    time.sleep(seconds)
    after = watched.cpu_times()
    spent = after.user + after.system - before.user - before.system
    return spent / (time.monotonic() - started)


def test_idle_is_idle(node: NodeProcess, asker: Peer, own_domain: int) -> None:
    masks: list[Any] = []
    listener = asker.node.create_subscription(Image, '/clipseg/mask', masks.append, image_output())
    with camera(own_domain, 30.0, (1280, 720), 1e6):
        assert asker.wait_until(lambda: masks, PATIENCE), node.tail()
        busy = share_of_a_core(node.pid, SECONDS)
        off = asker.call(SetBool, '/clipseg/enable', SetBool.Request(data=False), PATIENCE)
        assert off.success
        time.sleep(8.0)
        disabled = share_of_a_core(node.pid, SECONDS)
        asker.call(SetBool, '/clipseg/enable', SetBool.Request(data=True), PATIENCE)
        asker.node.destroy_subscription(listener)
        time.sleep(12.0)
        unheard = share_of_a_core(node.pid, SECONDS)
    print(f'\nshare of a core at 720p30: heard {busy:.1%}, disabled {disabled:.1%}, ', end='')
    print(f'nobody listens {unheard:.1%}')
    assert disabled <= 0.02
    assert unheard <= 0.02


def test_no_image_is_lost_with_the_profile(node: NodeProcess, asker: Peer, own_domain: int) -> None:
    reports = asker.collect(DiagnosticArray, '/diagnostics', 50)
    asker.collect(Image, '/clipseg/mask', image_output())
    own = asker.collect(Image, '/image', sensor_input())
    with camera(own_domain, 15.0, (1280, 720), 300 / 15.0) as made:
        assert made.join(PATIENCE) == 0, made.output
        time.sleep(2.5)
    values = {one.key: one.value for one in reports[-1].status[0].values}
    print(
        f'\n300 at 720p15: {values["received"]} received since the start, {len(own)} by a ', end=''
    )
    print(f'listener in Python, {values["lost_on_way"]} lost on their way')
    assert values['lost_on_way'] == '0'


@pytest.mark.skipif(INTERFACES is None, reason='the messages are not built')
def test_one_shot_answers_beside_a_stream(node: NodeProcess, asker: Peer, own_domain: int) -> None:
    masks: list[float] = []
    asker.node.create_subscription(
        Image, '/clipseg/mask', lambda _: masks.append(time.monotonic()), image_output()
    )
    client = asker.node.create_client(INTERFACES.SegmentOnce, '/clipseg/segment_once')
    memory, wrong = [], []

    def rate(begin: float) -> float:
        return sum(one >= begin for one in masks) / (time.monotonic() - begin)

    with camera(own_domain, 30.0, (640, 480), 1e6):
        assert asker.wait_until(lambda: masks, PATIENCE), node.tail()
        assert asker.wait_until(client.service_is_ready, PATIENCE)
        begin = time.monotonic()
        time.sleep(SECONDS)
        before, begin = rate(begin), time.monotonic()
        for number in range(CALLS):
            # Of a size that the next calls do not have.
            image = asker.stamped(picture(64 + number % 40, 96 + number % 23, seed=number))
            request = INTERFACES.SegmentOnce.Request(
                image=image, prompts=[INTERFACES.Prompt(phrase='red bowl')]
            )
            answer = asker.call(INTERFACES.SegmentOnce, '/clipseg/segment_once', request, PATIENCE)
            size = (image.height, image.width)
            found = [(one.mask.height, one.mask.width) for one in answer.masks]
            if stamp_of(answer) != stamp_of(image) or found != [size] or not answer.success:
                wrong.append((number, answer.message))
            if number % (CALLS // 10) == 0:
                memory.append(psutil.Process(node.pid).memory_info().rss / 2**20)
            # Ten a second: a behaviour tree ticks.
            time.sleep(max(0.0, begin + number / 10 - time.monotonic()))
        during = rate(begin)
    growth = np.mean(memory[-3:]) - np.mean(memory[1:4])
    print(
        f'\n{CALLS} calls: {len(wrong)} wrong, stream {before:.1f} then {during:.1f} Hz, ', end=''
    )
    print(f'memory {memory[0]:.0f} … {memory[-1]:.0f} MB')
    assert not wrong
    assert during >= 0.9 * before
    assert growth < 10.0
