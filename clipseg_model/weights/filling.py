"""Models that get their weights from a file, copied once, a part of the file at a time.

A second copy of all weights would double the memory that loading takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from clipseg_model.modeling.base import SegmentationModel, build_model
from clipseg_model.weights.files import check_fit

# What fills or scales a tensor in place, beside torch.nn.init.
_FILLERS = frozenset(
    ['add_', 'clamp_', 'copy_', 'erfinv_', 'fill_', 'mul_', 'normal_', 'uniform_', 'zero_']
)


class _NoValues(TorchFunctionMode):
    """Leaves new parameters as they are: memory that nobody writes to takes none."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        words = kwargs or {}
        target = args[0] if args else words.get('tensor')
        fills = getattr(func, '__module__', '') == 'torch.nn.init'
        if isinstance(target, nn.Parameter) and (fills or func.__name__ in _FILLERS):
            return target
        return func(*args, **words)


def build_to_fill(config: Mapping[str, Any]) -> SegmentationModel:
    """Build a model without values in its parameters: each has to be filled."""
    with _NoValues(), torch.no_grad():
        return build_model(config)


def fill(targets: Mapping[str, Tensor], tensors: Iterable[tuple[str, Tensor]], path: Path) -> None:
    """Copy tensors into others of the same names, of any floating-point types.

    Args:
        targets: Such as the ``state_dict`` of a model, or views of it; all of them are filled.
        tensors: One at a time: no other than the newest has to stay.
        path: The file that they are from, for errors.

    Raises:
        CheckpointError: One is missing, unknown, not finite, or of another shape or type.
    """
    filled = set()
    for key, value in tensors:
        check_fit({key: targets[key]} if key in targets else {}, {key: value}, path)
        targets[key].copy_(value)
        filled.add(key)
    check_fit(targets, {key: targets[key].to('meta') for key in filled}, path)
