"""What reads the camera's images: the package's own converter, or cv_bridge where it is installed.

Where cv_bridge misreads an image it gives wrong pixels and no error, and its versions differ in
what they misread. So it has to agree with :mod:`clipseg_ros.images.conversion` on test images
first, and only reads images that pass the checks of that module.
"""

from __future__ import annotations

import array
import importlib
import importlib.util
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from clipseg_model.images import MAX_PIXELS
from clipseg_ros.errors import ImageBackendError, ImageConversionError
from clipseg_ros.images.conversion import (
    check_compressed,
    check_layout,
    compressed_to_rgb,
    find_encoding,
    image_to_rgb,
)
from clipseg_ros.images.encodings import ENCODINGS

if TYPE_CHECKING:
    from sensor_msgs.msg import CompressedImage, Image

BUILTIN, CV_BRIDGE = 'builtin', 'cv_bridge'
BACKENDS = (BUILTIN, CV_BRIDGE)

_INSTEAD = f'set image_backend to {BUILTIN}'
# OpenCV's types, such as 16UC1: cv_bridge knows no colour of theirs and returns the values alone.
_GENERIC = re.compile(r'\d+[USF]C\d+')


@dataclass(frozen=True)
class ImageBackend:
    """What reads an Image, or a CompressedImage, as RGB uint8 (H, W, 3).

    ``to_rgb`` takes a message, and the most pixels that it may have; it raises an
    ImageConversionError where it cannot read it. ``notice`` is for the user.
    """

    to_rgb: Callable[..., NDArray[np.uint8]]
    notice: str = ''


def open_backend(name: str, compressed: bool = False) -> ImageBackend:
    """Return one of :data:`BACKENDS` for Image or CompressedImage messages, after a self-test.

    Raises:
        ImageBackendError: There is no such backend, it is not installed, cannot be imported, or
            fails its self-test.
    """
    own = compressed_to_rgb if compressed else image_to_rgb
    if name == BUILTIN:
        return ImageBackend(own)
    if name != CV_BRIDGE:
        raise ImageBackendError(f'image_backend {name!r} is not one of {", ".join(BACKENDS)}')
    bridge, place = _load_cv_bridge()
    reader = _CvBridgeReader(bridge)
    to_rgb = reader.compressed_to_rgb if compressed else reader.image_to_rgb
    notice = f'images are read by cv_bridge in {place}, which passed its self-test'
    for case, message in _test_messages(compressed).items():
        problem = _difference(to_rgb, own, message)
        if problem and not compressed and message.step % _pixel_bytes(message):
            reader.any_step = False
            notice += (
                '; it misreads rows that are padded by parts of a pixel, so images of such a step '
                'are dropped with a warning'
            )
        elif problem:
            raise ImageBackendError(
                f'cv_bridge in {place} fails its self-test ({case}: {problem}), so it is not used: '
                f'masks would be of wrong pixels. Remedy: {_INSTEAD}, or install another version '
                'of cv_bridge'
            )
    return ImageBackend(to_rgb, notice)


class _CvBridgeReader:
    """Reads images with cv_bridge, and raises ImageConversionError for bad ones.

    ``any_step`` says whether it reads rows whose bytes are no whole number of pixels.
    """

    def __init__(self, bridge: Any) -> None:
        self._bridge = bridge
        self.any_step = True

    def image_to_rgb(self, message: Image, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
        """Return the pixels of an image: RGB uint8 (H, W, 3)."""
        encoding = find_encoding(message.encoding)
        check_layout(message, encoding, max_pixels)
        pixel_bytes = _pixel_bytes(message)
        if message.step % pixel_bytes and not self.any_step:
            raise ImageConversionError(
                'step',
                f'step {message.step} is no whole number of {message.encoding} pixels of '
                f'{pixel_bytes} bytes, and this cv_bridge misreads such rows; {_INSTEAD}',
            )
        what = f'{message.encoding} image of {message.width} × {message.height}'
        size = (message.height, message.width)
        if not _GENERIC.fullmatch(message.encoding):
            rgb = self._ask(what, lambda: self._bridge.imgmsg_to_cv2(message, 'rgb8'))
            return _checked(rgb, what, np.dtype(np.uint8), (*size, 3))
        values = self._ask(what, lambda: self._bridge.imgmsg_to_cv2(message, 'passthrough'))
        shape = size if encoding.channels == 1 else (*size, encoding.channels)
        return encoding.to_rgb(_checked(values, what, encoding.dtype, shape))

    def compressed_to_rgb(
        self, message: CompressedImage, max_pixels: int = MAX_PIXELS
    ) -> NDArray[np.uint8]:
        """Return the pixels of a compressed image: RGB uint8 (H, W, 3)."""
        check_compressed(message, max_pixels)
        what = f'compressed image of {len(message.data)} bytes'
        # As they are, because it takes every picture for one of three channels of 8 bits.
        values = self._ask(
            what, lambda: self._bridge.compressed_imgmsg_to_cv2(message, 'passthrough')
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


def _pixel_bytes(message: Image) -> int:
    encoding = find_encoding(message.encoding)
    return encoding.channels * encoding.dtype.itemsize


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
    """Return a CvBridge, and where it comes from."""
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


def _test_messages(compressed: bool) -> dict[str, Any]:
    """Return messages of random pixels; sides and channels differ, to tell them apart."""
    from sensor_msgs.msg import CompressedImage, Image

    random = np.random.default_rng(1)
    colours = random.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    if compressed:
        data = cv2.imencode('.png', colours)[1].tobytes()
        return {'PNG': CompressedImage(format='png', data=array.array('B', data))}
    wide = random.integers(256, 65_536, (5, 7)).astype('<u2')
    messages = {}
    for encoding, values, padding in (
        *(('bgr8', colours, 0), ('bgr8', colours, 6), ('bgr8', colours, 1)),
        *(('16UC1', wide, 0), ('16UC1', wide, 4)),
    ):
        rows = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)
        rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=173)
        plural = '' if padding == 1 else 's'
        messages[f'{encoding}, rows padded by {padding} byte{plural}'] = Image(
            height=values.shape[0],
            width=values.shape[1],
            encoding=encoding,
            step=rows.shape[1],
            data=array.array('B', rows.tobytes()),
        )
    return messages


def _difference(
    to_rgb: Callable[[Any], NDArray[np.uint8]],
    expected: Callable[[Any], NDArray[np.uint8]],
    message: Any,
) -> str:
    try:
        found = to_rgb(message)
        wrong = np.count_nonzero(found != expected(message))
    # Whatever it raises says that it does not work.
    except Exception as error:
        return f'{type(error).__name__}: {error}'
    return f'{wrong} of {found.size} values are wrong' if wrong else ''
