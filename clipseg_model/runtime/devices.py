"""Which device a model runs on: asked for by name, checked, never replaced silently."""

from __future__ import annotations

import logging
import re

import torch

from clipseg_model.errors import DeviceError

logger = logging.getLogger(__name__)


def resolve_device(name: str | torch.device = 'auto') -> torch.device:
    """Return the device ``cpu``, ``cuda`` or ``cuda:N``, present on this machine.

    ``auto`` is CUDA where there is some and the CPU otherwise, and logged.

    Raises:
        DeviceError: The name is another, or the device is not there.
    """
    wanted = str(name).strip().lower()
    if wanted == 'auto':
        device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
        logger.info('Device auto: %s', describe_device(device))
        return device
    if wanted == 'cpu':
        return torch.device('cpu')
    if not re.fullmatch(r'cuda(:\d+)?', wanted):
        raise DeviceError(f"A device is 'auto', 'cpu', 'cuda' or 'cuda:N', not {str(name)!r}")
    if not torch.cuda.is_available():
        built = torch.version.cuda
        reason = f'built for CUDA {built}' if built else 'built without CUDA'
        raise DeviceError(
            f'Device {wanted!r} was asked for, but torch {torch.__version__} ({reason}) sees no '
            "CUDA device here: use device 'cpu' or 'auto'"
        )
    device = torch.device(wanted)
    count = torch.cuda.device_count()
    if device.index is not None and device.index >= count:
        raise DeviceError(
            f'Device {wanted!r} was asked for, but this machine has {count} CUDA device(s), '
            f"cuda:0 to cuda:{count - 1}: use one of them, 'cpu' or 'auto'"
        )
    return device


def describe_device(device: torch.device) -> str:
    """Return a device's name as people know it, such as ``cuda:0 (NVIDIA T4)`` or ``cpu``."""
    if device.type == 'cuda':
        return f'{device} ({torch.cuda.get_device_name(device)})'
    return str(device)
