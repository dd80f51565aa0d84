"""Images as this package takes them, and files of images and videos on disk."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from clipseg_model.errors import ImageError

IMAGE_SUFFIXES = frozenset(['.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp'])
VIDEO_SUFFIXES = frozenset(['.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.webm'])

MAX_PIXELS = 178_956_970
"""Most pixels of a picture that are read: Pillow's own limit, of half a gigabyte as RGB."""


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


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Read an image file as (H, W, 3) uint8 RGB, turned upright as its EXIF orientation says.

    Gray images are repeated, an alpha channel is dropped.

    Raises:
        ImageError: The file is missing, damaged, truncated, has more than 8 bits a channel or more
            than :data:`MAX_PIXELS` pixels.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise ImageError(f'There is no image file {path}')
        with warnings.catch_warnings():
            # Pillow's words on pictures above half of its limit, and on oddities of a file.
            warnings.simplefilter('ignore')
            with Image.open(path) as opened:
                mode = opened.mode
                image = ImageOps.exif_transpose(opened)
                if not mode.startswith(('I', 'F')):
                    return np.array(image.convert('RGB'))
    except ImageError:
        raise
    except Exception as error:  # the decoders of damaged files raise whatever comes up
        reason = str(error) or type(error).__name__
        if isinstance(error, Image.DecompressionBombError):
            reason = f'it has more than {MAX_PIXELS} pixels; convert it to a smaller one'
        raise ImageError(f'{path} cannot be read as an image: {reason}') from error
    raise ImageError(
        f'{path} has more than 8 bits a channel (mode {mode}): convert it to an 8-bit '
        'image first, since the range that matters is not known here'
    )


def read_mask(path: str | Path) -> NDArray[np.bool_]:
    """Read a mask file: (H, W), true where any channel is brighter than half.

    Raises ImageError as :func:`read_image`.
    """
    return read_image(path).max(axis=2) > 127
