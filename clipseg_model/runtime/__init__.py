"""How a model is executed: one interface, several runtimes, chosen by name.

A runtime is asked for by name and precision and is what it was asked for, or an error: nothing
is replaced silently. ``auto`` is a choice too, and it is logged.
"""

from __future__ import annotations

import importlib
import logging
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipseg_model.errors import ClipsegError, ExportError, RuntimeMissingError
from clipseg_model.files.user_folders import expanded
from clipseg_model.model_card import ModelCard
from clipseg_model.runtime.base import PRECISIONS, Runtime, require
from clipseg_model.runtime.devices import Device, resolve_device
from clipseg_model.runtime.exports.files import (
    ExportSource,
    OnnxExport,
    exports_folder,
    find_export,
    open_onnx,
)
from clipseg_model.runtime.threads import apply_to_torch

if TYPE_CHECKING:
    from clipseg_model.modeling.base import SegmentationModel

__all__ = [
    'PRECISIONS',
    'RUNTIMES',
    'Runtime',
    'create_runtime',
    'eager_runtime',
    'open_exported',
    'runtime_class',
]

logger = logging.getLogger(__name__)

#: Runtimes by name: the module that holds each, imported when it is needed, and its class.
RUNTIMES = {
    'eager': ('eager', 'EagerRuntime'),
    'compile': ('compiled', 'CompiledRuntime'),
    'onnxruntime': ('onnx_runtime', 'OnnxRuntime'),
    'openvino': ('openvino_runtime', 'OpenVinoRuntime'),
    'tensorrt': ('tensorrt_runtime', 'TensorRtRuntime'),
}

EXPORTED = ('onnxruntime', 'openvino')
"""Runtimes without torch, in the order in which `auto` tries them on a CPU."""


def runtime_class(name: str) -> type[Runtime]:
    """Return the class of a runtime.

    Raises:
        RuntimeMissingError: There is no runtime of that name, or it needs torch and there is none.
    """
    if name not in RUNTIMES:
        raise RuntimeMissingError(
            f'There is no runtime {name!r}: there are auto, {", ".join(RUNTIMES)}'
        )
    if name not in EXPORTED:
        require('torch', name, 'torch')
    module, attribute = RUNTIMES[name]
    found: type[Runtime] = getattr(
        importlib.import_module(f'clipseg_model.runtime.{module}'), attribute
    )
    return found


def eager_runtime(model: SegmentationModel, device: object) -> Runtime:
    """Start a model in torch, in float32 on a device of :func:`resolve_device`.

    Raises:
        DeviceError: The device is not there.
    """
    kind: Any = runtime_class('eager')
    made: Runtime = kind(model, resolve_device(device))
    return made


def create_runtime(
    model: SegmentationModel,
    card: ModelCard,
    device: object = 'auto',
    runtime: str = 'eager',
    precision: str = 'fp32',
    exports: str | os.PathLike[str] | None = None,
) -> Runtime:
    """Start a model in a runtime, and log which.

    Args:
        model: The model, on the CPU in float32; it belongs to the runtime from then on.
        card: Its card.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; of a runtime for CPUs alone, ``auto`` is
            the CPU.
        runtime: A key of :data:`RUNTIMES`; or ``auto``: on a CPU ONNX Runtime, else
            OpenVINO, where it is installed, computes in this precision, and this model is exported
            already; and eager otherwise.
        precision: One of :data:`PRECISIONS`.
        exports: Folder that ``clipseg export`` wrote, for a runtime that works on an exported
            model; where None, a folder in the user's cache, which is filled as needed.

    Raises:
        DeviceError: The device is not there, or is none of the runtime's.
        RuntimeMissingError: There is no such runtime, or its package is not installed.
        PrecisionError: The runtime or the device has no such precision.
        ExportError: The model cannot be exported, or its export cannot be used.
        DeviceMemoryError: There was not enough memory.
    """
    apply_to_torch()
    if runtime == 'auto':
        source = ExportSource(card.name, card.weights)
        opened = open_exported(source, device, runtime, precision, exports)
        if opened is not None:
            return opened[0]
        runtime = 'eager'
        logger.info('Runtime auto: eager')
    kind: Any = runtime_class(runtime)
    place = _place(kind, device)
    kind.check(place, precision)
    if runtime in EXPORTED:
        made = _export_and_open(kind, model, card, place, precision, exports)
    elif runtime == 'tensorrt':
        folder = None if exports is None else expanded(exports)
        made = kind(model, place, precision, card=card, folder=folder)
    else:
        made = kind(model, place, precision)
    logger.info('Runtime: %s', made.describe())
    return made


def open_exported(
    source: ExportSource,
    device: object,
    runtime: str,
    precision: str,
    exports: str | os.PathLike[str] | None,
) -> tuple[Runtime, ModelCard] | None:
    """Start a runtime on an export that is there already; neither torch nor a checkpoint is needed.

    Arguments are those of :func:`create_runtime`.

    Returns:
        The runtime and the model's card. None where torch is to be asked: of a runtime that works
        on no export, or where there is no usable export and torch is installed to make one.

    Raises:
        ExportError: There is no usable export in the folder named, or none and no torch either.
        ClipsegError: As :func:`create_runtime`.
    """
    names = EXPORTED if runtime == 'auto' else (runtime,)
    if not set(names) <= set(EXPORTED):
        return None
    if runtime == 'auto' and resolve_device(device).type != 'cpu':
        return None
    has_torch = find_spec('torch') is not None
    reason: ClipsegError | None = None
    for name in names:
        kind: Any = runtime_class(name)
        if runtime == 'auto' and find_spec(kind.package) is None:
            continue
        try:
            place = _place(kind, 'cpu' if runtime == 'auto' else device)
            kind.check(place, precision)
            require(kind.package, name, kind.extra)
            export, root = find_export(source, None if exports is None else expanded(exports))
            made: Runtime = kind.open(export, root, place, precision)
        except ClipsegError as error:
            must = runtime != 'auto' and (exports is not None or not isinstance(error, ExportError))
            if must or (not has_torch and runtime != 'auto'):
                raise _explained(error, source, kind, precision, exports) from error
            logger.info('Runtime %s passes over %s: %s', runtime, name, error)
            reason = error
            continue
        logger.info('Runtime: %s', made.describe())
        return made, export.card(source.checkpoint)
    if not has_torch:
        raise RuntimeMissingError(
            f'No runtime without torch can run {source.name!r}'
            + (f': {reason}' if reason else ', for none is installed')
            + '. Export it on a machine with torch (clipseg export), or install torch here: pip '
            'install "clipseg_ros[torch]"'
        )
    return None


def _explained(
    error: ClipsegError, source: ExportSource, kind: Any, precision: str, exports: object
) -> ClipsegError:
    """Return an error that says how an export is made."""
    if not isinstance(error, ExportError):
        return error
    target = f' {exports}' if exports is not None else ' FOLDER'
    return ExportError(
        f'{error}; here: clipseg export {source.name}{target} --runtime {kind.name} '
        f'--precision {precision}{kind.export_options(precision)} (once, on any machine where '
        '"clipseg_ros[export]" is installed; copy the folder and name it as exports)'
    )


def _place(kind: type[Runtime], device: object) -> Device:
    if str(device) == 'auto' and 'cuda' not in kind.device_types:
        device = 'cpu'
    return resolve_device(device)


def _export_and_open(
    kind: Any,
    model: SegmentationModel,
    card: ModelCard,
    place: Device,
    precision: str,
    exports: str | os.PathLike[str] | None,
) -> Runtime:
    """Open the export of a model, which is made where no folder is named."""
    from clipseg_model.runtime.split import check_exportable, weights_digest

    require(kind.package, kind.name, kind.extra)
    check_exportable(model)
    model = model.cpu().eval()
    digest = weights_digest(model)
    root = exports_folder(card, digest) if exports is None else expanded(exports)
    try:
        made: Runtime = kind.open(_read(root, digest), root, place, precision)
    except ExportError as error:
        if exports is not None or precision not in kind.made_on_demand:
            source = ExportSource(card.name, card.weights)
            raise _explained(error, source, kind, precision, root) from error
        logger.info('%s Exporting now.', error)
        kind.export(model, card, digest, root, place, precision)
        made = kind.open(_read(root, digest), root, place, precision)
    return made


def _read(root: Path, digest: str) -> OnnxExport:
    return open_onnx(root, digest, None)
