"""Products on a CPU by oneDNN directly: what torch has no public name for.

torch hands float32 matrix products to MKL, which leaves half of an AVX-512 machine idle where the
processor is not Intel's (Zen 5: 200 against 465 GFLOP/s). Where no gradients are wanted, oneDNN
computes them, with weights packed once (a second copy in memory) and the activation applied while
the results are still in registers. The arithmetic stays float32 (or bfloat16, where the model is):
only the order of additions differs.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import conv_flop_count, register_flop_formula

QUICK = 1.702
"""The factor of OpenAI's QuickGELU, x · σ(1.702 · x)."""

# Names and arguments of activations in oneDNN. QuickGELU is SiLU (swish) of scaled weights.
_FUSED: dict[str, tuple[str, list[float], str]] = {
    'none': ('none', [], ''),
    'relu': ('relu', [], ''),
    'gelu': ('gelu', [], 'none'),
    'swish': ('swish', [], ''),
    'relu6': ('hardtanh', [0.0, 6.0], ''),
}

OPERATORS = ('_reorder_linear_weight', '_linear_pointwise', '_convolution_pointwise')
"""What is called of ``torch.ops.mkldnn``. torch.compile calls them on CPUs; no public name does."""

_HAS_ONEDNN = (
    torch.backends.mkldnn.is_available()
    and torch.backends.cpu.get_cpu_capability() == 'AVX512'
    and all(hasattr(torch.ops.mkldnn, name) for name in OPERATORS)
)


def onednn_serves(inputs: Tensor, weight: Tensor) -> bool:
    """Decide whether oneDNN is called for a product of these, rather than torch's layers."""
    return (
        _HAS_ONEDNN
        and not torch.is_grad_enabled()
        and _fitting(inputs, weight)
        and not torch.jit.is_tracing()
        # Subclasses stand for tensors that are traced, faked or wrapped.
        and type(inputs) is Tensor
        and type(weight) in (Tensor, nn.Parameter)
        and inputs.device.type == weight.device.type == 'cpu'
        and inputs.numel() > 0
        and not torch.compiler.is_compiling()
        and not torch.onnx.is_in_onnx_export()
    )


def _fitting(inputs: Tensor, weight: Tensor) -> bool:
    if torch.is_autocast_enabled('cpu'):
        # What autocast would do, with weights that are cast already.
        wanted = torch.get_autocast_dtype('cpu') == weight.dtype == torch.bfloat16
        return wanted and inputs.dtype in (torch.float32, torch.bfloat16)
    return inputs.dtype == weight.dtype and inputs.dtype in (torch.float32, torch.bfloat16)


class Packed:
    """The weights of one linear layer in oneDNN's own layout, packed again when they change.

    Weights and bias are multiplied with their scales while they are packed.
    """

    def __init__(self, weight_scale: float = 1.0, bias_scale: float = 1.0) -> None:
        self._scales = weight_scale, bias_scale
        self.clear()

    def __reduce__(self) -> tuple[Any, ...]:
        # What is packed can be neither copied nor pickled, and is made again where it is missing.
        return Packed, self._scales

    def clear(self) -> None:
        """Forget what is packed."""
        self._owner: Callable[[], Tensor | None] = lambda: None
        self._state: tuple[Any, ...] = ()
        self._weight: Tensor | None = None
        self._bias: Tensor | None = None

    def __call__(
        self, inputs: Tensor, weight: Tensor, bias: Tensor | None, activation: str = 'none'
    ) -> Tensor:
        """Compute the activation of inputs · weightᵀ + bias: (…, K) and (N, K) to (…, N).

        Only where :func:`onednn_serves`.
        """
        state = (weight.data_ptr(), _version(weight), None if bias is None else _version(bias))
        if self._owner() is not weight or self._state != state:
            rows = max(1, inputs.numel() // inputs.shape[-1])
            weight_scale, bias_scale = self._scales
            scaled = weight.detach() if weight_scale == 1 else weight.detach() * weight_scale
            self._weight = torch.ops.mkldnn._reorder_linear_weight(scaled.contiguous(), rows)
            self._bias = bias if bias is None or bias_scale == 1 else bias.detach() * bias_scale
            self._owner, self._state = weakref.ref(weight), state
        name, scalars, algorithm = _FUSED[activation]
        output: Tensor = torch.ops.mkldnn._linear_pointwise(
            inputs.to(weight.dtype), self._weight, self._bias, name, scalars, algorithm
        )
        return output


def pointwise_convolution(
    inputs: Tensor, kernel: Tensor, conv: nn.Conv2d, activation: str
) -> Tensor:
    """Apply a convolution to (B, C, H, W) and its activation, only where :func:`onednn_serves`.

    The kernel stands in for the convolution's own; the activation is ``none``, ``relu`` or
    ``relu6``.
    """
    output: Tensor = torch.ops.mkldnn._convolution_pointwise(
        inputs.to(kernel.dtype),
        kernel,
        conv.bias,
        conv.padding,
        conv.stride,
        conv.dilation,
        conv.groups,
        *_FUSED[activation],
    )
    return output


def _version(tensor: Tensor) -> int:
    # Tensors of the inference mode count no versions: nothing may change them in place.
    return 0 if tensor.is_inference() else tensor._version


if _HAS_ONEDNN:
    # torch's flop counter knows its own products only.

    @register_flop_formula(torch.ops.mkldnn._linear_pointwise)
    def _linear_flops(inputs: Any, weight: Any, *args: Any, **kwargs: Any) -> int:
        rows = 1
        for size in inputs[:-1]:
            rows *= size
        return 2 * rows * int(weight[0]) * int(weight[1])

    @register_flop_formula(torch.ops.mkldnn._convolution_pointwise)
    def _convolution_flops(
        inputs: Any, weight: Any, *args: Any, out_shape: Any = None, **kwargs: Any
    ) -> int:
        return int(conv_flop_count(list(inputs), list(weight), list(out_shape), transposed=False))
