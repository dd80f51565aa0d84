"""Files of ``torch.save``, looked at before torch opens them."""

from __future__ import annotations

import zipfile
from pathlib import Path

from clipseg_model.errors import CheckpointError


def check_archive(path: Path) -> None:
    """Make sure that a file of ``torch.save`` does not unpack to more bytes than it has.

    Such a file is a zip archive, whose entries torch writes as they are; but it reads compressed
    ones too, and several entries may share their bytes. Older files, which are none, pass.

    Raises:
        CheckpointError: It unpacks to more, is a program (TorchScript), or damaged.
    """
    try:
        with path.open('rb') as file:
            if file.read(4) != b'PK\x03\x04':
                return
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise CheckpointError(f'{path} is damaged, or cut off ({error}): get it anew') from error
    if any(entry.filename.endswith('/constants.pkl') for entry in entries):
        raise CheckpointError(
            f'{path} is a TorchScript archive, which is a program: save its state_dict() alone'
        )
    packed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
    if packed or sum(entry.file_size for entry in entries) > path.stat().st_size:
        what = f'{packed[0][:60]!r} is compressed' if packed else 'its parts are larger than it is'
        raise CheckpointError(
            f'{path} was not written by torch.save ({what}), and may unpack to any size: get the '
            'file from its authors, or a .safetensors file in its place'
        )
