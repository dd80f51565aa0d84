"""What the node answers: the services, and the topics by which prompts come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from clipseg_model.errors import PromptError
from clipseg_model.prompts import Prompt
from clipseg_ros.health.diagnostics import Situation, disabled, find_rest
from clipseg_ros.outputs.masks import MaskServer
from clipseg_ros.outputs.on_demand import FramesOnDemand, FrameSource
from clipseg_ros.outputs.once import OnceServer
from clipseg_ros.prompts.file_server import PromptFiles
from clipseg_ros.prompts.pick_server import PickFrame, PickServer
from clipseg_ros.prompts.server import PromptServer
from clipseg_ros.prompts.set import reported
from clipseg_ros.prompts.topics import PromptTopics
from clipseg_ros.ros.interfaces import Interfaces
from clipseg_ros.ros.log import ThrottledLog
from clipseg_ros.ros.qos import QosWatch
from clipseg_ros.segment.once import OneShot
from clipseg_ros.segment.report import NodeState

# Seconds for an image where none has come yet, and for the masks of one that somebody points at: a
# model may take seconds for it.
_IMAGE_WAIT, _MASKS_WAIT = 5.0, 10.0


class NodeServices:
    """The servers of the node, and what they ask of it.

    Args:
        node: The node.
        interfaces: The package's own messages, if they are built.
        prompts: Keeps the active prompts.
        log: Of the node.
        look: Returns the state of the node now.
        check: Raises a PromptError for prompts that the loaded model cannot read.

    Attributes:
        demand: Has frames segmented for who asks.
        prompt_files: Saves and restores prompts.
    """

    def __init__(
        self,
        node: Any,
        interfaces: Interfaces | None,
        prompts: PromptServer,
        log: ThrottledLog,
        look: Callable[[], NodeState],
        check: Callable[[Sequence[Prompt]], None],
    ) -> None:
        self._node, self._look = node, look
        self.demand = FramesOnDemand(node, self._look_for_frame, self._segment_again)
        entry = node, interfaces, prompts, log
        self.prompt_files = PromptFiles(*entry)
        self._entries = (
            PromptTopics(*entry),
            PickServer(self._image_to_pick_from, self._wait_for_image, *entry),
            self.prompt_files,
        )
        self._masks = MaskServer(node, interfaces, self.demand)
        one_shot = OneShot(lambda: look().stream, self._find_rest, prompts.prompts, check)
        self._once = OnceServer(node, interfaces, one_shot.accept, one_shot.answer)

    def open(self, watch: QosWatch) -> None:
        """Take prompts from now on."""
        for entry in self._entries:
            entry.open(watch)

    def close(self) -> None:
        """Take no more prompts; those that are active stay."""
        for entry in self._entries:
            entry.close()

    def _find_rest(self) -> str:
        """Return why the model answers nobody, whatever the prompts; empty where it does."""
        now = self._look()
        rest = find_rest(Situation(self._node.full_name, now.state, now.failure, prompts=('any',)))
        return rest.message if rest is not None else ''

    def _look_for_frame(self) -> FrameSource:
        now = self._look()
        stream, prompts = now.stream, reported([one for one in now.prompts if one.enabled])
        rest = find_rest(
            Situation.at_rest(
                self._node.full_name, now.state, now.failure, now.enabled, now.prompts
            )
        )
        said = rest.message if rest is not None else ''
        if stream is None:
            return FrameSource(said, '', prompts, None, None)
        message, result = stream.newest.message, stream.newest.result
        header = message.header if message is not None else None
        return FrameSource(said, stream.fault(), prompts, header, result)

    def _image_to_pick_from(self, with_labels: bool) -> PickFrame | None:
        now = self._look()
        if now.stream is None:
            raise PromptError('there is no frame to cut from: configure the node first')
        frame = now.stream.newest.read(with_labels)
        if frame is None and not now.enabled:
            raise PromptError(f'there is no frame to cut from: {disabled(self._node.full_name)}')
        return frame

    async def _wait_for_image(self, masks: bool) -> PickFrame | None:
        await self.demand.image(_IMAGE_WAIT)
        source = self.demand.look()
        # Where no image is segmented, as without a prompt, there are no masks.
        if masks and source.header is not None and not source.rest:
            result, stream = await self.demand.newest(_MASKS_WAIT), self._look().stream
            if result is not None and stream is not None:
                return stream.newest.frame_of(result)
            source = self.demand.look()
            if not source.rest:
                raise PromptError(source.explain(_MASKS_WAIT))
        return self._image_to_pick_from(masks)

    def _segment_again(self) -> None:
        stream = self._look().stream
        if stream is not None:
            stream.segment_again()
