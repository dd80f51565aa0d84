"""What the pixels of every known ``sensor_msgs/Image`` encoding mean, as RGB.

Source: ``sensor_msgs/image_encodings.hpp``. Conventions where that file leaves a choice:

- OpenCV's generic types carry OpenCV's channel order: ``8UC3`` is BGR, ``8UC4`` is BGRA.
- 16-bit values span 0…65,535 and are scaled to 0…255; ``16UC1`` like ``mono16``.
- Float values span 0…1 and are scaled to 0…255; anything else, NaN included, is an error.
- YUV is ITU-R BT.601 with limited range, as cameras send it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from clipseg_ros.errors import ImageConversionError

Pixels = NDArray[Any]
Rgb = NDArray[np.uint8]

# A filter that overshoots white by rounding is no reason to drop a frame.
_FLOAT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Encoding:
    """Memory layout of an encoding, and its conversion to RGB.

    Attributes:
        dtype: Type of one value.
        channels: Values of a pixel, within one row of the message.
        to_rgb: Converts (rows, width, channels), or (rows, width) for one channel, in the
            machine's byte order, to RGB uint8 of shape (height, width, 3).
        rows: Rows of the message per row of the image; more than 1 where planes follow each other.
        even_width: Whether pixels share colour in pairs along a row.
        even_height: Whether rows share colour in pairs.
    """

    dtype: np.dtype[Any]
    channels: int
    to_rgb: Callable[[Pixels], Rgb]
    rows: Fraction = Fraction(1)
    even_width: bool = False
    even_height: bool = False


def _same(pixels: Pixels) -> Rgb:
    return pixels


def _drop_alpha(pixels: Pixels) -> Rgb:
    return pixels[..., :3]


def _opencv(code: int) -> Callable[[Pixels], Rgb]:
    def convert(pixels: Pixels) -> Rgb:
        return np.asarray(cv2.cvtColor(pixels, code), dtype=np.uint8)

    return convert


def _to_eight_bits(pixels: Pixels) -> Rgb:
    """Scale 0…65,535 to 0…255, rounding to nearest."""
    return np.asarray(cv2.convertScaleAbs(pixels, alpha=255.0 / 65535.0), dtype=np.uint8)


def _from_sixteen(code: int | None, last: Callable[[Pixels], Rgb] = _same) -> Any:
    """Return OpenCV's conversion at 16 bits, which keeps its precision, followed by scaling."""

    def convert(pixels: Pixels) -> Rgb:
        return last(_to_eight_bits(pixels if code is None else cv2.cvtColor(pixels, code)))

    return convert


def _from_float(last: Callable[[Pixels], Rgb]) -> Callable[[Pixels], Rgb]:
    def convert(pixels: Pixels) -> Rgb:
        low, high = float(pixels.min()), float(pixels.max())
        # The minimum of an array with NaN is NaN, and no comparison with it is true.
        if not (low >= -_FLOAT_TOLERANCE and high <= 1.0 + _FLOAT_TOLERANCE):
            _refuse_float(pixels)
        return last(np.asarray(cv2.convertScaleAbs(np.clip(pixels, 0.0, 1.0), alpha=255.0)))

    return convert


def _refuse_float(pixels: Pixels) -> None:
    finite = np.isfinite(pixels)
    bad = pixels.size - int(np.count_nonzero(finite))
    if bad:
        raise ImageConversionError(
            'values',
            f'{bad} of {pixels.size} values of the float image are NaN or infinite; '
            'fill them before publishing (a depth image belongs on another topic)',
        )
    raise ImageConversionError(
        'values',
        f'float image with values from {pixels.min():.6g} to {pixels.max():.6g}: a colour '
        'image in floats spans 0 to 1; divide by its range, or publish rgb8 '
        '(a depth image belongs on another topic)',
    )


def _nv24_to_rgb(planes: Pixels) -> Rgb:
    """Convert a Y plane and interleaved U and V of full resolution: BT.601, limited range."""
    height, width = planes.shape[0] // 3, planes.shape[1]
    luma = np.ascontiguousarray(planes[:height])
    chroma = np.ascontiguousarray(planes[height:]).reshape(height, width, 2)
    yuv = np.dstack((luma, chroma))
    matrix = np.array([[1.164384, 0.0, 1.596027], [1.164384, -0.391762, -0.812968],
                       [1.164384, 2.017232, 0.0]])  # fmt: skip
    offset = -matrix @ np.array([16.0, 128.0, 128.0])
    return np.asarray(cv2.transform(yuv, np.column_stack((matrix, offset))), dtype=np.uint8)


_GRAY = _opencv(cv2.COLOR_GRAY2RGB)
_BGR = _opencv(cv2.COLOR_BGR2RGB)
_BGRA = _opencv(cv2.COLOR_BGRA2RGB)

# OpenCV names a pattern by the four pixels that start at the second row and column.
_BAYER = {
    'bayer_rggb': cv2.COLOR_BayerBG2RGB,
    'bayer_bggr': cv2.COLOR_BayerRG2RGB,
    'bayer_gbrg': cv2.COLOR_BayerGR2RGB,
    'bayer_grbg': cv2.COLOR_BayerGB2RGB,
}


def _table() -> dict[str, Encoding]:
    u8, u16 = np.dtype(np.uint8), np.dtype(np.uint16)
    uyvy = Encoding(u8, 2, _opencv(cv2.COLOR_YUV2RGB_UYVY), even_width=True)
    yuyv = Encoding(u8, 2, _opencv(cv2.COLOR_YUV2RGB_YUY2), even_width=True)
    table = {
        'rgb8': Encoding(u8, 3, _same),
        'rgba8': Encoding(u8, 4, _drop_alpha),
        'bgr8': Encoding(u8, 3, _BGR),
        'bgra8': Encoding(u8, 4, _BGRA),
        'mono8': Encoding(u8, 1, _GRAY),
        '8UC1': Encoding(u8, 1, _GRAY),
        '8UC3': Encoding(u8, 3, _BGR),
        '8UC4': Encoding(u8, 4, _BGRA),
        'rgb16': Encoding(u16, 3, _from_sixteen(None)),
        'rgba16': Encoding(u16, 4, _from_sixteen(None, _drop_alpha)),
        'bgr16': Encoding(u16, 3, _from_sixteen(None, _BGR)),
        'bgra16': Encoding(u16, 4, _from_sixteen(None, _BGRA)),
        'mono16': Encoding(u16, 1, _from_sixteen(None, _GRAY)),
        '16UC1': Encoding(u16, 1, _from_sixteen(None, _GRAY)),
        '16UC3': Encoding(u16, 3, _from_sixteen(None, _BGR)),
        '16UC4': Encoding(u16, 4, _from_sixteen(None, _BGRA)),
        'uyvy': uyvy,
        'yuv422': uyvy,
        'yuyv': yuyv,
        'yuv422_yuy2': yuyv,
        'nv12': Encoding(u8, 1, _opencv(cv2.COLOR_YUV2RGB_NV12), Fraction(3, 2), True, True),
        'nv21': Encoding(u8, 1, _opencv(cv2.COLOR_YUV2RGB_NV21), Fraction(3, 2), True, True),
        'nv24': Encoding(u8, 1, _nv24_to_rgb, Fraction(3)),
    }
    for bits, dtype in ((32, np.dtype(np.float32)), (64, np.dtype(np.float64))):
        table[f'{bits}FC1'] = Encoding(dtype, 1, _from_float(_GRAY))
        table[f'{bits}FC3'] = Encoding(dtype, 3, _from_float(_BGR))
        table[f'{bits}FC4'] = Encoding(dtype, 4, _from_float(_BGRA))
    for name, code in _BAYER.items():
        table[f'{name}8'] = Encoding(u8, 1, _opencv(code), even_width=True, even_height=True)
        table[f'{name}16'] = Encoding(
            u16, 1, _from_sixteen(code), even_width=True, even_height=True
        )
    return table


ENCODINGS: dict[str, Encoding] = _table()
