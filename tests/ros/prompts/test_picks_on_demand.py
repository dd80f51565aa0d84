"""Picking and asking for masks before a node that receives no images yet, in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import Point
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter
from ros_peers import Peer, wait_until
from sensor_msgs.msg import Image, RegionOfInterest
from std_srvs.srv import SetBool

from clipseg_ros.ros.interfaces import load_interfaces
from clipseg_ros.ros.qos import command_input, image_output
from clipseg_ros.segment import services as services_module
from clipseg_ros.segment import subscription as subscription_module
from clipseg_ros.segment.lifecycle import SegmentNode
from training.benchmarks.node_peers.stand_in import StandIn, blob

SIDE = 256
ROW, COLUMN = (int(value) for value in np.unravel_index(np.argmax(blob(1)), (SIDE, SIDE)))
MODEL = StandIn(5.0)

INTERFACES: Any = load_interfaces()
needs_messages = pytest.mark.skipif(
    INTERFACES is None, reason='the messages are not built: `make test` builds them'
)


@pytest.fixture(scope='module')
def the_node(own_domain: int) -> Iterator[SegmentNode]:
    context = Context()
    rclpy.init(context=context, domain_id=own_domain)
    made = SegmentNode(
        load=lambda *_: MODEL,  # type: ignore[arg-type, return-value]
        context=context,
        parameter_overrides=[Parameter('prompt', value='a; b')],
    )
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(made)

    def spin() -> None:
        with suppress(ExternalShutdownException):
            executor.spin()

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    try:
        wait_until(lambda: made._state == 'active', 60)
        # Whoever publishes points has images received beforehand: not in these tests.
        stream: Any = made._stream
        stream.images._topics = []
        yield made
    finally:
        executor.shutdown()
        thread.join(10)
        made.close()
        made.destroy_node()
        context.try_shutdown()


@pytest.fixture(scope='module')
def peer(own_domain: int) -> Iterator[Peer]:
    made = Peer(own_domain)
    yield made
    made.close()


@pytest.fixture
def node(
    the_node: SegmentNode, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SegmentNode]:
    """The node with two prompts, idle: it receives no images."""
    for text in ('', 'a; b'):
        assert peer.set_parameter('/clipseg', 'prompt', text).successful
    stream: Any = the_node._stream
    with monkeypatch.context() as hasty:
        hasty.setattr(subscription_module, '_LINGER', 0.0)
        wait_until(lambda: not stream.images.is_open and stream.newest.message is None)
    yield the_node
    assert not the_node._servers._entries[1]._waiting, 'all are answered'  # type: ignore[attr-defined]


@contextmanager
def camera(peer: Peer) -> Iterator[None]:
    """Publishes ten images a second, whoever listens."""
    images = peer.node.create_publisher(Image, '/image', image_output())
    rgb = np.zeros((SIDE, SIDE, 3), np.uint8)
    timer = peer.node.create_timer(0.1, lambda: images.publish(peer.stamped(rgb)))
    try:
        yield
    finally:
        peer.node.destroy_timer(timer)
        peer.node.destroy_publisher(images)


def example_of(node: SegmentNode, timeout: float = 20.0) -> Any:
    """The mask of the prompt that was picked, once it is there."""
    active = node._prompt_server.prompts
    wait_until(lambda: any(entry.name == 'example' for entry in active.active), timeout)
    return next(entry.prompt.mask for entry in active.active if entry.name == 'example')


def box_mask() -> Any:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[20:50, 30:90] = True
    return mask


PLACES = {
    'pick_point': (Point(x=float(COLUMN), y=float(ROW)), blob(1) > 0),
    'pick_box': (RegionOfInterest(x_offset=30, y_offset=20, width=60, height=30), box_mask()),
}


@pytest.mark.parametrize('topic', PLACES)
def test_a_message_is_enough(node: SegmentNode, peer: Peer, topic: str) -> None:
    message, expected = PLACES[topic]
    with camera(peer):
        peer.publisher(type(message), f'/clipseg/{topic}', command_input()).publish(message)
        np.testing.assert_array_equal(example_of(node), expected)


@needs_messages
@pytest.mark.parametrize('place', ['point', 'box'])
def test_a_call_is_enough(node: SegmentNode, peer: Peer, place: str) -> None:
    where: dict[str, Any] = {'x': COLUMN, 'y': ROW}
    if place == 'box':
        where = {'x': 30, 'y': 20, 'width': 60, 'height': 30}
    with camera(peer):
        request = INTERFACES.PickPrompt.Request(**where)
        answer = peer.call(INTERFACES.PickPrompt, '/clipseg/pick', request, 20.0)
    assert answer.success, answer.message
    np.testing.assert_array_equal(example_of(node), PLACES[f'pick_{place}'][1])


@needs_messages
def test_where_nothing_is_looked_for_a_point_is_a_square(node: SegmentNode, peer: Peer) -> None:
    assert peer.set_parameter('/clipseg', 'prompt', '').successful
    with camera(peer):
        request = INTERFACES.PickPrompt.Request(x=COLUMN, y=ROW)
        answer = peer.call(INTERFACES.PickPrompt, '/clipseg/pick', request, 20.0)
    assert answer.success, answer.message
    assert 'a square of 51 px around the point' in answer.message


@needs_messages
def test_masks_are_enough_to_ask_for(node: SegmentNode, peer: Peer) -> None:
    with camera(peer):
        answer = peer.call(INTERFACES.GetMasks, '/clipseg/get_masks', INTERFACES.GetMasks.Request())
    assert answer.success, answer.message
    assert [mask.name for mask in answer.masks] == ['a', 'b']


@needs_messages
def test_the_mask_under_a_point_is_waited_for_however_slow_the_model(
    node: SegmentNode, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The camera goes on meanwhile: when the mask is there, its image is not the newest."""
    monkeypatch.setattr(MODEL, '_seconds', 2.3)
    with camera(peer):
        request = INTERFACES.PickPrompt.Request(x=COLUMN, y=ROW)
        answer = peer.call(INTERFACES.PickPrompt, '/clipseg/pick', request, 30.0)
    assert answer.success, answer.message
    assert 'the part of the mask under the point' in answer.message
    np.testing.assert_array_equal(example_of(node), blob(1) > 0)


@needs_messages
def test_a_mask_that_does_not_come_is_told(
    node: SegmentNode, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MODEL, '_seconds', 1.5)
    monkeypatch.setattr(services_module, '_MASKS_WAIT', 0.3)
    with camera(peer):
        request = INTERFACES.PickPrompt.Request(x=COLUMN, y=ROW)
        answer = peer.call(INTERFACES.PickPrompt, '/clipseg/pick', request, 20.0)
    assert not answer.success
    assert answer.message == 'no image was segmented within 0.3 s: the model is busy'


@needs_messages
@pytest.mark.parametrize('size', [0, 9])
def test_without_a_camera_it_says_so_in_time(
    node: SegmentNode, peer: Peer, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(services_module, '_IMAGE_WAIT', 0.5)
    monkeypatch.setattr(services_module, '_MASKS_WAIT', 0.5)
    request = INTERFACES.PickPrompt.Request(x=5, y=5, width=size, height=size)
    started = time.monotonic()
    answer = peer.call(INTERFACES.PickPrompt, '/clipseg/pick', request, 20.0)
    assert not answer.success
    assert 'no image arrived in time, /diagnostics says why' in answer.message
    assert 0.4 < time.monotonic() - started < 5.0


@needs_messages
def test_a_node_that_is_disabled_says_so_at_once(node: SegmentNode, peer: Peer) -> None:
    def enable(wish: bool) -> None:
        peer.call(SetBool, '/clipseg/enable', SetBool.Request(data=wish))

    enable(False)
    try:
        request, started = INTERFACES.PickPrompt.Request(x=5, y=5), time.monotonic()
        answer = peer.call(INTERFACES.PickPrompt, '/clipseg/pick', request, 20.0)
        assert not answer.success
        assert 'disabled: call /clipseg/enable with true' in answer.message
        assert time.monotonic() - started < 4.0
    finally:
        enable(True)
