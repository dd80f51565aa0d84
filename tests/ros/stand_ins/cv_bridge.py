"""Stands in for cv_bridge, which pip does not have: as much of it as the node uses.

Like the real one it skews rows whose step is no whole number of pixels, knows no colour of
OpenCV's types (``16UC1``), and knows fewer encodings than the node.
"""

from __future__ import annotations

import re
from typing import Any

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image

# Type, channels, and how they become RGB.
COLOURS: dict[str, tuple[Any, int, int | None]] = {
    'mono8': (np.uint8, 1, cv2.COLOR_GRAY2RGB),
    'rgb8': (np.uint8, 3, None),
    'bgr8': (np.uint8, 3, cv2.COLOR_BGR2RGB),
    'rgba8': (np.uint8, 4, cv2.COLOR_RGBA2RGB),
    'bgra8': (np.uint8, 4, cv2.COLOR_BGRA2RGB),
    'mono16': (np.uint16, 1, cv2.COLOR_GRAY2RGB),
    'rgb16': (np.uint16, 3, None),
    'bgr16': (np.uint16, 3, cv2.COLOR_BGR2RGB),
    'yuv422': (np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    'bayer_rggb8': (np.uint8, 1, cv2.COLOR_BayerBG2RGB),
}
DEPTHS = {'8U': np.uint8, '16U': np.uint16, '32F': np.float32, '64F': np.float64}


class CvBridgeError(TypeError):
    pass


def layout(encoding: str) -> tuple[Any, int]:
    if encoding in COLOURS:
        return COLOURS[encoding][:2]
    generic = re.fullmatch(r'(8U|16U|32F|64F)C(\d)', encoding)
    if generic is None:
        raise CvBridgeError(f'Unrecognized image encoding [{encoding}]')
    return DEPTHS[generic[1]], int(generic[2])


class CvBridge:
    def imgmsg_to_cv2(self, img_msg: Image, desired_encoding: str = 'passthrough') -> Any:
        kind, channels = layout(img_msg.encoding)
        dtype = np.dtype(kind).newbyteorder('>' if img_msg.is_bigendian else '<')
        columns = img_msg.step // (dtype.itemsize * channels)
        values = np.ndarray((img_msg.height, columns, channels), dtype, bytes(img_msg.data))
        values = np.ascontiguousarray(values[:, : img_msg.width], dtype=kind)
        values = values[..., 0] if channels == 1 else values
        if desired_encoding in ('passthrough', img_msg.encoding):
            return values
        if img_msg.encoding not in COLOURS or desired_encoding != 'rgb8':
            raise CvBridgeError(f'[{img_msg.encoding}] is not a color format')
        code = COLOURS[img_msg.encoding][2]
        rgb = values if code is None else cv2.cvtColor(values, code)
        return rgb if rgb.dtype == np.uint8 else cv2.convertScaleAbs(rgb, alpha=255 / 65535)

    def compressed_imgmsg_to_cv2(
        self, cmprs_img_msg: CompressedImage, desired_encoding: str = 'passthrough'
    ) -> Any:
        data = np.frombuffer(cmprs_img_msg.data, np.uint8)
        values = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        return values if desired_encoding == 'passthrough' else cv2.cvtColor(values, 4)
