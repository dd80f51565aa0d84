"""A node for programs that are no nodes themselves: clients, the demo and the tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import rclpy
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.context import Context
from rclpy.exceptions import InvalidHandle
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter, parameter_value_to_python

from clipseg_ros.errors import NodeTimeoutError


class Peer:
    """A node in a context of its own, whose callbacks run in a thread of its own.

    Args:
        name: Of the node.
        domain_id: That of the environment where None.

    Attributes:
        changed: Callbacks notify it of what :meth:`wait_until` may be waiting for.
        check: Called again and again while this peer waits; what it raises ends the waiting.
    """

    def __init__(self, name: str, domain_id: int | None = None) -> None:
        self.changed = threading.Condition()
        self.check: Callable[[], None] = lambda: None
        self._closed = False
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        self.node = rclpy.create_node(name, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, name=name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take the node away, and its shared memory."""
        if self._closed:
            return
        self._closed = True
        self._executor.shutdown()
        self._thread.join(5)
        self.node.destroy_node()
        # Something else may have shut it down already, such as a signal.
        self._context.try_shutdown()
        # The executor holds on to entities between two spins; while it does, nothing is freed.
        del self._executor, self.node
        self._context.destroy()

    def wait_until(self, condition: Callable[[], Any], timeout: float) -> Any:
        """Return the first true value of a condition, or its last one after ``timeout`` seconds.

        It is looked at every 20 ms, and when ``changed`` is notified, which is held then.
        """
        deadline = time.monotonic() + timeout
        with self.changed:
            while not (value := condition()) and (left := deadline - time.monotonic()) > 0:
                self.check()
                self.changed.wait(min(left, 0.02))
        return value

    def call(self, kind: Any, service: str, request: Any, timeout: float = 30.0) -> Any:
        """Call a service of a type by its full name, and return the response.

        Raises:
            NodeTimeoutError: It is not there, or does not answer, within ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        client = self.node.create_client(kind, service)
        try:
            if not self.wait_until(client.service_is_ready, timeout):
                raise NodeTimeoutError(
                    f'there is no service {service}: is the node running, under this name, in '
                    'this ROS_DOMAIN_ID?'
                )
            future = client.call_async(request)
            future.add_done_callback(self._notify)
            if not self.wait_until(future.done, deadline - time.monotonic()):
                raise NodeTimeoutError(f'{service} does not answer; the node may hang')
            return future.result()
        finally:
            self.node.destroy_client(client)

    def set_parameter(
        self, node: str, name: str, value: Any, timeout: float = 30.0
    ) -> SetParametersResult:
        """Set a parameter of another node by :meth:`call`; the result says if it was taken.

        The value may be numpy's, and a list may have both integers and floats.

        Raises:
            TypeError: It is of no type that a parameter may have.
        """
        message = Parameter(name, value=_plain(value)).to_parameter_msg()
        request = SetParameters.Request(parameters=[message])
        return self.call(SetParameters, f'{node}/set_parameters', request, timeout).results[0]

    def get_parameter(self, node: str, name: str, timeout: float = 30.0) -> Any:
        """Return a parameter of another node by :meth:`call`; None if it is not set."""
        request = GetParameters.Request(names=[name])
        answer = self.call(GetParameters, f'{node}/get_parameters', request, timeout)
        return parameter_value_to_python(answer.values[0])

    def _notify(self, _: Any) -> None:
        with self.changed:
            self.changed.notify_all()

    def _spin(self) -> None:
        with suppress(ExternalShutdownException):
            while True:
                try:
                    self._executor.spin()
                    return
                except InvalidHandle:
                    # rclpy's wait fails where another thread destroys a subscription just then.
                    continue


def _plain(value: Any) -> Any:
    """Return a value as rclpy takes it: Python's own types, and lists of one of them."""
    value = value.tolist() if hasattr(value, 'tolist') else value
    if not isinstance(value, (list, tuple)):
        return value
    items = [_plain(item) for item in value]
    if {type(item) for item in items} == {int, float}:
        return [float(item) for item in items]
    return items
