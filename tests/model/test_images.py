from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipseg_model.errors import ImageError
from clipseg_model.images import check_image, read_image, read_mask


def test_an_image_is_height_width_three_uint8() -> None:
    check_image(np.zeros((1, 1, 3), np.uint8))
    check_image(np.zeros((480, 640, 3), np.uint8)[::2, ::-1])


@pytest.mark.parametrize(
    ('image', 'message'),
    [
        (np.zeros((4, 5), np.uint8), r'uint8 of shape \(4, 5\); .*GRAY2RGB'),
        (np.zeros((4, 5, 1), np.uint8), 'GRAY2RGB'),
        (np.zeros((4, 5, 4), np.uint8), r'image\[:, :, :3\]'),
        (np.zeros((3, 4, 5), np.uint8), 'channels last'),
        (np.zeros((2, 4, 5, 3), np.uint8), 'one by one'),
        (np.zeros((0, 5, 3), np.uint8), r'no pixels: its shape is \(0, 5, 3\)'),
        (np.zeros((4, 0, 3), np.uint8), 'no pixels'),
        (np.full((4, 5, 3), 0.5), r'float64.*image \* 255'),
        (np.full((4, 5, 3), 200, np.float32), 'scale it to 0…255'),
        (np.full((4, 5, 3), np.nan, np.float32), 'float32.*NaN'),
        (np.zeros((4, 5, 3), np.uint16), 'uint16.*scale it'),
        (np.zeros((4, 5, 3), bool), 'bool'),
        ([[[0, 0, 0]]], 'not list'),
        (None, 'not NoneType'),
    ],
)
def test_anything_else_is_refused_with_the_remedy(image: object, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        check_image(image)


class TestReading:
    def test_colours_are_rgb(self, tmp_path: Path) -> None:
        Image.new('RGB', (5, 4), (200, 100, 50)).save(tmp_path / 'a.png')
        image = read_image(tmp_path / 'a.png')
        assert image.shape == (4, 5, 3)
        assert image.dtype == np.uint8
        assert image[0, 0].tolist() == [200, 100, 50]

    @pytest.mark.parametrize('mode', ['L', '1', 'P', 'RGBA', 'LA', 'CMYK', 'YCbCr'])
    def test_other_modes_become_rgb(self, tmp_path: Path, mode: str) -> None:
        path = tmp_path / 'a.tiff'
        Image.new('RGB', (5, 4), (255, 255, 255)).convert(mode).save(path)
        image = read_image(path)
        assert image.shape == (4, 5, 3)
        assert image.min() >= 254

    def test_orientation_is_applied(self, tmp_path: Path) -> None:
        picture = Image.new('RGB', (6, 4))
        exif = picture.getexif()
        exif[0x0112] = 6  # rotated by a quarter turn
        picture.save(tmp_path / 'a.jpg', exif=exif)
        assert read_image(tmp_path / 'a.jpg').shape == (6, 4, 3)

    def test_truncated_file(self, tmp_path: Path) -> None:
        noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        path = tmp_path / 'a.jpg'
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(ImageError, match=r'a\.jpg cannot be read.*truncated'):
            read_image(path)

    @pytest.mark.parametrize('content', [b'', b'not an image', b'\x89PNG\r\n\x1a\n'])
    def test_damaged_file(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / 'a.png'
        path.write_bytes(content)
        with pytest.raises(ImageError, match=r'a\.png cannot be read as an image'):
            read_image(path)

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match='no image file'):
            read_image(tmp_path / 'none.png')
        with pytest.raises(ImageError, match='no image file'):
            read_image(tmp_path)

    def test_more_than_eight_bits(self, tmp_path: Path) -> None:
        Image.fromarray(np.full((4, 5), 40_000, np.uint16)).save(tmp_path / 'depth.png')
        with pytest.raises(ImageError, match='more than 8 bits'):
            read_image(tmp_path / 'depth.png')

    def test_more_pixels_than_pillow_reads(self, tmp_path: Path) -> None:
        path = tmp_path / 'large.png'
        Image.new('1', (20_000, 10_000)).save(path)
        words = r'large\.png cannot be read as an image: it has more than 178956970 pixels; convert'
        for read in (read_image, read_mask):
            with pytest.raises(ImageError, match=words) as caught:
                read(path)
            assert 'bomb' not in str(caught.value)

    def test_what_pillow_only_warns_of(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
    ) -> None:
        Image.new('RGB', (40, 30)).save(tmp_path / 'a.png')
        monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
        assert read_image(tmp_path / 'a.png').shape == (30, 40, 3)
        assert len(recwarn) == 0

    @pytest.mark.parametrize(
        'error', [MemoryError(), KeyError('x'), IndexError(), OverflowError('y'), TypeError('z')]
    )
    def test_whatever_a_decoder_raises(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        def fail(*words: object) -> None:
            raise error

        (tmp_path / 'a.png').touch()
        monkeypatch.setattr(Image, 'open', fail)
        reason = str(error) or type(error).__name__
        with pytest.raises(ImageError, match=f'a.png cannot be read as an image: {reason}'):
            read_image(tmp_path / 'a.png')

    def test_a_name_that_is_too_long(self) -> None:
        with pytest.raises(ImageError, match=r'cannot be read as an image: .*too long'):
            read_image('x' * 300)

    def test_mask(self, tmp_path: Path) -> None:
        values = np.array([[0, 127, 128, 255]], np.uint8)
        Image.fromarray(values).save(tmp_path / 'mask.png')
        assert read_mask(tmp_path / 'mask.png').tolist() == [[False, False, True, True]]
