from __future__ import annotations

import contextlib
import io
import os
import struct
from pathlib import Path
from typing import Any
from zlib import compress, crc32

import numpy as np
import pytest
from PIL import Image

from clipseg_model.errors import ImageError
from clipseg_model.images import (
    FORMATS,
    MAX_PIXELS,
    check_encoded,
    check_image,
    native_name,
    read_image,
    read_mask,
)
from tests.fuzz.mutations import guarded


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

    def test_more_pixels_than_are_allowed(self, tmp_path: Path) -> None:
        Image.new('RGB', (40, 30)).save(tmp_path / 'a.png')
        assert read_image(tmp_path / 'a.png', 1200).shape == (30, 40, 3)
        for read in (read_image, read_mask):
            with pytest.raises(ImageError, match=r'a\.png has 40 × 30 pixels, and at most 1199'):
                read(tmp_path / 'a.png', 1199)

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
        def fail(*words: object, **options: object) -> None:
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


def bmp(width: int, height: int) -> bytes:
    """A BMP that states a size and has no pixels."""
    header = struct.pack('<IiiHHIIiiII', 40, width, height, 1, 24, 0, 0, 1, 1, 0, 0)
    return b'BM' + struct.pack('<IHHI', 1000, 0, 0, 54) + header + bytes(946)


def jpeg(width: int, height: int, scans: int = 0) -> bytes:
    """A small JPEG that states another size; its scans may be repeated."""
    buffer = io.BytesIO()
    Image.new('RGB', (8, 8)).save(buffer, 'JPEG', progressive=True)
    data = buffer.getvalue()
    at = data.index(b'\xff\xc2') + 5
    data = data[:at] + struct.pack('>HH', height, width) + data[at + 4 :]
    last = data.rindex(b'\xff\xda')
    return data[:last] + data[last:-2] * (scans + 1) + data[-2:]


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', crc32(kind + data))

    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', compress(bytes(1000)))


def tiff(width: int, height: int) -> bytes:
    fields = ((256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1))
    entries = [struct.pack('<HHII', tag, 4, 1, value) for tag, value in (*fields, (278, height))]
    more = struct.pack('<HHII', 279, 4, 1, width * height % 2**32)
    return b'II*\0\x08\0\0\0' + struct.pack('<H', 9) + b''.join([*entries, more]) + bytes(4)


class TestBombs:
    """A header is believed only as far as memory and time allow."""

    @pytest.mark.parametrize('make', [bmp, jpeg, png, tiff])
    @pytest.mark.parametrize('size', [(30_000, 30_000), (12_000, 12_000), (65_000, 2_000)])
    def test_pictures_that_claim_to_be_large(
        self, tmp_path: Path, make: Any, size: tuple[int, int]
    ) -> None:
        path = tmp_path / 'a.png'
        path.write_bytes(make(*size))
        for read in (read_image, lambda path: check_encoded(path.read_bytes())):
            with guarded(2, 100 << 20), pytest.raises(ImageError, match=r'pixels'):
                read(path)

    @pytest.mark.parametrize('make', [bmp, jpeg, png, tiff])
    def test_claims_that_are_allowed_cost_what_they_claim(self, tmp_path: Path, make: Any) -> None:
        path = tmp_path / 'a.png'
        path.write_bytes(make(2000, 1000))
        assert check_encoded(path.read_bytes()) == (2000, 1000)
        with guarded(5, 200 << 20), contextlib.suppress(ImageError):
            assert read_image(path).shape == (1000, 2000, 3)

    def test_scans_without_end(self, tmp_path: Path) -> None:
        path = tmp_path / 'a.jpg'
        path.write_bytes(jpeg(9000, 9000, 4000))
        for read in (read_image, lambda path: check_encoded(path.read_bytes())):
            with guarded(2, 100 << 20), pytest.raises(ImageError, match=r'in 40\d\d scans'):
                read(path)
        # A picture of the largest size has fewer, for as much work.
        path.write_bytes(jpeg(9000, 9000, 30))
        with (
            guarded(2, 100 << 20),
            pytest.raises(ImageError, match=r'in 4\d scans, and at most 24'),
        ):
            check_encoded(path.read_bytes())
        path.write_bytes(jpeg(9000, 9000, 12))
        assert check_encoded(path.read_bytes()) == (9000, 9000)
        with pytest.raises(ImageError, match=r'in 2\d scans, and at most 20'):
            check_encoded(path.read_bytes(), 81_000_000)
        path.write_bytes(jpeg(8, 8, 50))
        assert read_image(path).shape == (8, 8, 3)

    def test_a_file_of_a_terabyte(self, tmp_path: Path) -> None:
        path = tmp_path / 'a.webp'
        with path.open('wb') as file:
            file.write(b'RIFF\xff\xff\xff\x7fWEBPVP8X')
            file.truncate(1 << 40)
        with guarded(2, 100 << 20), pytest.raises(ImageError, match='bytes, and no picture of'):
            read_image(path)


class TestKinds:
    def test_other_formats_are_refused_whatever_they_are_called(self, tmp_path: Path) -> None:
        assert set(FORMATS) == {'BMP', 'JPEG', 'PNG', 'PPM', 'TIFF', 'WEBP'}
        (tmp_path / 'a.jpg').write_text('%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n')
        for kind in ('gif', 'ico', 'pcx', 'tga', 'jp2', 'eps', 'pdf'):
            path = tmp_path / f'{kind}.png'
            Image.new('RGB', (8, 8)).save(path, kind if kind != 'jp2' else 'jpeg2000')
        for path in tmp_path.iterdir():
            with pytest.raises(ImageError, match='none of BMP, JPEG, PNG, PPM, TIFF, WEBP'):
                read_image(path)

    @pytest.mark.parametrize('kind', FORMATS)
    def test_those_that_are_read(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / 'a.jpg'
        Image.new('RGB', (8, 6), (90, 90, 90)).save(path, kind)
        assert read_image(path).shape == (6, 8, 3)
        assert check_encoded(path.read_bytes()) == (8, 6)

    @pytest.mark.parametrize('target', ['/dev/zero', '/dev/urandom', '/dev/null', 'pipe'])
    def test_what_is_no_file(self, tmp_path: Path, target: str) -> None:
        link = tmp_path / 'a.png'
        if target == 'pipe':
            os.mkfifo(link)
        else:
            link.symlink_to(target)
        with guarded(2, 100 << 20), pytest.raises(ImageError, match='no image file'):
            read_image(link)

    def test_names_that_are_no_text(self, tmp_path: Path) -> None:
        path = tmp_path / os.fsdecode(b'a\xff.png')
        Image.new('RGB', (8, 6)).save(path)
        assert read_image(path).shape == (6, 8, 3)
        with pytest.raises(ImageError, match=r'not UTF-8: rename'):
            native_name(path)
        assert native_name(Path('/茶碗 é.png')) == '/茶碗 é.png'

    def test_the_default_is_a_tenth_of_a_gigapixel(self) -> None:
        assert MAX_PIXELS == 100_000_000
