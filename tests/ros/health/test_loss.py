"""Images that get lost on their way are told, and nothing else is taken for a loss."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from ros_peers import PROFILE, ROOT, NodeProcess, Peer, wait_until
from sensor_msgs.msg import Image

from clipseg_ros.health.loss import LossWatch, explain_loss
from clipseg_ros.ros.qos import image_output
from clipseg_ros.ros.share import profile_variable

TOLD_WITHIN = 3.0
"""Seconds, on a quiet machine."""


def find_patience() -> float:
    """How many times longer things may take: in proportion to what waits for the cores."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


class Camera:
    """A camera in front of a watch, by a clock of its own."""

    def __init__(self) -> None:
        self.now = 50.0
        self.watch = LossWatch(lambda: self.now)
        self._lost = 0

    def run(self, seconds: float, rate: float, lost: float = 0.0) -> list[Any]:
        """Sends images, a share of which is lost; returns the judgements, one a second."""
        told, owed, start = [], 0.0, self.now
        for number in range(round(seconds * rate)):
            self.now = start + number / rate
            owed += lost
            if owed >= 1.0:
                owed -= 1.0
                self._lost += 1
                self.watch.lose(self._lost)
            else:
                self.watch.arrive()
            if number % max(1, round(rate)) == 0:
                told.append(self.watch.share())
        self.now = start + seconds
        return [*told, self.watch.share()]


@pytest.fixture
def camera() -> Camera:
    return Camera()


@pytest.mark.parametrize('rate', [1.0, 5.0, 30.0, 200.0])
@pytest.mark.parametrize('share', [1.0, 149 / 154, 0.5, 0.3])
def test_a_loss_is_told_within_three_seconds(camera: Camera, rate: float, share: float) -> None:
    camera.run(20, rate)
    if share * rate < 0.9:
        return  # Fewer than two in this time.
    told = camera.run(3.0, rate, share)
    assert told[-1] is not None
    lost, sent = told[-1]
    assert 2 <= lost <= sent


@pytest.mark.parametrize('rates', [[1.0], [0.2], [30.0, 1.0], [1.0, 60.0, 5.0], [200.0]])
def test_a_slow_camera_and_one_that_changes_its_rate_lose_nothing(
    camera: Camera, rates: list[float]
) -> None:
    for _ in range(3):
        for rate in rates:
            assert set(camera.run(10, rate)) == {None}
        # It pauses, as a bag may.
        camera.now += 60
        assert camera.watch.share() is None


def test_single_losses_are_none(camera: Camera) -> None:
    camera.run(10, 30.0)
    assert set(camera.run(30, 30.0, 0.03)) == {None}
    camera.watch.lose(camera._lost + 1)
    assert camera.watch.share() is None


def test_it_ends_with_its_cause_and_does_not_flutter(camera: Camera) -> None:
    assert camera.run(5, 30.0, 0.9)[-1]
    assert None not in camera.run(5, 30.0, 0.15), 'it has not ended'
    assert camera.run(6, 30.0)[-1] is None
    assert camera.run(5, 30.0, 0.9)[-1]
    camera.now += 6.0
    assert camera.watch.share() is None, 'the camera has stopped'
    camera.run(5, 30.0, 0.9)
    camera.watch.start()
    assert (camera.watch.share(), camera.watch.total) == (None, 0)


def test_the_sentence() -> None:
    said = explain_loss((149, 154), '/image', 'rmw_fastrtps_cpp', '/x/fastdds.xml', True)
    assert '149 of the last 154 on /image did not arrive.' in said
    assert f'{profile_variable(os.environ)}=/x/fastdds.xml' in said
    said = explain_loss((3, 4), '/image', 'rmw_cyclonedds_cpp', '/x/fastdds.xml', False)
    assert 'or came while this node was busy' in said
    assert 'fastdds.xml' not in said
    assert 'rmw_cyclonedds_cpp' in said


@pytest.fixture(params=['best_effort', 'reliable'])
def lossy_camera(request: pytest.FixtureRequest, domain: int) -> Iterator[NodeProcess]:
    """A camera as most drivers start it, without the profile."""
    node = NodeProcess(
        'clipseg_ros.camera_node',
        {
            'source': str(ROOT / 'docs' / 'images' / 'demo.png'),
            'width': 640,
            'height': 480,
            'rate': 20,
            'qos_overrides./lossy/image.publisher.reliability': request.param,
        },
        ['-r', '__ns:=/lossy'],
        environment={profile_variable(os.environ): ''},
    )
    yield node
    assert node.stop() == 0, node.output


@pytest.mark.slow
@pytest.mark.ci
def test_a_camera_without_the_profile(
    lossy_camera: NodeProcess, peer: Peer, tiny_model: Path
) -> None:
    diagnostics = peer.collect(DiagnosticArray, '/diagnostics', 50)
    masks = peer.collect(Image, '/lossy/clipseg/mask', image_output())
    lossy_camera.wait_for('demo.png at 20 Hz')
    parameters = {'model': tiny_model, 'device': 'cpu', 'threads': 1, 'prompt': "'the mug'"}
    node = NodeProcess('clipseg_ros.segment_node', parameters, ['-r', '__ns:=/lossy'])
    said = 'images are lost on their way'

    def statuses() -> list[Any]:
        found = [array.status[0] for array in list(diagnostics)]
        return [status for status in found if status.name.startswith('lossy/')]

    try:
        node.wait_for('active: tiny')
        started = shown = time.monotonic()

        def told() -> list[Any]:
            nonlocal shown
            # A gap shows when two images have come, and of thirty one comes, whenever that is.
            if len(masks) < 2:
                shown = time.monotonic()
            return [status for status in statuses() if said in status.message]

        first = wait_until(told, 60.0, 'a warning')
        now = time.monotonic()
        print(f'told {now - started:.1f} s after activation, {now - shown:.1f} s after a gap')
        assert now - shown <= TOLD_WITHIN * find_patience()
        assert first[0].level == b'\x01'
        assert f'{profile_variable(os.environ)}={PROFILE}' in first[0].message
        line = node.wait_for(said)
        assert '[WARN]' in line
        assert f'{profile_variable(os.environ)}={PROFILE}' in line
        time.sleep(6.0)  # Longer than the watchdog waits.
        assert node.count(said) == 1
        assert node.count('no image on') == 0, 'one line'
        status = statuses()[-1]
        assert said in status.message
        # Where not a single image has come for longer than the watchdog waits, it is an error.
        assert status.level in (b'\x01', b'\x02')
        values = {item.key: item.value for item in status.values}
        assert int(values['lost_on_way']) > 2
    finally:
        status = node.stop()
    assert status == 0, node.output
