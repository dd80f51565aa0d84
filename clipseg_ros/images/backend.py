"""What reads the camera's images: the package's own converter, or cv_bridge where it is installed.

cv_bridge gives other pixels, and no error, where it misreads an image, and each of its versions
misreads others. So it is compared with the converter of :mod:`clipseg_ros.images.conversion`
before it may read anything, and is asked only for images that the same checks have found
well-formed.
"""

from __future__ import annotations

import array
import importlib
import importlib.util
import platform
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from clipseg_ros.errors import ImageBackendError, ImageConversionError
from clipseg_ros.images.conversion import (
    check_compressed,
    check_layout,
    compressed_to_rgb,
    find_encoding,
    image_to_array,
    image_to_rgb,
)
from clipseg_ros.images.encodings import ENCODINGS

if TYPE_CHECKING:
    from sensor_msgs.msg import CompressedImage, Image

BUILTIN, CV_BRIDGE = 'builtin', 'cv_bridge'
BACKENDS = (BUILTIN, CV_BRIDGE)

_INSTEAD = f'set image_backend to {BUILTIN}'
# OpenCV's types, such as 16UC1: cv_bridge knows no colour of theirs and hands out the values alone.
_GENERIC = re.compile(r'\d+[USF]C\d+')
# Of the test's pictures: unequal, so that rows, columns and channels are not taken for each other.
_HEIGHT, _WIDTH = 5, 7


@dataclass(frozen=True)
class ImageBackend:
    """What reads images.

    Attributes:
        to_rgb: From an Image, or a CompressedImage, to RGB uint8 (H, W, 3); raises
            ImageConversionError where it cannot.
        notice: What the user should know of it; empty for the default.
    """

    to_rgb: Callable[[Any], NDArray[np.uint8]]
    notice: str = ''


def open_backend(name: str, compressed: bool = False) -> ImageBackend:
    """Returns what reads images, once it has been found to work.

    Args:
        name: One of :data:`BACKENDS`.
        compressed: Whether the images are CompressedImage messages.

    Raises:
        ImageBackendError: There is no such backend, it is not installed, cannot be imported, or
            fails its self-test.
    """
    if name == BUILTIN:
        return ImageBackend(compressed_to_rgb if compressed else image_to_rgb)
    if name != CV_BRIDGE:
        raise ImageBackendError(f'image_backend {name!r} is not one of {", ".join(BACKENDS)}')
    bridge, place = _load_cv_bridge()
    reader = _CvBridgeReader(bridge)
    tests = _image_tests(reader)
    if compressed:
        tests = {**tests, 'PNG': lambda: _test_png(reader)}
    for case, test in tests.items():
        try:
            problem = next(iter(test()), '')
        # Whatever it raises, and a test that cannot be made, says that it does not work.
        except Exception as error:
            problem = f'{type(error).__name__}: {error}'
        if problem:
            raise ImageBackendError(
                f'cv_bridge in {place} fails its self-test ({case}: {problem}), so it is not used: '
                f'masks would be of wrong pixels. Remedy: {_INSTEAD}, or install another version '
                'of cv_bridge'
            )
    notice = f'images are read by cv_bridge in {place}, which passed its self-test'
    if compressed:
        return ImageBackend(reader.compressed_to_rgb, notice)
    reader.any_step = _reads_any_step(reader)
    if not reader.any_step:
        notice += (
            '; it misreads rows that are padded by parts of a pixel, so images of such a step are '
            'dropped with a warning'
        )
    return ImageBackend(reader.image_to_rgb, notice)


class _CvBridgeReader:
    """Reads images with cv_bridge; bad ones are an ImageConversionError, as without it.

    Args:
        bridge: A CvBridge.

    Attributes:
        bridge: The same.
        any_step: Whether it reads rows whose bytes are no whole number of pixels.
    """

    def __init__(self, bridge: Any) -> None:
        self.bridge = bridge
        self.any_step = True

    def image_to_rgb(self, message: Image) -> NDArray[np.uint8]:
        """Returns the pixels of an image: RGB uint8 (H, W, 3)."""
        encoding = find_encoding(message.encoding)
        check_layout(message, encoding)
        pixel_bytes = encoding.channels * encoding.dtype.itemsize
        if message.step % pixel_bytes and not self.any_step:
            raise ImageConversionError(
                'step',
                f'step {message.step} is no whole number of {message.encoding} pixels of '
                f'{pixel_bytes} bytes, and this cv_bridge misreads such rows; {_INSTEAD}',
            )
        what = f'{message.encoding} image of {message.width} × {message.height}'
        size = (message.height, message.width)
        if not _GENERIC.fullmatch(message.encoding):
            rgb = self._ask(what, lambda: self.bridge.imgmsg_to_cv2(message, 'rgb8'))
            return _checked(rgb, what, np.dtype(np.uint8), (*size, 3))
        values = self._ask(what, lambda: self.bridge.imgmsg_to_cv2(message, 'passthrough'))
        shape = size if encoding.channels == 1 else (*size, encoding.channels)
        return encoding.to_rgb(_checked(values, what, encoding.dtype, shape))

    def compressed_to_rgb(self, message: CompressedImage) -> NDArray[np.uint8]:
        """Returns the pixels of a compressed image: RGB uint8 (H, W, 3)."""
        check_compressed(message)
        what = f'compressed image of {len(message.data)} bytes'
        # As they are, because it takes every picture for one of three channels of 8 bits.
        values = self._ask(
            what, lambda: self.bridge.compressed_imgmsg_to_cv2(message, 'passthrough')
        )
        shape: tuple[int, ...] = getattr(values, 'shape', ())
        channels = shape[2] if len(shape) == 3 else 1
        known = {np.dtype(np.uint8): f'8UC{channels}', np.dtype(np.uint16): f'16UC{channels}'}
        encoding = ENCODINGS.get(known.get(getattr(values, 'dtype', None), ''))
        if encoding is None or len(shape) not in (2, 3):
            raise ImageConversionError(
                'format', f'cv_bridge cannot decode this {what}; publish JPEG or PNG'
            )
        return encoding.to_rgb(values)

    def _ask(self, what: str, convert: Callable[[], Any]) -> Any:
        try:
            return convert()
        # Those of CvBridgeError, Boost.Python, numpy and OpenCV have nothing in common.
        except Exception as error:
            raise ImageConversionError(
                'encoding',
                f'cv_bridge cannot read this {what} ({type(error).__name__}: {error}); publish '
                f'rgb8, bgr8 or mono8, or {_INSTEAD}',
            ) from error


def _checked(values: Any, what: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    found = getattr(values, 'dtype', type(values)), getattr(values, 'shape', ())
    if found != (dtype, shape):
        raise ImageConversionError(
            'data',
            f'cv_bridge makes {found[0]} of shape {found[1]} of this {what}, not {dtype} of '
            f'{shape}; {_INSTEAD}',
        )
    return np.asarray(values)


def _load_cv_bridge() -> tuple[Any, str]:
    """Returns a CvBridge, and where it comes from."""
    spec = importlib.util.find_spec('cv_bridge')
    if spec is None:
        raise ImageBackendError(
            'image_backend is cv_bridge, which is not installed here (pip has none). Remedy: '
            f'`apt install ros-$ROS_DISTRO-cv-bridge` and start again, or {_INSTEAD}'
        )
    try:
        return importlib.import_module('cv_bridge').CvBridge(), str(spec.origin)
    # A module of another numpy raises AttributeError, one of another Python ImportError, …
    except Exception as error:
        raise ImageBackendError(
            f'cv_bridge in {spec.origin} cannot be imported: {type(error).__name__}: {error}. It '
            'has to be built for the numpy and the Python in use, here numpy '
            f'{np.__version__} and Python {platform.python_version()}: those of apt are for the '
            f"system's own. Remedy: {_INSTEAD}, or start the node where they fit"
        ) from error


# The self-test. Each test yields what is wrong.

_Test = Callable[[], Iterator[str]]


def _image_tests(reader: _CvBridgeReader) -> dict[str, _Test]:
    return {
        'bgr8 round trip': lambda: _test_round_trip(reader, _colours(), 'bgr8', 'bgr8'),
        '16UC1 round trip': lambda: _test_round_trip(reader, _wide(), '16UC1', 'passthrough'),
        # By two whole pixels.
        'padded rows, bgr8': lambda: _test_padded(reader, _colours(), 'bgr8', 6),
        'padded rows, 16UC1': lambda: _test_padded(reader, _wide(), '16UC1', 4),
    }


def _test_round_trip(
    reader: _CvBridgeReader, values: NDArray[Any], encoding: str, desired: str
) -> Iterator[str]:
    message = reader.bridge.cv2_to_imgmsg(values, encoding)
    yield from _differences(image_to_array(message), values, 'in the message')
    yield from _differences(reader.bridge.imgmsg_to_cv2(message, desired), values, 'read back')
    yield from _differences(reader.image_to_rgb(message), image_to_rgb(message), 'as RGB')


def _test_padded(
    reader: _CvBridgeReader, values: NDArray[Any], encoding: str, padding: int
) -> Iterator[str]:
    message = _padded(values, encoding, padding)
    yield from _differences(reader.bridge.imgmsg_to_cv2(message, 'passthrough'), values, 'read')
    yield from _differences(reader.image_to_rgb(message), image_to_rgb(message), 'as RGB')


def _test_png(reader: _CvBridgeReader) -> Iterator[str]:
    from sensor_msgs.msg import CompressedImage

    data = cv2.imencode('.png', _colours())[1].tobytes()
    message = CompressedImage(format='png', data=array.array('B', data))
    yield from _differences(reader.compressed_to_rgb(message), compressed_to_rgb(message), 'as RGB')


def _reads_any_step(reader: _CvBridgeReader) -> bool:
    message = _padded(_colours(), 'bgr8', 1)
    try:
        return not any(_differences(reader.image_to_rgb(message), image_to_rgb(message), ''))
    except ImageConversionError:
        return False


def _differences(found: Any, expected: NDArray[Any], where: str) -> Iterator[str]:
    values = np.asarray(found)
    if (values.dtype, values.shape) != (expected.dtype, expected.shape):
        yield (
            f'{values.dtype} of shape {values.shape} {where}, not {expected.dtype} of '
            f'{expected.shape}'
        )
        return
    wrong = np.argwhere(values != expected)
    if len(wrong):
        first = tuple(int(index) for index in wrong[0])
        yield (
            f'{len(wrong)} of {values.size} values are wrong {where}, the first at {first}: '
            f'{values[first]}, not {expected[first]}'
        )


def _padded(values: NDArray[Any], encoding: str, padding: int) -> Image:
    """An image whose rows have bytes after them that are no pixels."""
    from sensor_msgs.msg import Image

    lines = values.astype(values.dtype.newbyteorder('<')).view(np.uint8).reshape(len(values), -1)
    lines = np.hstack((lines, np.full((len(lines), padding), 173, np.uint8)))
    return Image(
        height=values.shape[0],
        width=values.shape[1],
        encoding=encoding,
        step=lines.shape[1],
        data=array.array('B', lines.tobytes()),
    )


def _colours() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (_HEIGHT, _WIDTH, 3), dtype=np.uint8)


def _wide() -> NDArray[np.uint16]:
    return np.random.default_rng(2).integers(256, 65_536, (_HEIGHT, _WIDTH), dtype=np.uint16)
