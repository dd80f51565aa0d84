"""Run nodes from the start to a clean end."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from rclpy.exceptions import InvalidParameterException, InvalidParameterValueException
from rclpy.executors import ExternalShutdownException
from rclpy.signals import uninstall_signal_handlers

from clipseg_ros.errors import InterfacesError, ParameterError, SourceError
from clipseg_ros.process.command_line import explain_unread, find_eaten
from clipseg_ros.process.guarded_executor import GuardedExecutor, WaitError
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


def spin(
    executor: GuardedExecutor, logger: Any, is_over: Callable[[], bool] = lambda: False
) -> None:
    """Run callbacks until a signal shuts the context down, and return soon after.

    ``is_over`` is asked between callbacks, and ends it too.

    An exception of a callback is logged and counted, and ends nothing: any peer may send what rclpy
    itself fails at, such as a parameter of a type that there is not. A service answers that it
    failed.

    Raises:
        WaitError: The middleware has failed for too long.
    """
    executor.report_faults(ThrottledLog(logger))
    while rclpy.ok() and not is_over():
        try:
            executor.spin_once(timeout_sec=_LONGEST_WAIT)
        except (KeyboardInterrupt, ExternalShutdownException):
            return
        except WaitError:
            raise
        except Exception as error:
            if not rclpy.ok():
                return
            executor.callback_failed(error)


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
        Exit status: 0 after a signal, 1 where a node could not be made or gave up, or the
        middleware failed for too long.
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
    failed = False
    try:
        executor = GuardedExecutor()
        for node in nodes:
            executor.add_node(node)
        spin(executor, nodes[0].get_logger(), gave_up)
    except KeyboardInterrupt:
        pass  # Before or after the spin.
    except WaitError as error:
        failed = True
        print(f'ended: {error}', file=sys.stderr)
    finally:
        end()
        for node in nodes:
            node.close()
        if executor is not None:
            executor.shutdown()
        for node in nodes:
            node.destroy_node()
    return 1 if failed or gave_up() else 0


def _interrupted() -> int:
    print('interrupted while starting', file=sys.stderr)
    return 0
