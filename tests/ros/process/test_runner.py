"""Nodes live on, whatever a callback raises."""

from __future__ import annotations

import pytest
import rclpy
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParameters
from ros_peers import CALLBACK_FAULT, NodeProcess, wait_until

from clipseg_ros.errors import NodeTimeoutError
from clipseg_ros.process.runner import spin
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


def test_a_fault_of_the_middleware_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The executor looks no more at what it could not take from."""

    class Executor:
        def spin_once(self, timeout_sec: float) -> None:
            raise MemoryError

    monkeypatch.setattr(rclpy, 'ok', lambda: True)
    with pytest.raises(MemoryError):
        spin(Executor(), None)
