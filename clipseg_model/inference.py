"""From pixels and prompts to logits, and from logits to results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipseg_model.calibration import top_scores
from clipseg_model.errors import ClipsegError
from clipseg_model.features import ImageFeatures, PromptFeatures
from clipseg_model.model_card import ModelCard
from clipseg_model.pixels.preprocessing import Preprocessor
from clipseg_model.prompting.competition import compete
from clipseg_model.prompting.embedding import PromptEmbedder
from clipseg_model.prompts import Prompt
from clipseg_model.regions import Box
from clipseg_model.runtime import Runtime, eager_runtime
from clipseg_model.segmentation import PromptResult, Segmentation
from clipseg_model.settings import SegmentSettings

Floats = NDArray[np.float32]

if TYPE_CHECKING:
    from clipseg_model.modeling.base import SegmentationModel

VIEW_BATCH = 8
"""Views of an image that are encoded at once."""


class Inference:
    """A model with its preprocessing, and what it has computed last.

    Args:
        model: The model, which torch then runs in float32 on ``device``; or a runtime.
        card: What its output means and its input must be.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; a runtime's own device is what counts.

    Attributes:
        runtime: What executes the model.
        device: Where it runs.
        card: Its card.
        preprocessor: What makes its input of images.
        embedder: What embeds prompts for it.

    Raises:
        DeviceError: The device is not there.
        CheckpointError: The card's sizes do not fit the model's patches, or a weight is NaN or
            infinite.
    """

    def __init__(self, model: SegmentationModel | Runtime, card: ModelCard, device: object) -> None:
        self.runtime = model if isinstance(model, Runtime) else eager_runtime(model, device)
        self.runtime.check_weights(card.name)
        self.device = self.runtime.device
        self.card = card
        self.preprocessor = Preprocessor(card, self.runtime.traits, self.runtime.resize)
        self.embedder = PromptEmbedder(self.runtime, card, self.preprocessor)
        # The encoding that may be reused, and the last answer on it.
        self._encoded: ImageFeatures | None = None
        self._decoded: tuple[ImageFeatures, PromptFeatures, Any] | None = None

    @property
    def model(self) -> SegmentationModel:
        """The torch model of the runtime.

        Raises:
            RuntimeMissingError: It executes an exported one.
        """
        model: SegmentationModel = self.runtime.model
        return model

    def forget_encoding(self) -> None:
        """Forget the last encoding, and what was decoded on it."""
        self._encoded = self._decoded = None

    def conditions(self, prompts: Sequence[Prompt], settings: SegmentSettings) -> Floats:
        """Return the conditional vectors (P, E) of prompts."""
        return self.embedder.conditions(prompts, settings.template, settings.visual_method)

    def prompt_features(
        self, prompts: Sequence[Prompt], settings: SegmentSettings
    ) -> PromptFeatures:
        """Return what the decoder needs of prompts, kept for the frames that follow."""
        return self.embedder.features(prompts, settings.template, settings.visual_method)

    def decode_prompts(
        self,
        features: ImageFeatures,
        prompts: list[Prompt],
        settings: SegmentSettings,
        on_device: bool = False,
    ) -> Any:
        """Return the logits (P, h, w) of prompts of one image; see :meth:`decode`."""
        most = settings.prompts_at_once or len(prompts)
        parts = [
            self.decode(
                features,
                self.prompt_features(prompts[start : start + most], settings),
                bool(settings.reuse_below),
                on_device,
            )
            for start in range(0, len(prompts), most)
        ]
        return parts[0] if len(parts) == 1 else concatenate(parts)

    def decode(
        self,
        features: ImageFeatures,
        prompts: PromptFeatures,
        keep: bool = False,
        on_device: bool = False,
    ) -> Any:
        """Decode what the runtime made of images and prompts; :meth:`read` refuses damaged logits.

        Args:
            features: Of one image, or of B.
            prompts: Of P prompts, or of B sets of P.
            keep: Keep the answer for the frames that reuse the encoding.
            on_device: Leave the answer on a runtime's device as a tensor of torch, without a wait.

        Returns:
            Logits at the model's resolution, float32: (P, h, w), or (B, P, h, w) of B sets.
        """
        # The same answer to the same prompts, exactly.
        if self._decoded is not None and self._decoded[0] is features:
            _, known, logits = self._decoded
            if known is prompts and isinstance(logits, np.ndarray) is not on_device:
                return logits
        runtime: Any = self.runtime
        decode = runtime.decode_tensor if on_device else runtime.decode
        logits = decode(features, prompts)
        kept = keep and features is self._encoded
        self._decoded = (features, prompts, logits) if kept else None
        return logits

    def warm_up(self, height: int = 480, width: int = 640, prompts: int = 1) -> None:
        """Run once on a black image, so that the first real one is not slow.

        Give the height and width of the images that will come, and how many prompts there will be.
        Raises ClipsegError if the answer is not finite.
        """
        pixels = self.preprocessor.pixels(np.zeros((height, width, 3), np.uint8))
        features = self.runtime.encode_image(pixels)
        condition = self.runtime.embed_texts(['a']).repeat(prompts, axis=0)
        logits = self.decode(features, self.runtime.encode_prompts(condition))
        self._check_finite(logits)
        top_scores(logits)

    def segment_views(
        self,
        image: NDArray[np.uint8],
        views: Sequence[Box],
        prompts: Sequence[Sequence[Prompt]],
        settings: SegmentSettings,
    ) -> list[NDArray[np.float32]]:
        """Segment views of an image: see :data:`clipseg_model.settings.SegmentViews`.

        Views are resized to the shape of the whole image, so they should have its proportions.
        """
        shape = self.preprocessor.shape_of(*image.shape[:2])
        # A batch has the same number of prompts for each of its images.
        groups: dict[int, list[int]] = {}
        for number, own in enumerate(prompts):
            groups.setdefault(len(own), []).append(number)
        logits: dict[int, NDArray[np.float32]] = {}
        for numbers in groups.values():
            for start in range(0, len(numbers), VIEW_BATCH):
                batch = numbers[start : start + VIEW_BATCH]
                pixels = [self.preprocessor.pixels(image[views[n].slices], shape) for n in batch]
                condition = np.stack([self.conditions(prompts[n], settings) for n in batch])
                answers = self.answer(pixels, condition)
                self._check_finite(answers)
                logits.update(zip(batch, answers, strict=True))
        return [logits[number] for number in range(len(views))]

    def answer(self, pixels: Sequence[Floats], condition: Floats) -> Floats:
        """Return the logits (B, P, h, w) of B images (1, 3, H, W) by conditions (B, P, E)."""
        features = self.runtime.encode_image(np.concatenate(list(pixels)))
        logits: Floats = self.decode(features, self.runtime.encode_prompts(condition))
        return logits

    def read(
        self,
        logits: Floats,
        prompts: Sequence[Prompt],
        threshold: float | None,
        size: tuple[int, int],
    ) -> Segmentation:
        """Make results of logits: competition, presence and thresholds.

        Args:
            logits: (P, h, w) float32 at the model's resolution.
            prompts: Their P prompts.
            threshold: Probability in (0, 1) for the prompts that have none of their own; the
                card's where None.
            size: Height and width of the image, pixels.

        Returns:
            A result for each prompt that is not negative, in their order.

        Raises:
            ClipsegError: The logits are not finite.
            PromptError: All prompts are negative.
        """
        self._check_finite(logits)
        card = self.card
        default = card.threshold if threshold is None else threshold
        logits, asked = compete(logits, prompts, default, card.presence_threshold)
        height, width = size
        answers = zip(asked, top_scores(logits), logits, strict=True)
        results = [
            PromptResult(
                prompt=prompt,
                threshold=default if prompt.threshold is None else prompt.threshold,
                score=score,
                presence=score >= prompt.present_from(card.presence_threshold),
                logits=array,
                height=height,
                width=width,
            )
            for prompt, score, array in answers
        ]
        return Segmentation(height, width, results, card.name)

    def _check_finite(self, logits: Floats) -> None:
        """Refuse logits that are not finite."""
        with np.errstate(all='ignore'):
            total = float(logits.sum())
        if not math.isfinite(total):
            raise ClipsegError(
                f'The model {self.card.name!r} gave logits that are not finite: its weights are '
                'damaged, or its precision is too low for them'
            )


def concatenate(parts: Sequence[Any]) -> Any:
    """Join arrays of numpy, or tensors of torch, along their first axis."""
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(list(parts))
    import torch

    return torch.cat(list(parts))
