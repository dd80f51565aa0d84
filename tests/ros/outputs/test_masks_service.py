"""``~/get_masks``: the own mask of every prompt, for who asks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Point
from ros_peers import NodeProcess, Peer, picture, running_node, stamp_of, wait_until
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool

from clipseg_model.registry import create_model
from clipseg_ros.client import SegmentClient
from clipseg_ros.errors import NodeTimeoutError
from clipseg_ros.outputs.masks import MOST_WAITING
from clipseg_ros.ros.interfaces import load_interfaces
from clipseg_ros.ros.qos import command_input, image_output

INTERFACES: Any = load_interfaces()
pytestmark = pytest.mark.skipif(
    INTERFACES is None, reason='the messages are not built: `make test` builds them'
)
RGB = picture(120, 160, seed=3)


class Bench:
    def __init__(self, node: NodeProcess, peer: Peer) -> None:
        self.node, self.peer = node, peer
        self.client = peer.node.create_client(INTERFACES.GetMasks, '/masks/clipseg/get_masks')
        self.images = peer.node.create_publisher(Image, '/masks/image', image_output())
        self.diagnostics = peer.collect(DiagnosticArray, '/diagnostics', 50)

    def wake(self) -> None:
        """Has the node receive images for some seconds, as somebody asks for one."""
        self.ask(wait=0.01)
        wait_until(self.images.get_subscription_count)

    def show(self, rgb: Any = RGB) -> Image:
        self.wake()
        image = self.peer.stamped(rgb)
        self.images.publish(image)
        time.sleep(0.3)  # It is there, or lost: nothing answers it.
        return image

    def ask(self, *names: str, wait: float = 2.0) -> Any:
        request = INTERFACES.GetMasks.Request(names=names, wait=wait)
        return self.peer.call(INTERFACES.GetMasks, '/masks/clipseg/get_masks', request)

    def values(self) -> dict[str, str]:
        """The next diagnostics of the node."""
        before = len(self.diagnostics)

        def own() -> Any:
            new = [array.status[0] for array in list(self.diagnostics)[before:]]
            return [status for status in new if status.name.startswith('masks/')]

        return {item.key: item.value for item in wait_until(own)[-1].values}

    def prompt(self, text: str) -> None:
        assert self.peer.set_parameter('/masks/clipseg', 'prompt', text).successful


@pytest.fixture(scope='module')
def the_bench(built: dict[str, str], domain: int, tiny_model: Path, peer: Peer) -> Iterator[Bench]:
    with running_node(
        'clipseg_ros.segment_node',
        {'model': tiny_model, 'device': 'cpu', 'threads': 1, 'prompt': "'the mug; red bowl'"},
        ['-r', '__ns:=/masks'],
        built,
    ) as node:
        yield Bench(node, peer)


@pytest.fixture
def bench(the_bench: Bench) -> Iterator[Bench]:
    yield the_bench
    the_bench.prompt('the mug; red bowl')


def test_before_any_image(bench: Bench) -> None:
    started = time.monotonic()
    answer = bench.ask(wait=0.5)
    assert not answer.success
    assert 'no image arrived within 0.5 s' in answer.message
    assert 0.4 < time.monotonic() - started < 5


def test_masks_of_the_newest_frame_though_nobody_subscribes(bench: Bench, tiny_model: Path) -> None:
    image = bench.show()
    before = bench.values()
    assert (before['processed'], before['failed']) == ('0', '0'), 'nothing costs nothing'
    answer = bench.ask()
    assert answer.success, answer.message
    assert answer.header == image.header
    expected = create_model(tiny_model, 'cpu').segment(RGB, ['the mug', 'red bowl'])
    assert [(m.id, m.name) for m in answer.masks] == [(1, 'the mug'), (2, 'red bowl')]
    for mask, result in zip(answer.masks, expected.results, strict=True):
        assert mask.mask.header == image.header
        assert (mask.mask.height, mask.mask.width, mask.mask.step) == (120, 160, 160)
        assert mask.mask.encoding == 'mono8'
        array = np.frombuffer(mask.mask.data, np.uint8).reshape(120, 160)
        assert np.mean(array != 255 * result.mask) < 1e-3
        assert mask.score == pytest.approx(result.score, abs=1e-4)
        assert mask.presence == result.presence
    both = expected.results[0].mask & expected.results[1].mask
    assert both.any(), 'what labels cannot say'
    # Asked again, the same frame is not segmented again, and counted as one image.
    assert bench.ask().header == image.header
    after = bench.values()
    assert (after['received'], after['processed'], after['dropped']) == ('1', '1', '0')


def test_names_choose(bench: Bench) -> None:
    bench.show()
    answer = bench.ask('Red Bowl')
    assert [mask.name for mask in answer.masks] == ['red bowl']
    answer = bench.ask('red bowl', 'spoon')
    assert not answer.success
    assert "no active prompt is called 'spoon': there are 'the mug', 'red bowl'" in answer.message
    assert len(answer.masks) == 0


def test_a_frame_is_segmented_anew_for_other_prompts(bench: Bench) -> None:
    image = bench.show()
    assert bench.ask().success
    for text in ('a chair', 'blue mug'):
        bench.prompt(text)
        answer = bench.ask()
        assert [mask.name for mask in answer.masks] == [text], answer.message
        assert answer.header == image.header


@pytest.mark.parametrize('by', ['service', 'topic'])
def test_a_point_is_in_a_mask_though_nobody_subscribes(
    bench: Bench, tiny_model: Path, by: str
) -> None:
    found = create_model(tiny_model, 'cpu').segment(RGB, ['the mug', 'red bowl']).labels()
    y, x = (int(value) for value in np.argwhere(found == 2)[0])
    _, parts = cv2.connectedComponents((found == 2).view(np.uint8), connectivity=8)
    box = cv2.boundingRect((parts == parts[y, x]).view(np.uint8))
    bench.show()
    since = len(bench.node.lines)
    try:
        if by == 'service':
            request = INTERFACES.PickPrompt.Request(name='that', x=x, y=y)
            answer = bench.peer.call(INTERFACES.PickPrompt, '/masks/clipseg/pick', request)
            assert answer.success, answer.message
            assert "'that' is the part of the mask under the point" in answer.message
            roi = answer.box
            assert (roi.x_offset, roi.y_offset, roi.width, roi.height) == tuple(box)
        else:
            points = bench.peer.publisher(Point, '/masks/clipseg/pick_point', command_input())
            points.publish(Point(x=float(x), y=float(y)))
            line = bench.node.wait_for("'example' is", since=since)
            assert f'the part of the mask under the point: box {tuple(box)}' in line
            points.publish(Point(x=999.0, y=1.0))
            bench.node.wait_for('pick_point refused, nothing changed: the point (999, 1)')
    finally:
        bench.prompt('')


def test_the_newest_while_the_camera_runs_and_somebody_listens(bench: Bench) -> None:
    masks = bench.peer.collect(Image, '/masks/clipseg/mask', image_output())
    wait_until(lambda: bench.show() and masks)
    stamps = []
    for _ in range(10):
        image = bench.show()
        stamps.append(stamp_of(image))
        answer = bench.ask()
        assert answer.success, answer.message
        assert stamp_of(answer) == stamp_of(image)
    assert int(bench.values()['failed']) == 0


def test_while_there_is_nothing_to_segment_it_says_why(bench: Bench) -> None:
    bench.show()
    enable = '/masks/clipseg/enable'
    bench.peer.call(SetBool, enable, SetBool.Request(data=False))
    started = time.monotonic()
    answer = bench.ask(wait=20.0)
    assert not answer.success
    assert 'disabled' in answer.message
    bench.peer.call(SetBool, enable, SetBool.Request(data=True))
    bench.prompt('')
    answer = bench.ask(wait=20.0)
    assert 'no prompt set' in answer.message
    assert time.monotonic() - started < 10, 'at once'
    bench.prompt('the mug')
    bad = bench.peer.stamped(RGB)
    bad.encoding = 'nonsense'
    bench.wake()
    bench.images.publish(bad)
    time.sleep(0.3)
    answer = bench.ask(wait=1.0)
    assert not answer.success
    assert "'nonsense' is not known" in answer.message
    # The camera stops meanwhile: for longer than the watchdog waits.
    answer = bench.ask(wait=6.0)
    assert not answer.success
    assert 'no image has come for' in answer.message
    assert 'nonsense' not in answer.message
    answer = bench.ask(wait=-1.0)
    assert 'wait is -1 s' in answer.message


def test_the_client(bench: Bench, domain: int, tiny_model: Path) -> None:
    bench.show()
    expected = create_model(tiny_model, 'cpu').segment(RGB, ['the mug', 'red bowl'])
    with SegmentClient('/masks/clipseg', domain_id=domain) as client:
        masks = client.masks()
        assert list(masks) == ['the mug', 'red bowl']
        for mask, result in zip(masks.values(), expected.results, strict=True):
            assert mask.dtype == bool
            assert np.mean(mask != result.mask) < 1e-3
        assert list(client.masks('red bowl')) == ['red bowl']
        with pytest.raises(NodeTimeoutError, match="no active prompt is called 'spoon'"):
            client.masks('spoon')


def test_one_who_waits_does_not_keep_others(bench: Bench) -> None:
    bench.wake()
    bench.prompt('a chair')
    bad = bench.peer.stamped(RGB)
    bad.encoding = 'nonsense'
    bench.images.publish(bad)
    time.sleep(0.3)
    patient: list[Any] = []
    other = bench.peer.node.create_client(INTERFACES.GetMasks, '/masks/clipseg/get_masks')
    for client in (bench.client, other):
        assert client.wait_for_service(30.0)
    # A client holds ten answers until it takes them, those to the other among them.
    for client in (bench.client, other):
        request = INTERFACES.GetMasks.Request(wait=60.0)
        patient += [client.call_async(request) for _ in range(MOST_WAITING // 2)]
        answer = bench.ask(wait=0.1)
        assert not answer.success, 'it is answered, and they wait'
    assert f'{MOST_WAITING} requests wait already' in answer.message
    assert not any(future.done() for future in patient)
    answer = bench.ask(wait=3600.0)
    assert 'wait is 3600 s: give 0 to 60' in answer.message
    shown = []

    def answered() -> bool:
        shown.append(stamp_of(bench.show()))  # One may be lost.
        return all(future.done() for future in patient)

    wait_until(answered)
    assert {stamp_of(future.result()) for future in patient} <= set(shown)
