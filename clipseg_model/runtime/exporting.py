"""Making exports of a model, which needs torch."""

from __future__ import annotations

import logging
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from clipseg_model.errors import ExportError
from clipseg_model.files.atomic_files import replacing
from clipseg_model.model_card import ModelCard
from clipseg_model.modeling.base import SegmentationModel, check_weights
from clipseg_model.runtime.exports.files import (
    ONNX,
    OnnxExport,
    bundled_manifest,
    manifest_text,
    open_onnx,
    stamp_of,
    write_variant,
)
from clipseg_model.runtime.split import weights_digest, write_onnx

logger = logging.getLogger(__name__)


def ensure_onnx(model: SegmentationModel, card: ModelCard, digest: str, root: Path) -> OnnxExport:
    """Return a model's ONNX files in the folder ``root``; write them if missing or unusable.

    Raises:
        CheckpointError: A weight is NaN or infinite.
        ExportError: The model cannot be exported or the folder not written.
        RuntimeMissingError: The packages onnx or onnxscript are not installed.
    """
    try:
        return open_onnx(root, digest, card.weights)
    except ExportError as error:
        logger.info('%s Exporting %s to ONNX, which takes a minute.', error, card.name)
    check_weights(model, card.name)
    versions = package_versions('clipseg_ros', 'torch', 'onnx', 'onnxscript')
    write_variant(root / ONNX, card, digest, versions, lambda made: write_onnx(model, made))
    return open_onnx(root, digest, card.weights)


def export_bundled(model: SegmentationModel, card: ModelCard) -> Path:
    """Write the graphs of a bundled model beside its checkpoint; return their manifest.

    The graphs read their weights out of the checkpoint, so they are of that file alone.

    Raises:
        CheckpointError: A weight is NaN or infinite.
        ExportError: The model cannot be exported, or a weight is not in the checkpoint.
        RuntimeMissingError: The packages onnx or onnxscript are not installed.
    """
    checkpoint = card.weights
    assert checkpoint is not None
    check_weights(model, card.name)
    with tempfile.TemporaryDirectory(dir=checkpoint.parent, prefix='.export-') as name:
        made = Path(name)
        more = write_onnx(model, made, checkpoint, f'{checkpoint.stem}.')
        files = sorted(made.iterdir())
        versions = package_versions('torch', 'onnx', 'onnxscript')
        stamp = stamp_of(checkpoint, bundled=True)
        text = manifest_text(card, weights_digest(model), stamp, versions, more, files)
        for file in files:
            file.replace(checkpoint.parent / file.name)
    path = bundled_manifest(checkpoint)
    with replacing(path) as temporary:
        temporary.write_text(text)
    return path


def package_versions(*packages: str) -> dict[str, str]:
    """Return the versions of installed packages; one that runs from a checkout has none."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = 'not installed'
    return found
