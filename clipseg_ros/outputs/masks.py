"""The service ``~/get_masks``: the mask of each prompt by itself, on request.

Masks that overlap are more than ``~/labels`` holds, and too much to publish for every frame. A
request has one frame segmented, whether or not anybody subscribes to an output.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.task import Future

from clipseg_ros.outputs.messages import prompt_masks
from clipseg_ros.outputs.result import FrameResult
from clipseg_ros.prompts.set import ActivePrompt, key_of
from clipseg_ros.ros.interfaces import Interfaces
from clipseg_ros.ros.timing import create_steady_timer

_WAIT = 5.0  # Seconds that a request waits unless it says how long.
_PERIOD = 0.05


@dataclass(frozen=True)
class MaskSource:
    """What the service needs to know of the node at a moment.

    Attributes:
        rest: Why no image is segmented now; empty where images are.
        fault: What was wrong with the newest frame; empty if nothing.
        prompts: The active prompts that are reported.
        header: Of the newest image; None where none has arrived.
        result: The newest result, smoothed; None where the newest image was not segmented.
    """

    rest: str
    fault: str
    prompts: tuple[ActivePrompt, ...]
    header: Any
    result: FrameResult | None

    @property
    def answer(self) -> FrameResult | None:
        """The newest result, if it is of the prompts that are active now."""
        result = self.result
        current = result is not None and not self.rest and result.prompts == self.prompts
        return result if current else None


@dataclass
class _Waiting:
    done: Future[FrameResult | None]
    until: float


class MaskServer:
    """Answers requests in the executor's thread, which runs other callbacks while one waits.

    The service exists as long as the node, and refuses before a model is loaded.

    Args:
        node: The node.
        interfaces: The package's own messages; there is no service where they are not built.
        look: Returns the state of the node now.
        again: Has the newest image segmented by the prompts of now, unless it was.
    """

    def __init__(
        self,
        node: Any,
        interfaces: Interfaces | None,
        look: Callable[[], MaskSource],
        again: Callable[[], None],
    ) -> None:
        self._interfaces, self._look, self._again = interfaces, look, again
        self._waiting: list[_Waiting] = []
        if interfaces is None:
            return
        self._ready = node.create_guard_condition(self._answer)
        self._timer = create_steady_timer(node, _PERIOD, self._answer)
        self._timer.cancel()
        # A group of its own: the node's is closed to all other callbacks while a request waits.
        self._service = node.create_service(
            interfaces.GetMasks,
            '~/get_masks',
            self._on_request,
            callback_group=MutuallyExclusiveCallbackGroup(),
        )

    @property
    def asked(self) -> bool:
        """Whether a request waits for a frame."""
        return bool(self._waiting)

    def notice(self) -> None:
        """Take note of a new result; called from the thread that publishes."""
        if self._waiting:
            self._ready.trigger()

    async def _on_request(self, request: Any, response: Any) -> Any:
        source = self._look()
        problem = source.rest or _unknown(request.names, source.prompts)
        if not problem and not 0.0 <= request.wait <= 3600.0:
            problem = f'wait is {request.wait:g} s: give 0 to 3600, where 0 stands for {_WAIT:g}'
        if problem:
            return self._refuse(response, problem)
        wait = request.wait or _WAIT
        frame = source.answer
        if frame is None or frame.header is not source.header:
            waiting = _Waiting(Future(), time.monotonic() + wait)
            self._waiting.append(waiting)
            self._again()
            self._timer.reset()
            frame = await waiting.done
        if frame is None:
            return self._refuse(response, self._explain(wait))
        return self._fill(response, frame, {key_of(name) for name in request.names})

    def _answer(self) -> None:
        """Answer the requests whose frame is there or whose time is over."""
        if not self._waiting:
            return
        source, now = self._look(), time.monotonic()
        frame = source.answer
        for waiting in list(self._waiting):
            if frame is not None or source.rest or now > waiting.until:
                self._waiting.remove(waiting)
                waiting.done.set_result(frame)
        if self._waiting:
            self._again()
        else:
            self._timer.cancel()

    def _explain(self, wait: float) -> str:
        source = self._look()
        if source.rest:
            return source.rest
        if source.header is None:
            return f'no image arrived within {wait:g} s: /diagnostics says why'
        return f'no image was segmented within {wait:g} s: {source.fault or "the model is busy"}'

    def _fill(self, response: Any, frame: FrameResult, keys: set[str]) -> Any:
        response.masks = prompt_masks(self._interfaces, frame, keys)
        response.success, response.header = True, frame.header
        response.message = f'{len(response.masks)} mask(s)'
        return response

    def _refuse(self, response: Any, reason: str) -> Any:
        response.success, response.message = False, reason
        return response


def _unknown(names: Sequence[str], prompts: Sequence[ActivePrompt]) -> str:
    known = {key_of(entry.name) for entry in prompts}
    for name in names:
        if key_of(name) not in known:
            active = ', '.join(repr(entry.name) for entry in prompts[:20])
            return f'no active prompt is called {name!r}: there are {active}'
    return ''
