"""Boxes of single things as messages: for planners ``vision_msgs``, for displays markers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA, Header

from clipseg_model.outputs.palette import PALETTE, colour_of
from clipseg_ros.depth.boxes import Box3D
from clipseg_ros.outputs.things import Thing

_ALPHA = 0.4
_INTERVALS, _LEAST_LIFE, _MOST_LIFE = 3, 1.0, 10.0  # Of markers; seconds.
_TEXT_SHARE, _LEAST_TEXT = 0.25, 0.02  # Height of a name, of the box's and metres.


class MarkerLife:
    """How long markers are shown unless others come: three times as long as those took last.

    At least 1 s, so that a late frame does not make them blink, and at most 10 s.
    """

    def __init__(self) -> None:
        self._last: float | None = None

    def next(self, now: float) -> float:
        """Return the seconds for markers of ``now``, a time in seconds by the node's clock."""
        took = 0.0 if self._last is None else now - self._last
        self._last = now
        return float(np.clip(_INTERVALS * took, _LEAST_LIFE, _MOST_LIFE))

    def forget(self) -> None:
        """Forget the last markers: the next ones come after a pause."""
        self._last = None


def detection_3d_array(
    messages: Any, header: Header, things: Sequence[Thing], boxes: Sequence[Box3D | None]
) -> Any:
    """Return ``vision_msgs/Detection3DArray``; things without a box are left out.

    The ``class_id`` is the prompt's name, the score the mean probability of the thing's pixels, the
    ``id`` that of the thing, and the size is along the axes of the box's own pose.

    Args:
        messages: Has the message classes.
        header: Its frame is that of the boxes.
        things: Those of a frame.
        boxes: Of each; None where it has none.
    """
    detections = []
    for thing, box in zip(things, boxes, strict=True):
        if box is None:
            continue
        hypothesis = messages.ObjectHypothesis(
            class_id=thing.prompt.name, score=thing.instance.probability
        )
        found = messages.ObjectHypothesisWithPose(hypothesis=hypothesis)
        found.pose.pose = pose_of(box)
        detections.append(
            messages.Detection3D(
                header=header,
                results=[found],
                bbox=messages.BoundingBox3D(center=pose_of(box), size=_vector(box.size)),
                id=str(thing.id),
            )
        )
    return messages.Detection3DArray(header=header, detections=detections)


def marker_array(
    messages: Any,
    header: Header,
    things: Sequence[Thing],
    boxes: Sequence[Box3D | None],
    palette: NDArray[np.uint8] = PALETTE,
    life: float = _LEAST_LIFE,
) -> Any:
    """Return ``visualization_msgs/MarkerArray``: a box and a name for each thing.

    It replaces what was shown before, and is shown for ``life`` seconds if no other comes.
    Arguments as in :func:`detection_3d_array`; ``palette`` is RGB uint8 (256, 3), by the ids of
    prompts.
    """
    kinds = messages.Marker
    lifetime = Duration(sec=int(life), nanosec=int(life % 1.0 * 1e9))
    markers = [kinds(header=header, action=kinds.DELETEALL)]
    for thing, box in zip(things, boxes, strict=True):
        if box is None:
            continue
        red, green, blue = (value / 255 for value in colour_of(thing.prompt.id, palette))
        markers.append(
            kinds(
                header=header,
                ns='boxes',
                id=thing.id,
                type=kinds.CUBE,
                action=kinds.ADD,
                pose=pose_of(box),
                scale=_vector(np.maximum(box.size, 1e-3)),
                color=ColorRGBA(r=red, g=green, b=blue, a=_ALPHA),
                lifetime=lifetime,
            )
        )
        height = max(_LEAST_TEXT, _TEXT_SHARE * float(box.size[2]))
        above = box.centre + box.rotation[:, 2] * (box.size[2] / 2 + height)
        markers.append(
            kinds(
                header=header,
                ns='names',
                id=thing.id,
                type=kinds.TEXT_VIEW_FACING,
                action=kinds.ADD,
                pose=Pose(position=_point(above), orientation=Quaternion(w=1.0)),
                scale=Vector3(z=height),
                color=ColorRGBA(r=red, g=green, b=blue, a=1.0),
                lifetime=lifetime,
                text=f'{thing.prompt.name} {thing.id}',
            )
        )
    return messages.MarkerArray(markers=markers)


def pose_of(box: Box3D) -> Pose:
    """Return the pose of a box: its centre, and the rotation of its axes."""
    turn = cv2.Rodrigues(box.rotation)[0].ravel()
    angle = float(np.linalg.norm(turn))
    x, y, z = (turn * (np.sin(angle / 2) / angle) if angle > 0 else np.zeros(3)).tolist()
    orientation = Quaternion(x=x, y=y, z=z, w=float(np.cos(angle / 2)))
    return Pose(position=_point(box.centre), orientation=orientation)


def _point(values: NDArray[np.float64]) -> Point:
    x, y, z = values.tolist()
    return Point(x=x, y=y, z=z)


def _vector(values: NDArray[np.float64]) -> Vector3:
    x, y, z = values.tolist()
    return Vector3(x=x, y=y, z=z)
