"""Run nodes from the start to a clean end."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from textwrap import shorten
from typing import Any

import rclpy
from rclpy.exceptions import InvalidParameterException, InvalidParameterValueException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import uninstall_signal_handlers

from clipseg_ros.errors import InterfacesError, ParameterError, SourceError
from clipseg_ros.process.command_line import explain_unread, find_eaten
from clipseg_ros.process.shared_memory import SHARED_MEMORY, remove_orphans
from clipseg_ros.process.start import ENDING_SIGNALS
from clipseg_ros.ros.log import ThrottledLog

# rclpy's signal handler can wake the executor before the context is shut down; the executor then
# waits again, for ever if nothing else happens.
_LONGEST_WAIT = 0.5

# Seconds: the owner of a younger file in shared memory may be about to take it.
_YOUNG = 2.0


def interrupt_once() -> Callable[[], None]:
    """Let SIGINT and SIGTERM interrupt this process only once, so that it ends in order.

    `ros2 launch` passes on the signal that the terminal has sent already, and people press Ctrl-C
    twice. Call it before ``rclpy.init``, whose own handlers call those that they find.

    Returns:
        To be called before anything of rclpy is taken down: no signal does anything from then on.
    """
    ending = False

    def interrupt(*_: Any) -> None:
        nonlocal ending
        if not ending:
            ending = True
            raise KeyboardInterrupt

    def take_signals() -> None:
        for number in ENDING_SIGNALS:
            signal.signal(number, interrupt)

    def end() -> None:
        nonlocal ending
        ending = True
        # For each signal that rclpy's handlers see, a thread of its own wakes the executors, which
        # it may find half destroyed; and they may find themselves half removed. So they see none
        # any more, and then that thread ends.
        take_signals()
        uninstall_signal_handlers()

    take_signals()
    return end


class GuardedExecutor(SingleThreadedExecutor):
    """An executor that outlives messages which rclpy cannot take.

    A peer may send a text that is not UTF-8, or more than there is memory for. rclpy raises where
    it makes the message, leaves the topic or service out of all further waiting, and ends the spin.

    Attributes:
        faults: Messages that could not be taken, and callbacks that failed, so far.
    """

    # What rclpy's own end of an executor looks at, which a signal may have kept from being made.
    _sigint_gc: Any = None

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.faults = 0
        self._fault_log: ThrottledLog | None = None

    def report_faults(self, log: ThrottledLog) -> None:
        """Log messages that cannot be taken there."""
        self._fault_log = log

    # These are rclpy's own names (7.1, Jazzy, and 9.1, Kilted); what they return is run.

    def _take_subscription(self, sub: Any) -> Any:
        return self._guarded(super()._take_subscription, sub, f'a message on {sub.topic_name}')

    def _take_service(self, srv: Any) -> Any:
        return self._guarded(super()._take_service, srv, f'a request of {srv.srv_name}')

    def _take_client(self, client: Any) -> Any:
        return self._guarded(super()._take_client, client, f'an answer of {client.srv_name}')

    def _guarded(self, take: Callable[[Any], Any], entity: Any, what: str) -> Any:
        try:
            return take(entity)
        except Exception as error:
            self.faults += 1
            if self._fault_log is not None:
                reason = shorten(f'{type(error).__name__}: {error}', 200)
                self._fault_log.error(what, f'{what} was dropped, as it cannot be read: {reason}')
            return None


def spin(executor: Any, logger: Any, is_over: Callable[[], bool] = lambda: False) -> None:
    """Run callbacks until a signal shuts the context down, and return soon after.

    ``is_over`` is asked between callbacks, and ends it too.

    An exception of a callback is logged and ends nothing: any peer may send what rclpy itself fails
    at, such as a parameter of a type that there is not. A service that fails does not answer. Other
    exceptions, of the middleware, end the process. A :class:`GuardedExecutor` counts and outlives
    messages that cannot be read as well.
    """
    log = ThrottledLog(logger)
    if isinstance(executor, GuardedExecutor):
        executor.report_faults(log)
    while rclpy.ok() and not is_over():
        try:
            executor.spin_once(timeout_sec=_LONGEST_WAIT)
        except (KeyboardInterrupt, ExternalShutdownException):
            return
        except Exception as error:
            # A signal may shut the context down while the executor sets up its wait, which then
            # fails.
            if not rclpy.ok():
                return
            places = traceback.extract_tb(error.__traceback__)
            if all(place.name != 'await_or_execute' for place in places):
                # Not of a callback: the executor may never look at this topic or service again.
                raise
            if isinstance(executor, GuardedExecutor):
                executor.faults += 1
            place = places[-1]
            reason = shorten(f'{type(error).__name__}: {error}', 300)
            where = f'{place.filename}:{place.lineno}'
            log.error(where, f'a callback failed, and the node lives on: {reason} ({where})')


def run_node(make_node: Callable[[], Any], args: list[str] | None = None) -> int:
    """Spin a node until a signal: :func:`run_nodes` with one."""
    return run_nodes(lambda: [make_node()], args)


def run_nodes(make_nodes: Callable[[], Sequence[Any]], args: list[str] | None = None) -> int:
    """Spin nodes in this thread until SIGINT or SIGTERM, then end them in order.

    Killed processes leak the middleware's shared memory, so threads are joined, topics removed and
    the context shut down before this returns. It must be the last thing that a process does: both
    signals are ignored after it.

    Args:
        make_nodes: Makes the nodes; their ``close()`` is called at the end. One whose ``gave_up``
            is true ends all of them.
        args: Command line; that of the process where None.

    Returns:
        Exit status: 0 after a signal, 1 where a node could not be made or gave up.
    """
    command_line = sys.argv if args is None else args
    eaten = find_eaten(command_line)
    if eaten:
        print(f'cannot start: {eaten}', file=sys.stderr)
        return 1
    orphans = remove_orphans(least_age=_YOUNG)
    if orphans:
        print(f'{len(orphans)} file(s) of killed processes removed from {SHARED_MEMORY}')
    end = interrupt_once()
    try:
        rclpy.init(args=args)
    except KeyboardInterrupt:
        return _interrupted()
    except RuntimeError as error:
        # The command line cannot be parsed, or a parameters file is missing or no YAML.
        print(f'cannot start: {explain_unread(command_line) or error}', file=sys.stderr)
        return 1
    try:
        try:
            nodes = make_nodes()
        except (
            InvalidParameterException,
            InvalidParameterValueException,
            InterfacesError,
            ParameterError,
            SourceError,
        ) as error:
            print(f'cannot start: {error}', file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return _interrupted()

        return _spin_to_the_end(nodes, end)
    finally:
        rclpy.try_shutdown()
        # Python removes its own handlers before it has ended.
        for number in ENDING_SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def _spin_to_the_end(nodes: Sequence[Any], end: Callable[[], None]) -> int:
    def gave_up() -> bool:
        return any(getattr(node, 'gave_up', False) for node in nodes)

    executor: GuardedExecutor | None = None
    try:
        executor = GuardedExecutor()
        for node in nodes:
            executor.add_node(node)
        spin(executor, nodes[0].get_logger(), gave_up)
    except KeyboardInterrupt:
        pass  # Before or after the spin.
    finally:
        end()
        for node in nodes:
            node.close()
        if executor is not None:
            executor.shutdown()
        for node in nodes:
            node.destroy_node()
    return 1 if gave_up() else 0


def _interrupted() -> int:
    print('interrupted while starting', file=sys.stderr)
    return 0
