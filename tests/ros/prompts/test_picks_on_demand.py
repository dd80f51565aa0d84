"""A point in a frame that nobody had segmented, before a node in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import Point
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter
from ros_peers import Peer, wait_until
from sensor_msgs.msg import Image

from clipseg_ros.ros.qos import command_input, image_output
from clipseg_ros.segment.lifecycle import SegmentNode
from training.benchmarks.node_peers.stand_in import StandIn, blob

SIDE = 256


@pytest.fixture
def node(own_domain: int) -> Iterator[SegmentNode]:
    context = Context()
    rclpy.init(context=context, domain_id=own_domain)
    made = SegmentNode(
        load=lambda *_: StandIn(5.0),  # type: ignore[arg-type, return-value]
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
        yield made
    finally:
        executor.shutdown()
        thread.join(10)
        made.close()
        made.destroy_node()
        context.try_shutdown()


def test_a_point_is_in_the_mask_of_a_frame_that_was_not_segmented(
    node: SegmentNode, own_domain: int
) -> None:
    peer = Peer(own_domain)
    stream: Any = node._stream
    try:
        images = peer.publisher(Image, '/image', image_output())
        points = peer.publisher(Point, '/clipseg/pick_point', command_input())
        rgb = np.zeros((SIDE, SIDE, 3), np.uint8)
        wait_until(lambda: images.publish(peer.stamped(rgb)) or stream.newest.message is not None)
        assert stream.newest.result is None, 'nobody subscribes'
        y, x = np.unravel_index(np.argmax(blob(1)), (SIDE, SIDE))
        points.publish(Point(x=float(x), y=float(y)))
        active = node._prompt_server.prompts
        wait_until(lambda: any(entry.name == 'example' for entry in active.active), 20)
        [example] = [entry for entry in active.active if entry.name == 'example']
        np.testing.assert_array_equal(example.prompt.mask, blob(1) > 0)
    finally:
        peer.close()
