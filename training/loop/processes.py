"""The processes of a run."""

from __future__ import annotations

import os
from typing import Literal

import torch
from accelerate import Accelerator

from training.loop.run_folder import RunError


def begin_accelerator(
    mixed_precision: Literal['no', 'fp16', 'bf16'] = 'no', device: str = 'auto'
) -> Accelerator:
    """Join the processes of a run or evaluation; device ``cpu`` leaves a GPU alone.

    Raises:
        RunError: They do not find each other, or the device lacks the precision.
    """
    cuda = torch.cuda.is_available() and device != 'cpu'
    if mixed_precision == 'fp16' and not cuda:
        raise RunError(
            'mixed_precision fp16 needs a GPU, and there is none: give --set mixed_precision=bf16'
        )
    # Without cpu=True, processes on a machine without a GPU would not find each other.
    accelerator = Accelerator(cpu=not cuda, mixed_precision=mixed_precision)
    expected = int(os.environ.get('WORLD_SIZE', 1))
    if accelerator.num_processes != expected:
        raise RunError(
            f'{expected} processes were started, but {accelerator.num_processes} work together'
        )
    return accelerator
