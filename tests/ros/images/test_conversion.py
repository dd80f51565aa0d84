from __future__ import annotations

import array
import re
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from clipseg_ros.errors import ImageConversionError
from clipseg_ros.images.conversion import (
    array_to_image,
    compressed_to_rgb,
    depth_to_metres,
    fill_image,
    image_to_rgb,
)
from clipseg_ros.images.encodings import ENCODINGS

HEIGHT, WIDTH = 6, 8


def rgb_picture(height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    return np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8)


def message(
    values: NDArray[Any],
    encoding: str,
    *,
    height: int | None = None,
    padding: int = 0,
    big_endian: bool = False,
) -> Image:
    """An image message of (rows, width[, channels]) values."""
    order = '>' if big_endian else '<'
    stored = values.astype(values.dtype.newbyteorder(order))
    rows = np.ascontiguousarray(stored).view(np.uint8).reshape(len(values), -1)
    if padding:
        # Not zero, so that a converter that reads the padding is found out.
        rows = np.hstack((rows, np.full((len(rows), padding), 173, np.uint8)))
    made = Image()
    made.height, made.width = height or values.shape[0], values.shape[1]
    made.encoding, made.step = encoding, rows.shape[1]
    made.is_bigendian = int(big_endian)
    made.data = array.array('B', rows.tobytes())
    return made


def gray(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return rgb[..., 1].copy()


def wide(values: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """16 bits that scale back to the same 8."""
    return values.astype(np.uint16) * 257


def with_alpha(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.dstack((rgb, np.full(rgb.shape[:2], 9, np.uint8)))


def three(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(values[..., None], 3, axis=2)


RGB = rgb_picture()
BGR = RGB[..., ::-1]
GRAY = gray(RGB)
FLOAT = np.float32(1 / 255)

EXACT: dict[str, tuple[NDArray[Any], NDArray[np.uint8]]] = {
    'rgb8': (RGB, RGB),
    'bgr8': (BGR, RGB),
    'rgba8': (with_alpha(RGB), RGB),
    'bgra8': (with_alpha(BGR), RGB),
    'mono8': (GRAY, three(GRAY)),
    '8UC1': (GRAY, three(GRAY)),
    '8UC3': (BGR, RGB),
    '8UC4': (with_alpha(BGR), RGB),
    'rgb16': (wide(RGB), RGB),
    'bgr16': (wide(BGR), RGB),
    'rgba16': (wide(with_alpha(RGB)), RGB),
    'bgra16': (wide(with_alpha(BGR)), RGB),
    'mono16': (wide(GRAY), three(GRAY)),
    '16UC1': (wide(GRAY), three(GRAY)),
    '16UC3': (wide(BGR), RGB),
    '16UC4': (wide(with_alpha(BGR)), RGB),
    '32FC1': (GRAY * FLOAT, three(GRAY)),
    '32FC3': (BGR * FLOAT, RGB),
    '32FC4': (with_alpha(BGR) * FLOAT, RGB),
    '64FC1': (GRAY / 255.0, three(GRAY)),
    '64FC3': (BGR / 255.0, RGB),
    '64FC4': (with_alpha(BGR) / 255.0, RGB),
}

YUV = ('uyvy', 'yuv422', 'yuyv', 'yuv422_yuy2', 'nv12', 'nv21', 'nv24')
BAYER = [f'bayer_{p}{bits}' for p in ('rggb', 'bggr', 'gbrg', 'grbg') for bits in (8, 16)]


def test_every_encoding_is_tested() -> None:
    assert sorted(ENCODINGS) == sorted([*EXACT, *YUV, *BAYER])


def test_every_encoding_with_colours_of_sensor_msgs_is_known() -> None:
    headers = [*Path(sys.prefix).glob('include/sensor_msgs/sensor_msgs/image_encodings.hpp')]
    if not headers:
        pytest.skip('the header of sensor_msgs is not in this environment')
    text = headers[0].read_text()
    names = dict(re.findall(r'char ([A-Z0-9_]+)\[\] = "([^"]+)"', text))
    assert len(names) > 40
    # The generic types say nothing of colours: of those, the ones of OpenCV's pictures are known.
    coloured = {name for key, name in names.items() if not key.startswith('TYPE_')}
    assert coloured - set(ENCODINGS) == set()


@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize('big_endian', [False, True])
@pytest.mark.parametrize('encoding', EXACT)
def test_exact_encodings(encoding: str, big_endian: bool, padding: int) -> None:
    values, expected = EXACT[encoding]
    rgb = image_to_rgb(message(values, encoding, big_endian=big_endian, padding=padding))
    assert rgb.dtype == np.uint8
    np.testing.assert_array_equal(rgb, expected)


def yuv_of(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """BT.601, limited range."""
    r, g, b = (c / 255 for c in colour)
    y = 16 + 65.481 * r + 128.553 * g + 24.966 * b
    u = 128 - 37.797 * r - 74.203 * g + 112.0 * b
    v = 128 + 112.0 * r - 93.786 * g - 18.214 * b
    return round(y), round(u), round(v)


@pytest.mark.parametrize('padding', [0, 6])
@pytest.mark.parametrize('encoding', YUV)
def test_yuv_encodings(encoding: str, padding: int) -> None:
    left, right = (200, 30, 60), (20, 180, 90)
    halves = [yuv_of(left), yuv_of(right)]
    half_planes = dict.fromkeys(('nv12', 'nv21'), HEIGHT * 3 // 2)
    rows = {**half_planes, 'nv24': HEIGHT * 3}.get(encoding, HEIGHT)
    values = np.zeros((rows, WIDTH) if rows != HEIGHT else (HEIGHT, WIDTH, 2), np.uint8)
    for half, (y, u, v) in enumerate(halves):
        columns = slice(half * WIDTH // 2, (half + 1) * WIDTH // 2)
        if encoding in ('uyvy', 'yuv422'):
            values[:, columns] = np.tile([[u, y], [v, y]], (WIDTH // 4, 1))
        elif encoding in ('yuyv', 'yuv422_yuy2'):
            values[:, columns] = np.tile([[y, u], [y, v]], (WIDTH // 4, 1))
        elif encoding in half_planes:
            values[:HEIGHT, columns] = y
            pair = [v, u] if encoding == 'nv21' else [u, v]
            values[HEIGHT:, columns] = np.tile(pair, WIDTH // 4)
        else:
            values[:HEIGHT, columns] = y
            # A row of U, V pairs is twice as wide as the picture: two rows of the message.
            chroma = values[HEIGHT:].reshape(HEIGHT, 2 * WIDTH)
            chroma[:, half * WIDTH : (half + 1) * WIDTH] = np.tile([u, v], WIDTH // 2)
    rgb = image_to_rgb(message(values, encoding, height=HEIGHT, padding=padding))
    assert rgb.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_allclose(rgb[:, : WIDTH // 2], np.broadcast_to(left, (6, 4, 3)), atol=3)
    np.testing.assert_allclose(rgb[:, WIDTH // 2 :], np.broadcast_to(right, (6, 4, 3)), atol=3)


@pytest.mark.parametrize('big_endian', [False, True])
@pytest.mark.parametrize('encoding', BAYER)
def test_bayer_encodings(encoding: str, big_endian: bool) -> None:
    colour = {'r': 210, 'g': 120, 'b': 30}
    pattern = encoding[len('bayer_') :][:4]
    tile = np.array([colour[letter] for letter in pattern], np.uint8).reshape(2, 2)
    mosaic = np.tile(tile, (HEIGHT // 2, WIDTH // 2))
    values = wide(mosaic) if encoding.endswith('16') else mosaic
    rgb = image_to_rgb(message(values, encoding, big_endian=big_endian))
    np.testing.assert_array_equal(rgb, np.broadcast_to((210, 120, 30), (HEIGHT, WIDTH, 3)))


@pytest.mark.parametrize('encoding', ['rgb8', 'rgba8'])
def test_no_copy_where_none_is_needed(encoding: str) -> None:
    image = message(EXACT[encoding][0], encoding, padding=4)
    assert np.shares_memory(image_to_rgb(image), np.frombuffer(image.data, np.uint8))


def test_sixteen_bits_are_rounded_to_nearest() -> None:
    values = np.array([[0, 127, 129, 65535]], np.uint16)
    np.testing.assert_array_equal(image_to_rgb(message(values, 'mono16'))[0, :, 0], [0, 0, 1, 255])


def broken(**changes: Any) -> Image:
    image = message(RGB, 'rgb8')
    for name, value in changes.items():
        setattr(image, name, value)
    return image


def float_image(value: float) -> Image:
    values = np.full((HEIGHT, WIDTH), 0.5, np.float32)
    values[2, 3] = value
    return message(values, '32FC1')


def yuv_of_odd_width() -> Image:
    return message(np.zeros((4, 5, 2), np.uint8), 'uyvy')


@pytest.mark.parametrize(
    ('image', 'kind', 'words'),
    [
        (broken(encoding='rgb9'), 'encoding', ["'rgb9'", 'rgb8', 'docs/nodes.md']),
        (broken(encoding=''), 'encoding', ["''"]),
        (broken(encoding='x' * 500), 'encoding', ['…']),
        (broken(width=0), 'size', ['0 × 6', 'empty']),
        (broken(height=0), 'size', ['8 × 0', 'empty']),
        (Image(encoding='rgb8'), 'size', ['0 × 0']),
        (broken(step=23), 'step', ['step 23', '24']),
        (broken(step=0), 'step', ['step 0']),
        (broken(width=9), 'step', ['step 24', '27']),
        (broken(height=7), 'data', ['144', '168', 'truncated']),
        (broken(height=5), 'data', ['144', '120', 'mislabelled']),
        (broken(step=25), 'data', ['144', '150']),
        (broken(data=RGB.tobytes()[:100]), 'data', ['100', '144', 'truncated']),
        (broken(data=b''), 'data', ['0 bytes', '144']),
        (broken(encoding='rgb16'), 'step', ['step 24', '48']),
        (broken(height=2**31), 'data', ['144']),
        (float_image(np.nan), 'values', ['1 of 48', 'NaN']),
        (float_image(np.inf), 'values', ['1 of 48', 'infinite']),
        (float_image(255.0), 'values', ['255', '0 to 1', 'rgb8']),
        (float_image(-0.5), 'values', ['-0.5', '0 to 1']),
        (yuv_of_odd_width(), 'size', ['5 × 4', 'even']),
    ],
)
def test_bad_images_say_what_is_wrong(image: Image, kind: str, words: list[str]) -> None:
    with pytest.raises(ImageConversionError) as caught:
        image_to_rgb(image)
    assert caught.value.kind == kind
    for word in words:
        assert word in str(caught.value)


def test_rounding_beyond_white_is_no_error() -> None:
    assert image_to_rgb(float_image(1.0005)).max() == 255


@pytest.mark.parametrize(
    'encoding', ['rgb8', 'bgr8', 'mono8', 'rgb16', 'bayer_rggb8', 'nv12', 'nv21']
)
def test_huge_declared_size_allocates_nothing(encoding: str) -> None:
    image = Image(encoding=encoding, width=2**20, height=2**20, step=2**23, data=b'1234')
    with pytest.raises(ImageConversionError, match='4 bytes'):
        image_to_rgb(image)


# Depth.


def test_depth_in_metres_and_millimetres() -> None:
    metres = np.array([[0.0, 1.25], [np.nan, -1.0], [np.inf, 65.0]], np.float32)
    expected = np.array([[0.0, 1.25], [0.0, 0.0], [0.0, 65.0]], np.float32)
    for big_endian in (False, True):
        depth = depth_to_metres(message(metres, '32FC1', big_endian=big_endian, padding=3))
        assert depth.dtype == np.float32
        np.testing.assert_array_equal(depth, expected)
        stored = np.array([[0, 1250], [2, 65535]], np.uint16)
        depth = depth_to_metres(message(stored, '16UC1', big_endian=big_endian))
        np.testing.assert_allclose(depth, [[0.0, 1.25], [0.002, 65.535]], rtol=1e-6)
        assert depth.dtype == np.float32


def test_depth_of_another_encoding_is_refused() -> None:
    with pytest.raises(ImageConversionError, match=r'rgb8.*REP 118'):
        depth_to_metres(message(RGB, 'rgb8'))


# Compressed.


def encoded(suffix: str, values: NDArray[Any] = BGR) -> bytes:
    good, data = cv2.imencode(suffix, values)
    assert good
    return bytes(data)


def compressed(data: bytes, name: str = 'jpeg') -> CompressedImage:
    return CompressedImage(format=name, data=array.array('B', data))


def test_png_is_exact() -> None:
    picture = rgb_picture(40, 50)
    message = compressed(encoded('.png', picture[..., ::-1]), 'rgb8; png compressed bgr8')
    np.testing.assert_array_equal(compressed_to_rgb(message), picture)


def test_sixteen_bit_and_gray_png() -> None:
    np.testing.assert_array_equal(compressed_to_rgb(compressed(encoded('.png', GRAY))), three(GRAY))
    deep = compressed_to_rgb(compressed(encoded('.png', wide(GRAY))))
    np.testing.assert_array_equal(deep, three(GRAY))


@pytest.mark.parametrize('name', ['mono16; png compressed ', 'mono8; png compressed', '8UC1; png '])
def test_grey_pictures_are_read_whatever_the_plugin_calls_them(name: str) -> None:
    values = wide(GRAY) if '16' in name else GRAY
    rgb = compressed_to_rgb(compressed(encoded('.png', values), name))
    np.testing.assert_array_equal(rgb, three(GRAY))


def test_jpeg_is_close_and_rgb() -> None:
    picture = np.full((48, 64, 3), (220, 40, 90), np.uint8)
    rgb = compressed_to_rgb(compressed(encoded('.jpg', picture[..., ::-1])))
    assert rgb.shape == picture.shape
    np.testing.assert_allclose(rgb, picture, atol=4)


def test_padding_after_a_jpeg_is_no_error() -> None:
    data = encoded('.jpg', np.zeros((48, 64, 3), np.uint8))
    assert compressed_to_rgb(compressed(data + bytes(512))).shape == (48, 64, 3)


def test_orientation_is_left_to_the_stored_pixels() -> None:
    data = encoded('.jpg', np.zeros((48, 64, 3), np.uint8))
    exif = b'Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0'
    segment = b'\xff\xe1' + (len(exif) + 2).to_bytes(2, 'big') + exif
    turned = data[:2] + segment + data[2:]
    applied = cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR)
    assert applied is not None
    assert applied.shape == (64, 48, 3), 'the test picture asks to be turned'
    assert compressed_to_rgb(compressed(turned)).shape == (48, 64, 3)


JPEG, PNG = encoded('.jpg', rgb_picture(64, 64)), encoded('.png', rgb_picture(64, 64))


@pytest.mark.parametrize(
    ('data', 'name', 'kind', 'words'),
    [
        (b'', 'jpeg', 'data', ['without data']),
        (b'no picture at all', 'jpeg', 'format', ['17 bytes', 'JPEG or PNG']),
        (JPEG[: len(JPEG) // 2], 'jpeg', 'data', ['truncated', str(len(JPEG) // 2)]),
        (JPEG[:-2], 'jpeg', 'data', ['truncated']),
        (PNG[: len(PNG) // 2], 'png', 'data', ['truncated']),
        (PNG[:60] + PNG[-12:], 'png', 'format', []),
        (PNG, '16UC1; compressedDepth png', 'format', ['depth']),
        (PNG, '16UC1; png compressed ', 'format', ['16UC1', 'depth, not colour']),
        (PNG, '16UC1;png compressed', 'format', ['depth, not colour']),
        (PNG, '32FC1; tiff compressed', 'format', ['depth, not colour']),
        (PNG, '16SC1; png compressed ', 'format', ['depth, not colour']),
    ],
)
def test_bad_compressed_images(data: bytes, name: str, kind: str, words: list[str]) -> None:
    with pytest.raises(ImageConversionError) as caught:
        compressed_to_rgb(compressed(data, name))
    assert caught.value.kind == kind
    for word in words:
        assert word in str(caught.value)


# Out.


@pytest.mark.parametrize(
    ('pixels', 'encoding', 'step'),
    [(GRAY, 'mono8', 8), (RGB, 'rgb8', 24), (GRAY.astype(np.float32) / 255, '32FC1', 32)],
)
def test_out_and_back(pixels: NDArray[Any], encoding: str, step: int) -> None:
    header = Header(frame_id='lens')
    header.stamp.sec, header.stamp.nanosec = 12, 34
    image = array_to_image(pixels, encoding, header)
    assert isinstance(image.data, array.array)
    assert (image.height, image.width, image.step) == (HEIGHT, WIDTH, step)
    assert image.is_bigendian == (encoding == '32FC1' and sys.byteorder == 'big')
    assert image.header == header
    back = np.frombuffer(image.data, pixels.dtype).reshape(pixels.shape)
    np.testing.assert_array_equal(back, pixels)


def test_a_message_is_used_again() -> None:
    image = array_to_image(RGB, 'rgb8', Header(frame_id='a'))
    memory = image.data
    fill_image(image, RGB[::-1], 'rgb8', Header(frame_id='b'))
    assert image.data is memory
    assert image.header.frame_id == 'b'
    np.testing.assert_array_equal(image_to_rgb(image), RGB[::-1])
    fill_image(image, RGB[:2, :4], 'rgb8', Header())
    assert (image.height, image.width, image.step, len(image.data)) == (2, 4, 12, 24)
    np.testing.assert_array_equal(image_to_rgb(image), RGB[:2, :4])


def test_arrays_that_do_not_fit_their_encoding_are_refused() -> None:
    for pixels, encoding in (
        (RGB, 'mono8'),
        (GRAY, 'rgb8'),
        (GRAY, '32FC1'),
        (RGB, 'bgr8'),
        (RGB[..., :2], 'rgb8'),
        (GRAY.ravel(), 'mono8'),
    ):
        with pytest.raises(ValueError, match=r'no|not one of'):
            array_to_image(pixels, encoding, Header())
