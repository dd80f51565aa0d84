"""Pictures that come from a browser: limited in size, read in memory, never written to disk."""

from __future__ import annotations

import asyncio
import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from starlette.requests import Request

from clipseg_model.errors import ImageError
from clipseg_model.images import FORMATS, check_encoded
from clipseg_ros.console.back_ends.base import ConsoleError

MAX_BYTES = 24_000_000
"""Largest upload."""

MAX_PIXELS = 50_000_000
"""Largest picture: that of a good camera."""

PATIENCE = 30.0
"""Seconds in which an upload has to be complete."""

_AT_ONCE = asyncio.Semaphore(2)


async def read_body(request: Request, most: int = MAX_BYTES) -> bytes:
    """Return the body of a request.

    Raises:
        ConsoleError: It is larger, or takes too long.
    """
    stated = request.headers.get('content-length', '0')
    problem = f'what was sent has more than {most // 1_000_000 or most / 1e6:g} MB: send less'
    if not stated.isdecimal() or int(stated) > most:
        raise ConsoleError(problem)
    data = bytearray()

    async def receive() -> None:
        async for chunk in request.stream():
            data.extend(chunk)
            # What a request states of itself may be untrue.
            if len(data) > most:
                raise ConsoleError(problem)

    try:
        await asyncio.wait_for(receive(), PATIENCE)
    except (TimeoutError, asyncio.TimeoutError):
        raise ConsoleError(
            f'what was sent did not arrive within {PATIENCE:g} s: send a smaller picture'
        ) from None
    return bytes(data)


async def read_picture(request: Request, name: str) -> NDArray[np.uint8]:
    """Return the picture that a request brings, RGB uint8 (H, W, 3), upright.

    Raises:
        ConsoleError: It is too large or too slow.
        ImageError: It is no picture, is damaged, or has too many pixels.
    """
    async with _AT_ONCE:
        data = await read_body(request)
        return await asyncio.to_thread(decode, data, name)


def decode(data: bytes, name: str) -> NDArray[np.uint8]:
    """Return an encoded picture, RGB uint8 (H, W, 3), upright; raises an ImageError."""
    what = name[:60] or 'the picture'
    try:
        width, height = check_encoded(data, MAX_PIXELS, what)
    except ImageError as error:
        text = str(error).replace(', or allow more (max_pixels, --max-pixels)', '')
        raise ImageError(text) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
                if opened.mode.startswith(('I', 'F')):
                    raise ImageError(
                        f'{what} has more than 8 bits a channel: convert it to an 8-bit picture'
                    )
                upright = ImageOps.exif_transpose(opened)
                return np.array(upright.convert('RGB'))
    except ImageError:
        raise
    except Exception as error:  # the decoders of damaged files raise whatever comes up
        raise ImageError(
            f'{what} ({width} × {height}) is damaged: {str(error) or type(error).__name__}'
        ) from error
