"""The client for scripts, against the real node in another process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ros_peers import NodeProcess, Peer, picture, shared_memory_files, wait_until
from sensor_msgs.msg import Image

from clipseg_model.errors import PromptError
from clipseg_model.registry import create_model
from clipseg_ros.client import SegmentClient
from clipseg_ros.errors import NodeTimeoutError
from clipseg_ros.ros.qos import image_output
from clipseg_ros.ros.timing import stamp_of


@contextmanager
def filming(
    peer: Peer, rate: float = 20.0, back: int = 0, topic: str = '/image', matched: int = 0
) -> Iterator[list[int]]:
    """Publishes one picture again and again; `back` seconds are taken off its stamps.

    The node subscribes once somebody waits for masks.
    """
    publisher = peer.publisher(Image, topic, image_output(), matched)
    stamps: list[int] = []
    end = threading.Event()

    def run() -> None:
        while not end.wait(1 / rate):
            image = peer.stamped(picture(seed=3), frame='lens')
            image.header.stamp.sec -= back
            stamps.append(stamp_of(image))
            publisher.publish(image)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield stamps
    finally:
        end.set()
        thread.join()
        peer.node.destroy_publisher(publisher)


@pytest.fixture
def client(segment: NodeProcess, domain: int) -> Iterator[SegmentClient]:
    with SegmentClient(domain_id=domain) as made:
        yield made
        made.set_prompts('the mug; red bowl')


def expected(tiny_model: Path, *prompts: str) -> Any:
    return create_model(tiny_model, 'cpu').segment(picture(seed=3), list(prompts))


def test_the_next_mask_is_that_of_the_prompts(
    client: SegmentClient, peer: Peer, tiny_model: Path
) -> None:
    with filming(peer):
        for prompt in ('a chair', 'blue bowl', 'the mug', 'red chair'):
            assert client.set_prompts(prompt) == [prompt]
            mask = client.wait_for_mask()
            assert mask.dtype == bool
            assert mask.shape == (120, 160)
            # Another number of threads may sum in another order.
            truth = expected(tiny_model, prompt).mask() > 0
            assert np.mean(mask != truth) < 1e-3, prompt


def test_outputs_of_one_frame_belong_together(
    client: SegmentClient, peer: Peer, tiny_model: Path
) -> None:
    assert client.set_prompts(['the mug', 'seat: a chair']) == ['the mug', 'seat']
    assert client.prompts() == ['the mug', 'seat']
    with filming(peer) as stamps:
        frame = client.wait_for('labels', 'confidence', 'probability', 'overlay', 'mask')
    assert frame.stamp in stamps
    assert frame.stamp < frame.arrival < time.time_ns()
    assert frame.frame_id == 'lens'
    truth = expected(tiny_model, 'the mug', 'a chair')
    np.testing.assert_allclose(frame['probability'], truth.probability(), atol=1e-4)
    assert (frame['labels'].dtype, frame['confidence'].dtype) == (np.uint8, np.uint8)
    np.testing.assert_array_equal(frame['mask'], frame['labels'] > 0)
    assert (frame['confidence'][frame['labels'] == 0] == 0).all()
    assert frame['overlay'].shape == (120, 160, 3)


def test_a_frame_is_of_after_the_call(client: SegmentClient, peer: Peer) -> None:
    with filming(peer) as stamps:
        first = client.wait_for('mask')
        time.sleep(0.5)
        asked = stamps[-1]
        second = client.wait_for('mask')
    # What was on its way when the call began may come; nothing from the pause before.
    assert second.stamp > first.stamp
    assert second.stamp > asked - 0.3e9


def test_a_camera_with_stamps_of_long_ago_is_served(
    client: SegmentClient, peer: Peer, tiny_model: Path
) -> None:
    with filming(peer, back=3600) as stamps:
        client.set_prompts('a chair')
        frame = client.wait_for('mask')
        assert frame.stamp in stamps
        assert np.mean(frame['mask'] != (expected(tiny_model, 'a chair').mask() > 0)) < 1e-3


def held(value: Any) -> int:
    """How many values there are in a container, and in those within it."""
    if isinstance(value, (dict, list, set, tuple)):
        within = value.values() if isinstance(value, dict) else value
        return len(value) + sum(map(held, within))
    return 0


def test_it_keeps_the_last_frames_alone(peer: Peer, domain: int) -> None:
    counts = []
    with SegmentClient('film', domain_id=domain) as client:
        for frames, matched in ((20, 0), (60, 1)):
            with filming(peer, 100.0, topic='/film/overlay', matched=matched) as stamps:
                newest = client.wait_for('overlay').stamp
                wait_until(lambda: len(stamps) > stamps.index(newest) + frames)  # noqa: B023
            time.sleep(0.3)
            counts.append(held(vars(client)))
    assert counts[0] == counts[1]


def test_what_was_not_asked_for_is_said(client: SegmentClient, peer: Peer) -> None:
    with filming(peer):
        frame = client.wait_for('labels')
    with pytest.raises(KeyError, match='was not asked for'):
        frame['mask']
    for wrong in (('masks',), ()):
        with pytest.raises(ValueError, match='wait for some of'):
            client.wait_for(*wrong)


def test_refused_prompts_raise_with_the_nodes_reason(client: SegmentClient) -> None:
    before = client.set_prompts('red bowl')
    with pytest.raises(PromptError, match='no word'):
        client.set_prompts('чашка')
    assert client.prompts() == before
    with pytest.raises(ValueError, match='threshold'):
        client.set_parameter('threshold', 1.0)


def test_empty_prompts_stop_and_waiting_says_why(client: SegmentClient, peer: Peer) -> None:
    for nothing in ('', []):
        assert client.set_prompts(nothing) == []
        assert client.prompts() == []
    with filming(peer), pytest.raises(NodeTimeoutError) as caught:
        client.wait_for_mask(timeout=2.5)
    assert 'no mask of /clipseg within 2.5 s' in str(caught.value)
    assert 'no prompt set' in str(caught.value)


def test_pausing_and_going_on(client: SegmentClient, peer: Peer) -> None:
    with filming(peer):
        client.wait_for_mask()
        client.enable(False)
        try:
            time.sleep(0.3)
            with pytest.raises(NodeTimeoutError, match='disabled'):
                client.wait_for_mask(timeout=2.5)
        finally:
            client.enable()
        client.wait_for_mask()


def test_closing_frees_the_shared_memory(domain: int) -> None:
    before = shared_memory_files()
    client = SegmentClient(domain_id=domain)
    with client:
        wait_until(lambda: shared_memory_files() - before)
    client.close()
    assert not shared_memory_files() - before


def test_a_node_that_is_not_there(domain: int) -> None:
    with SegmentClient('other', timeout=0.5, domain_id=domain) as client:
        with pytest.raises(NodeTimeoutError, match='no service /other/set_parameters'):
            client.set_prompts('mug')
        with pytest.raises(NodeTimeoutError, match='nobody publishes /other/mask'):
            client.wait_for_mask()
        assert client.status == ''
