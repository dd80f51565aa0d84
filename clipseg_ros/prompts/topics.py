"""Prompts by message: the topics of texts and support images, and the service ``~/set_prompts``."""

from __future__ import annotations

from typing import Any

from sensor_msgs.msg import Image
from std_msgs.msg import String

from clipseg_ros.images.conversion import image_to_rgb
from clipseg_ros.prompts.entry import PICTURE_PAUSE, TEXT_PAUSE, PromptEntry
from clipseg_ros.prompts.messages import mask_of, read_message
from clipseg_ros.prompts.requests import with_example
from clipseg_ros.prompts.set import describe, pictured
from clipseg_ros.prompts.support_pair import SupportImage
from clipseg_ros.ros.qos import QosWatch
from clipseg_ros.ros.timing import stamp_of


class PromptTopics(PromptEntry):
    """``~/prompt``, ``~/prompt_image``, ``~/prompt_mask`` and ``~/set_prompts``."""

    def open(self, watch: QosWatch) -> None:
        """Create them."""
        self._subscribe(watch, String, '~/prompt', self._take_text, TEXT_PAUSE)
        self._subscribe(watch, Image, '~/prompt_image', self._take_image, PICTURE_PAUSE)
        self._subscribe(watch, Image, '~/prompt_mask', self._take_mask, PICTURE_PAUSE)
        if self._interfaces is not None:
            self._serve(self._interfaces.SetPrompts, 'set_prompts', self._set_prompts)

    def _take_text(self, message: String) -> None:
        self._server.change(self._server.read(message.data), message.data)

    def _take_image(self, message: Image) -> None:
        image = image_to_rgb(message, self._server.max_pixels())
        self._activate(self._server.pair.add_image(image, stamp_of(message)))

    def _take_mask(self, message: Image) -> None:
        mask = mask_of(message, self._server.max_pixels())
        example = self._server.pair.add_mask(mask, stamp_of(message))
        if example is not None:
            self._activate(example)
            return
        self._log.warning(
            'support mask waits',
            'the support mask waits for its image: publish ~/prompt_image with its stamp',
        )

    def _activate(self, example: SupportImage) -> None:
        active = self._server.prompts.active
        self._server.change(with_example(active, example, self._server.text_weight))

    def _set_prompts(self, request: Any, response: Any) -> str:
        server = self._server
        pictures = pictured(server.prompts.active)
        most = server.max_pixels()
        server.replace([read_message(message, pictures, most) for message in request.prompts])
        response.prompts = server.messages(server.prompts.active)
        return describe(server.prompts.active)
