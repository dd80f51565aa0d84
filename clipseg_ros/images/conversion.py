"""ROS image messages to numpy arrays and back.

The package's own converter: the usual ones mishandle padded rows, 16-bit pixels or byte order.
Pixels are not copied where the message's memory can be used: ``rgb8`` and ``rgba8`` are returned as
views of it.
"""

from __future__ import annotations

import array
import re
import sys
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from clipseg_model.errors import ImageError
from clipseg_model.images import LARGEST, MAX_PIXELS, check_encoded, check_scans
from clipseg_ros.errors import ImageConversionError
from clipseg_ros.images.encodings import ENCODINGS, Encoding

if TYPE_CHECKING:
    from sensor_msgs.msg import CompressedImage, Image
    from std_msgs.msg import Header

# What is wrong with an image is said here. OpenCV would say it too, in a line for each image.
(getattr(cv2, 'setLogLevel', None) or cv2.utils.logging.setLogLevel)(0)  # OpenCV 4, or 5.

MOST_OF_TOPICS = 30_000_000
"""Most pixels of an image that a peer sends, unless the node's user says otherwise.

Robots' cameras have 0.3 to 8.3 million (4K), industrial ones up to 26.2 (5120 × 5120). What more
takes to decode delays all other images.
"""

_OUTPUT_ENCODINGS: dict[str, tuple[type[np.generic], int]] = {
    'mono8': (np.uint8, 1),
    'rgb8': (np.uint8, 3),
    '16UC1': (np.uint16, 1),
    '32FC1': (np.float32, 1),
}

# What image_transport says of a depth image that it compressed as if it were a picture: values of
# one channel that are no grey levels.
_NO_COLOUR = re.compile(r'(16[SU]|32[SF]|64F)C1')

_JPEG_START, _JPEG_SCAN, _JPEG_END = b'\xff\xd8', b'\xff\xda', b'\xff\xd9'
_PNG_START, _PNG_END = b'\x89PNG\r\n\x1a\n', b'IEND\xaeB`\x82'


def image_to_rgb(message: Image, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Return the pixels of an image message as RGB uint8 (height, width, 3).

    It may have any of :data:`ENCODINGS`, padded rows and either byte order. For ``rgb8`` and
    ``rgba8`` it is a view of the message's data, maybe of strided rows: do not write to it.

    Raises:
        ImageConversionError: Encoding, size, step, amount of data or values are wrong, or it has
            more than ``max_pixels`` pixels.
    """
    encoding = find_encoding(message.encoding)
    pixels = _pixels(message, encoding, max_pixels)
    try:
        return encoding.to_rgb(pixels)
    except cv2.error as error:
        raise ImageConversionError(
            'data',
            f'{message.encoding} image of {message.width} × {message.height} cannot be '
            f'converted to rgb8: {error.err}',
        ) from error


def image_to_array(message: Image) -> NDArray[Any]:
    """Return the values of an image message as they are: (height, width) or (…, channels).

    uint8 for ``mono8`` and ``rgb8``, float32 for ``32FC1``; packed encodings have no such values.
    Often a view of the message's data. Do not write to it.

    Raises:
        ImageConversionError: Encoding, size, step or amount of data are wrong.
    """
    encoding = ENCODINGS.get(message.encoding)
    if encoding is None:
        raise ImageConversionError(
            'encoding', f'image encoding {_shorten(message.encoding)!r} is not known'
        )
    return _pixels(message, encoding)


def depth_to_metres(message: Image) -> NDArray[np.float32]:
    """Return a depth image, ``32FC1`` in metres or ``16UC1`` in millimetres, in metres (REP 118).

    float32 (height, width); 0 where unknown (0, NaN, infinite or negative in the message).

    Raises:
        ImageConversionError: The message is not such an image.
    """
    if message.encoding not in ('32FC1', '16UC1'):
        raise ImageConversionError(
            'encoding',
            f'depth image encoding {_shorten(message.encoding)!r} is not known; publish 32FC1 in '
            'metres or 16UC1 in millimetres (REP 118)',
        )
    pixels = _pixels(message, ENCODINGS[message.encoding])
    if message.encoding == '16UC1':
        return pixels.astype(np.float32) * np.float32(0.001)
    depth = pixels.astype(np.float32)
    # NaN fails every comparison.
    known = (depth > 0) & (depth < np.inf)
    if not known.all():
        depth[~known] = 0.0
    return depth


def compressed_to_rgb(message: CompressedImage, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Return the pixels of a compressed image as they are stored.

    It has one of :data:`clipseg_model.images.FORMATS`, JPEG and PNG among them. RGB uint8
    (height, width, 3); 16-bit pictures are scaled to 8 bits.

    Raises:
        ImageConversionError: The data is empty, truncated or not such a picture, or its header
            states more than ``max_pixels`` pixels: nothing is decoded then.
    """
    check_compressed(message, max_pixels)
    data = memoryview(message.data)
    try:
        picture = cv2.imdecode(
            np.frombuffer(data, dtype=np.uint8),
            cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION,
        )
    except cv2.error as error:
        raise ImageConversionError(
            'format', f'compressed image ({len(data)} bytes) refused by OpenCV: {error.err}'
        ) from error
    if picture is None:
        raise ImageConversionError(
            'format',
            f'{len(data)} bytes of format {_shorten(message.format)!r} cannot be decoded; '
            'publish JPEG or PNG',
        )
    return np.asarray(picture, dtype=np.uint8)


def array_to_image(pixels: NDArray[Any], encoding: str, header: Header) -> Image:
    """Return a new image message with a copy of the pixels; the header is used as it is.

    Args:
        pixels: uint8 (H, W) for ``mono8``, uint8 (H, W, 3) for ``rgb8``, uint16 (H, W) for
            ``16UC1`` or float32 (H, W) for ``32FC1``.
        encoding: One of those four.
        header: Of the image.

    Raises:
        ValueError: The array does not fit the encoding.
    """
    # Imported here: bags are read with this module without ROS.
    from sensor_msgs.msg import Image

    message = Image()
    fill_image(message, pixels, encoding, header)
    return message


def fill_image(message: Image, pixels: NDArray[Any], encoding: str, header: Header) -> None:
    """Write pixels as :func:`array_to_image`, in the message's memory if the size is the same."""
    dtype, channels = _output_encoding(encoding)
    shape = pixels.shape[:2] if channels == 1 else (*pixels.shape[:2], channels)
    if pixels.dtype != dtype or pixels.ndim < 2 or pixels.shape != shape:
        raise ValueError(f'{pixels.dtype} array of shape {pixels.shape} is no {encoding} image')
    height, width = pixels.shape[:2]
    np.copyto(open_image(message, height, width, encoding, header), pixels)


def open_image(
    message: Image, height: int, width: int, encoding: str, header: Header
) -> NDArray[Any]:
    """Give a message the size of an image, and return its pixels to write to.

    They are a view of its own memory, (H, W) or (H, W, 3); not cleared, and kept where the size
    has not changed. Raises a ValueError for an encoding that :func:`array_to_image` does not take.
    """
    dtype, channels = _output_encoding(encoding)
    step = width * channels * np.dtype(dtype).itemsize
    # A numpy array assigned to `data` is converted byte by byte (230 ms at 720p); an
    # array.array is taken as it is.
    if len(message.data) != step * height:
        message.data = array.array('B', bytes(step * height))
    message.header = header
    message.height, message.width, message.step = height, width, step
    message.encoding = encoding
    message.is_bigendian = 1 if np.dtype(dtype).itemsize > 1 and sys.byteorder == 'big' else 0
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.frombuffer(message.data, dtype=dtype).reshape(shape)


def _output_encoding(encoding: str) -> tuple[type[np.generic], int]:
    if encoding not in _OUTPUT_ENCODINGS:
        raise ValueError(f'encoding {encoding!r} is not one of {sorted(_OUTPUT_ENCODINGS)}')
    return _OUTPUT_ENCODINGS[encoding]


def find_encoding(name: str) -> Encoding:
    """Return the memory layout of an encoding; raises an ImageConversionError if it is unknown."""
    encoding = ENCODINGS.get(name)
    if encoding is None:
        raise ImageConversionError(
            'encoding',
            f'image encoding {_shorten(name)!r} is not known; publish rgb8, bgr8, '
            'mono8 or another one of docs/nodes.md',
        )
    return encoding


def check_pixels(
    width: int, height: int, max_pixels: int = MAX_PIXELS, what: str = 'image'
) -> None:
    """Raise an ImageConversionError for more than ``max_pixels`` pixels of ``what``."""
    if width * height > max_pixels:
        raise ImageConversionError(
            'size',
            f'{what} of {width} × {height} pixels, and at most {max_pixels} are read: lower the '
            'resolution of the camera, or allow more (the parameter max_pixels, or --max-pixels)',
        )


def check_layout(message: Image, encoding: Encoding, max_pixels: int = MAX_PIXELS) -> None:
    """Raise an ImageConversionError unless an image's size, step and amount of data fit."""
    width, height, step = message.width, message.height, message.step
    name = message.encoding
    if width == 0 or height == 0:
        raise ImageConversionError(
            'size', f'image of {width} × {height} pixels is empty; check the camera driver'
        )
    if (encoding.even_width and width % 2) or (encoding.even_height and height % 2):
        raise ImageConversionError(
            'size',
            f'{name} image of {width} × {height}: pixels of this encoding share colour in '
            'pairs, so the size has to be even; crop it',
        )
    row_bytes = width * encoding.channels * encoding.dtype.itemsize
    if step < row_bytes:
        raise ImageConversionError(
            'step',
            f'step {step} is too small for {width} pixels of {name}, which need {row_bytes} '
            'bytes a row; set step to the bytes of a whole row',
        )
    rows = int(height * encoding.rows)
    size = len(message.data)
    if size != step * rows:
        raise ImageConversionError(
            'data',
            f'{size} bytes of data where {name} {width} × {height} with step {step} has '
            f'{step * rows}: the image is {"truncated" if size < step * rows else "mislabelled"}; '
            'check width, height and step against data',
        )
    check_pixels(width, height, max_pixels)


def check_compressed(message: CompressedImage, max_pixels: int = MAX_PIXELS) -> None:
    """Raise an ImageConversionError for a compressed image that is not to be decoded.

    It is of depth, empty, truncated, in another format, states more than ``max_pixels`` pixels, or
    goes over them too often.
    """
    encoding = message.format.partition(';')[0].strip()
    if 'compressedDepth' in message.format or _NO_COLOUR.fullmatch(encoding):
        raise ImageConversionError(
            'format',
            f'compressed image of format {_shorten(message.format)!r} is depth, not colour; '
            'subscribe to the colour image of the camera',
        )
    data = bytes(message.data)
    if not data:
        raise ImageConversionError('data', 'compressed image without data; check the camera driver')
    # OpenCV fills what is missing of a truncated JPEG with grey, and says nothing.
    complete = True
    if data.startswith(_JPEG_START):
        # An embedded thumbnail ends with the same mark, but before the picture's own scan.
        complete = data.rfind(_JPEG_END) > data.rfind(_JPEG_SCAN)
    elif data.startswith(_PNG_START):
        complete = _PNG_END in data[-64:]
    if not complete:
        raise ImageConversionError(
            'data',
            f'compressed image of format {_shorten(message.format)!r} is truncated: {len(data)} '
            'bytes without the end mark of the picture; check the driver and the network',
        )
    try:
        width, height = check_encoded(data, LARGEST)
        check_pixels(width, height, max_pixels, 'compressed image')
        check_scans(data, width * height, max_pixels)
    except ImageError as error:
        raise ImageConversionError(
            'format',
            f'{len(data)} bytes of format {_shorten(message.format)!r} cannot be decoded; '
            f'publish JPEG or PNG. {error}',
        ) from error


def _pixels(message: Image, encoding: Encoding, max_pixels: int = MAX_PIXELS) -> NDArray[Any]:
    """Return the message's values in the machine's byte order: (rows, width[, channels])."""
    check_layout(message, encoding, max_pixels)
    width, step = message.width, message.step
    row_bytes = width * encoding.channels * encoding.dtype.itemsize
    rows = int(message.height * encoding.rows)
    lines = np.frombuffer(message.data, dtype=np.uint8).reshape(rows, step)[:, :row_bytes]
    if encoding.dtype.itemsize == 1:
        values = lines
    else:
        stored = encoding.dtype.newbyteorder('>' if message.is_bigendian else '<')
        values = lines.view(stored).astype(encoding.dtype)
    if encoding.channels == 1:
        return values
    return values.reshape(rows, width, encoding.channels)


def _shorten(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 1] + '…'
