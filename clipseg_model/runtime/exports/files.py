"""Exported models on disk: folders with a manifest that says what they were made of and by.

``FOLDER/VARIANT/`` holds the files of one variant (``onnx``, ``openvino-int8``, an engine of
TensorRT) and ``manifest.json``: the model and its card, the digests of its weights and of the
checkpoint, what wrote it, and the digest of every file. A variant appears under its name only once
it is complete. The bundled models' graphs lie beside their checkpoints, with a manifest likewise.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clipseg_model.errors import CheckpointError, ExportError, FileError
from clipseg_model.features import ModelTraits
from clipseg_model.files.atomic_files import replacing
from clipseg_model.files.small_files import is_file_beside, read_json, shorten
from clipseg_model.files.user_folders import cache_folder
from clipseg_model.model_card import ModelCard

MANIFEST = 'manifest.json'
ONNX = 'onnx'
"""Name of the variant that the others are made of."""

ENCODER, DECODER, TEXT, PROMPT = 'encoder', 'decoder', 'text', 'prompt'
"""Parts of a model."""

_FORMAT = 'clipseg_ros export'
_VERSION = 2
_MOST_BYTES = 1 << 34  # Of a file: a digest takes a minute to compute.
_REMEDY = 'export the model again (clipseg export)'


def exports_folder(card: ModelCard, digest: str) -> Path:
    """Return the folder for the exports of a model, in ``$CLIPSEG_EXPORTS`` or the user's cache."""
    return _all_exports() / f'{_slug(card.name)}-{digest[:16]}'


def _all_exports() -> Path:
    return cache_folder('CLIPSEG_EXPORTS', 'exports')


def _slug(name: str) -> str:
    # A name may have 255 bytes, and a character takes up to four.
    return re.sub(r'[^\w.-]', '-', name)[:50]


@dataclass(frozen=True)
class OnnxExport:
    """A model in parts, with all that is needed to run it.

    Attributes:
        folder: Where its files are.
        manifest: What was written of it.
    """

    folder: Path
    manifest: Mapping[str, Any]

    def part(self, name: str) -> Path:
        """Return the file of a part."""
        return self.folder / str(self.manifest['parts'][name]['file'])

    def names(self, part: str) -> tuple[list[str], list[str]]:
        """Return the names of a part's inputs and outputs."""
        entry = self.manifest['parts'][part]
        return list(entry['inputs']), list(entry['outputs'])

    @property
    def traits(self) -> ModelTraits:
        """What must be known of the model."""
        traits = self.manifest['traits']
        mean, std = (tuple(map(float, traits[key])) for key in ('mean', 'std'))
        return ModelTraits(
            str(traits['kind']),
            int(traits['patch_size']),
            int(traits['embed_dim']),
            (mean[0], mean[1], mean[2]),
            (std[0], std[1], std[2]),
        )

    def card(self, weights: Path | None = None) -> ModelCard:
        """Return the model's card; ``weights`` is the checkpoint, if it is here."""
        path = self.folder / MANIFEST if weights is None else weights
        try:
            card = ModelCard.from_stored(
                self.manifest['card'], self.manifest.get('config', {}), path
            )
        except CheckpointError as error:
            raise ExportError(
                f'The card in {self.folder} is damaged ({error}): {_REMEDY}'
            ) from None
        return card if weights is not None else replace(card, weights=None)


def open_onnx(folder: Path, digest: str | None, checkpoint: Path | None) -> OnnxExport:
    """Check the ONNX files in a folder of exports.

    Args:
        folder: Of the variants.
        digest: Of the weights that they have to be of, where it is known.
        checkpoint: The file that they have to be of, where that is here.

    Raises:
        ExportError: They are missing, damaged, of another version, or of other weights.
    """
    manifest = read_variant(folder / ONNX, digest, {}, checkpoint)
    return _complete(OnnxExport(folder / ONNX, manifest), folder / ONNX / MANIFEST)


@dataclass(frozen=True)
class ExportSource:
    """A model by name, and where its files are.

    Attributes:
        name: As people name it.
        checkpoint: The file of its weights, if it has one that may be here.
        bundled: Whether its graphs lie beside that.
    """

    name: str
    checkpoint: Path | None = None
    bundled: bool = False


def find_export(source: ExportSource, folder: Path | None) -> tuple[OnnxExport, Path]:
    """Find and check the ONNX files of a model, without its weights.

    Args:
        source: The model.
        folder: Where ``clipseg export`` wrote it to; the user's cache where None, and what is
            bundled.

    Returns:
        The files, and the folder of the other variants.

    Raises:
        ExportError: There are none, or they are damaged, of another version, or of other weights.
    """
    checkpoint = source.checkpoint
    here = checkpoint is not None and os.path.isfile(checkpoint)
    if folder is not None:
        export = open_onnx(folder, None, checkpoint)
        if not here and export.manifest['model'] != source.name:
            raise ExportError(
                f'{folder} was made of the model {shorten(export.manifest["model"])}, and '
                f'{source.name!r} is asked for: name that model, or the folder of its own export'
            )
        return export, folder
    if source.bundled and checkpoint is not None:
        export = open_bundled(checkpoint)
        return export, exports_folder(export.card(), export.manifest['weights_sha256'])
    reason = ''
    manifests = _all_exports().glob(f'*/{ONNX}/{MANIFEST}')
    for path in sorted(manifests, key=lambda path: -path.stat().st_mtime):
        try:
            manifest = _read_manifest(path, path.parent)
            if manifest.get('model') != source.name and not here:
                continue
            _check_checkpoint(path, manifest, checkpoint)
            return open_onnx(path.parent.parent, None, checkpoint), path.parent.parent
        except ExportError as error:
            reason = reason or str(error)
    raise ExportError(
        f'There is no export of {source.name!r} in {_all_exports()}'
        + (f' ({reason})' if reason else f': {_REMEDY}')
    )


def bundled_manifest(checkpoint: Path) -> Path:
    """Return where the manifest lies of the graphs of a bundled model."""
    return checkpoint.with_suffix('.onnx.json')


def open_bundled(checkpoint: Path) -> OnnxExport:
    """Check the graphs of a bundled model, which lie beside its checkpoint.

    Raises:
        ExportError: They are missing, damaged, of another version, or of another checkpoint.
    """
    # A build with links has links to the sources here, beside which the weights are looked for.
    path = Path(os.path.realpath(bundled_manifest(checkpoint)))
    manifest = _read_manifest(path, path.parent)
    _check_files(path.parent, manifest['files'])
    _check_checkpoint(path, manifest, checkpoint)
    return _complete(OnnxExport(path.parent, manifest), path)


def _complete(export: OnnxExport, path: Path) -> OnnxExport:
    try:
        for part in (ENCODER, DECODER, TEXT, PROMPT):
            export.names(part)
            if export.manifest['parts'][part]['file'] not in export.manifest['files']:
                raise KeyError(part)
        _ = export.traits, export.manifest['tokenizer'], export.manifest['card']
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ExportError(
            f'{path} is damaged ({type(error).__name__}: {error}): {_REMEDY}'
        ) from error
    return export


def stamp_of(checkpoint: Path | None, bundled: bool = False) -> dict[str, Any] | None:
    """Return what a manifest says of a checkpoint; None where there is no such file."""
    if checkpoint is None or not os.path.isfile(checkpoint):
        return None
    size, time = _size_and_time(checkpoint)
    # A checkout gives its files other times.
    times = {} if bundled else {'mtime_ns': time}
    return {'bytes': size, **times, 'sha256': _digest_of(checkpoint)}


def _check_checkpoint(path: Path, manifest: Mapping[str, Any], checkpoint: Path | None) -> None:
    """Make sure that an export was made of a checkpoint, if that is here."""
    if checkpoint is None or not os.path.isfile(checkpoint):
        return
    stamp = manifest.get('checkpoint')
    if not isinstance(stamp, dict):
        raise ExportError(f'{path} does not say what checkpoint it was made of: {_REMEDY}')
    size, time = _size_and_time(checkpoint)
    same = stamp.get('bytes') == size
    # A file that nobody has touched since is not read to its end: it may have half a gigabyte.
    if same and stamp.get('mtime_ns') != time:
        same = stamp.get('sha256') == _digest_of(checkpoint)
    if not same:
        raise ExportError(f'{path} was made of other weights than those in {checkpoint}: {_REMEDY}')


def _files_of(checkpoint: Path) -> list[Path]:
    """Return the file of a checkpoint; and the parts beside it, where it is their index."""
    parts = sorted(checkpoint.parent.glob('*.safetensors')) if checkpoint.suffix == '.json' else []
    return [checkpoint, *parts]


def _size_and_time(checkpoint: Path) -> tuple[int, int]:
    """Return the bytes of a checkpoint, and when it was changed last, in nanoseconds."""
    known = [file.stat() for file in _files_of(checkpoint)]
    return sum(one.st_size for one in known), max(one.st_mtime_ns for one in known)


def _digest_of(checkpoint: Path) -> str:
    digests = [_file_digest(file) for file in _files_of(checkpoint)]
    return (
        digests[0] if len(digests) == 1 else hashlib.sha256(''.join(digests).encode()).hexdigest()
    )


def check_replaceable(folder: Path) -> None:
    """Make sure that a folder is missing, empty, or an older variant and nothing else.

    Raises:
        ExportError: It holds what no export put there.
    """
    if not os.path.lexists(folder):
        return
    try:
        found = {entry.name for entry in folder.iterdir()} if not folder.is_symlink() else {''}
        manifest = read_json(folder / MANIFEST) if found else {}
        ours = {MANIFEST, *manifest['files']} if found and manifest['format'] == _FORMAT else set()
        foreign = sorted(found - ours)
    except (OSError, FileError, KeyError, TypeError):
        foreign = ['']
    if foreign:
        raise ExportError(
            f'{folder / foreign[0]} is there already, and of no export: name another folder, or '
            'give --overwrite'
        )


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
            files = sorted(made.iterdir())
            stamp = stamp_of(card.weights)
            text = manifest_text(card, digest, stamp, versions, more, files)
            (made / MANIFEST).write_text(text)
    except (OSError, RuntimeError) as error:  # Of the disk; and of the libraries, whose it is not.
        raise ExportError(
            f'{folder} cannot be written: {error}. CLIPSEG_EXPORTS names another folder than the '
            "user's cache"
        ) from error


def manifest_text(
    card: ModelCard,
    digest: str,
    stamp: Mapping[str, Any] | None,
    versions: Mapping[str, str],
    more: Mapping[str, Any],
    files: Sequence[Path],
) -> str:
    """Return a manifest as JSON; see :func:`write_variant`."""
    manifest = {
        'format': _FORMAT,
        'version': _VERSION,
        'model': card.name,
        'architecture': card.architecture,
        'input_size': card.input_size,
        'weights_sha256': digest,
        'checkpoint': stamp,
        'versions': dict(versions),
        'card': card.stored_fields(),
        'config': card.config,
        **more,
        'files': {path.name: _file_digest(path) for path in files},
    }
    return json.dumps(manifest, indent=2, ensure_ascii=False) + '\n'


def read_variant(
    folder: Path,
    digest: str | None,
    versions: Mapping[str, str],
    checkpoint: Path | None = None,
) -> dict[str, Any]:
    """Check that a folder is a variant of some weights, and return its manifest.

    Args:
        folder: Of the variant.
        digest: Of the weights, where it is known.
        versions: Of packages that it must have been made with.
        checkpoint: The file of the weights, where that is here.

    Raises:
        ExportError: It is missing, damaged, or of another model or version.
    """
    path = folder / MANIFEST
    manifest = _read_manifest(path, folder)
    if digest is not None and manifest.get('weights_sha256') != digest:
        raise ExportError(
            f'{folder} was made of other weights ({shorten(manifest.get("model"))}, digest '
            f'{str(manifest.get("weights_sha256"))[:12]}) than those given (digest {digest[:12]}): '
            f'{_REMEDY}, or name the folder of its own export'
        )
    for package, version in versions.items():
        if manifest['versions'].get(package) != version:
            raise ExportError(
                f'{folder} was made for {package} {shorten(manifest["versions"].get(package))}, '
                f'and here is {version}: {_REMEDY}'
            )
    _check_checkpoint(path, manifest, checkpoint)
    _check_files(folder, manifest['files'])
    # A runtime may open a file beside those that it is given.
    found = {entry.name for entry in folder.iterdir() if not entry.name.startswith('.')}
    if unknown := sorted(found - manifest['files'].keys() - {MANIFEST}):
        raise ExportError(f'{folder / unknown[0]} is not of this export: remove it, or {_REMEDY}')
    return manifest


def _read_manifest(path: Path, folder: Path) -> dict[str, Any]:
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
    made_with = manifest.get('versions')
    files = manifest.get('files')
    if not isinstance(made_with, dict) or not isinstance(files, dict) or not files:
        raise ExportError(f'{path} is damaged (versions or files are missing): {_REMEDY}')
    return manifest


def _check_files(folder: Path, files: Mapping[str, Any]) -> None:
    """Make sure that the files of a manifest are there as they were written."""
    for name, expected in files.items():
        file = folder / name
        # No link: it may lead to anything, which a runtime would then open.
        if os.path.islink(file) or not is_file_beside(folder, name):
            raise ExportError(f'{folder / name[:255]} is missing: {_REMEDY}')
        if file.stat().st_size > _MOST_BYTES:
            raise ExportError(f'{file} is larger than any export: {_REMEDY}')
        if _file_digest(file) != expected:
            raise ExportError(f'{file} is truncated or was changed: {_REMEDY}')


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
