"""The outputs of the node ``segment``. One costs nothing while nobody subscribes to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image, PointCloud2
from std_msgs.msg import Header

from clipseg_ros.images.compression import JPEG_FORMAT, PNG_FORMAT, jpeg_of, png_of
from clipseg_ros.images.conversion import open_image
from clipseg_ros.outputs.messages import (
    detection_array,
    label_info,
    load_marker_messages,
    load_vision_messages,
    segment_array,
)
from clipseg_ros.outputs.result import COMPRESSED_OUTPUTS, IMAGE_OUTPUTS, INSTANCES, FrameResult
from clipseg_ros.prompts.set import ActivePrompt
from clipseg_ros.ros.interfaces import Interfaces
from clipseg_ros.ros.qos import QosWatch, image_output, latched_output

_ENCODINGS = {**IMAGE_OUTPUTS, INSTANCES: '16UC1'}


class SegmentOutputs:
    """Publishers of everything that the node says about images and prompts.

    An image output has one message, whose memory is reused for every frame: publishing copies it.
    So each topic is published from one thread at a time.

    Attributes:
        vision: The messages of vision_msgs; None where it is not installed.
        markers: Those of visualization_msgs likewise.
    """

    def __init__(self, node: Any, watch: QosWatch, interfaces: Interfaces | None) -> None:
        self._node, self._interfaces = node, interfaces
        self.vision = vision = load_vision_messages()
        self.markers = load_marker_messages()
        self._images = {name: Image() for name in _ENCODINGS}
        types: dict[str, Any] = dict.fromkeys(_ENCODINGS, Image)
        types |= {'points': PointCloud2, **dict.fromkeys(COMPRESSED_OUTPUTS, CompressedImage)}
        # What is active is told before the node is active.
        latched: dict[str, Any] = {}
        if interfaces is not None:
            types['segments'] = interfaces.SegmentArray
            latched['prompts'] = interfaces.PromptArray
        if vision is not None:
            types['detections'] = vision.Detection2DArray
            types['detections_3d'] = vision.Detection3DArray
            latched['label_info'] = vision.LabelInfo
        if self.markers is not None:
            types['markers'] = self.markers.MarkerArray
        self._publishers = {
            name: watch.create_publisher(message_type, f'~/{name}', image_output(), managed=True)
            for name, message_type in types.items()
        }
        self._latched = {
            name: watch.create_publisher(message_type, f'~/{name}', latched_output())
            for name, message_type in latched.items()
        }

    def wants(self, name: str) -> bool:
        """Return whether anybody subscribes to an output, an image or another."""
        return name in self._publishers and bool(self._publishers[name].get_subscription_count())

    def wanted(self) -> list[str]:
        """Return the names of the outputs that somebody subscribes to."""
        return [name for name in self._publishers if self.wants(name)]

    def open_image(self, name: str, result: FrameResult) -> NDArray[Any]:
        """Return the memory of the next message of an image output, to write to."""
        height, width = result.rgb.shape[:2]
        return open_image(self._images[name], height, width, _ENCODINGS[name], result.header)

    def publish_image(self, name: str) -> None:
        """Publish what was written into :meth:`open_image`."""
        self._publishers[name].publish(self._images[name])

    def publish_png(self, name: str, pixels: NDArray[np.uint8], result: FrameResult) -> None:
        """Publish the compressed copy of a mask or labels, lossless: JPEG would invent ids."""
        message = CompressedImage(header=result.header, format=PNG_FORMAT, data=png_of(pixels))
        self._publishers[f'{name}/compressed'].publish(message)

    def publish_jpeg(
        self, name: str, pixels: NDArray[np.uint8], result: FrameResult, quality: int
    ) -> None:
        """Publish the compressed copy of a colour image, in a quality of 1 … 100."""
        data = jpeg_of(pixels, quality)
        message = CompressedImage(header=result.header, format=JPEG_FORMAT, data=data)
        self._publishers[f'{name}/compressed'].publish(message)

    def segment_array(self, result: FrameResult) -> Any:
        """Return the message of ``~/segments`` without positions; it must be wanted."""
        return segment_array(self._interfaces, result)

    def publish(self, name: str, message: Any) -> None:
        """Publish a message on an output that is no image and is wanted."""
        self._publishers[name].publish(message)

    def publish_detections(self, result: FrameResult, min_area: int) -> None:
        """Publish the single objects, of ``min_area`` pixels or more; they must be wanted."""
        self._publishers['detections'].publish(detection_array(self.vision, result, min_area))

    def publish_prompts(self, messages: list[Any], model: str, header: Header) -> None:
        """Publish what is active now, latched, where the package's own messages are built."""
        if self._interfaces is not None:
            self._latched['prompts'].publish(
                self._interfaces.PromptArray(header=header, model=model, prompts=messages)
            )

    def publish_label_info(
        self, prompts: Sequence[ActivePrompt], threshold: float, header: Header
    ) -> None:
        """Publish which id has which name, latched, where vision_msgs is installed."""
        if self.vision is not None:
            self._latched['label_info'].publish(label_info(self.vision, prompts, threshold, header))

    def destroy(self) -> None:
        """Remove all topics."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        for publisher in self._latched.values():
            self._node.destroy_publisher(publisher)
