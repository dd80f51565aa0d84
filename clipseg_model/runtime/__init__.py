"""How a model is executed: one interface, several runtimes, chosen by name.

A runtime is asked for by name and precision and is what it was asked for, or an error: nothing
is replaced silently. ``auto`` is a choice too, and it is logged.
"""

from __future__ import annotations

import importlib
import logging
import os
from importlib.util import find_spec
from typing import Any

import torch

from clipseg_model.errors import ClipsegError, RuntimeMissingError
from clipseg_model.files.user_folders import expanded
from clipseg_model.model_card import ModelCard
from clipseg_model.modeling.base import SegmentationModel
from clipseg_model.runtime.base import PRECISIONS, Runtime
from clipseg_model.runtime.devices import resolve_device

__all__ = ['PRECISIONS', 'RUNTIMES', 'Runtime', 'create_runtime', 'runtime_class']

logger = logging.getLogger(__name__)

#: Runtimes by name: the module that holds each, imported when it is needed, and its class.
RUNTIMES = {
    'eager': ('eager', 'EagerRuntime'),
    'compile': ('compiled', 'CompiledRuntime'),
    'onnxruntime': ('onnx_runtime', 'OnnxRuntime'),
    'openvino': ('openvino_runtime', 'OpenVinoRuntime'),
    'tensorrt': ('tensorrt_runtime', 'TensorRtRuntime'),
}

# What `auto` tries in turn on a CPU; on a GPU it takes eager.
_AUTO_CPU = ('openvino', 'onnxruntime')


def runtime_class(name: str) -> type[Runtime]:
    """Return the class of a runtime.

    Raises:
        RuntimeMissingError: There is no runtime of that name.
    """
    if name not in RUNTIMES:
        raise RuntimeMissingError(
            f'There is no runtime {name!r}: there are auto, {", ".join(RUNTIMES)}'
        )
    module, attribute = RUNTIMES[name]
    found: type[Runtime] = getattr(
        importlib.import_module(f'clipseg_model.runtime.{module}'), attribute
    )
    return found


def create_runtime(
    model: SegmentationModel,
    card: ModelCard,
    device: str | torch.device = 'auto',
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
        runtime: A key of :data:`RUNTIMES`; or ``auto``: on a CPU OpenVINO, else ONNX Runtime,
            where it is installed and can do this model in this precision, and eager otherwise.
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
    if runtime == 'auto':
        place = resolve_device(device)
        runtime = _choose(model, place, precision)
    kind = runtime_class(runtime)
    if str(device) == 'auto' and 'cuda' not in kind.device_types:
        device = 'cpu'
    place = resolve_device(device)
    kind.check(place, precision)
    if kind.package is None:
        made = kind(model, place, precision)
    else:
        folder = None if exports is None else expanded(exports)
        exported: Any = kind
        made = exported(model, place, precision, card=card, folder=folder)
    logger.info('Runtime: %s', made.describe())
    return made


def _choose(model: SegmentationModel, device: torch.device, precision: str) -> str:
    """Return the runtime that ``auto`` stands for here."""
    if device.type == 'cpu':
        from clipseg_model.runtime.split import check_exportable

        for name in _AUTO_CPU:
            kind = runtime_class(name)
            if kind.package is None or find_spec(kind.package) is None:
                continue
            try:
                kind.check(device, precision)
                check_exportable(model)
            except ClipsegError as error:
                logger.info('Runtime auto passes over %s: %s', name, error)
                continue
            logger.info('Runtime auto: %s', name)
            return name
    logger.info('Runtime auto: eager')
    return 'eager'
