"""Outputs of types of vision_msgs, for consumers that speak those, where it is installed.

``~/label_info`` is what Nav2's segmentation layer reads the names of ``~/labels`` from, and
``~/detections`` has a box for every single thing, for trackers and displays.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from clipseg_model.segmentation import Segmentation

if TYPE_CHECKING:
    from clipseg_ros.prompts.set import ActivePrompt
    from clipseg_ros.ros.qos import QosWatch

MISSING = (
    'vision_msgs is not installed: running without ~/label_info and ~/detections. Remedy: '
    '`apt install ros-$ROS_DISTRO-vision-msgs` and start again'
)


def load_vision_messages() -> Any | None:
    """Returns the module ``vision_msgs.msg``, or None where it is not installed.

    Raises:
        ImportError: It is installed and cannot be used: built for another Python or ROS
            distribution, or older than version 4, which has no LabelInfo.
    """
    if importlib.util.find_spec('vision_msgs') is None:
        return None
    messages = importlib.import_module('vision_msgs.msg')
    if not hasattr(messages, 'LabelInfo'):
        raise ImportError(
            f'vision_msgs in {messages.__file__} has no LabelInfo: install version 4 or newer, or '
            'remove it'
        )
    return messages


def label_info(
    messages: Any, prompts: Sequence[ActivePrompt], threshold: float, header: Any
) -> Any:
    """Returns ``vision_msgs/LabelInfo``: the names of the values of ``~/labels``.

    Background, 0, is not among them: consumers leave values without a name alone.

    Args:
        messages: Holds the message classes.
        prompts: All that are active, disabled ones too: their ids stay theirs.
        threshold: In force for prompts without one of their own, 0…1.
        header: Of the message.
    """
    return messages.LabelInfo(
        header=header,
        class_map=[
            messages.VisionClass(class_id=entry.id, class_name=entry.name) for entry in prompts
        ],
        threshold=float(threshold),
    )


def detection_array(
    messages: Any,
    segmentation: Segmentation,
    prompts: Sequence[ActivePrompt],
    min_area: int,
    header: Any,
) -> Any:
    """Returns ``vision_msgs/Detection2DArray``: every connected part of every prompt's mask.

    A detection's ``class_id`` is the prompt's name, its score the mean probability of the part's
    pixels, and its box centre − size / 2 is the box's left upper corner in pixels.

    Args:
        messages: Holds the message classes.
        segmentation: What was found.
        prompts: Those of its results, in their order.
        min_area: Least area of a part, pixels.
        header: Of the image.

    Raises:
        RegionError: ``min_area`` is less than 1.
    """
    detections = []
    for entry, result in zip(prompts, segmentation.results, strict=True):
        for part in result.instances(min_area) if result.presence else ():
            x, y, width, height = part.box
            hypothesis = messages.ObjectHypothesis(class_id=entry.name, score=part.probability)
            centre = messages.Point2D(x=x + width / 2, y=y + height / 2)
            detections.append(
                messages.Detection2D(
                    header=header,
                    results=[messages.ObjectHypothesisWithPose(hypothesis=hypothesis)],
                    bbox=messages.BoundingBox2D(
                        center=messages.Pose2D(position=centre),
                        size_x=float(width),
                        size_y=float(height),
                    ),
                )
            )
    return messages.Detection2DArray(header=header, detections=detections)


class VisionOutputs:
    """Publishers of ``~/label_info`` and ``~/detections``.

    Args:
        node: The lifecycle node.
        watch: Watches the QoS of peers.
        messages: The module ``vision_msgs.msg``.
    """

    def __init__(self, node: Any, watch: QosWatch, messages: Any) -> None:
        # Here, because the messages above are made without ROS too.
        from clipseg_ros.ros.qos import image_output, latched_output

        self._node, self._messages = node, messages
        # As ~/prompts: what is active is known, and told, before the node is active.
        self._label_info = watch.create_publisher(
            messages.LabelInfo, '~/label_info', latched_output()
        )
        self._detections = watch.create_publisher(
            messages.Detection2DArray, '~/detections', image_output(), managed=True
        )

    def wants_detections(self) -> bool:
        """Whether anybody subscribes to ``~/detections``."""
        return bool(self._detections.get_subscription_count())

    def publish_label_info(
        self, prompts: Sequence[ActivePrompt], threshold: float, header: Any
    ) -> None:
        """Publishes :func:`label_info`, latched."""
        self._label_info.publish(label_info(self._messages, prompts, threshold, header))

    def publish_detections(
        self,
        segmentation: Segmentation,
        prompts: Sequence[ActivePrompt],
        min_area: int,
        header: Any,
    ) -> None:
        """Publishes :func:`detection_array`."""
        self._detections.publish(
            detection_array(self._messages, segmentation, prompts, min_area, header)
        )

    def destroy(self) -> None:
        """Takes both topics away."""
        self._node.destroy_publisher(self._label_info)
        self._node.destroy_lifecycle_publisher(self._detections)
