"""Messages made of what was found: the same for a node and for a bag, which needs no ROS.

``~/label_info`` of vision_msgs is what Nav2's segmentation layer reads the names of ``~/labels``
from; ``~/detections`` has a box for each single object, for trackers and displays.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Collection, Sequence
from typing import Any

import cv2
import numpy as np

from clipseg_model.segmentation import PromptResult
from clipseg_ros.images.conversion import array_to_image
from clipseg_ros.outputs.result import FrameResult
from clipseg_ros.prompts.set import ActivePrompt, key_of

VISION_MISSING = (
    'vision_msgs is not installed: running without ~/label_info, ~/detections and '
    '~/detections_3d. Remedy: `apt install ros-$ROS_DISTRO-vision-msgs` and start again'
)
MARKERS_MISSING = (
    'visualization_msgs is not installed: running without ~/markers. Remedy: '
    '`apt install ros-$ROS_DISTRO-visualization-msgs` and start again'
)


def load_vision_messages() -> Any | None:
    """Return the module ``vision_msgs.msg``, or None where it is not installed.

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


def load_marker_messages() -> Any | None:
    """Return the module ``visualization_msgs.msg``, or None where it is not installed.

    Raises:
        ImportError: It is installed and cannot be used: built for another Python or ROS
            distribution.
    """
    if importlib.util.find_spec('visualization_msgs') is None:
        return None
    return importlib.import_module('visualization_msgs.msg')


def segment_array(messages: Any, result: FrameResult) -> Any:
    """Return ``clipseg_ros/SegmentArray`` of a frame, without positions.

    ``messages`` has the message classes, here and below.
    """
    found = result.segmentation
    return messages.SegmentArray(
        header=result.header,
        height=found.height,
        width=found.width,
        model=found.model,
        segments=[
            _fill_segment(messages.Segment(), entry, one)
            for entry, one in zip(result.prompts, found.results, strict=True)
        ],
    )


def _fill_segment(segment: Any, entry: ActivePrompt, found: PromptResult) -> Any:
    segment.id, segment.name = entry.id, entry.name
    segment.score, segment.presence = float(found.score), bool(found.presence)
    mask = np.ascontiguousarray(found.mask).view(np.uint8)
    moments = cv2.moments(mask, binaryImage=True)
    area = round(moments['m00'])
    if area:
        segment.area = area
        box = segment.box
        box.x_offset, box.y_offset, box.width, box.height = (int(v) for v in cv2.boundingRect(mask))
        segment.centroid.x = moments['m10'] / moments['m00']
        segment.centroid.y = moments['m01'] / moments['m00']
    return segment


def prompt_masks(messages: Any, result: FrameResult, keys: Collection[str] = ()) -> list[Any]:
    """Return ``clipseg_ros/PromptMask`` of each prompt's own mask.

    ``keys`` are those of the names that are wanted, by :func:`~clipseg_ros.prompts.set.key_of`; all
    where it is empty.
    """
    return [
        messages.PromptMask(
            id=entry.id,
            name=entry.name,
            score=float(found.score),
            presence=bool(found.presence),
            mask=array_to_image(
                np.multiply(found.mask.view(np.uint8), np.uint8(255)), 'mono8', result.header
            ),
        )
        for entry, found in zip(result.prompts, result.segmentation.results, strict=True)
        if not keys or key_of(entry.name) in keys
    ]


def label_info(
    messages: Any, prompts: Sequence[ActivePrompt], threshold: float, header: Any
) -> Any:
    """Return ``vision_msgs/LabelInfo``: the names of the values of ``~/labels``.

    Background, 0, is not among them: consumers ignore values without a name. Disabled prompts have
    to be, because their ids stay theirs. ``threshold`` is that of prompts without one of their own.
    """
    return messages.LabelInfo(
        header=header,
        class_map=[
            messages.VisionClass(class_id=entry.id, class_name=entry.name) for entry in prompts
        ],
        threshold=float(threshold),
    )


def detection_array(messages: Any, result: FrameResult, min_area: int) -> Any:
    """Return ``vision_msgs/Detection2DArray``: each connected part of each prompt's mask.

    The ``class_id`` of a detection is the prompt's name, its score the mean probability of the
    part's pixels, and centre − size / 2 of its box is the upper left corner in pixels. Parts of
    less than ``min_area`` pixels are left out.

    Raises:
        RegionError: ``min_area`` is less than 1.
    """
    detections = []
    for entry, found in zip(result.prompts, result.segmentation.results, strict=True):
        for part in found.instances(min_area) if found.presence else ():
            x, y, width, height = part.box
            hypothesis = messages.ObjectHypothesis(class_id=entry.name, score=part.probability)
            centre = messages.Point2D(x=x + width / 2, y=y + height / 2)
            detections.append(
                messages.Detection2D(
                    header=result.header,
                    results=[messages.ObjectHypothesisWithPose(hypothesis=hypothesis)],
                    bbox=messages.BoundingBox2D(
                        center=messages.Pose2D(position=centre),
                        size_x=float(width),
                        size_y=float(height),
                    ),
                )
            )
    return messages.Detection2DArray(header=result.header, detections=detections)
