"""The service ``~/segment_once``: one answer for one image, by prompts of its own.

Each request has a thread of a small pool, which waits for an image and for its turn at the model.
What it gets is made a message there too: the executor's thread only hands requests and answers on.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.task import Future

from clipseg_model.errors import ClipsegError
from clipseg_ros.errors import ImageConversionError, OnceError
from clipseg_ros.outputs.messages import prompt_masks, segment_array
from clipseg_ros.outputs.on_demand import find_crowd, find_wait_problem
from clipseg_ros.outputs.result import FrameResult
from clipseg_ros.prompts.set import ActivePrompt
from clipseg_ros.ros.interfaces import Interfaces
from clipseg_ros.ros.log import ThrottledLog
from clipseg_ros.ros.qos import crowd_service
from clipseg_ros.ros.timing import create_steady_timer

MOST_WAITING = 8
"""Requests that are at work or wait at the same time; more are refused."""

_WAIT = 5.0  # Seconds that a request waits unless it says how long.
_PERIOD = 0.05


@dataclass(frozen=True)
class OnceRequest:
    """What is asked, checked.

    Attributes:
        image: A ``sensor_msgs/Image``; None for the newest of the camera.
        depth: Of that image; None where there is none.
        info: Its ``sensor_msgs/CameraInfo``; None likewise.
        prompts: Enabled ones, at least one of them not negative.
        positions: Whether positions are wanted.
        wait: Longest time to wait, seconds.
        until: The end of it, of ``time.monotonic``.
        release: Called in the executor's thread when the request is over.
    """

    image: Any
    depth: Any
    info: Any
    prompts: tuple[ActivePrompt, ...]
    positions: bool
    wait: float
    until: float
    release: Callable[[], None]


@dataclass(frozen=True)
class OnceAnswer:
    """What was found.

    Attributes:
        result: The segmented image.
        place: Writes positions into its ``clipseg_ros/SegmentArray``; None where there are none.
        remark: Why there are none, if some were wanted, or why they are in another frame.
    """

    result: FrameResult
    place: Callable[[Any], None] | None = None
    remark: str = ''


class OnceServer:
    """Hands requests to a pool of threads, and their answers back.

    The service exists as long as the node.

    Args:
        node: The node.
        interfaces: The package's own messages; there is no service where they are not built.
        accept: Reads a request in the executor's thread, given how long it may wait; raises a
            ClipsegError or an ImageConversionError to refuse it.
        answer: Answers one, in a thread that may wait; raises the same.
    """

    def __init__(
        self,
        node: Any,
        interfaces: Interfaces | None,
        accept: Callable[[Any, float, float], OnceRequest],
        answer: Callable[[OnceRequest], OnceAnswer],
    ) -> None:
        self._node, self._interfaces = node, interfaces
        self._log = ThrottledLog(node.get_logger())
        self._accept, self._find = accept, answer
        self._waiting = 0
        self._finished: deque[tuple[Future[None], Callable[[], None]]] = deque()
        if interfaces is None:
            return
        self._pool = ThreadPoolExecutor(MOST_WAITING, 'segment_once')
        self._ready = node.create_guard_condition(self._settle)
        # Where a wake-up is lost, the answer is a moment late.
        self._timer = create_steady_timer(node, _PERIOD, self._settle)
        self._timer.cancel()
        self._service = node.create_service(
            interfaces.SegmentOnce,
            '~/segment_once',
            self._on_request,
            qos_profile=crowd_service(),
            # Others are taken while one waits.
            callback_group=ReentrantCallbackGroup(),
        )

    async def _on_request(self, request: Any, response: Any) -> Any:
        try:
            asked = self._read(request)
        except (ClipsegError, ImageConversionError) as error:
            return _refuse(response, error)
        done: Future[None] = Future()
        self._waiting += 1
        self._timer.reset()
        self._pool.submit(self._work, asked, response, done)
        await done
        return response

    def _read(self, request: Any) -> OnceRequest:
        problem = find_wait_problem(request.wait, _WAIT) or find_crowd(self._waiting, MOST_WAITING)
        if problem:
            raise OnceError(problem)
        wait = request.wait or _WAIT
        return self._accept(request, wait, time.monotonic() + wait)

    def _work(self, asked: OnceRequest, response: Any, done: Future[None]) -> None:
        """Fill an answer, in a thread of the pool."""
        try:
            self._fill(response, self._find(asked))
        except (ClipsegError, ImageConversionError) as error:
            _refuse(response, error)
        except Exception as error:
            # Whatever it is, whoever asked has to hear of it, and nobody else can tell them.
            reason = f'{type(error).__name__}: {error}'
            self._log.error(type(error).__name__, f'segment_once failed: {reason}')
            response.success, response.message = False, reason
        self._finished.append((done, asked.release))
        if self._node.context.ok():
            self._ready.trigger()

    def _fill(self, response: Any, answer: OnceAnswer) -> None:
        result, found = answer.result, answer.result.segmentation
        response.segments = segment_array(self._interfaces, result)
        response.masks = prompt_masks(self._interfaces, result)
        if answer.place is not None:
            answer.place(response.segments)
        response.success, response.header = True, result.header
        response.message = (
            f'{len(response.masks)} prompt(s) in an image of {found.width} × {found.height} px'
        )
        if answer.remark:
            where = '' if answer.place is not None else 'without positions: '
            response.message += f', {where}{answer.remark}'

    def _settle(self) -> None:
        """Let the requests that are over send their answers."""
        while self._finished:
            done, release = self._finished.popleft()
            self._waiting -= 1
            release()
            done.set_result(None)
        if not self._waiting:
            self._timer.cancel()


def _refuse(response: Any, error: Exception) -> Any:
    response.success, response.message = False, str(error)
    return response
