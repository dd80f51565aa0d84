"""Images as this package takes them, and files of images and videos on disk."""

from __future__ import annotations

import io
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from clipseg_model.errors import ImageError

IMAGE_SUFFIXES = frozenset(['.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp'])
VIDEO_SUFFIXES = frozenset(['.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.webm'])

FORMATS = ('BMP', 'JPEG', 'PNG', 'PPM', 'TIFF', 'WEBP')
"""Formats of picture files that are read, whatever a file is called.

Pillow knows some forty more, among them PostScript, for which it starts another program.
"""

MAX_PIXELS = 100_000_000
"""Most pixels of a picture that are read, unless its reader says otherwise: 0.3 GB as RGB."""

LARGEST = 178_956_970
"""Most pixels that Pillow reads, and so the largest limit there is."""

# Progressive ones have about ten scans, and previews inside a file have some of their own. Each
# scan goes over all pixels, so that a large picture may have fewer of them.
_JPEG_START, _JPEG_SCAN = b'\xff\xd8', b'\xff\xda'
_MOST_SCANS, _MOST_SCANS_OF_THE_LARGEST = 200, 20

# Of a file beside its pixels: profiles, previews, further pages. A pixel has 8 bytes at most.
_MORE_BYTES = 1 << 26


def check_image(image: object, what: str = 'The image') -> None:
    """Raise ImageError unless an image is a numpy array (H, W, 3) of uint8 with a pixel at least.

    ``what`` is how the message calls it.
    """
    if not isinstance(image, np.ndarray):
        raise ImageError(
            f'{what} must be a numpy array (H, W, 3) of uint8 RGB, not {type(image).__name__}; '
            'numpy.asarray converts a PIL image'
        )
    seen = f'not {image.dtype} of shape {image.shape}'
    if image.ndim != 3 or image.shape[2] != 3:
        remedy = ''
        if image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1):
            remedy = '; cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) makes a gray image RGB'
        elif image.ndim == 3 and image.shape[2] == 4:
            remedy = '; image[:, :, :3] drops the alpha channel'
        elif image.ndim == 3 and image.shape[0] == 3:
            remedy = '; image.transpose(1, 2, 0) moves the channels last'
        elif image.ndim == 4:
            remedy = '; give the images of a batch one by one'
        raise ImageError(f'{what} must be (H, W, 3) uint8 RGB, {seen}{remedy}')
    if not image.size:
        raise ImageError(f'{what} has no pixels: its shape is {image.shape}')
    if image.dtype != np.uint8:
        remedy = '; scale it to 0…255 and convert it with .astype(numpy.uint8)'
        if np.issubdtype(image.dtype, np.floating):
            if not np.isfinite(image).all():
                seen += ', and it holds NaN or infinity'
            elif image.min() >= 0 and image.max() <= 1:
                remedy = '; (image * 255).round().astype(numpy.uint8) converts 0…1'
        raise ImageError(f'{what} must be (H, W, 3) uint8 RGB, {seen}{remedy}')


def check_pixels(
    width: int, height: int, max_pixels: int = MAX_PIXELS, what: str = 'The image'
) -> None:
    """Raise ImageError for a picture of more than ``max_pixels`` pixels, or of none.

    ``what`` is how the message calls it.
    """
    if width < 1 or height < 1:
        raise ImageError(f'{what} has no pixels: it is {width} × {height}')
    if width * height > max_pixels:
        raise ImageError(
            f'{what} has {width} × {height} pixels, and at most {max_pixels} are read: convert it '
            'to a smaller one, or allow more (max_pixels, --max-pixels)'
        )


def check_encoded(
    data: bytes | bytearray | memoryview,
    max_pixels: int = MAX_PIXELS,
    what: str = 'The picture',
) -> tuple[int, int]:
    """Return width and height of an encoded picture, pixels; nothing is decoded.

    Decoders allocate what a header states, which may be gigabytes of a file of a kilobyte: ask
    this before one is called.

    Raises:
        ImageError: It is no picture of one of :data:`FORMATS`, states more than ``max_pixels``
            pixels, or would take long to decode for its size. ``what`` is how the message calls it.
    """
    with _opened(io.BytesIO(data), what) as opened:
        width, height = opened.size
        check_pixels(width, height, max_pixels, what)
        check_scans(bytes(data), width * height, max_pixels, what)
        return width, height


def check_scans(
    data: bytes, pixels: int, max_pixels: int = MAX_PIXELS, what: str = 'The picture'
) -> None:
    """Raise ImageError for a JPEG that goes over its pixels again and again, for a few bytes each.

    Twenty times ``max_pixels`` may be gone over, and 200 scans may be made. Other formats pass.
    """
    # Two bytes that the coded values never hold.
    scans = data.count(_JPEG_SCAN) if data.startswith(_JPEG_START) else 0
    most = min(_MOST_SCANS, _MOST_SCANS_OF_THE_LARGEST * max_pixels // max(1, pixels))
    if scans > most:
        raise ImageError(
            f'{what} is a JPEG of {pixels} pixels in {scans} scans, and at most {most} are read: '
            'save it anew'
        )


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read an image file as (H, W, 3) uint8 RGB, turned upright as its EXIF orientation says.

    Gray images are repeated, an alpha channel is dropped. The format is told by the content.

    Raises:
        ImageError: The file is missing, damaged, truncated, of none of :data:`FORMATS`, has more
            than 8 bits a channel or more than ``max_pixels`` pixels.
    """
    path = Path(path)
    most = 8 * max_pixels + _MORE_BYTES
    try:
        status = path.stat() if path.exists() else None
    except OSError as error:
        raise _unreadable(str(path), error) from error
    if status is None or not stat.S_ISREG(status.st_mode):
        raise ImageError(f'There is no image file {path}')
    if status.st_size > most:
        raise ImageError(
            f'{path} has {status.st_size} bytes, and no picture of {max_pixels} pixels has more '
            f'than {most}: convert it to a smaller one, or allow more pixels'
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unreadable(str(path), error) from error
    # From memory: a chunk that claims gigabytes makes the reader of a file ask for as many.
    with _opened(io.BytesIO(data), str(path)) as opened:
        check_pixels(*opened.size, max_pixels, str(path))
        check_scans(data, opened.width * opened.height, max_pixels, str(path))
        mode = opened.mode
        if not mode.startswith(('I', 'F')):
            ImageOps.exif_transpose(opened, in_place=True)
            return np.array(opened if opened.mode == 'RGB' else opened.convert('RGB'))
    raise ImageError(
        f'{path} has more than 8 bits a channel (mode {mode}): convert it to an 8-bit '
        'image first, since the range that matters is not known here'
    )


def read_mask(path: str | Path, max_pixels: int = MAX_PIXELS) -> NDArray[np.bool_]:
    """Read a mask file: (H, W), true where any channel is brighter than half.

    Raises ImageError as :func:`read_image`.
    """
    return read_image(path, max_pixels).max(axis=2) > 127


def native_name(path: str | Path) -> str:
    """Return a path as OpenCV takes it.

    Raises:
        ImageError: It is not text: OpenCV ends the process where it is given such a name.
    """
    name = str(path)
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ImageError(f'The name {name!r} is not UTF-8: rename the file') from error
    return name


@contextmanager
def _opened(source: io.BytesIO, what: str) -> Iterator[Image.Image]:
    """Open a picture, of which the header alone is read at first; all errors are ImageErrors."""
    try:
        # Pillow's words on large pictures, and on oddities of a file.
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with Image.open(source, formats=FORMATS) as opened:
                yield opened
    except ImageError:
        raise
    except Exception as error:  # the decoders of damaged files raise whatever comes up
        raise _unreadable(what, error) from error


def _unreadable(what: str, error: Exception) -> ImageError:
    reason = str(error) or type(error).__name__
    if isinstance(error, Image.DecompressionBombError):
        reason = f'it has more than {LARGEST} pixels; convert it to a smaller one'
    elif isinstance(error, UnidentifiedImageError):
        reason = f'it is none of {", ".join(FORMATS)}, or damaged'
    return ImageError(f'{what} cannot be read as an image: {reason}')
