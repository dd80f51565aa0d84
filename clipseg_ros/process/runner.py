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

from clipseg_ros.errors import InterfacesError, ParameterError, SourceError
from clipseg_ros.process.command_line import explain_unread, find_eaten
from clipseg_ros.process.start import take_signals_as_usual
from clipseg_ros.ros.log import ThrottledLog

# rclpy's signal handler can wake the executor before the context is shut down; the executor then
# waits again, for ever if nothing else happens.
_LONGEST_WAIT = 0.5


def interrupt_once() -> Callable[[], None]:
    """Let SIGINT interrupt this process only once, so that it ends in order.

    `ros2 launch` passes on the signal that the terminal has sent already, and people press Ctrl-C
    twice. Call it before ``rclpy.init``, whose own handler calls the one that it finds. After a
    call of the returned function SIGINT does not interrupt at all.
    """
    ending = False

    def end() -> None:
        nonlocal ending
        ending = True

    def interrupt(*_: Any) -> None:
        if not ending:
            end()
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    return end


def spin(executor: Any, logger: Any, is_over: Callable[[], bool] = lambda: False) -> None:
    """Run callbacks until a signal shuts the context down, and return soon after.

    ``is_over`` is asked between callbacks, and ends it too.

    An exception of a callback is logged and ends nothing: any peer may send what rclpy itself fails
    at, such as a parameter of a type that there is not. A service that fails does not answer. Other
    exceptions, of the middleware, end the process.
    """
    log = ThrottledLog(logger)
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
    the context shut down before this returns. It must be the last thing that a process does: SIGINT
    is ignored after it.

    Args:
        make_nodes: Makes the nodes; their ``close()`` is called at the end. One whose ``gave_up``
            is true ends all of them.
        args: Command line; that of the process where None.

    Returns:
        Exit status: 0 after a signal, 1 where a node could not be made or gave up.
    """
    take_signals_as_usual()
    end = interrupt_once()
    command_line = sys.argv if args is None else args
    eaten = find_eaten(command_line)
    if eaten:
        print(f'cannot start: {eaten}', file=sys.stderr)
        return 1
    try:
        rclpy.init(args=args)
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
            print('interrupted while starting', file=sys.stderr)
            return 0

        def gave_up() -> bool:
            return any(getattr(node, 'gave_up', False) for node in nodes)

        executor = SingleThreadedExecutor()
        for node in nodes:
            executor.add_node(node)
        try:
            spin(executor, nodes[0].get_logger(), gave_up)
        finally:
            end()
            for node in nodes:
                node.close()
            executor.shutdown()
            for node in nodes:
                node.destroy_node()
        return 1 if gave_up() else 0
    finally:
        rclpy.try_shutdown()
        # Python removes its own handlers before it has ended.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
