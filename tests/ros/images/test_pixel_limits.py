"""Images are refused by what they state, before memory is taken for them."""

from __future__ import annotations

import io
import time

import cv2
import pytest
from PIL import Image
from ros_peers import picture
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from clipseg_ros.errors import ImageConversionError
from clipseg_ros.images.conversion import array_to_image, compressed_to_rgb, image_to_rgb
from clipseg_ros.segment.parameters import Settings
from tests.fuzz.mutations import guarded

RGB = picture(24, 32)
JPEG, PNG = (cv2.imencode(kind, RGB)[1].tobytes() for kind in ('.jpg', '.png'))


def compressed(data: bytes, name: str = 'jpeg') -> CompressedImage:
    return CompressedImage(format=name, data=data)


def bomb(width: int, height: int) -> bytes:
    """A JPEG that states another size than it has data for."""
    at = JPEG.index(b'\xff\xc0') + 5
    return JPEG[:at] + height.to_bytes(2, 'big') + width.to_bytes(2, 'big') + JPEG[at + 4 :]


def progressive(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new('RGB', (width, height), (90, 80, 70)).save(buffer, 'JPEG', progressive=True)
    return buffer.getvalue()


def test_what_a_header_states_is_bounded_before_memory_is_taken() -> None:
    with guarded(20, 1 << 28), pytest.raises(ImageConversionError) as caught:
        compressed_to_rgb(compressed(bomb(32_000, 4_000), 'jpeg'))
    assert caught.value.kind == 'size'
    assert '32000 × 4000 pixels, and at most 100000000' in str(caught.value)
    for read, image in (
        (compressed_to_rgb, compressed(PNG, 'png')),
        (image_to_rgb, array_to_image(RGB, 'rgb8', Header())),
    ):
        size = read(image).size // 3
        assert read(image, size).size == 3 * size
        with pytest.raises(ImageConversionError, match='max_pixels') as caught:
            read(image, size - 1)
        assert caught.value.kind == 'size'


def test_a_jpeg_of_many_scans_costs_no_more_than_a_large_one() -> None:
    """Each scan goes over all pixels, however few bytes it has."""
    data = progressive(600, 500)
    last = data.rindex(b'\xff\xda')
    many = data[:last] + data[last:-2] * 30 + data[-2:]
    assert compressed_to_rgb(compressed(many)).shape == (500, 600, 3)
    assert compressed_to_rgb(compressed(data), 300_000).shape == (500, 600, 3)
    with pytest.raises(ImageConversionError, match=r'300000 pixels in \d+ scans') as caught:
        compressed_to_rgb(compressed(many), 300_000)
    assert caught.value.kind == 'format'


def test_the_largest_that_a_node_takes_is_read_within_a_second_or_two() -> None:
    """As it is by default; of processor time, so that other work does not count."""
    most = Settings().max_pixels
    assert 5120 * 5120 <= most <= 30_000_000
    data = progressive(5000, most // 5000)
    last = data.rindex(b'\xff\xda')
    room = 20 - data.count(b'\xff\xda')
    data = data[:last] + data[last:-2] * (room + 1) + data[-2:]
    begin = time.process_time()
    assert compressed_to_rgb(compressed(data), most).size == 3 * most
    assert time.process_time() - begin < 2.0
    more = data[:-2] + b'\xff\xda' + data[-2:]
    with pytest.raises(ImageConversionError, match='21 scans, and at most 20 are read'):
        compressed_to_rgb(compressed(more), most)


def test_only_formats_of_the_list_are_decoded() -> None:
    other = cv2.imencode('.ras', RGB)[1].tobytes()
    with pytest.raises(ImageConversionError, match='none of BMP, JPEG'):
        compressed_to_rgb(compressed(other, 'jpeg'))
