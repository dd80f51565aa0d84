"""Linear layers and convolutions as fast as a CPU computes them, their activation fused.

torch hands float32 matrix products to MKL, which leaves half of an AVX-512 machine idle where the
processor is not Intel's (Zen 5: 200 against 465 GFLOP/s). Where no gradients are wanted, what is
here goes to oneDNN instead, with weights packed once and the activation applied while the
results are still in registers. The arithmetic stays float32 (or bfloat16, where the model is): only
the order of additions differs. Anywhere else (gradients, autocast, tracing, export, another device
or precision) these are torch's own layers, bit for bit, and their state-dict keys always are.

Packed weights are a second copy in memory of those layers' weights.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import conv_flop_count, register_flop_formula

__all__ = ['ACTIVATIONS', 'Dense', 'FeedForward', 'Packed', 'convolve', 'onednn_serves']

_QUICK = 1.702


def _quick_gelu(inputs: Tensor) -> Tensor:
    return inputs * torch.sigmoid(_QUICK * inputs)


#: What may follow a product, by name; ``quick_gelu`` is that of OpenAI's CLIP.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    'none': lambda inputs: inputs,
    'relu': functional.relu,
    'gelu': functional.gelu,
    'quick_gelu': _quick_gelu,
    'relu6': functional.relu6,
}

# The names and arguments of the same in oneDNN. QuickGELU is SiLU (swish) of scaled weights.
_FUSED: dict[str, tuple[str, list[float], str]] = {
    'none': ('none', [], ''),
    'relu': ('relu', [], ''),
    'gelu': ('gelu', [], 'none'),
    'swish': ('swish', [], ''),
    'relu6': ('hardtanh', [0.0, 6.0], ''),
}

# Both belong to what torch.compile calls on CPUs; torch gives them no public name.
_HAS_ONEDNN = (
    torch.backends.mkldnn.is_available()
    and torch.backends.cpu.get_cpu_capability() == 'AVX512'
    and hasattr(torch.ops.mkldnn, '_linear_pointwise')
    and hasattr(torch.ops.mkldnn, '_reorder_linear_weight')
)


def onednn_serves(inputs: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN is called directly for a product of these, rather than torch's layers."""
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

    Args:
        weight_scale: What the weights are multiplied with while they are packed.
        bias_scale: The same of the bias.
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
        """Activation of inputs · weightᵀ + bias: (…, K) and (N, K) to (…, N).

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


class Dense(nn.Linear):
    """``nn.Linear`` with an activation, by oneDNN where that is faster."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, bias=bias)
        self.packed = Packed()

    def forward(self, inputs: Tensor, activation: str = 'none') -> Tensor:
        """Maps (…, K) to (…, N); ``activation`` is a key of :data:`ACTIVATIONS`."""
        if activation != 'quick_gelu' and onednn_serves(inputs, self.weight):
            return self.packed(inputs, self.weight, self.bias, activation)
        return ACTIVATIONS[activation](super().forward(inputs))

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self.packed.clear()
        return super()._apply(fn, recurse)


class FeedForward(nn.Sequential):
    """Linear layer, activation, linear layer, as the blocks of open_clip have them.

    x · σ(a · x), OpenAI's QuickGELU, is silu(a · x) / a: a goes into the packed weights and bias of
    the first layer and 1 / a into the weights of the second, so that oneDNN can fuse it.
    """

    fused: str
    packed: tuple[Packed, Packed]

    @classmethod
    def adopt(cls, layers: Any, activation: str) -> None:
        """Makes one of a ``nn.Sequential`` of two linear layers around that activation."""
        scale = _QUICK if activation == 'quick_gelu' else 1.0
        layers.__class__ = cls
        layers.fused = 'swish' if activation == 'quick_gelu' else 'gelu'
        layers.packed = Packed(scale, scale), Packed(1 / scale, 1.0)

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps (…, K) to (…, K)."""
        layers: tuple[Any, ...] = tuple(self)
        first, _, second = layers
        if not onednn_serves(inputs, first.weight):
            return super().forward(inputs)
        hidden = self.packed[0](inputs, first.weight, first.bias, self.fused)
        return self.packed[1](hidden, second.weight, second.bias)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        for packed in self.packed:
            packed.clear()
        return super()._apply(fn, recurse)


def convolve(
    inputs: Tensor, conv: nn.Conv2d, activation: str = 'none', weight: Tensor | None = None
) -> Tensor:
    """A convolution with zero padding and its activation.

    Args:
        inputs: (B, C, H, W).
        conv: Says how, and with what.
        activation: ``none``, ``relu`` or ``relu6``.
        weight: In place of the convolution's own.
    """
    kernel = conv.weight if weight is None else weight
    how = (conv.bias, conv.padding, conv.stride, conv.dilation, conv.groups)
    if onednn_serves(inputs, kernel):
        bias, *geometry = how
        output: Tensor = torch.ops.mkldnn._convolution_pointwise(
            inputs.to(kernel.dtype), kernel, bias, *geometry, *_FUSED[activation]
        )
        return output
    bias, padding, stride, dilation, groups = how
    return ACTIVATIONS[activation](
        functional.conv2d(inputs, kernel, bias, stride, padding, dilation, groups)
    )


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
