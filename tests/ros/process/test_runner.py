"""Nodes live on, whatever a callback raises."""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import rclpy
from rcl_interfaces.msg import Parameter, ParameterValue, SetParametersResult
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy import executors
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.context import Context
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.executors import SingleThreadedExecutor
from rclpy.task import Future
from ros_peers import CALLBACK_FAULT, NodeProcess, wait_until
from std_msgs.msg import String
from std_srvs.srv import Trigger

from clipseg_ros.process import guarded_executor
from clipseg_ros.process.guarded_executor import GuardedExecutor, WaitError, failure_of
from clipseg_ros.process.runner import run_node
from clipseg_ros.process.start import ENDING_SIGNALS
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
            result = peer.call(SetParameters, '/camera/set_parameters', NO_TYPE, 5.0).results[0]
            assert not result.successful
            assert 'ValueError' in result.reason
        assert peer.get_parameter('/camera', 'rate') == 30.0
        line = wait_until(lambda: [line for line in camera.lines if CALLBACK_FAULT in line])[0]
        assert '77' in line
        assert camera.count(CALLBACK_FAULT) == 1  # What repeats waits.
    finally:
        peer.close()
        status = camera.stop()
    assert status == 0, camera.output
    assert 'Traceback' not in camera.output, camera.output


@dataclass
class Host:
    """A node on an executor of ours, which a test spins, and what they log."""

    node: Any
    executor: GuardedExecutor
    lines: list[str]

    def spin_until(self, condition: Callable[[], Any], seconds: float = 10.0) -> Any:
        deadline = time.monotonic() + seconds
        while not (value := condition()) and time.monotonic() < deadline:
            try:
                self.executor.spin_once(timeout_sec=0.05)
            except WaitError:
                raise
            except Exception as error:
                self.executor.callback_failed(error)
        return value


@pytest.fixture
def host(domain: int) -> Iterator[Host]:
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    node = rclpy.create_node('host', context=context)
    executor = GuardedExecutor(context=context)
    executor.add_node(node)
    lines: list[str] = []
    executor.report_faults(ThrottledLog(SimpleNamespace(error=lines.append)))
    try:
        yield Host(node, executor, lines)
    finally:
        executor.shutdown()
        node.destroy_node()
        context.try_shutdown()


def test_a_service_that_fails_answers_so(host: Host) -> None:
    """Whatever it fails at: at once, after a wait, or with an answer that cannot be sent."""
    ready: Future = Future(executor=host.executor)

    def fail(request: Any, response: Any) -> Any:
        response.success, response.message = True, 'half done'
        raise MemoryError

    async def fail_late(request: Any, response: Any) -> Any:
        await ready
        raise MemoryError

    makers = {'at_once': fail, 'late': fail_late, 'unsendable': lambda request, response: 'yes'}
    clients = []
    for name, callback in makers.items():
        group = MutuallyExclusiveCallbackGroup()
        host.node.create_service(Trigger, name, callback, callback_group=group)
        clients.append(host.node.create_client(Trigger, name))
    host.spin_until(lambda: all(client.service_is_ready() for client in clients))
    for count in (1, 2):  # The second finds the service as open as the first.
        answers = [client.call_async(Trigger.Request()) for client in clients]
        host.spin_until(lambda answers=answers: answers[0].done() and answers[2].done())
        if count == 1:
            assert not answers[1].done()
            ready.set_result(None)
        assert host.spin_until(lambda answers=answers: all(answer.done() for answer in answers))
        for answer, error in zip(answers, ('MemoryError', 'MemoryError', 'TypeError'), strict=True):
            assert not answer.result().success
            assert f'failed at this request ({error})' in answer.result().message
        host.spin_until(lambda count=count: host.executor.faults == 3 * count)
        assert host.executor.faults == 3 * count


def test_what_sets_parameters_answers_for_each_of_them() -> None:
    parameters = [Parameter(name=name) for name in 'abc']
    request = SetParameters.Request(parameters=parameters)
    done = SetParameters.Response(results=[SetParametersResult(successful=True)])
    found = failure_of(SetParameters, request, done, ValueError('of a file')).results
    assert [result.successful for result in found] == [True, False, False]
    assert found[0].reason == ''
    assert all('ValueError' in result.reason for result in found[1:])
    assert all('of a file' not in result.reason for result in found)
    answer = SetParametersAtomically.Response()
    found = failure_of(SetParametersAtomically, request, answer, ValueError()).result
    assert not found.successful
    assert 'ValueError' in found.reason


@pytest.mark.parametrize(
    ('take', 'said'),
    [
        ('_take_timer', 'a call of a timer was dropped'),
        ('_take_waitable', 'an event of the middleware was dropped'),
        ('_take_guard_condition', 'a callback failed'),
    ],
)
def test_timers_and_events_that_cannot_be_taken_come_again(
    host: Host, monkeypatch: pytest.MonkeyPatch, take: str, said: str
) -> None:
    """rclpy alone ends its spin then, and never looks at them again."""
    plain, failures = getattr(SingleThreadedExecutor, take), [MemoryError()] * 3

    def fail(self: Any, entity: Any) -> Any:
        if failures:
            raise failures.pop()
        return plain(self, entity)

    monkeypatch.setattr(SingleThreadedExecutor, take, fail)
    seen: list[Any] = []
    group = MutuallyExclusiveCallbackGroup()
    if take == '_take_timer':
        host.node.create_timer(0.01, lambda: seen.append(1), group)
    elif take == '_take_waitable':
        callbacks = SubscriptionEventCallbacks(matched=seen.append)
        host.node.create_subscription(
            String, 'words', seen.append, 10, callback_group=group, event_callbacks=callbacks
        )
        for number in range(8):
            host.node.create_publisher(String, 'words', 10)
            host.spin_until(lambda number=number: len(failures) < 3 - number, 0.5)
    else:
        host.node.create_guard_condition(lambda: seen.append(1), group).trigger()
    assert host.spin_until(lambda: seen)
    assert not failures
    assert host.executor.faults == 3
    assert len(host.lines) == 1
    assert said in host.lines[0]
    assert 'MemoryError' in host.lines[0]


def test_what_fails_between_taking_and_running_closes_nothing(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rclpy alone keeps the callback group closed then, for all other callbacks of it."""
    seen: list[int] = []
    host.node.create_timer(0.01, lambda: seen.append(1))
    host.spin_until(lambda: seen)
    guard, failures = host.executor._guard, [MemoryError()]

    class Guard:
        handle = guard.handle
        destroy = guard.destroy

        def trigger(self) -> None:
            if failures:
                raise failures.pop()
            guard.trigger()

    monkeypatch.setattr(host.executor, '_guard', Guard())
    seen.clear()
    assert host.spin_until(lambda: len(seen) > 2)
    assert not failures
    assert host.executor.faults == 1


class Waits:
    """In place of rclpy's wait sets, of which those fail for which ``failures`` says so."""

    def __init__(self, failures: Callable[[], bool]) -> None:
        self._failures, self._plain = failures, executors._rclpy.WaitSet

    def __call__(self, *sizes: Any) -> Any:
        if self._failures():
            raise MemoryError
        return self._plain(*sizes)


def test_a_wait_that_fails_is_tried_again(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [True, True, True]
    monkeypatch.setattr(
        executors._rclpy, 'WaitSet', Waits(lambda: bool(failures) and failures.pop())
    )
    seen: list[int] = []
    host.node.create_timer(0.01, lambda: seen.append(1))
    assert host.spin_until(lambda: seen)
    assert host.executor.faults == 3
    assert len(host.lines) == 1
    assert 'the wait for messages failed, and is tried again: MemoryError' in host.lines[0]


def test_a_wait_that_goes_on_failing_ends_the_process_with_a_reason(
    domain: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """But one that succeeds now and then does not."""
    monkeypatch.setattr(guarded_executor, 'LONGEST_FAILURE', 0.5)
    monkeypatch.setattr(guarded_executor, '_PAUSE', 0.02)
    monkeypatch.setenv('ROS_DOMAIN_ID', str(domain))
    begin = time.monotonic()
    waits = itertools.count()

    def fails() -> bool:
        return time.monotonic() - begin > 2.0 or next(waits) % 4 > 0

    monkeypatch.setattr(executors._rclpy, 'WaitSet', Waits(fails))
    times: list[float] = []

    def make() -> Any:
        node = rclpy.create_node('patient')
        node.create_timer(0.01, lambda: times.append(time.monotonic() - begin))
        node.close = lambda: None
        return node

    handlers = {number: signal.getsignal(number) for number in ENDING_SIGNALS}
    try:
        assert run_node(make, ['patient']) == 1
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert times[-1] > 1.5
    assert time.monotonic() - begin > 2.4
    assert 'has not been able to wait for messages' in capsys.readouterr().err


def test_messages_that_cannot_be_taken_are_dropped_and_counted(
    domain: int, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rclpy alone ends its spin then, and never looks at the topic again."""
    take, failures = SingleThreadedExecutor._take_subscription, [MemoryError('no more')] * 3

    def fail(self: Any, subscription: Any) -> Any:
        taken = take(self, subscription)
        if failures and subscription.topic_name == '/words':
            raise failures.pop()
        return taken

    monkeypatch.setattr(SingleThreadedExecutor, '_take_subscription', fail)
    read: list[str] = []
    host.node.create_subscription(String, '/words', lambda message: read.append(message.data), 10)
    peer = Peer('writer', domain)
    try:
        publisher = peer.node.create_publisher(String, '/words', 10)
        wait_until(
            lambda: publisher.get_subscription_count() and host.node.count_publishers('/words')
        )
        for number in range(5):
            publisher.publish(String(data=str(number)))
        host.spin_until(lambda: len(read) >= 2)
        assert read == ['3', '4']
        assert host.executor.faults == 3
        assert len(host.lines) == 1
        assert 'a message on /words was dropped' in host.lines[0]
        assert 'MemoryError' in host.lines[0]
    finally:
        peer.close()
