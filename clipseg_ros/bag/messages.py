"""The messages of the node's outputs, for bags that are written without ROS.

`rosbags` knows those of ROS 2, but neither this package's nor those of vision_msgs (version 4).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from clipseg_ros.errors import BagError
from clipseg_ros.ros.share import share_path

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

OWN = ('Prompt', 'PromptArray', 'Segment', 'SegmentArray')

VISION = {
    'VisionClass': 'uint16 class_id\nstring class_name',
    'LabelInfo': 'std_msgs/Header header\nvision_msgs/VisionClass[] class_map\nfloat32 threshold',
    'Point2D': 'float64 x\nfloat64 y',
    'Pose2D': 'vision_msgs/Point2D position\nfloat64 theta',
    'BoundingBox2D': 'vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y',
    'ObjectHypothesis': 'string class_id\nfloat64 score',
    'ObjectHypothesisWithPose': 'vision_msgs/ObjectHypothesis hypothesis\n'
    'geometry_msgs/PoseWithCovariance pose',
    'Detection2D': 'std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n'
    'vision_msgs/BoundingBox2D bbox\nstring id',
    'Detection2DArray': 'std_msgs/Header header\nvision_msgs/Detection2D[] detections',
}
"""Name → fields, as the documentation of vision_msgs lists them."""

_STANDARD = ('sensor_msgs/msg/Image', 'std_msgs/msg/Header', 'builtin_interfaces/msg/Time')

_DTYPES = {'byte': np.uint8, 'octet': np.uint8, 'char': np.uint8}


def message_store() -> Typestore:
    """Return the types of this package's bags; raises a BagError without its msg files."""
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.LATEST)
    store.register(_own_types())
    return store


@cache
def _own_types() -> dict[str, Any]:
    from rosbags.typesys import get_types_from_msg

    types: dict[str, Any] = {}
    for name in OWN:
        try:
            text = share_path('msg', f'{name}.msg').read_text(encoding='utf-8')
        except FileNotFoundError as error:
            raise BagError(f'bags need the messages of clipseg_ros: {error}') from error
        types |= get_types_from_msg(text, f'clipseg_ros/msg/{name}')
    for name, text in VISION.items():
        types |= get_types_from_msg(text, f'vision_msgs/msg/{name}')
    return types


class MessageFactory:
    """Makes messages as the classes of rclpy do: ``factory.Image(height=3)``, the rest is zero."""

    def __init__(self, store: Typestore) -> None:
        self.store = store
        self._names = {name.rpartition('/')[2]: name for name in _STANDARD}
        self._names |= {name: f'clipseg_ros/msg/{name}' for name in OWN}
        self._names |= {name: f'vision_msgs/msg/{name}' for name in VISION}

    def type_name(self, name: str) -> str:
        """Return the full name of a message: ``Image`` is ``sensor_msgs/msg/Image``."""
        return self._names[name]

    def __getattr__(self, name: str) -> Any:
        if name.startswith('_') or name not in self._names:
            raise AttributeError(f'there is no message {name!r}')
        return lambda **fields: self._make(self._names[name], fields)

    def _make(self, full_name: str, given: dict[str, Any]) -> Any:
        constants_and_fields = self.store.fielddefs[full_name]
        fields = {name: self._zero(kind) for name, kind in constants_and_fields[1]}
        unknown = set(given) - set(fields)
        if unknown:
            raise TypeError(f'{full_name} has no field {sorted(unknown)}')
        return self.store.types[full_name](**{**fields, **given})

    def _zero(self, kind: tuple[Any, Any]) -> Any:
        from rosbags.interfaces import Nodetype

        node, details = kind
        if node == Nodetype.NAME:
            return self._make(details, {})
        if node == Nodetype.BASE:
            return {'string': '', 'wstring': '', 'bool': False}.get(
                details[0], 0.0 if details[0].startswith('float') else 0
            )
        (element, inner), length = details
        count = length if node == Nodetype.ARRAY else 0
        if element == Nodetype.BASE and 'string' not in inner[0]:
            return np.zeros(count, _DTYPES.get(inner[0], inner[0]))
        return [self._zero((element, inner)) for _ in range(count)]
