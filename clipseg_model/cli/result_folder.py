"""The folder that results go to. What is there already stays, unless it may be overwritten."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from clipseg_model.errors import ImageError


class ResultFolder:
    """Makes new files in a folder, and replaces those alone that it made itself.

    Links in the folder are never followed: what they lead to is not the folder's.

    Args:
        path: The folder; it is made if it is missing.
        overwrite: Whether files that are there already may be replaced.

    Raises:
        ImageError: The folder cannot be made.
    """

    def __init__(self, path: Path, overwrite: bool = False) -> None:
        self.path = path
        self._overwrite = overwrite
        self._made: set[str] = set()
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ImageError(f'The output folder {path} cannot be made: {error}') from error

    def check(self, *names: str) -> None:
        """Raise ImageError unless files of these names can be made, before the work for them."""
        for name in names:
            path = self.path / name
            if name in self._made or not os.path.lexists(path):
                continue
            if path.is_dir() and not path.is_symlink():
                raise ImageError(f'{path} is a folder: name another folder with --output')
            if not self._overwrite:
                raise ImageError(
                    f'{path} is there already, and not of this run: name another folder with '
                    '--output, or give --overwrite'
                )

    def make_folder(self, name: str) -> None:
        """Make a folder inside, or take one that is there and may be used.

        Raises:
            ImageError: There is one, or a link or a file of that name.
        """
        path = self.path / name
        if name in self._made:
            return
        try:
            path.mkdir(exist_ok=self._overwrite and not path.is_symlink())
        except FileExistsError as error:
            raise ImageError(
                f'{path} is there already, and not of this run: name another folder with '
                '--output, or remove it'
            ) from error
        except OSError as error:
            raise unwritten(path, error) from error
        self._made.add(name)

    def open(self, name: str) -> BinaryIO:
        """Open a file to be written anew; raises ImageError as :meth:`check`, and for the disk."""
        self.check(name)
        path = self.path / name
        try:
            # Not written into: a second name of the file, or a link, would be changed as well.
            path.unlink(missing_ok=True)
            file = path.open('xb')
        except OSError as error:
            raise unwritten(path, error) from error
        self._made.add(name)
        return file

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole, or none; raises ImageError as :meth:`open`."""
        path = self.path / name
        file = self.open(name)
        try:
            with file:
                file.write(data)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise unwritten(path, error) from error

    def write_image(self, name: str, image: NDArray[np.uint8]) -> None:
        """Write (H, W) or (H, W, 3) RGB uint8 as PNG; raises ImageError as :meth:`open`."""
        pixels = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        made, data = cv2.imencode('.png', pixels)
        if not made:
            raise ImageError(f'{self.path / name} cannot be made: an image of shape {image.shape}')
        self.write(name, data.tobytes())

    def replace_image(self, name: str, image: NDArray[np.uint8]) -> None:
        """Write an image in one go: who looks at the file sees the old one or the new one.

        Raises ImageError as :meth:`open`.
        """
        self.check(name)
        partial = f'.{name}'
        self.write_image(partial, image)
        try:
            (self.path / partial).replace(self.path / name)
        except OSError as error:
            raise unwritten(self.path / name, error) from error
        self._made.add(name)


def unwritten(path: Path, error: OSError) -> ImageError:
    """Return the error for a file that the disk refuses."""
    remedy = 'Make room there, or name another folder with --output'
    return ImageError(f'{path} cannot be written: {error.strerror}. {remedy}')
