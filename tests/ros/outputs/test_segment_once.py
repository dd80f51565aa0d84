"""``~/segment_once``: an answer for an image and prompts that nobody else sees."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ros_peers import NodeProcess, Peer, picture, running_node, wait_until
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from std_srvs.srv import SetBool

from clipseg_model.registry import create_model
from clipseg_model.segmentation import Segmentation
from clipseg_ros.camera.node import camera_info
from clipseg_ros.images.conversion import array_to_image
from clipseg_ros.outputs.once import MOST_WAITING
from clipseg_ros.ros.interfaces import load_interfaces
from clipseg_ros.ros.qos import image_output, latched_output
from clipseg_ros.ros.timing import stamp_of

INTERFACES: Any = load_interfaces()
pytestmark = pytest.mark.skipif(
    INTERFACES is None, reason='the messages are not built: `make test` builds them'
)
RGB = picture(120, 160, seed=3)
OTHER = picture(90, 130, seed=8)
K = np.array([[150.0, 0.0, 64.5], [0.0, 145.0, 44.5], [0.0, 0.0, 1.0]])
SERVICE = '/once/clipseg/segment_once'


class Bench:
    def __init__(self, node: NodeProcess, peer: Peer) -> None:
        self.node, self.peer = node, peer
        self.images = peer.node.create_publisher(Image, '/once/image', image_output())
        self.active = peer.collect(
            INTERFACES.PromptArray, '/once/clipseg/prompts', latched_output()
        )
        self.client = peer.node.create_client(INTERFACES.SegmentOnce, SERVICE)
        wait_until(self.client.service_is_ready)

    def show(self, rgb: Any) -> Image:
        """Publishes an image to the node, which receives some for a while when it is asked."""
        self.ask('a chair', wait=0.01)
        wait_until(self.images.get_subscription_count)
        return self.send(rgb)

    def send(self, rgb: Any) -> Image:
        image = self.peer.stamped(rgb, frame='camera')
        self.images.publish(image)
        time.sleep(0.3)  # It is there, or lost: nothing answers it.
        return image

    def request(self, *texts: str, rgb: Any = None, **fields: Any) -> Any:
        prompts = [INTERFACES.Prompt(phrase=text) for text in texts]
        if rgb is not None:
            fields['image'] = self.peer.stamped(rgb, frame='lens')
        return INTERFACES.SegmentOnce.Request(prompts=prompts, **fields)

    def ask(self, *texts: str, rgb: Any = None, **fields: Any) -> Any:
        request = self.request(*texts, rgb=rgb, **fields)
        return self.peer.call(INTERFACES.SegmentOnce, SERVICE, request)


@pytest.fixture(scope='module')
def bench(built: dict[str, str], domain: int, tiny_model: Path, peer: Peer) -> Iterator[Bench]:
    with running_node(
        'clipseg_ros.segment_node',
        {'model': tiny_model, 'device': 'cpu', 'threads': 1, 'prompt': 'a chair'},
        ['-r', '__ns:=/once'],
        built,
    ) as node:
        yield Bench(node, peer)


@pytest.fixture(scope='module')
def expected(tiny_model: Path) -> Callable[..., Segmentation]:
    model = create_model(tiny_model, 'cpu')
    return lambda rgb, *texts: model.segment(rgb, list(texts))


def masks_of(answer: Any) -> list[Any]:
    return [
        np.frombuffer(one.mask.data, np.uint8).reshape(one.mask.height, one.mask.width)
        for one in answer.masks
    ]


def check(answer: Any, found: Segmentation, header: Header) -> None:
    assert answer.success, answer.message
    assert answer.header == answer.segments.header == header
    assert (answer.segments.height, answer.segments.width) == (found.height, found.width)
    assert len(answer.masks) == len(answer.segments.segments) == len(found.results)
    for message, segment, mask, result in zip(
        answer.masks, answer.segments.segments, masks_of(answer), found.results, strict=True
    ):
        assert (message.id, message.name) == (segment.id, segment.name)
        assert message.name == result.prompt.label
        assert message.mask.header == header
        assert message.mask.encoding == 'mono8'
        assert np.mean(mask != 255 * result.mask) < 1e-3
        assert message.score == segment.score == pytest.approx(result.score, abs=1e-4)
        assert message.presence == segment.presence == result.presence
        assert segment.area == (mask > 0).sum()


# The first: before the camera has sent anything.


def test_without_an_image_of_the_camera_it_says_so_in_time(bench: Bench) -> None:
    started = time.monotonic()
    answer = bench.ask('the mug', wait=0.5)
    assert not answer.success
    assert 'no image arrived within 0.5 s' in answer.message
    assert 0.4 < time.monotonic() - started < 5


def test_an_image_of_the_request_s_own(bench: Bench, expected: Callable[..., Segmentation]) -> None:
    before = len(wait_until(lambda: bench.active))
    request = bench.request('the mug', 'red bowl', rgb=RGB)
    answers = [bench.peer.call(INTERFACES.SegmentOnce, SERVICE, request) for _ in range(2)]
    check(answers[0], expected(RGB, 'the mug', 'red bowl'), request.image.header)
    assert answers[0] == answers[1], 'the same question has the same answer'
    assert answers[0].message.startswith('2 prompt(s) in an image of 160 × 120 px')
    assert 'the request has no depth' in answers[0].message
    assert [one.id for one in answers[0].masks] == [1, 2]
    assert len(bench.active) == before, 'the active prompts stay as they are'
    assert bench.peer.get_parameter('/once/clipseg', 'prompt') == 'a chair'


def test_the_newest_of_the_camera(bench: Bench, expected: Callable[..., Segmentation]) -> None:
    for rgb in (RGB, OTHER):
        image = bench.show(rgb)
        check(bench.ask('blue mug', positions=False), expected(rgb, 'blue mug'), image.header)


def test_the_camera_goes_on_and_each_answer_is_of_its_own_image(
    bench: Bench, expected: Callable[..., Segmentation]
) -> None:
    masks = bench.peer.collect(Image, '/once/clipseg/mask', image_output())
    wait_until(lambda: bench.show(RGB) and masks)
    found = expected(OTHER, 'red bowl')
    timer = bench.peer.node.create_timer(
        0.02, lambda: bench.images.publish(bench.peer.stamped(RGB))
    )
    try:
        before, requests = len(masks), [bench.request('red bowl', rgb=OTHER) for _ in range(5)]
        futures = [bench.client.call_async(request) for request in requests]
        wait_until(lambda: all(future.done() for future in futures), 20)
        for request, future in zip(requests, futures, strict=True):
            check(future.result(), found, request.image.header)
        assert len(masks) > before
        assert all(mask.width == 160 for mask in masks)
    finally:
        bench.peer.node.destroy_timer(timer)


def test_it_answers_while_the_node_is_disabled(
    bench: Bench, expected: Callable[..., Segmentation]
) -> None:
    enable = '/once/clipseg/enable'
    bench.peer.call(SetBool, enable, SetBool.Request(data=False))
    try:
        # The node receives no images until it is asked.
        shown: list[Image] = []
        end = threading.Event()

        def film() -> None:
            while not end.is_set():
                shown.append(bench.send(OTHER))

        camera = threading.Thread(target=film)
        camera.start()
        try:
            answer = bench.ask('the mug')
        finally:
            end.set()
            camera.join()
        headers = {stamp_of(image): image.header for image in shown}
        check(answer, expected(OTHER, 'the mug'), headers[stamp_of(answer)])
    finally:
        bench.peer.call(SetBool, enable, SetBool.Request(data=True))


def bad(**fields: Any) -> Image:
    image = array_to_image(RGB, 'rgb8', Header())
    for name, value in fields.items():
        setattr(image, name, value)
    return image


@pytest.mark.parametrize(
    ('texts', 'fields', 'words'),
    [
        ([], {}, '0 prompt(s), and none is enabled'),
        (['xyz'], {}, 'xyz'),
        (['the mug', 'The Mug'], {}, "two prompts are called 'The Mug'"),
        (['the mug; a chair'], {}, "';'"),
        (['the mug'], {'wait': -1.0}, 'wait is -1 s'),
        (['the mug'], {'wait': float('nan')}, 'wait is nan s'),
        (['the mug'], {'image': bad(encoding='nonsense')}, "'nonsense' is not known"),
        (['the mug'], {'image': bad(data=b'123')}, '3 bytes of data'),
        (['the mug'], {'image': bad(width=0)}, 'empty'),
        (['the mug'], {'depth': bad()}, 'depth and no image'),
    ],
)
def test_what_is_refused(bench: Bench, texts: list[str], fields: Any, words: str) -> None:
    bench.show(RGB)
    answer = bench.ask(*texts, **fields)
    assert not answer.success
    assert words in answer.message
    assert len(answer.masks) == 0
    assert bench.ask('the mug').success


def test_disabled_and_negative_prompts_take_part_as_they_do_elsewhere(bench: Bench) -> None:
    request = bench.request('the mug', 'red bowl', 'a chair', rgb=RGB)
    request.prompts[0].id, request.prompts[0].threshold = 9, 0.999
    request.prompts[1].negative = True
    request.prompts[2].enabled = False
    answer = bench.peer.call(INTERFACES.SegmentOnce, SERVICE, request)
    assert [(one.id, one.name) for one in answer.masks] == [(9, 'the mug')], answer.message
    assert masks_of(answer)[0].mean() < masks_of(bench.ask('the mug', rgb=RGB))[0].mean()
    for prompt in request.prompts:
        prompt.negative = True
    answer = bench.peer.call(INTERFACES.SegmentOnce, SERVICE, request)
    assert not answer.success
    assert '3 prompt(s), and none is enabled and not negative' in answer.message


def positions_of(answer: Any, metres: Any) -> None:
    """Compares positions with the points under the masks."""
    assert answer.success, answer.message
    assert answer.segments.points_frame == answer.header.frame_id
    height, width = metres.shape
    rows, columns = np.mgrid[0:height, 0:width]
    x, y = (columns - K[0, 2]) / K[0, 0], (rows - K[1, 2]) / K[1, 1]
    space = np.stack((x * metres, y * metres, metres), -1)
    for segment, mask in zip(answer.segments.segments, masks_of(answer), strict=True):
        points = space[mask > 0]
        assert segment.points == len(points) > 0
        place = segment.position
        np.testing.assert_allclose([place.x, place.y, place.z], points.mean(axis=0), atol=1e-4)


METRES = np.linspace(0.5, 3.0, 90 * 130, dtype=np.float32).reshape(90, 130)


def test_positions_by_depth_in_the_request(bench: Bench) -> None:
    request = bench.request('the mug', 'red bowl', rgb=OTHER)
    request.depth = array_to_image(METRES, '32FC1', request.image.header)
    request.camera_info = camera_info(request.image.header, 130, 90, K)
    answer = bench.peer.call(INTERFACES.SegmentOnce, SERVICE, request)
    positions_of(answer, METRES)
    request.camera_info = CameraInfo()
    answer = bench.peer.call(INTERFACES.SegmentOnce, SERVICE, request)
    assert answer.success
    assert 'without positions: camera_info is all zero' in answer.message
    assert answer.segments.points_frame == ''


def test_positions_by_the_depth_camera_which_nobody_listens_to(bench: Bench, domain: int) -> None:
    peer = Peer(domain, 'once_depth')
    depths = peer.node.create_publisher(Image, '/once/depth', image_output())
    infos = peer.node.create_publisher(CameraInfo, '/once/camera_info', image_output())

    def send() -> None:
        image = peer.stamped(OTHER, frame='camera')
        infos.publish(camera_info(image.header, 130, 90, K))
        depths.publish(array_to_image(METRES, '32FC1', image.header))
        bench.images.publish(image)

    timer = peer.node.create_timer(0.1, send)
    try:
        # Until the node has heard of the publishers, depth cannot be had.
        answers = (bench.ask('the mug', 'red bowl') for _ in range(20) if not time.sleep(0.3))
        answer = next(answer for answer in answers if answer.segments.points_frame)
        positions_of(answer, METRES)
        wait_until(lambda: not depths.get_subscription_count(), what='it lets go of depth')
        peer.node.destroy_timer(timer)
        bench.show(OTHER)
        # Depth is there and silent: each of these waits for it, as many as there is room for.
        futures = [bench.client.call_async(bench.request('the mug')) for _ in range(10)]
        wait_until(lambda: all(future.done() for future in futures), 30)
        answers = [future.result() for future in futures]
        served = [answer for answer in answers if answer.success]
        assert len(served) == MOST_WAITING
        words = 'without positions: depth and calibration of the image did not come'
        assert all(words in answer.message for answer in served)
        assert all(
            f'{MOST_WAITING} requests wait already' in answer.message
            for answer in answers
            if not answer.success
        )
        assert bench.ask('the mug', rgb=RGB).success
    finally:
        peer.close()
