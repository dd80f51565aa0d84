"""Filling ``clipseg_ros/Segment``: the same for a node and for a bag written without ROS."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from clipseg_model.segmentation import PromptResult
from clipseg_ros.prompts.set import ActivePrompt


def fill_segment(segment: Any, entry: ActivePrompt, result: PromptResult) -> Any:
    """Writes what one prompt found into a message.

    Args:
        segment: An empty ``clipseg_ros/Segment``.
        entry: The prompt.
        result: What was found for it.

    Returns:
        The same message.
    """
    segment.id, segment.name = entry.id, entry.name
    segment.score, segment.presence = float(result.score), bool(result.presence)
    mask = np.ascontiguousarray(result.mask).view(np.uint8)
    moments = cv2.moments(mask, binaryImage=True)
    area = round(moments['m00'])
    if area:
        segment.area = area
        box = segment.box
        box.x_offset, box.y_offset, box.width, box.height = (int(v) for v in cv2.boundingRect(mask))
        segment.centroid.x = moments['m10'] / moments['m00']
        segment.centroid.y = moments['m01'] / moments['m00']
    return segment
