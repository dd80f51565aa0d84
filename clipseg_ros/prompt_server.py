"""The ways by which prompts reach the node: parameter, topics and service, all or nothing each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_msgs.msg import Header, String

from clipseg_model.errors import ClipsegError, PromptError
from clipseg_model.prompts import Prompt
from clipseg_ros.conversion import image_to_rgb
from clipseg_ros.errors import ImageConversionError
from clipseg_ros.interfaces import Interfaces
from clipseg_ros.prompt_set import (
    ActivePrompt,
    PromptRequest,
    PromptSet,
    read_prompts,
    write_prompts,
)
from clipseg_ros.qos import QosWatch, command_input, overridable
from clipseg_ros.throttled_log import ThrottledLog

EXAMPLE = 'example'
"""Name of the prompt that ~/prompt_image makes."""


class PromptServer:
    """Keeps the active prompts, and the parameter ``prompt`` in step with them.

    Args:
        node: The node.
        interfaces: The package's own messages, where they are built.
        check: Raises a PromptError for prompts that the loaded model cannot read.
        on_change: Called after the prompts have changed.
        log: For what is refused.
    """

    def __init__(
        self,
        node: Any,
        interfaces: Interfaces | None,
        check: Callable[[Sequence[Prompt]], None],
        on_change: Callable[[], None],
        log: ThrottledLog,
    ) -> None:
        self.prompts = PromptSet()
        self._node, self._interfaces = node, interfaces
        self._check, self._on_change, self._log = check, on_change, log
        self._example: Prompt | None = None
        self._entities: list[tuple[Callable[[Any], Any], Any]] = []
        # True while the parameter follows prompts that are active already.
        self._following = False

    def open(self, watch: QosWatch) -> None:
        """Creates the topics and the service."""
        node = self._node
        for message_type, topic, callback in (
            (String, '~/prompt', self._on_text),
            (Image, '~/prompt_image', self._on_image),
            (Image, '~/prompt_mask', self._on_mask),
        ):
            profile = command_input()
            subscription = node.create_subscription(
                message_type,
                topic,
                callback,
                profile,
                event_callbacks=watch.subscription_events(topic, profile),
                qos_overriding_options=overridable(),
            )
            self._entities.append((node.destroy_subscription, subscription))
        if self._interfaces is not None:
            service = node.create_service(
                self._interfaces.SetPrompts, '~/set_prompts', self._on_service
            )
            self._entities.append((node.destroy_service, service))

    def close(self) -> None:
        """Takes them away; the prompts stay."""
        for destroy, entity in self._entities:
            destroy(entity)
        self._entities.clear()

    def find_problem(self, value: str | Sequence[str]) -> str:
        """Returns why a value of the parameter would be refused, or an empty string."""
        if self._following:
            return ''
        try:
            prompts = read_prompts(value)
            self._check(prompts)
            if self._example is not None and any(p.label.casefold() == EXAMPLE for p in prompts):
                return f'the name {EXAMPLE!r} is that of the support image: choose another'
        except ClipsegError as error:
            return str(error)
        return ''

    def apply(self, value: str | Sequence[str]) -> None:
        """Makes the parameter's value the active prompts; it has been checked before.

        The support image stays beside them; blank text stops everything.
        """
        if self._following:
            return
        prompts = read_prompts(value)
        if not prompts:
            self._example = None
        self._replace([PromptRequest(prompt) for prompt in prompts])

    def messages(self, threshold: float) -> list[Any]:
        """Returns the active prompts as messages.

        Args:
            threshold: In force for prompts without one of their own.
        """
        if self._interfaces is None:
            return []
        return [
            self._interfaces.Prompt(
                id=entry.id,
                name=entry.name,
                phrase=entry.prompt.text or '',
                threshold=float(
                    threshold if entry.prompt.threshold is None else entry.prompt.threshold
                ),
                enabled=entry.enabled,
                weight=float(_weight(entry.prompt)),
            )
            for entry in self.prompts.active
        ]

    def _replace(self, requests: list[PromptRequest]) -> None:
        names = {request.prompt.label.casefold() for request in requests}
        if self._example is not None and EXAMPLE not in names:
            requests = [*requests, PromptRequest(self._example)]
        self.prompts.replace(requests)
        self._node.get_logger().info(describe(self.prompts.active))
        self._on_change()

    def _on_text(self, message: String) -> None:
        # By way of the parameter, so that it never says something else than what is active.
        result = self._node.set_parameters_atomically([Parameter('prompt', value=message.data)])
        if not result.successful:
            self._refuse('prompt', result.reason)

    def _on_image(self, message: Image) -> None:
        def build() -> Prompt:
            return Prompt(image=image_to_rgb(message), name=EXAMPLE)

        self._set_example('support image', build)

    def _on_mask(self, message: Image) -> None:
        def build() -> Prompt:
            if self._example is None or self._example.image is None:
                raise ImageConversionError(
                    'data', 'there is no support image for it: publish ~/prompt_image first'
                )
            mask = image_to_rgb(message)[..., 0]
            return Prompt(image=self._example.image, mask=(mask > 0), name=EXAMPLE)

        self._set_example('support mask', build)

    def _set_example(self, what: str, build: Callable[[], Prompt]) -> None:
        try:
            prompt = build()
            others = [e for e in self.prompts.active if e.name.casefold() != EXAMPLE]
            self.prompts.replace(
                [
                    *(PromptRequest(entry.prompt, entry.enabled) for entry in others),
                    PromptRequest(prompt),
                ]
            )
        except (ImageConversionError, ClipsegError) as error:
            self._refuse(what, str(error))
            return
        self._example = prompt
        self._node.get_logger().info(describe(self.prompts.active))
        self._on_change()

    def _on_service(self, request: Any, response: Any) -> Any:
        try:
            requests = [self._read(message) for message in request.prompts]
            self._check([entry.prompt for entry in requests])
            self.prompts.replace(requests)
        except ClipsegError as error:
            response.success, response.message = False, str(error)
            self._refuse('set_prompts', str(error))
            return response
        if not requests:
            self._example = None
        self._following = True
        try:
            text = write_prompts(entry.prompt for entry in self.prompts.active)
            self._node.set_parameters_atomically([Parameter('prompt', value=text)])
        finally:
            self._following = False
        response.success, response.message = True, describe(self.prompts.active)
        self._node.get_logger().info(response.message)
        self._on_change()
        response.prompts = self.messages(self._node.threshold())
        return response

    def _refuse(self, what: str, reason: str) -> None:
        self._log.warning(f'{what} {reason[:40]}', f'{what} refused, nothing changed: {reason}')

    def _read(self, message: Any) -> PromptRequest:
        """A request from a message.

        Raises:
            PromptError: A field is wrong.
        """
        written = f'{message.name}: {message.phrase}' if message.name else message.phrase
        for mark in (';', '\n', '\r'):
            if mark in written:
                raise PromptError(f'{written[:60]!r} holds {mark!r}, which separates prompts')
        parsed = read_prompts(written)
        # Reading splits at a colon; name and phrase have to come out as they went in.
        name = ' '.join(message.name.split()) or None
        phrase = ' '.join(message.phrase.split())
        if len(parsed) != 1 or (parsed[0].name, parsed[0].text) != (name, phrase):
            raise PromptError(
                f'prompt with name {message.name[:60]!r} and phrase {message.phrase[:60]!r}: a '
                'phrase may not be blank, and a colon stands between name and phrase only'
            )
        image = mask = None
        if message.weight != 1.0:
            if self._example is None:
                raise PromptError(
                    f'prompt {parsed[0].label!r} has weight {message.weight:g}, which mixes it '
                    'with a support image, and there is none: publish ~/prompt_image, or leave '
                    'weight at 1'
                )
            image, mask = self._example.image, self._example.mask
        prompt = Prompt(
            text=parsed[0].text,
            image=image,
            mask=mask,
            name=parsed[0].name,
            threshold=float(message.threshold) if message.threshold != 0.0 else None,
            weight=float(message.weight),
        )
        return PromptRequest(prompt, bool(message.enabled), int(message.id))


def describe(active: Sequence[ActivePrompt]) -> str:
    """Returns one line on what is active."""
    if not active:
        return 'no prompt active'
    shown = ', '.join(
        f'{entry.id} {entry.name!r}{"" if entry.enabled else " (disabled)"}' for entry in active[:8]
    )
    more = f' and {len(active) - 8} more' if len(active) > 8 else ''
    return f'{len(active)} prompt(s) active: {shown}{more}'


def header_of_now(node: Any) -> Header:
    """Returns a header with the node's time and no frame."""
    return Header(stamp=node.get_clock().now().to_msg())


def _weight(prompt: Prompt) -> float:
    if prompt.text is None:
        return 0.0
    return 1.0 if prompt.image is None else prompt.weight
