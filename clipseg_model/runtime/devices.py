"""Which device a model runs on: asked for by name, checked, never replaced silently."""

from __future__ import annotations

import glob
import importlib
import logging
import re
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from clipseg_model.errors import DeviceError
from clipseg_model.runtime.onnx_scratch import release_scratch

logger = logging.getLogger(__name__)

_DRIVERS = ('/dev/nvidia*', '/dev/nvhost*', '/dev/nvmap', '/dev/dxg')
"""What an NVIDIA driver makes on a PC, on a Jetson and in WSL."""


@dataclass(frozen=True)
class Device:
    """A device by torch's name for it, which needs no torch.

    Attributes:
        type: ``cpu`` or ``cuda``.
        index: Number of a CUDA device, where it was named.
    """

    type: str
    index: int | None = None

    def __str__(self) -> str:
        return self.type if self.index is None else f'{self.type}:{self.index}'


def resolve_device(name: object = 'auto') -> Device:
    """Return the device ``cpu``, ``cuda`` or ``cuda:N``, present on this machine.

    ``auto`` is CUDA where torch sees some and the CPU otherwise, and logged. torch is imported only
    where there is an NVIDIA driver.

    Args:
        name: As text, or what is written so, as a ``torch.device`` is.

    Raises:
        DeviceError: The name is another, or the device is not there.
    """
    wanted = str(name).strip().lower()
    if wanted == 'auto':
        torch = _torch_with_driver()
        device = Device('cuda' if torch is not None and torch.cuda.is_available() else 'cpu')
        logger.info('Device auto: %s', describe_device(device))
        return device
    if wanted == 'cpu':
        return Device('cpu')
    if not re.fullmatch(r'cuda(:\d{1,4})?', wanted):
        raise DeviceError(f"A device is 'auto', 'cpu', 'cuda' or 'cuda:N', not {str(name)!r}")
    index = int(wanted[5:]) if ':' in wanted else None
    if 'torch' not in sys.modules and find_spec('torch') is None:
        if not _has_driver():
            raise DeviceError(
                f'Device {wanted!r} was asked for, and there is no NVIDIA driver here: use device '
                "'cpu' or 'auto'"
            )
        # Whoever computes there knows better.
        return Device('cuda', index)
    torch = importlib.import_module('torch')
    if not torch.cuda.is_available():
        built = torch.version.cuda
        reason = f'built for CUDA {built}' if built else 'built without CUDA'
        raise DeviceError(
            f'Device {wanted!r} was asked for, but torch {torch.__version__} ({reason}) sees no '
            "CUDA device here: use device 'cpu' or 'auto'"
        )
    count = torch.cuda.device_count()
    if index is not None and index >= count:
        raise DeviceError(
            f'Device {wanted!r} was asked for, but this machine has {count} CUDA device(s), '
            f"cuda:0 to cuda:{count - 1}: use one of them, 'cpu' or 'auto'"
        )
    return Device('cuda', index)


def describe_device(device: Device) -> str:
    """Return a device's name as people know it, such as ``cuda:0 (NVIDIA T4)`` or ``cpu``."""
    if device.type == 'cuda' and 'torch' in sys.modules:
        return f'{device} ({sys.modules["torch"].cuda.get_device_name(str(device))})'
    return str(device)


def reserved_memory(device: Device) -> int:
    """Return the bytes that torch keeps of a CUDA device's memory; 0 where it does not use one."""
    torch = sys.modules.get('torch')
    if torch is None or not torch.cuda.is_initialized():
        return 0
    return int(torch.cuda.memory_reserved(str(device)))


def free_device_memory() -> None:
    """Give back what torch keeps of a GPU's memory, and ONNX Runtime of the CPU's."""
    release_scratch()
    torch = sys.modules.get('torch')
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


def _has_driver() -> bool:
    return any(glob.glob(pattern) for pattern in _DRIVERS)


def _torch_with_driver() -> Any:
    """Return torch where it is imported already or may see a GPU; else None."""
    if 'torch' in sys.modules:
        return sys.modules['torch']
    if not _has_driver() or find_spec('torch') is None:
        return None
    return importlib.import_module('torch')
