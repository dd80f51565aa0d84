"""The outputs of the node ``segment``. One costs nothing while nobody subscribes to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image, PointCloud2
from std_msgs.msg import Header

from clipseg_model.segmentation import Segmentation
from clipseg_ros.images.conversion import open_image, png_of_labels
from clipseg_ros.outputs.segments import fill_segment
from clipseg_ros.outputs.vision import VisionOutputs, load_vision_messages
from clipseg_ros.prompts.set import ActivePrompt
from clipseg_ros.ros.interfaces import Interfaces
from clipseg_ros.ros.qos import QosWatch, image_output, latched_output

if TYPE_CHECKING:
    from clipseg_ros.depth.points import FramePoints
    from clipseg_ros.depth.surface import Surface

IMAGE_OUTPUTS: dict[str, str] = {
    'mask': 'mono8',
    'labels': 'mono8',
    'confidence': 'mono8',
    'probability': '32FC1',
    'overlay': 'rgb8',
}
"""Topic (private) → encoding."""

COMPRESSED_LABELS = 'labels/compressed'

OTHER_OUTPUTS = ('segments', 'points', 'detections', COMPRESSED_LABELS)
"""Those that are no ``Image``."""


class SegmentOutputs:
    """Publishers of everything that the node says about images and prompts.

    An image output has one message whose memory is used again for every frame: publishing copies.
    So a topic is published from one thread at a time.

    Args:
        node: The lifecycle node; its image publishers work while it is active.
        watch: Watches the QoS of peers.
        interfaces: The package's own messages, where they are built.
    """

    def __init__(self, node: Any, watch: QosWatch, interfaces: Interfaces | None) -> None:
        self._node, self._interfaces = node, interfaces
        self._images = {name: Image() for name in IMAGE_OUTPUTS}
        types = dict.fromkeys(IMAGE_OUTPUTS, Image)
        types |= {'points': PointCloud2, COMPRESSED_LABELS: CompressedImage}
        if interfaces is not None:
            types['segments'] = interfaces.SegmentArray
        self._publishers = {
            name: watch.create_publisher(message_type, f'~/{name}', image_output(), managed=True)
            for name, message_type in types.items()
        }
        self._prompts: Any = None
        if interfaces is not None:
            self._prompts = watch.create_publisher(
                interfaces.PromptArray, '~/prompts', latched_output()
            )
        vision = load_vision_messages()
        self._vision = None if vision is None else VisionOutputs(node, watch, vision)

    def wants(self, name: str) -> bool:
        """Whether anybody subscribes to an output (an image or one of :data:`OTHER_OUTPUTS`)."""
        if name == 'detections':
            return self._vision is not None and self._vision.wants_detections()
        if name == 'segments' and self._interfaces is None:
            return False
        return bool(self._publishers[name].get_subscription_count())

    def wanted(self) -> list[str]:
        """The outputs that somebody subscribes to."""
        return [name for name in (*IMAGE_OUTPUTS, *OTHER_OUTPUTS) if self.wants(name)]

    def open_image(self, name: str, height: int, width: int, header: Header) -> NDArray[Any]:
        """Returns the memory of the next message of one of :data:`IMAGE_OUTPUTS`, to write to.

        Args:
            name: The output.
            height: Of the image, pixels.
            width: Of the image, pixels.
            header: Of the image.
        """
        return open_image(self._images[name], height, width, IMAGE_OUTPUTS[name], header)

    def publish_image(self, name: str) -> None:
        """Publishes what was written into :meth:`open_image`."""
        self._publishers[name].publish(self._images[name])

    def publish_compressed_labels(self, labels: NDArray[np.uint8], header: Header) -> None:
        """Publishes labels (H, W) as PNG: JPEG would invent ids at every border."""
        message = CompressedImage(header=header, format='mono8; png compressed mono8')
        message.data = png_of_labels(labels)
        self._publishers[COMPRESSED_LABELS].publish(message)

    def publish_segments(
        self,
        segmentation: Segmentation,
        prompts: Sequence[ActivePrompt],
        header: Header,
        points: FramePoints | None = None,
    ) -> None:
        """Publishes what each prompt found, and where in space if that is known."""
        if self._interfaces is None:
            return
        surfaces = points.surfaces if points is not None else (None,) * len(prompts)
        message = self._interfaces.SegmentArray(
            header=header,
            height=segmentation.height,
            width=segmentation.width,
            model=segmentation.model,
            points_frame=points.frame if points is not None else '',
            segments=[
                _with_surface(fill_segment(self._interfaces.Segment(), entry, result), surface)
                for entry, result, surface in zip(
                    prompts, segmentation.results, surfaces, strict=True
                )
            ],
        )
        self._publishers['segments'].publish(message)

    def publish_prompts(self, messages: list[Any], model: str, header: Header) -> None:
        """Publishes what is active now, latched."""
        if self._interfaces is not None:
            self._prompts.publish(
                self._interfaces.PromptArray(header=header, model=model, prompts=messages)
            )

    def publish_points(self, cloud: PointCloud2) -> None:
        """Publishes the points of an image."""
        self._publishers['points'].publish(cloud)

    def publish_detections(
        self,
        segmentation: Segmentation,
        prompts: Sequence[ActivePrompt],
        min_area: int,
        header: Header,
    ) -> None:
        """Publishes the single things in an image, where vision_msgs is installed."""
        if self._vision is not None:
            self._vision.publish_detections(segmentation, prompts, min_area, header)

    def publish_label_info(
        self, prompts: Sequence[ActivePrompt], threshold: float, header: Header
    ) -> None:
        """Publishes which id is which name, latched, where vision_msgs is installed."""
        if self._vision is not None:
            self._vision.publish_label_info(prompts, threshold, header)

    def destroy(self) -> None:
        """Takes all topics away."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        if self._prompts is not None:
            self._node.destroy_publisher(self._prompts)
        if self._vision is not None:
            self._vision.destroy()


def _with_surface(segment: Any, surface: Surface | None) -> Any:
    """Adds to a ``clipseg_ros/Segment`` where in space its surface is."""
    if surface is not None:
        segment.points = surface.points
        segment.position = _point(surface.centroid)
        segment.position_min, segment.position_max = _point(surface.low), _point(surface.high)
        segment.nearest = _point(surface.nearest)
    return segment


def _point(xyz: NDArray[np.float64]) -> Point:
    x, y, z = xyz.tolist()
    return Point(x=x, y=y, z=z)
