"""Runtimes that work on an exported model, without torch and without the checkpoint."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from clipseg_model.errors import ClipsegError, ExportError
from clipseg_model.features import ImageFeatures, PromptFeatures
from clipseg_model.runtime.base import Floats, Runtime, memory_guard
from clipseg_model.runtime.devices import Device
from clipseg_model.runtime.exports.files import PROMPT, TEXT, OnnxExport, read_variant
from clipseg_model.runtime.exports.text_tokens import ReadTexts, open_tokenizer

if TYPE_CHECKING:
    from clipseg_model.model_card import ModelCard
    from clipseg_model.modeling.base import SegmentationModel

logger = logging.getLogger(__name__)

KEPT_TOWER = 64 << 20
"""Bytes of weights up to which a tower that embeds prompts stays loaded."""

KEPT_FOR = 100
"""Answers without a new prompt after which it is given back all the same."""

Parts = list[Any]


class Exporting:
    """What :func:`clipseg_model.runtime.create_runtime` asks the classes of runtimes with files.

    Attributes:
        made_on_demand: Precisions whose export needs nothing but the model.
    """

    made_on_demand: ClassVar[tuple[str, ...]] = ('fp32', 'bf16', 'fp16')

    @classmethod
    @abstractmethod
    def variant(cls, device: Device, precision: str) -> str:
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
        device: Device,
        precision: str,
    ) -> None:
        """Write what the runtime reads into the folder ``root`` of the variants.

        The model is in float32 on the CPU, ``digest`` that of its weights, ``device`` where it will
        run, and ``precision`` one of :attr:`made_on_demand`.

        Raises:
            ExportError: The model cannot be exported or the folder not written.
        """


class ExportedRuntime(Runtime, Exporting):
    """A runtime that executes files which were made of the model.

    Towers that embed prompts are loaded when a prompt needs them; large ones do not stay.

    Args:
        export: The model in parts.
        variant: Folder of the files, where they are not those parts.
        device: Where to compute.
        precision: In what.

    Attributes:
        prompts_at_once: Prompts that are decoded together: as many as fit the caches.
        opens_quickly: Whether a tower is loaded in a tenth of a second on a CPU; one that has not
            been needed for a while is given back then.

    Raises:
        ExportError: The files cannot be used.
    """

    prompts_at_once: ClassVar[int] = 4
    opens_quickly: ClassVar[bool] = False

    def __init__(
        self, export: OnnxExport, variant: Path | None, device: Device, precision: str = 'fp32'
    ) -> None:
        super().__init__(export.traits, device, precision)
        self._export = export
        self._towers: dict[str, Any] = {}
        self._answers = 0
        # Opened here, so that a damaged one is refused at once.
        self._read_texts: ReadTexts | None = self._open_tokenizer()
        with self._explained(f'load {variant or export.folder}'):
            self._load(variant)

    @classmethod
    def open(cls, export: OnnxExport, root: Path, device: Device, precision: str) -> Any:
        """Start the runtime on an export, and on the variant of it in the folder ``root``.

        Raises:
            ExportError: The variant is missing, damaged, or of other weights or versions.
        """
        if precision in cls.made_on_demand:
            return cls(export, None, device, precision)
        name = cls.variant(device, precision)
        digest = export.manifest['weights_sha256']
        read_variant(root / name, digest, cls.versions())
        return cls(export, root / name, device, precision)

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
                '(clipseg export), or choose another runtime'
            ) from error

    @abstractmethod
    def _load(self, variant: Path | None) -> None:
        """Make the runtime ready with the files of a variant; those of the export where None."""

    @abstractmethod
    def _encode(self, pixels: Floats) -> Parts:
        """Return the encoder's outputs for one image (1, 3, H, W)."""

    @abstractmethod
    def _decode(self, parts: Parts, condition: Floats, logits: Floats) -> None:
        """Write the logits (1, p, H, W) of a few prompts (1, p, E) on one image."""

    @abstractmethod
    def _open_tower(self, part: str) -> Any:
        """Load a tower that embeds prompts."""

    @abstractmethod
    def _run_tower(self, tower: Any, inputs: dict[str, Any]) -> Floats:
        """Return what a tower makes of its inputs, (P, E)."""

    def encode_image(self, pixels: Floats) -> ImageFeatures:
        """See :meth:`Runtime.encode_image`; images one by one, which on a CPU costs nothing."""
        pixels = np.ascontiguousarray(pixels, np.float32)
        with self._explained('encode an image'):
            images = [self._encode(pixels[number : number + 1]) for number in range(len(pixels))]
        parts = images[0]
        if len(images) > 1:
            parts = [np.concatenate(one) for one in zip(*images, strict=True)]
        height, width = pixels.shape[-2:]
        patch = self.traits.patch_size
        return ImageFeatures(parts, (height // patch, width // patch), height, width)

    def encode_prompts(self, condition: Floats) -> PromptFeatures:
        """See :meth:`Runtime.encode_prompts`."""
        return PromptFeatures(np.ascontiguousarray(condition, np.float32))

    def decode(self, features: ImageFeatures, prompts: Floats | PromptFeatures) -> Floats:
        """See :meth:`Runtime.decode`.

        Raises:
            ValueError: The condition is two-dimensional and there is more than one image.
        """
        condition = prompts.condition if isinstance(prompts, PromptFeatures) else prompts
        batch = len(features.taps[0])
        if condition.ndim == 2:
            if batch != 1:
                raise ValueError(f'a condition (P, E) is for one image, but there are {batch}')
            one: Floats = self.decode(features, condition[None])[0]
            return one
        self._answers += 1
        if self._answers == KEPT_FOR:
            self.release_prompt_towers()
        condition = np.ascontiguousarray(condition, np.float32)
        shape = (*condition.shape[:2], features.height, features.width)
        logits = np.empty(shape, np.float32)
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

    def check_weights(self, name: str) -> None:
        """See :meth:`Runtime.check_weights`: they were looked at when it was exported."""

    def embed_texts(self, texts: Sequence[str]) -> Floats:
        """See :meth:`Runtime.embed_texts`."""
        if not texts:
            return np.zeros((0, self.traits.embed_dim), np.float32)
        read = self._read_texts
        if read is None:
            read = self._read_texts = self._open_tokenizer()
        return self._embed(TEXT, read(texts))

    def embed_images(self, pixels: Floats) -> Floats:
        """See :meth:`Runtime.embed_images`."""
        return self._embed(PROMPT, {'pixels': np.ascontiguousarray(pixels, np.float32)})

    def release_prompt_towers(self) -> None:
        """See :meth:`Runtime.release_prompt_towers`: the towers and the tokenizer."""
        if not self.opens_quickly or self.device.type != 'cpu':
            return
        self._towers.clear()
        self._read_texts = None

    def _open_tokenizer(self) -> ReadTexts:
        return open_tokenizer(self._export.manifest['tokenizer'], self._export.folder)

    def _embed(self, part: str, inputs: dict[str, Any]) -> Floats:
        self._answers = 0
        with self._explained(f'embed prompts ({part})'):
            tower = self._towers.get(part)
            if tower is None:
                tower = self._open_tower(part)
                files = self._export.folder.glob('*.bin')
                if sum(file.stat().st_size for file in files) <= KEPT_TOWER:
                    self._towers[part] = tower
            # A copy: what a runtime returns may end with it.
            return np.array(self._run_tower(tower, inputs), np.float32)
