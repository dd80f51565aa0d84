"""Runtimes that work on an exported model: found, checked, made where needed, then loaded."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from clipseg_model.errors import ClipsegError, ExportError
from clipseg_model.model_card import ModelCard
from clipseg_model.modeling.base import ImageFeatures, PromptFeatures, SegmentationModel
from clipseg_model.modeling.buffers import empty
from clipseg_model.runtime.base import Runtime, memory_guard
from clipseg_model.runtime.export_files import (
    exports_folder,
    read_variant,
    weights_digest,
    write_variant,
)
from clipseg_model.runtime.split import check_exportable, write_onnx

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)

ONNX = 'onnx'
"""Name of the variant that the others are made of."""


class ExportedRuntime(Runtime):
    """A runtime that executes files which were made of the model.

    The torch model stays in memory, in float32, and embeds the prompts. ``folder`` is where
    ``clipseg export`` wrote the model to; nothing is made there. Where it is None, what is missing,
    damaged or foreign is made anew in a folder in the user's cache.

    Attributes:
        prompts_at_once: Prompts that are decoded together: as many as fit the caches.
        fixed_size: Whether an export is for one input size.
        made_on_demand: Precisions whose export needs nothing but the model.

    Raises:
        ExportError: The model cannot be exported, or its export cannot be used.
    """

    prompts_at_once: ClassVar[int] = 4
    fixed_size: ClassVar[bool] = False
    made_on_demand: ClassVar[tuple[str, ...]] = ('fp32', 'bf16', 'fp16')

    def __init__(
        self,
        model: SegmentationModel,
        device: torch.device,
        precision: str = 'fp32',
        *,
        card: ModelCard,
        folder: Path | None = None,
    ) -> None:
        check_exportable(model)
        super().__init__(model.cpu(), torch.device('cpu'), precision)
        digest = weights_digest(self.model)
        self.device = device
        self.check(device, precision)
        root = exports_folder(card, digest) if folder is None else folder
        variant = root / self.variant(device, precision)
        try:
            manifest = self._read(variant, digest, card)
        except ExportError as error:
            if folder is not None or precision not in self.made_on_demand:
                raise ExportError(
                    f'{error}; here: clipseg export {card.name} {root} --runtime {self.name} '
                    f'--precision {precision}{self.export_options(precision)}'
                ) from error
            logger.info('%s Exporting now.', error)
            self.export(self.model, card, digest, root, device, precision)
            manifest = self._read(variant, digest, card)
        self.model = self.model.to(device)
        with self._explained(f'load {variant}'):
            self._load(variant, manifest)

    @classmethod
    def _read(cls, variant: Path, digest: str, card: ModelCard) -> dict[str, Any]:
        manifest = read_variant(variant, digest, cls.versions())
        if cls.fixed_size and manifest.get('input_size') != card.input_size:
            raise ExportError(
                f'{variant} was made for the input size {manifest.get("input_size")}, and '
                f'{card.input_size} is asked for: export the model again (clipseg export)'
            )
        return manifest

    @classmethod
    def of_files(
        cls, model: SegmentationModel, device: torch.device, precision: str, files: Path
    ) -> Self:
        """Return a runtime on files that have just been made, before they become a variant."""
        runtime = cls.__new__(cls)
        Runtime.__init__(runtime, model, device, precision)
        runtime._load(files, {})
        return runtime

    @classmethod
    @abstractmethod
    def variant(cls, device: torch.device, precision: str) -> str:
        """Return the name of the variant that this runtime loads."""

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Return the packages that the export needs, with their installed versions."""
        return {}

    @classmethod
    def export_options(cls, precision: str) -> str:
        """Return the options that ``clipseg export`` needs for a precision, as text."""
        return ''

    @classmethod
    @abstractmethod
    def export(
        cls,
        model: SegmentationModel,
        card: ModelCard,
        digest: str,
        root: Path,
        device: torch.device,
        precision: str,
    ) -> None:
        """Write what :meth:`_load` reads into the folder ``root`` of the variants.

        The model is in float32 on the CPU, ``digest`` that of its weights, ``device`` where it will
        run, and ``precision`` one of :attr:`made_on_demand`.

        Raises:
            ExportError: The model cannot be exported or the folder not written.
        """

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Raise an ExportError for whatever a runtime raises at files that are damaged."""
        try:
            with memory_guard(self):
                yield
        except ClipsegError:
            raise
        except Exception as error:  # Each runtime has kinds of its own, without a common base.
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            raise ExportError(
                f'The runtime {self.name!r} cannot {what}: {reason}. Export the model again '
                '(clipseg export), or choose the runtime eager'
            ) from error

    @abstractmethod
    def _load(self, folder: Path, manifest: dict[str, Any]) -> None:
        """Make the runtime ready with the files of a variant."""

    @abstractmethod
    def _encode(self, pixels: Tensor) -> list[Tensor]:
        """Return the encoder's outputs for one image (1, 3, H, W)."""

    @abstractmethod
    def _decode(self, parts: list[Tensor], condition: Tensor, logits: Tensor) -> None:
        """Write the logits (1, p, H, W) of a few prompts (1, p, E) on one image."""

    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        """See :meth:`Runtime.encode_image`; images one by one, which on a CPU costs nothing."""
        with self._explained('encode an image'):
            images = [self._encode(image) for image in pixels.contiguous().split(1)]
        parts = images[0] if len(images) == 1 else [torch.cat(p) for p in zip(*images, strict=True)]
        height, width = pixels.shape[-2:]
        patch = self.model.backbone.patch_size
        return ImageFeatures(parts, (height // patch, width // patch), height, width)

    def decode(self, features: ImageFeatures, prompts: Tensor | PromptFeatures) -> Tensor:
        """See :meth:`Runtime.decode`.

        Raises:
            ValueError: The condition is two-dimensional and there is more than one image.
        """
        condition = prompts.condition if isinstance(prompts, PromptFeatures) else prompts
        batch = features.taps[0].shape[0]
        if condition.dim() == 2:
            if batch != 1:
                raise ValueError(f'a condition (P, E) is for one image, but there are {batch}')
            return self.decode(features, condition[None])[0]
        condition = condition.float().contiguous()
        size = (features.height, features.width)
        logits = empty(*condition.shape[:2], *size, dtype=torch.float32, device=condition.device)
        with self._explained('decode prompts'):
            for number in range(batch):
                parts = [part[number : number + 1] for part in features.taps]
                for start in range(0, condition.shape[1], self.prompts_at_once):
                    chunk = slice(start, start + self.prompts_at_once)
                    self._decode(
                        parts,
                        condition[number : number + 1, chunk],
                        logits[number : number + 1, chunk],
                    )
        return logits


def ensure_onnx(model: SegmentationModel, card: ModelCard, digest: str, root: Path) -> Path:
    """Return the folder of a model's ONNX files in ``root``; write them if missing or unusable.

    Raises:
        ExportError: The model cannot be exported or the folder not written.
        RuntimeMissingError: The packages onnx or onnxscript are not installed.
    """
    folder = root / ONNX
    try:
        read_variant(folder, digest, {})
    except ExportError as error:
        logger.info('%s Exporting %s to ONNX, which takes a minute.', error, card.name)
        versions = package_versions('clipseg_ros', 'torch', 'onnx', 'onnxscript')
        write_variant(
            folder, card, digest, versions, lambda made: {'parts': write_onnx(model, made)}
        )
    return folder


def package_versions(*packages: str) -> dict[str, str]:
    """Return the versions of installed packages; one that runs from a checkout has none."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = 'not installed'
    return found
