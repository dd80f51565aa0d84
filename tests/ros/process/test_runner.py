"""Nodes live on, whatever a callback raises."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
import rclpy
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from ros_peers import CALLBACK_FAULT, NodeProcess, wait_until
from std_msgs.msg import String

from clipseg_ros.errors import NodeTimeoutError
from clipseg_ros.process.runner import GuardedExecutor, spin
from clipseg_ros.ros.log import ThrottledLog
from clipseg_ros.ros.peer import Peer

NO_TYPE = SetParameters.Request(parameters=[Parameter(name='x', value=ParameterValue(type=77))])


def test_a_request_that_rclpy_fails_at_ends_no_node(domain: int) -> None:
    camera = NodeProcess('clipseg_ros.camera_node', {'rate': 30.0, 'width': 160, 'height': 120})
    camera.may_fail = True
    peer = Peer('stranger', domain)
    try:
        peer.get_parameter('/camera', 'rate')
        for _ in range(2):
            with pytest.raises(NodeTimeoutError, match='does not answer'):
                peer.call(SetParameters, '/camera/set_parameters', NO_TYPE, 2.0)
        assert peer.get_parameter('/camera', 'rate') == 30.0
        line = wait_until(lambda: [line for line in camera.lines if CALLBACK_FAULT in line])[0]
        assert '77' in line
        assert camera.count(CALLBACK_FAULT) == 1  # What repeats waits.
    finally:
        peer.close()
        status = camera.stop()
    assert status == 0, camera.output
    assert 'Traceback' not in camera.output, camera.output


def test_messages_that_cannot_be_taken_are_dropped_and_counted(
    domain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rclpy alone ends its spin then, and never looks at the topic again."""
    take, failures = SingleThreadedExecutor._take_subscription, [MemoryError('no more')] * 3

    def fail(self: Any, subscription: Any) -> Any:
        taken = take(self, subscription)
        if failures and subscription.topic_name == '/words':
            raise failures.pop()
        return taken

    monkeypatch.setattr(SingleThreadedExecutor, '_take_subscription', fail)
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    node = rclpy.create_node('reader', context=context)
    executor = GuardedExecutor(context=context)
    executor.add_node(node)
    lines: list[str] = []
    executor.report_faults(ThrottledLog(SimpleNamespace(error=lines.append)))
    read: list[str] = []
    node.create_subscription(String, '/words', lambda message: read.append(message.data), 10)
    peer = Peer('writer', domain)
    try:
        publisher = peer.node.create_publisher(String, '/words', 10)
        wait_until(lambda: publisher.get_subscription_count() and node.count_publishers('/words'))
        for number in range(5):
            publisher.publish(String(data=str(number)))
        deadline = time.monotonic() + 10
        while len(read) < 2 and time.monotonic() < deadline:
            executor.spin_once(timeout_sec=0.1)
        assert read == ['3', '4']
        assert executor.faults == 3
        assert len(lines) == 1
        assert 'a message on /words was dropped' in lines[0]
        assert 'MemoryError' in lines[0]
    finally:
        peer.close()
        executor.shutdown()
        node.destroy_node()
        context.try_shutdown()


def test_a_fault_of_the_middleware_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The executor looks no more at what it could not take from."""

    class Executor:
        def spin_once(self, timeout_sec: float) -> None:
            raise MemoryError

    monkeypatch.setattr(rclpy, 'ok', lambda: True)
    with pytest.raises(MemoryError):
        spin(Executor(), None)
