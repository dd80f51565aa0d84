"""The ways by which prompts reach the node: parameter, topics and service, all or nothing each.

The parameter ``prompt`` is the text of all prompts that have words, whichever way they came. What a
text cannot say, the pictures, stays beside it: see :meth:`PromptServer.apply`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_msgs.msg import Header, String

from clipseg_model.errors import ClipsegError
from clipseg_model.prompts import Prompt
from clipseg_ros.errors import ImageConversionError
from clipseg_ros.images.conversion import image_to_rgb
from clipseg_ros.prompts.messages import mask_of, read_message, write_messages
from clipseg_ros.prompts.paced_inbox import PacedInbox
from clipseg_ros.prompts.set import (
    EXAMPLE,
    ActivePrompt,
    PromptRequest,
    PromptSet,
    key_of,
)
from clipseg_ros.prompts.support_pair import SupportImage, SupportPair, stamp_of
from clipseg_ros.prompts.text import read_prompts, write_prompts
from clipseg_ros.ros.interfaces import Interfaces
from clipseg_ros.ros.log import ThrottledLog
from clipseg_ros.ros.qos import QosWatch, command_input

TEXT_PAUSE = 0.05
"""Seconds between texts that take effect; of those that come faster the newest does."""

PICTURE_PAUSE = 0.25
"""The same for pictures and masks, which the model has to look at as at another frame."""


class PromptServer:
    """Keeps the active prompts, and the parameter ``prompt`` in step with them.

    Args:
        node: The node; has the parameters ``prompt`` and ``text_weight``.
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
        self._pair = SupportPair()
        self._entities: list[tuple[Callable[[Any], Any], Any]] = []
        # True while the parameter follows prompts that are active already.
        self._following = False
        self.inbox = PacedInbox(node)
        """What comes by topic, until it takes effect."""

    def open(self, watch: QosWatch) -> None:
        """Creates the topics and the service."""
        node = self._node
        for kind, message_type, topic, callback in (
            ('prompt', String, '~/prompt', self._on_text),
            ('image', Image, '~/prompt_image', self._on_image),
            ('mask', Image, '~/prompt_mask', self._on_mask),
        ):
            subscription = watch.create_subscription(
                message_type, topic, callback, command_input(), self.inbox.gate(kind)
            )
            self._entities.append((node.destroy_subscription, subscription))
        if self._interfaces is not None:
            service = node.create_service(
                self._interfaces.SetPrompts, '~/set_prompts', self._on_service
            )
            self._entities.append((node.destroy_service, service))
        self.inbox.open()

    def close(self) -> None:
        """Takes them away; the prompts stay."""
        for destroy, entity in self._entities:
            destroy(entity)
        self._entities.clear()
        self.inbox.close()

    def find_problem(self, value: str | Sequence[str]) -> str:
        """Returns why a value of the parameter would be refused, or an empty string."""
        if self._following:
            return ''
        try:
            prompts = read_prompts(value)
            self._check(prompts)
            self.prompts.check(self._beside_pictures(prompts))
        except ClipsegError as error:
            return str(error)
        return ''

    def apply(self, value: str | Sequence[str]) -> None:
        """Makes the parameter's value the active prompts; it has been checked before.

        A phrase under the name of a prompt with a picture is mixed with that picture. Prompts that
        are pictures alone stay beside it, and so does the picture of ``example``. Blank text stops
        everything.
        """
        if self._following:
            return
        self.inbox.clear('prompt')
        prompts = read_prompts(value)
        if not prompts:
            self.inbox.clear()
            self._pair.forget()
        self._activate(self._beside_pictures(prompts))

    def replace(self, requests: Sequence[PromptRequest]) -> None:
        """Makes these the active prompts, and the parameter their text; or changes nothing.

        Raises:
            PromptError: The model cannot read one, or they do not go together.
        """
        self.inbox.settle()
        self._check([request.prompt for request in requests])
        self.prompts.check(requests)
        self._pair.forget()
        self._activate(requests)
        self._follow()

    def add(self, prompt: Prompt) -> ActivePrompt:
        """Makes a prompt active beside the others, in place of one of its name.

        Returns:
            The prompt under its id.

        Raises:
            PromptError: As :meth:`replace`.
        """
        self.inbox.settle()
        key = key_of(prompt.label)
        others = [entry for entry in self.prompts.active if key_of(entry.name) != key]
        self.replace([*(as_request(entry) for entry in others), PromptRequest(prompt)])
        return next(entry for entry in self.prompts.active if key_of(entry.name) == key)

    def remix(self, before: float, weight: float) -> None:
        """Follows the parameter ``text_weight``.

        Args:
            before: What it was. Prompts that were given another weight of their own keep that.
            weight: What it is now.
        """
        requests = [as_request(entry) for entry in self.prompts.active]
        mixed = [
            replace(request, prompt=replace(request.prompt, weight=weight))
            if is_mixed(request.prompt)
            and math.isclose(request.prompt.weight, before, abs_tol=1e-6)
            else request
            for request in requests
        ]
        if mixed != requests:
            self._activate(mixed)

    def messages(self, threshold: float, presence: float) -> list[Any]:
        """Returns the active prompts as messages.

        Args:
            threshold: In force for prompts without one of their own.
            presence: The same for presence.
        """
        if self._interfaces is None:
            return []
        return write_messages(self._interfaces.Prompt, self.prompts.active, threshold, presence)

    def _activate(self, requests: Sequence[PromptRequest]) -> None:
        self.prompts.replace(requests)
        self._node.get_logger().info(describe(self.prompts.active))
        self._on_change()

    def _follow(self) -> None:
        self._following = True
        try:
            text = write_prompts(entry.prompt for entry in self.prompts.active)
            self._node.set_parameters_atomically([Parameter('prompt', value=text)])
        finally:
            self._following = False

    def _beside_pictures(self, prompts: Sequence[Prompt]) -> list[PromptRequest]:
        """The requests that a text makes, given the pictures that are active."""
        if not prompts:
            return []
        pictures = self.prompts.pictures
        requests = []
        for prompt in prompts:
            picture = pictures.pop(key_of(prompt.label), None)
            if picture is not None:
                same = picture.text == prompt.text
                weight = picture.weight if same else self._text_weight()
                prompt = replace(prompt, image=picture.image, mask=picture.mask, weight=weight)
            requests.append(PromptRequest(prompt))
        enabled = {key_of(entry.name): entry.enabled for entry in self.prompts.active}
        for key, picture in pictures.items():
            if picture.text is not None and key != EXAMPLE:
                continue
            alone = replace(picture, text=None, name=picture.label)
            requests.append(PromptRequest(alone, enabled[key]))
        return requests

    def _text_weight(self) -> float:
        return float(self._node.get_parameter('text_weight').value)

    # Topics.

    def _on_text(self, message: String) -> None:
        # Each text replaces the one before: in a flood only the newest is worth its time.
        self.inbox.put('prompt', lambda: self._take_text(message.data), TEXT_PAUSE)

    def _on_image(self, message: Image) -> None:
        def take() -> SupportImage:
            return self._pair.add_image(image_to_rgb(message), stamp_of(message))

        self.inbox.put('image', lambda: self._take('support image', take), PICTURE_PAUSE)

    def _on_mask(self, message: Image) -> None:
        def take() -> SupportImage | None:
            return self._pair.add_mask(mask_of(message), stamp_of(message))

        self.inbox.put('mask', lambda: self._take('support mask', take), PICTURE_PAUSE)

    def _take_text(self, text: str) -> None:
        # By way of the parameter, so that it never says something else than what is active.
        result = self._node.set_parameters_atomically([Parameter('prompt', value=text)])
        if not result.successful:
            self._refuse('prompt', result.reason)

    def _take(self, what: str, take: Callable[[], SupportImage | None]) -> None:
        try:
            example = take()
            if example is not None:
                self._activate(self._with_example(example))
        except (ImageConversionError, ClipsegError) as error:
            self._refuse(what, str(error))
            return
        if example is None:
            self._log.warning(
                'support mask waits',
                'the support mask waits for its image: publish ~/prompt_image with its stamp',
            )

    def _with_example(self, example: SupportImage) -> list[PromptRequest]:
        """The active prompts, with a picture of ``example``."""
        requests = {key_of(entry.name): as_request(entry) for entry in self.prompts.active}
        old = requests.get(EXAMPLE)
        if old is None:
            made = PromptRequest(Prompt(image=example.image, mask=example.mask, name=EXAMPLE))
        else:
            weight = old.prompt.weight
            if old.prompt.image is None:
                weight = self._text_weight()
            prompt = replace(old.prompt, image=example.image, mask=example.mask, weight=weight)
            made = replace(old, prompt=prompt)
        return list({**requests, EXAMPLE: made}.values())

    # Service.

    def _on_service(self, request: Any, response: Any) -> Any:
        try:
            self.inbox.settle()
            pictures = self.prompts.pictures
            self.replace([read_message(message, pictures) for message in request.prompts])
        except ClipsegError as error:
            response.success, response.message = False, str(error)
            self._refuse('set_prompts', str(error))
            return response
        response.success, response.message = True, describe(self.prompts.active)
        response.prompts = self.messages(self._node.threshold(), self._node.presence_threshold())
        return response

    def _refuse(self, what: str, reason: str) -> None:
        self._log.warning(f'{what} {reason[:40]}', f'{what} refused, nothing changed: {reason}')


def as_request(entry: ActivePrompt) -> PromptRequest:
    """Returns the request that leaves an active prompt as it is."""
    return PromptRequest(entry.prompt, entry.enabled)


def is_mixed(prompt: Prompt) -> bool:
    """Whether it has both words and a picture."""
    return prompt.text is not None and prompt.image is not None


def describe(active: Sequence[ActivePrompt]) -> str:
    """Returns one line on what is active."""
    if not active:
        return 'no prompt active'
    shown = ', '.join(f'{entry.id} {entry.name!r}{_remark(entry)}' for entry in active[:8])
    more = f' and {len(active) - 8} more' if len(active) > 8 else ''
    return f'{len(active)} prompt(s) active: {shown}{more}'


def header_of_now(node: Any) -> Header:
    """Returns a header with the node's time and no frame."""
    return Header(stamp=node.get_clock().now().to_msg())


def _remark(entry: ActivePrompt) -> str:
    remarks = [
        remark
        for remark, holds in (
            ('negative', entry.prompt.negative),
            ('picture', entry.prompt.image is not None and entry.prompt.text is None),
            ('words and picture', is_mixed(entry.prompt)),
            ('disabled', not entry.enabled),
        )
        if holds
    ]
    return f' ({", ".join(remarks)})' if remarks else ''
