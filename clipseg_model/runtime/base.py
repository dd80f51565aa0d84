"""What every runtime has in common: it executes a model's image side on one device."""

from __future__ import annotations

import importlib
import platform
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import torch
from torch import Tensor

from clipseg_model.errors import DeviceError, DeviceMemoryError, PrecisionError, RuntimeMissingError
from clipseg_model.modeling.base import ImageFeatures, PromptFeatures, SegmentationModel
from clipseg_model.runtime.tf32 import full_float32

PRECISIONS = ('fp32', 'bf16', 'fp16', 'int8')
"""What a model may compute in; each runtime has some of them."""

BF16_FLAGS = frozenset({'avx512_bf16', 'amx_bf16', 'bf16'})
"""Instruction sets of which a CPU needs one to be faster in bf16 than in fp32."""

# The last is oneDNN's. What it cannot compute at all is a primitive descriptor.
_NO_MEMORY = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|bad_alloc|bad allocation|"
    r'failed to allocate|not enough memory|could not create a primitive(?! desc)',
    re.I,
)


class Runtime(ABC):
    """A model, and what executes it: the operations that a ``Segmenter`` calls.

    Prompts are embedded by torch in every runtime, since an embedding is computed once and kept.
    The runtime may change the model (move it, cast its weights).

    Attributes:
        package: What must be importable beyond torch, or None.
        extra: The extra of this project that installs it, or None.
        batches: Whether several images are computed faster in one call than one by one.
        compiles_each_size: Whether each number of images is slow when it first comes.
        model: The torch model, in evaluation mode on ``device``.

    Raises:
        DeviceError: The runtime does not work on this kind of device.
        PrecisionError: The runtime or the device does not have the precision.
        RuntimeMissingError: Its package is not installed.
    """

    name: ClassVar[str]
    precisions: ClassVar[tuple[str, ...]]
    device_types: ClassVar[tuple[str, ...]] = ('cpu', 'cuda')
    package: ClassVar[str | None] = None
    extra: ClassVar[str | None] = None
    batches: ClassVar[bool] = False
    compiles_each_size: ClassVar[bool] = False

    def __init__(
        self, model: SegmentationModel, device: torch.device, precision: str = 'fp32'
    ) -> None:
        if self.package is not None:
            require(self.package, self.name, self.extra)
        self.check(device, precision)
        self.device = device
        self.precision = precision
        with memory_guard(self):
            self.model = model.to(device).eval()

    @classmethod
    def check(cls, device: torch.device, precision: str) -> None:
        """Make sure that the runtime has a precision on a device; nothing is loaded for it.

        Raises:
            DeviceError: The runtime does not work on this kind of device.
            PrecisionError: The runtime or the device does not have the precision.
        """
        if device.type not in cls.device_types:
            raise DeviceError(
                f'The runtime {cls.name!r} works on {" and ".join(cls.device_types)}, not on '
                f'{device}: choose that device, or another runtime'
            )
        if precision not in cls.precisions:
            raise PrecisionError(
                f'The runtime {cls.name!r} has the precisions {", ".join(cls.precisions)}, '
                f'not {precision!r}'
            )
        if precision == 'fp16' and device.type == 'cpu':
            raise PrecisionError(
                'CPUs compute fp16 more slowly than fp32: choose precision bf16 or fp32, or a CUDA '
                'device'
            )
        if precision == 'bf16':
            _check_bf16(device)

    @abstractmethod
    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        """Encode normalised images (B, 3, H, W), float32, for :meth:`decode` of this runtime."""

    def encode_prompts(self, condition: Tensor) -> PromptFeatures:
        """Compute what decoding needs of conditions (B, P, E) or (P, E), once for all images."""
        return PromptFeatures(condition)

    @abstractmethod
    def decode(self, features: ImageFeatures, prompts: Tensor | PromptFeatures) -> Tensor:
        """Decode prompts on B encoded images.

        Args:
            features: Of :meth:`encode_image`.
            prompts: Conditional vectors (B, P, E) on :attr:`device`, or (P, E) when B is 1; or what
                :meth:`encode_prompts` made of them.

        Returns:
            Logits (B, P, H, W), or (P, H, W), float32 on :attr:`device`.
        """

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed P texts as conditional vectors (P, E)."""
        with memory_guard(self):
            return self.model.embed_texts(texts)

    def embed_images(self, pixels: Tensor) -> Tensor:
        """Embed normalised prompt images (P, 3, H, W) as conditional vectors (P, E)."""
        with memory_guard(self), full_float32(self.device):
            return self.model.embed_images(pixels)

    def describe(self) -> str:
        """Describe what runs: ``eager fp32 on cpu``."""
        return f'{self.name} {self.precision} on {self.device}'


def require(package: str, runtime: str, extra: str | None) -> ModuleType:
    """Import what a runtime needs.

    Raises:
        RuntimeMissingError: It is not installed, or broken.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        remedy = f'install it with: pip install "clipseg_ros[{extra}]"' if extra else 'install it'
        raise RuntimeMissingError(
            f'The runtime {runtime!r} needs the package {package!r}, which cannot be imported '
            f'({error}): {remedy}; or choose the runtime eager'
        ) from error


@contextmanager
def memory_guard(runtime: Runtime) -> Iterator[None]:
    """Raise :class:`DeviceMemoryError` wherever memory runs out, in a ``with`` block."""
    try:
        yield
    except DeviceMemoryError:
        raise
    except Exception as error:  # each runtime has kinds of its own, many without a common base
        if not isinstance(error, MemoryError) and not _NO_MEMORY.search(str(error)):
            raise
        raise DeviceMemoryError(
            f'There is not enough memory for {runtime.describe()}: end other programs, ask for '
            'fewer prompts at once, or choose a smaller model or input, a precision of 16 or 8 '
            f'bits, or another device. {str(error).splitlines()[0] if str(error) else ""}'.rstrip()
        ) from error


def _check_bf16(device: torch.device) -> None:
    if device.type == 'cuda':
        if not torch.cuda.is_bf16_supported(including_emulation=False):
            raise PrecisionError(
                f'{torch.cuda.get_device_name(device)} does not compute in bf16: choose precision '
                'fp16 or fp32'
            )
    elif not cpu_flags() & BF16_FLAGS:
        raise PrecisionError(
            f'This CPU ({platform.machine()}) has no instructions for bf16 (AVX512_BF16, AMX or '
            "Arm's BF16), without which it is slower than fp32: choose precision fp32 or int8"
        )


def cpu_flags() -> frozenset[str]:
    """Return the instruction sets of this CPU as Linux names them; empty where it does not say."""
    try:
        text = Path('/proc/cpuinfo').read_text()
    except OSError:
        return frozenset()
    found = re.search(r'^(?:flags|Features)\s*:(.*)$', text, re.M)
    return frozenset(found[1].split()) if found else frozenset()
