"""The service ``~/get_masks``: the mask of each prompt by itself, on request.

Masks that overlap are more than ``~/labels`` holds, and too much to publish for every frame. A
request has one frame segmented, whether or not anybody subscribes to an output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup

from clipseg_ros.outputs.messages import prompt_masks
from clipseg_ros.outputs.on_demand import FramesOnDemand, find_crowd, find_wait_problem
from clipseg_ros.outputs.result import FrameResult
from clipseg_ros.prompts.set import ActivePrompt, key_of
from clipseg_ros.ros.interfaces import Interfaces
from clipseg_ros.ros.qos import crowd_service

MOST_WAITING = 16
"""Requests that wait for a frame at the same time; more are refused."""

_WAIT = 5.0  # Seconds that a request waits unless it says how long.


class MaskServer:
    """Answers requests in the executor's thread, which runs other callbacks while one waits.

    Others are answered meanwhile, whatever the first has asked for.

    The service exists as long as the node, and refuses before a model is loaded.

    Args:
        node: The node.
        interfaces: The package's own messages; there is no service where they are not built.
        frames: Has frames segmented.
    """

    def __init__(self, node: Any, interfaces: Interfaces | None, frames: FramesOnDemand) -> None:
        self._interfaces, self._frames = interfaces, frames
        self._waiting = 0
        if interfaces is None:
            return
        self._service = node.create_service(
            interfaces.GetMasks,
            '~/get_masks',
            self._on_request,
            qos_profile=crowd_service(),
            # Others are taken while one waits.
            callback_group=ReentrantCallbackGroup(),
        )

    async def _on_request(self, request: Any, response: Any) -> Any:
        source = self._frames.look()
        problem = (
            source.rest
            or _unknown(request.names, source.prompts)
            or find_wait_problem(request.wait, _WAIT)
            or find_crowd(self._waiting, MOST_WAITING)
        )
        if problem:
            return self._refuse(response, problem)
        wait = request.wait or _WAIT
        self._waiting += 1
        try:
            frame = await self._frames.newest(wait)
        finally:
            self._waiting -= 1
        if frame is None:
            return self._refuse(response, self._frames.look().explain(wait))
        return self._fill(response, frame, {key_of(name) for name in request.names})

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
            return f'no active prompt is called {name[:200]!r}: there are {active}'
    return ''
