"""Images are refused by what they state, before memory is taken for them."""

from __future__ import annotations

import cv2
import pytest
from ros_peers import picture
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from clipseg_ros.errors import ImageConversionError
from clipseg_ros.images.conversion import array_to_image, compressed_to_rgb, image_to_rgb
from tests.fuzz.mutations import guarded

RGB = picture(24, 32)
JPEG, PNG = (cv2.imencode(kind, RGB)[1].tobytes() for kind in ('.jpg', '.png'))


def compressed(data: bytes, name: str = 'jpeg') -> CompressedImage:
    return CompressedImage(format=name, data=data)


def bomb(width: int, height: int) -> bytes:
    """A JPEG that states another size than it has data for."""
    at = JPEG.index(b'\xff\xc0') + 5
    return JPEG[:at] + height.to_bytes(2, 'big') + width.to_bytes(2, 'big') + JPEG[at + 4 :]


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


def test_only_formats_of_the_list_are_decoded() -> None:
    other = cv2.imencode('.ras', RGB)[1].tobytes()
    with pytest.raises(ImageConversionError, match='none of BMP, JPEG'):
        compressed_to_rgb(compressed(other, 'jpeg'))
