"""What the entries of prompts share: their topics and services, and the report of refusals."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup

from clipseg_model.errors import ClipsegError
from clipseg_ros.errors import ImageConversionError
from clipseg_ros.prompts.server import PromptServer
from clipseg_ros.ros.interfaces import Interfaces
from clipseg_ros.ros.log import ThrottledLog
from clipseg_ros.ros.qos import QosWatch, command_input, crowd_service

TEXT_PAUSE = 0.05
"""Least time between texts that take effect, seconds; of faster ones the newest does."""

PICTURE_PAUSE = 0.25
"""The same for pictures and masks, each of which the model has to encode."""


class PromptEntry:
    """A way by which prompts come while the node is configured; refusals go to the log."""

    def __init__(
        self, node: Any, interfaces: Interfaces | None, server: PromptServer, log: ThrottledLog
    ) -> None:
        self._node, self._interfaces, self._server, self._log = node, interfaces, server, log
        self._entities: list[tuple[Callable[[Any], Any], Any]] = []

    def close(self) -> None:
        """Remove topics and services; the prompts stay."""
        for destroy, entity in self._entities:
            destroy(entity)
        self._entities.clear()

    def _subscribe(
        self,
        watch: QosWatch,
        message_type: Any,
        topic: str,
        take: Callable[[Any], None],
        pause: float,
    ) -> None:
        """Create a subscription whose messages take effect at the pace of the inbox."""

        def attempt(message: Any) -> None:
            try:
                take(message)
            except (ClipsegError, ImageConversionError) as error:
                self._refuse(topic.removeprefix('~/'), error)

        def receive(message: Any) -> None:
            self._server.inbox.put(topic, lambda: attempt(message), pause)

        subscription = watch.create_subscription(
            message_type, topic, receive, command_input(), self._server.inbox.gate(topic)
        )
        self._entities.append((self._node.destroy_subscription, subscription))

    def _serve(
        self,
        service_type: Any,
        name: str,
        act: Callable[[Any, Any], str | Awaitable[str]],
        several: bool = False,
    ) -> None:
        """Create the service ``~/name``, which answers with what ``act`` returns or with its error.

        ``act`` gets request and answer; it fills in fields other than ``success`` and ``message``.
        It may wait, and what other callbacks do meanwhile goes before what it does then;
        ``several`` has other requests of the service taken meanwhile.
        """

        async def answer(request: Any, response: Any) -> Any:
            self._server.inbox.settle()
            try:
                said = act(request, response)
                response.message = said if isinstance(said, str) else await said
                response.success = True
            except (ClipsegError, ImageConversionError) as error:
                response.success, response.message = False, str(error)
                self._refuse(name, error)
            return response

        # A group of its own: the node's is closed to all other callbacks while one of it waits.
        group = ReentrantCallbackGroup() if several else MutuallyExclusiveCallbackGroup()
        options = {'qos_profile': crowd_service()} if several else {}
        service = self._node.create_service(
            service_type, f'~/{name}', answer, callback_group=group, **options
        )
        self._entities.append((self._node.destroy_service, service))

    def _refuse(self, what: str, error: Exception) -> None:
        self._log.warning(what, f'{what} refused, nothing changed: {error}', each=True)
