"""Pictures that leave as ``sensor_msgs/CompressedImage``, as image_transport's plugins write them.

A ``format`` begins with the encoding of the picture, which is what a subscriber gets back; after
``compressed`` stands the order of the channels in the file, where there are several.
"""

from __future__ import annotations

import array

import cv2
import numpy as np
from numpy.typing import NDArray

PNG_FORMAT, JPEG_FORMAT = 'mono8; png compressed', 'rgb8; jpeg compressed bgr8'


def png_of(values: NDArray[np.uint8]) -> array.array[int]:
    """Return a mask or labels, uint8 (H, W), as a PNG, which keeps every value.

    It is of the type that the field ``data`` of a message takes as it is.
    """
    # Few areas of one value: run-length encoding is fast, and no other is smaller.
    options = [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
    return array.array('B', cv2.imencode('.png', values, options)[1].tobytes())


def jpeg_of(rgb: NDArray[np.uint8], quality: int) -> array.array[int]:
    """Return a picture, RGB uint8 (H, W, 3), as a JPEG of a quality from 1 to 100."""
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    data = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return array.array('B', data.tobytes())
