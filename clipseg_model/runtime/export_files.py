"""Exported models on disk: folders with a manifest that says what they were made of and by.

``FOLDER/VARIANT/`` holds the files of one variant (``onnx``, ``openvino``, ``openvino-int8``, an
engine of TensorRT) and ``manifest.json``: the model, the digest of its weights, what wrote it, and
the digest of every file. A variant appears under its name only once it is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from clipseg_model.errors import ExportError, FileError
from clipseg_model.files.atomic_files import replacing
from clipseg_model.files.small_files import read_json, shorten
from clipseg_model.files.user_folders import cache_folder
from clipseg_model.model_card import ModelCard
from clipseg_model.modeling.base import SegmentationModel

MANIFEST = 'manifest.json'
_FORMAT = 'clipseg_ros export'
_VERSION = 1
_MOST_BYTES = 1 << 34  # Of a file: a digest takes a minute to compute.
_REMEDY = 'export the model again (clipseg export)'


def exports_folder(card: ModelCard, digest: str) -> Path:
    """Return the folder for the exports of a model, in ``$CLIPSEG_EXPORTS`` or the user's cache."""
    # A name may have 255 bytes, and a character takes up to four.
    name = re.sub(r'[^\w.-]', '-', card.name)[:50]
    return cache_folder('CLIPSEG_EXPORTS', 'exports') / f'{name}-{digest[:16]}'


def weights_digest(model: SegmentationModel) -> str:
    """Return the SHA-256 of a model's configuration and weights, whatever files they came from."""
    digest = hashlib.sha256(json.dumps(model.config(), sort_keys=True).encode())
    for key, value in sorted(model.state_dict().items()):
        digest.update(f'{key} {value.dtype} {tuple(value.shape)}'.encode())
        flat = value.detach().cpu().contiguous().view(-1)
        digest.update(memoryview(flat.view(torch.uint8).numpy()))
    return digest.hexdigest()


def write_variant(
    folder: Path,
    card: ModelCard,
    digest: str,
    versions: Mapping[str, str],
    write: Callable[[Path], Mapping[str, Any]],
) -> None:
    """Write the files of a variant and its manifest, in place of an older one once complete.

    ``write`` writes the files into a folder and returns what else the manifest shall say;
    ``versions`` are those of the packages that the files depend on.

    Raises:
        ExportError: The folder cannot be written, or what writes the files fails.
    """
    try:
        with replacing(folder) as made:
            made.mkdir()
            more = write(made)
            manifest = {
                'format': _FORMAT,
                'version': _VERSION,
                'model': card.name,
                'architecture': card.architecture,
                'input_size': card.input_size,
                'weights_sha256': digest,
                'versions': dict(versions),
                **more,
                'files': {path.name: _file_digest(path) for path in sorted(made.iterdir())},
            }
            (made / MANIFEST).write_text(json.dumps(manifest, indent=2) + '\n')
    except (OSError, RuntimeError) as error:  # Of the disk; and of the libraries, whose it is not.
        raise ExportError(
            f'{folder} cannot be written: {error}. CLIPSEG_EXPORTS names another folder than the '
            "user's cache"
        ) from error


def read_variant(folder: Path, digest: str, versions: Mapping[str, str]) -> dict[str, Any]:
    """Check that a folder is a variant of the weights of a digest, and return its manifest.

    ``versions`` are those of packages that it must have been made with.

    Raises:
        ExportError: It is missing, damaged, or of another model or version.
    """
    path = folder / MANIFEST
    if not os.path.lexists(path):
        raise ExportError(f'There is no export in {folder}: {_REMEDY}')
    try:
        manifest = read_json(path)
    except FileError as error:
        raise ExportError(f'{path} is damaged ({error}): {_REMEDY}') from error
    if not isinstance(manifest, dict) or manifest.get('format') != _FORMAT:
        raise ExportError(f'{path} is no manifest of an export of this project: {_REMEDY}')
    if manifest.get('version') != _VERSION:
        raise ExportError(
            f'{folder} is of version {shorten(manifest.get("version"))} and this program reads '
            f'version {_VERSION}: {_REMEDY}'
        )
    if manifest.get('weights_sha256') != digest:
        raise ExportError(
            f'{folder} was made of other weights ({shorten(manifest.get("model"))}, digest '
            f'{str(manifest.get("weights_sha256"))[:12]}) than those given (digest {digest[:12]}): '
            f'{_REMEDY}, or name the folder of its own export'
        )
    made_with = manifest.get('versions')
    files = manifest.get('files')
    if not isinstance(made_with, dict) or not isinstance(files, dict) or not files:
        raise ExportError(f'{path} is damaged (versions or files are missing): {_REMEDY}')
    for package, version in versions.items():
        if made_with.get(package) != version:
            raise ExportError(
                f'{folder} was made for {package} {shorten(made_with.get(package))}, and here is '
                f'{version}: '
                f'{_REMEDY}'
            )
    for name, expected in files.items():
        file = folder / name
        # No link: it may lead to anything, which a runtime would then open.
        if Path(name).name != name or os.path.islink(file) or not os.path.isfile(file):
            raise ExportError(f'{folder / name[:255]} is missing: {_REMEDY}')
        if file.stat().st_size > _MOST_BYTES:
            raise ExportError(f'{file} is larger than any export: {_REMEDY}')
        if _file_digest(file) != expected:
            raise ExportError(f'{file} is truncated or was changed: {_REMEDY}')
    # A runtime may open a file beside those that it is given.
    found = {entry.name for entry in folder.iterdir() if not entry.name.startswith('.')}
    if unknown := sorted(found - files.keys() - {MANIFEST}):
        raise ExportError(f'{folder / unknown[0]} is not of this export: remove it, or {_REMEDY}')
    return manifest


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
