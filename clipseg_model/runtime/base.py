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
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from clipseg_model.errors import (
    DeviceError,
    DeviceMemoryError,
    PrecisionError,
    PromptError,
    RuntimeMissingError,
)
from clipseg_model.features import ImageFeatures, ModelTraits, PromptFeatures
from clipseg_model.pixels.resizing import resize_antialiased
from clipseg_model.runtime.devices import Device

Floats = NDArray[np.float32]

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

    Arrays at its border are numpy's, on the CPU; what it computes of images and of prompts
    (:class:`ImageFeatures`, :class:`PromptFeatures`) is for itself alone.

    Attributes:
        package: What must be importable, or None.
        extra: The extra of this project that installs it, or None.
        batches: Whether several images are computed faster in one call than one by one.
        compiles_each_size: Whether each number of images is slow when it first comes.
        streams: Whether it works on tensors that lie on a CUDA device already, see
            :class:`clipseg_model.cuda_streams.StreamedSegmenter`.
        traits: What must be known of the model.
        device: Where it computes.
        precision: One of :data:`PRECISIONS`.

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
    streams: ClassVar[bool] = False

    def __init__(self, traits: ModelTraits, device: Device, precision: str = 'fp32') -> None:
        if self.package is not None:
            require(self.package, self.name, self.extra)
        self.check(device, precision)
        self.traits = traits
        self.device = device
        self.precision = precision

    @property
    def model(self) -> Any:
        """The torch model, where torch executes it.

        Raises:
            RuntimeMissingError: It does not.
        """
        raise RuntimeMissingError(
            f'The runtime {self.name!r} executes an exported model and holds none of torch: choose '
            'the runtime eager, which needs "pip install clipseg_ros[torch]"'
        )

    @classmethod
    def check(cls, device: Device, precision: str) -> None:
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

    def resize(self, image: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
        """Resize an image for the model; see :data:`clipseg_model.pixels.preprocessing.Resize`."""
        return resize_antialiased(image, shape)

    @abstractmethod
    def encode_image(self, pixels: Floats) -> ImageFeatures:
        """Encode normalised images (B, 3, H, W), float32, for :meth:`decode` of this runtime."""

    @abstractmethod
    def encode_prompts(self, condition: Floats) -> PromptFeatures:
        """Compute what decoding needs of conditions (B, P, E) or (P, E), once for all images."""

    @abstractmethod
    def decode(self, features: ImageFeatures, prompts: Floats | PromptFeatures) -> Floats:
        """Decode prompts on B encoded images.

        Args:
            features: Of :meth:`encode_image`.
            prompts: Conditional vectors (B, P, E), or (P, E) when B is 1; or what
                :meth:`encode_prompts` made of them.

        Returns:
            Logits (B, P, H, W), or (P, H, W), float32.
        """

    @abstractmethod
    def embed_texts(self, texts: Sequence[str]) -> Floats:
        """Embed P texts as conditional vectors (P, E), float32."""

    @abstractmethod
    def embed_images(self, pixels: Floats) -> Floats:
        """Embed normalised prompt images (P, 3, H, W) as conditional vectors (P, E), float32."""

    def release_prompt_towers(self) -> None:  # noqa: B027 - few have such a thing
        """Give back what only embeds prompts, where it can be loaded anew when a prompt comes."""

    def embed_masked(self, pixels: Floats, masks: NDArray[np.bool_], scope: str) -> Floats:
        """Embed prompt images by what their masks (P, h, w) show, by restricted attention.

        See :mod:`clipseg_model.modeling.masked_attention`. Raises PromptError where
        :meth:`check_restrictable` does.
        """
        raise self._not_restrictable()

    def check_restrictable(self) -> None:
        """Raise PromptError unless attention can be restricted to a mask."""
        raise self._not_restrictable()

    def _not_restrictable(self) -> PromptError:
        return PromptError(
            f'The runtime {self.name!r} executes an exported model, whose attention cannot be '
            'restricted to a mask: choose a method for visual prompts that changes the pixels '
            '(crop_blur_10, blur_10_crop, background_10 …), or the runtime eager, which needs '
            '"pip install clipseg_ros[torch]"'
        )

    @abstractmethod
    def check_weights(self, name: str) -> None:
        """Raise CheckpointError if a weight of the model of a name is NaN or infinite."""

    def describe(self) -> str:
        """Describe what runs: ``eager fp32 on cpu``."""
        return f'{self.name} {self.precision} on {self.device}'


def require(package: str, runtime: str, extra: str | None) -> ModuleType:
    """Import what a runtime needs, or a command of its name.

    Raises:
        RuntimeMissingError: It is not installed, or broken.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        wanted = f'"clipseg_ros[{extra}]"' if extra else package
        raise RuntimeMissingError(
            f'The runtime or command {runtime!r} needs the package {package!r}, which cannot be '
            f'imported ({error}): install it with: pip install {wanted}; or choose another runtime'
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


def _check_bf16(device: Device) -> None:
    if device.type == 'cuda':
        torch = require('torch', 'cuda', 'torch')
        if not torch.cuda.is_bf16_supported(including_emulation=False):
            name = torch.cuda.get_device_name(str(device))
            raise PrecisionError(f'{name} does not compute in bf16: choose precision fp16 or fp32')
    elif not has_bf16():
        raise PrecisionError(
            f'This CPU ({platform.machine()}) has no instructions for bf16 (AVX512_BF16, AMX or '
            "Arm's BF16), without which it is slower than fp32: choose precision fp32 or int8"
        )


def has_bf16() -> bool:
    """Whether this CPU has instructions for bf16, without which it is slower than float32."""
    return bool(cpu_flags() & BF16_FLAGS)


def cpu_flags() -> frozenset[str]:
    """Return the instruction sets of this CPU as Linux names them; empty where it does not say."""
    try:
        text = Path('/proc/cpuinfo').read_text()
    except OSError:
        return frozenset()
    found = re.search(r'^(?:flags|Features)\s*:(.*)$', text, re.M)
    return frozenset(found[1].split()) if found else frozenset()
