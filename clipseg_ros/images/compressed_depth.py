"""Depth that image_transport's plugin ``compressedDepth`` compressed, as PNG or RVL.

Source: the plugin's ``compressed_depth_image_transport/compression_common.hpp`` and ``codec.cpp``.
The data begin with a ``ConfigHeader`` of 12 bytes: a format (int32) and two parameters (float32),
by which depth in metres was quantised. RVL is A. D. Wilson, "Fast Lossless Depth Image
Compression", ISS 2017; a picture begins with its width and height (uint32). Little-endian all.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from clipseg_model.errors import ImageError
from clipseg_model.images import LARGEST, check_encoded
from clipseg_ros.errors import ImageConversionError
from clipseg_ros.images.conversion import MOST_OF_TOPICS

if TYPE_CHECKING:
    from sensor_msgs.msg import CompressedImage

_CONFIG = struct.Struct('<iff')
_SIZE = struct.Struct('<II')
_MOST_PIXELS = MOST_OF_TOPICS
_PNG_START, _PNG_END = b'\x89PNG\r\n\x1a\n', b'IEND\xaeB`\x82'
# A difference of two 16-bit values takes 17 bits, a number of pixels up to 30; a nibble has 3.
_MOST_NIBBLES = 10


def compressed_depth_to_metres(message: CompressedImage) -> NDArray[np.float32]:
    """Return a depth image in metres, float32 (height, width); 0 where unknown.

    It was ``16UC1`` (millimetres) or ``32FC1`` (metres) before it was compressed.

    Raises:
        ImageConversionError: The format is another one, or the data are truncated or damaged.
    """
    encoding, _, how = (part.strip() for part in message.format.partition(';'))
    words = how.split()
    if encoding not in ('16UC1', 'mono16', '32FC1') or words[:1] != ['compressedDepth']:
        raise ImageConversionError(
            'format',
            f'compressed depth of format {message.format[:60]!r} is not known; publish 16UC1 or '
            '32FC1 by the plugin compressedDepth of image_transport (PNG or RVL)',
        )
    data = bytes(message.data)
    if len(data) <= _CONFIG.size:
        raise _damaged(data, f'a header of {_CONFIG.size} bytes and a picture')
    _, scale, shift = _CONFIG.unpack_from(data)
    picture = data[_CONFIG.size :]
    values = _read_rvl(picture) if 'rvl' in words[1:] else _read_png(picture)
    if encoding != '32FC1':
        return values.astype(np.float32) * np.float32(0.001)
    return _to_metres(values, scale, shift)


def _to_metres(values: NDArray[np.uint16], scale: float, shift: float) -> NDArray[np.float32]:
    """Undo the quantisation, which is finer for what is near."""
    if not (np.isfinite([scale, shift]).all() and scale > 0):
        raise ImageConversionError(
            'data',
            f'compressed depth in metres has the parameters {scale:g} and {shift:g} in its header, '
            'and the first has to be above 0: publish it by the plugin compressedDepth',
        )
    inverse = values.astype(np.float32) - np.float32(shift)
    known = (values > 0) & (inverse > 0)
    return np.divide(np.float32(scale), inverse, out=np.zeros_like(inverse), where=known)


def _read_png(data: bytes) -> NDArray[np.uint16]:
    # OpenCV fills what is missing of a truncated picture with zeros, and says nothing.
    if data.startswith(_PNG_START) and _PNG_END not in data[-64:]:
        raise _damaged(data, 'a whole PNG: its end mark is missing')
    try:
        width, height = check_encoded(data, LARGEST)
    except ImageError as error:
        raise _damaged(data, 'a PNG') from error
    if width * height > _MOST_PIXELS:
        raise ImageConversionError(
            'size',
            f'compressed depth of {width} × {height} pixels, and at most {_MOST_PIXELS} are read',
        )
    try:
        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ImageConversionError(
            'format', f'compressed depth ({len(data)} bytes) refused by OpenCV: {error.err}'
        ) from error
    if values is None:
        raise _damaged(data, 'a PNG')
    if values.dtype != np.uint16 or values.ndim != 2:
        raise ImageConversionError(
            'format',
            f'compressed depth is a PNG of {values.dtype} values of shape {values.shape}, and '
            'depth has one channel of 16 bits',
        )
    return np.asarray(values, np.uint16)


def _read_rvl(data: bytes) -> NDArray[np.uint16]:
    """Decode runs of zeros and of differences, both written in nibbles of 3 bits and "more"."""
    if len(data) < _SIZE.size:
        raise _damaged(data, 'the size of an RVL picture')
    width, height = _SIZE.unpack_from(data)
    if not 0 < width * height <= _MOST_PIXELS:
        raise ImageConversionError(
            'size', f'compressed depth of {width} × {height} pixels: it is no RVL, or damaged'
        )
    # The shortest number is a nibble, and a run of zeros of any length has two.
    numbers = _numbers(data[_SIZE.size :])
    total, count = width * height, len(numbers)
    begins, firsts, lengths = [], [], []
    pixel = number = 0
    while pixel < total:
        zeros, filled = (
            (int(numbers[number]), int(numbers[number + 1])) if number + 1 < count else (0, 0)
        )
        pixel, number = pixel + zeros, number + 2
        if not (zeros or filled) or pixel + filled > total or number + filled > count:
            raise _damaged(data, f'an RVL picture of {width} × {height} pixels')
        begins.append(pixel)
        firsts.append(number)
        lengths.append(filled)
        pixel, number = pixel + filled, number + filled
    values = np.zeros(total, np.uint16)
    runs = np.array(lengths, np.intp)
    if runs.any():
        # Index of each value of a run, counted through all of them.
        within = np.arange(runs.sum()) - np.repeat(np.cumsum(runs) - runs, runs)
        coded = numbers[np.repeat(firsts, runs) + within]
        differences = (coded >> 1) ^ -(coded & 1)
        values[np.repeat(begins, runs) + within] = np.cumsum(differences).astype(np.uint16)
    return values.reshape(height, width)


def _numbers(data: bytes) -> NDArray[np.int64]:
    """Return the numbers of a stream of nibbles, the highest nibble of each 32-bit word first."""
    octets = np.frombuffer(data[: len(data) // 4 * 4], '<u4').astype('>u4').view(np.uint8)
    nibbles = np.empty(2 * len(octets), np.uint8)
    nibbles[0::2], nibbles[1::2] = octets >> 4, octets & 15
    ends = np.flatnonzero(nibbles < 8)
    starts = np.concatenate(([0], ends[:-1] + 1))[: len(ends)]
    lengths = ends - starts + 1
    numbers = np.zeros(len(ends), np.int64)
    if lengths.max(initial=0) > _MOST_NIBBLES:
        raise _damaged(data, f'RVL: a number has {lengths.max()} nibbles')
    for place in range(int(lengths.max(initial=0))):
        longer = np.flatnonzero(lengths > place)
        part = (nibbles[starts[longer] + place] & 7).astype(np.int64)
        numbers[longer] |= part << (3 * place)
    return numbers


def _damaged(data: bytes, expected: str) -> ImageConversionError:
    return ImageConversionError(
        'data',
        f'compressed depth is truncated or damaged: {len(data)} bytes are not {expected}; check '
        'the driver and the network',
    )
