"""The processes of a run."""

from __future__ import annotations

import os
from typing import Literal

import torch
from accelerate import Accelerator

from training.loop.run_folder import RunError

#: Where torchrun and the MPIs say how many processes there are.
_COUNTS = ('WORLD_SIZE', 'PMI_SIZE', 'OMPI_COMM_WORLD_SIZE', 'MV2_COMM_WORLD_SIZE')


def begin_accelerator(
    mixed_precision: Literal['no', 'fp16', 'bf16'] = 'no', device: str = 'auto'
) -> Accelerator:
    """Join the processes of a run or evaluation; device ``cpu`` leaves a GPU alone.

    Raises:
        RunError: They do not find each other, there are fewer than asked for, or the device lacks
            the precision.
    """
    cuda = torch.cuda.is_available() and device != 'cpu'
    if mixed_precision == 'fp16' and not cuda:
        raise RunError(
            'mixed_precision fp16 needs a GPU, and there is none: give --set mixed_precision=bf16'
        )
    counts = [int(os.environ[name]) for name in _COUNTS if name in os.environ]
    if not counts and 'MASTER_ADDR' in os.environ and 'ACCELERATE_MIXED_PRECISION' in os.environ:
        # Its launcher sets an address for processes to meet at, and then starts one alone.
        raise RunError(
            'accelerate launch starts a single process on a CPU, whatever --num_processes says: '
            'start several with torchrun --standalone --nproc_per_node N -m MODULE ARGUMENTS, or '
            'give --num_processes 1'
        )
    # Without cpu=True, processes on a machine without a GPU would not find each other.
    accelerator = Accelerator(cpu=not cuda, mixed_precision=mixed_precision)
    expected = max(counts, default=1)
    if accelerator.num_processes != expected:
        raise RunError(
            f'{expected} processes were started, but {accelerator.num_processes} work together'
        )
    return accelerator
