"""An executor that outlives what fails in it: callbacks, messages, and the wait for them."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from textwrap import shorten
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.exceptions import InvalidHandle
from rclpy.executors import (
    ConditionReachedException,
    ExternalShutdownException,
    ShutdownException,
    SingleThreadedExecutor,
    TimeoutException,
    await_or_execute,
)

from clipseg_ros.ros.log import ThrottledLog

LONGEST_FAILURE = 10.0
"""Seconds that the wait may fail again and again, without a success, before the process ends."""

_PAUSE = 0.1  # Seconds between two waits of those.

# How rclpy's wait ends where nothing is wrong.
_ENDS = (
    ConditionReachedException,
    ExternalShutdownException,
    ShutdownException,
    TimeoutException,
)

_REASONS = ('message', 'reason', 'failure_reason')  # Fields of answers, of which each has one.


class WaitError(Exception):
    """The middleware cannot wait for messages any more; why, in the error's text."""


class GuardedExecutor(SingleThreadedExecutor):
    """An executor that lives on, whatever callbacks and the middleware fail at.

    A peer may send a text that is not UTF-8, or more than there is memory for. rclpy raises where
    it makes the message; it then leaves the topic, service or timer out of all further waiting,
    keeps its callback group closed, and ends the spin. Here the message is dropped instead. A
    service whose callback fails answers that it failed.

    Attributes:
        faults: Messages that could not be taken, callbacks and waits that failed, so far.
    """

    # What rclpy's own end of an executor looks at, which a signal may have kept from being made.
    _sigint_gc: Any = None

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.faults = 0
        self._log: ThrottledLog | None = None
        # What rclpy has been given to run last, and of which entity.
        self._running: tuple[Any, Any] = None, None
        # When the wait failed for the first time since its last success.
        self._failing_since: float | None = None

    def report_faults(self, log: ThrottledLog) -> None:
        """Log there what fails."""
        self._log = log

    def callback_failed(self, error: BaseException) -> None:
        """Count and log the exception of a callback, and have rclpy look at its entity again."""
        handler, entity = self._running
        # rclpy does this itself, unless something fails between taking and running.
        if entity is not None and handler.done():
            entity._executor_event = False
            group = entity.callback_group
            if getattr(group, '_active_entity', None) is entity:
                group.ending_execution(entity)
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f'{place.filename}:{place.lineno}'
        self._fault(where, f'a callback failed, and the node lives on: {_say(error)} ({where})')

    # These are rclpy's own names (7.1, Jazzy, and 9.1, Kilted); what they return is run.

    def wait_for_ready_callbacks(self, *args: Any, **options: Any) -> Any:
        """Return what to run next; of a wait that failed, say that there was nothing in time."""
        try:
            handler, entity, node = super().wait_for_ready_callbacks(*args, **options)
        except TimeoutException:
            self._failing_since = None
            raise
        except _ENDS:
            raise
        except Exception as error:
            self._wait_failed(error)
            raise TimeoutException from None
        self._running = handler, entity
        return handler, entity, node

    def _make_handler(self, entity: Any, *args: Any) -> Any:
        self._failing_since = None  # It is made of what a wait has found.
        try:
            return super()._make_handler(entity, *args)
        except Exception:
            # rclpy would take it for one that is about to run.
            entity._executor_event = False
            raise

    def _take_timer(self, tmr: Any) -> Any:
        return self._guarded(super()._take_timer, tmr, 'a call of a timer')

    def _take_subscription(self, sub: Any) -> Any:
        return self._guarded(super()._take_subscription, sub, f'a message on {sub.topic_name}')

    def _take_client(self, client: Any) -> Any:
        return self._guarded(super()._take_client, client, f'an answer of {client.srv_name}')

    def _take_waitable(self, waitable: Any) -> Any:
        return self._guarded(super()._take_waitable, waitable, 'an event of the middleware')

    def _take_service(self, srv: Any) -> Any:
        return self._guarded(_take_request, srv, f'a request of {srv.srv_name}')

    def _guarded(self, take: Callable[[Any], Any], entity: Any, what: str) -> Any:
        try:
            return take(entity)
        except Exception as error:
            self._fault(what, f'{what} was dropped, as it cannot be read: {_say(error)}')
            return None

    def _wait_failed(self, error: Exception) -> None:
        """Count and log a wait that failed, and pause.

        Raises:
            ExternalShutdownException: A signal has shut the context down while the wait was set up.
            WaitError: It has failed for too long.
        """
        if not self._context.ok():
            raise ExternalShutdownException
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        seconds = now - self._failing_since
        if seconds > LONGEST_FAILURE:
            raise WaitError(
                f'the middleware has not been able to wait for messages for {seconds:.0f} s: '
                f'{_say(error)}'
            ) from error
        self._fault('wait', f'the wait for messages failed, and is tried again: {_say(error)}')
        time.sleep(_PAUSE)

    def _fault(self, key: str, line: str) -> None:
        self.faults += 1
        if self._log is not None:
            # A lack of memory may go on.
            with suppress(Exception):
                self._log.error(key, line)


def _take_request(srv: Any) -> Any:
    """Take a request as rclpy does; return what answers it, also where its callback fails."""
    try:
        with srv.handle:
            request, header = srv.handle.service_take_request(srv.srv_type.Request)
    except InvalidHandle:
        return None  # It has been destroyed.

    async def answer() -> None:
        if header is None:
            return
        response = srv.srv_type.Response()
        try:
            srv.send_response(await await_or_execute(srv.callback, request, response), header)
        except Exception as error:
            # One that has been destroyed cannot answer; where there is no memory for an answer
            # either, the first lack of it is told.
            with suppress(Exception):
                srv.send_response(failure_of(srv.srv_type, request, response, error), header)
            raise

    return answer


def failure_of(kind: Any, request: Any, response: Any, error: BaseException) -> Any:
    """Return the answer of a service whose callback raised an exception.

    ``success`` and the like are false, and where there is a field for a reason it names the
    exception; its text may hold what is not for peers. What sets parameters answers for each: those
    that have been set before the exception stay so.

    Args:
        kind: Of the service.
        request: What the callback got.
        response: What the callback got to fill in.
        error: What it raised.
    """
    reason = f'the node failed at this request ({type(error).__name__}): its log says more'
    failure, refused = kind.Response(), SetParametersResult(successful=False, reason=reason)
    fields = failure.get_fields_and_field_types()
    for name in _REASONS:
        if fields.get(name) == 'string':
            setattr(failure, name, reason)
    if fields.get('result') == 'rcl_interfaces/SetParametersResult':
        failure.result = refused
    if fields.get('results') == 'sequence<rcl_interfaces/SetParametersResult>':
        settled = list(response.results)
        failure.results = settled + [refused] * (len(request.parameters) - len(settled))
    return failure


def _say(error: BaseException) -> str:
    return shorten(f'{type(error).__name__}: {error}', 300)
