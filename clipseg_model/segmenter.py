"""From an image and prompts to masks: encoding once, decoding, postprocessing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipseg_model.calibration import top_scores
from clipseg_model.devices import resolve_device
from clipseg_model.errors import (
    CheckpointError,
    ClipsegError,
    ImageError,
    PromptError,
    ReuseError,
)
from clipseg_model.images import check_image
from clipseg_model.model_card import ModelCard
from clipseg_model.modeling.base import ImageFeatures, PromptFeatures, SegmentationModel
from clipseg_model.modeling.preprocessing import Preprocessor, input_shape
from clipseg_model.prompting.competition import compete
from clipseg_model.prompting.embedding import PromptEmbedder
from clipseg_model.prompts import Prompt, as_prompts, check_probability
from clipseg_model.regions import Box
from clipseg_model.runtime import Runtime, wrap_model
from clipseg_model.segmentation import PromptResult, Segmentation
from clipseg_model.settings import SegmentSettings
from clipseg_model.video.still import StillDetector

__all__ = ['PromptResult', 'SegmentSettings', 'Segmentation', 'Segmenter', 'input_shape']

VIEW_BATCH = 8
"""Views of an image that are encoded at once."""


class _Default:
    """One field of a segmenter's default settings, as an attribute of it."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, segmenter: Segmenter, owner: type) -> Any:
        return getattr(segmenter.settings, self._name)

    def __set__(self, segmenter: Segmenter, value: Any) -> None:
        settings = replace(segmenter.settings, **{self._name: value})
        segmenter.check_settings(settings)
        segmenter.settings = settings


class Segmenter:
    """A model at work on numpy images. Not for use by two threads at once.

    Args:
        model: The model, which torch then runs in float32 on ``device``; or a runtime that executes
            one on a device of its own, see :func:`clipseg_model.runtime.create_runtime`.
        card: What its output means and its input must be.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; a runtime's own device is what counts.
        settings: As :attr:`settings`; those of :class:`SegmentSettings` where None.

    Attributes:
        model: The model, in evaluation mode on ``device``; it embeds prompts.
        runtime: What executes it on images.
        preprocessor: What makes its input of images.
        embedder: What embeds prompts for it.
        card: Its card.
        device: Where it runs.
        settings: Those of every call that is given none. ``template``, ``visual_method``, ``zoom``
            and ``reuse_below`` are attributes too, which change one field of them.
        still: Decides whether an image is encoded, where encodings are reused.

    Raises:
        DeviceError: The device is not there.
        CheckpointError: The card's sizes do not fit the model's patches, or a weight is NaN or
            infinite.
        ReuseError: As :meth:`check_settings`.
    """

    template = _Default()
    visual_method = _Default()
    zoom = _Default()
    reuse_below = _Default()

    def __init__(
        self,
        model: SegmentationModel | Runtime,
        card: ModelCard,
        device: str | torch.device = 'auto',
        settings: SegmentSettings | None = None,
    ) -> None:
        _check_weights(model.model if isinstance(model, Runtime) else model, card.name)
        if not isinstance(model, Runtime):
            model = wrap_model(model, resolve_device(device))
        self.runtime = model
        self.model = model.model
        self.device = model.device
        self.card = card
        self.settings = settings or SegmentSettings()
        self.check_settings(self.settings)
        self.preprocessor = Preprocessor(card, self.model.backbone, self.device)
        self.embedder = PromptEmbedder(model, card, self.preprocessor)
        self.still = StillDetector()
        self._encoded: ImageFeatures | None = None
        self._decoded: tuple[ImageFeatures, PromptFeatures, Tensor] | None = None
        self._reused = False
        self._features: ImageFeatures | None = None
        self._image = np.zeros((0, 0, 3), np.uint8)

    def check_settings(self, settings: SegmentSettings) -> None:
        """Make sure that the model can follow settings; changes nothing.

        Raises:
            ReuseError: Encodings are to be reused, and the model's image tower sees the prompt.
        """
        if settings.reuse_below and not self.model.shares_image_features:
            raise ReuseError(
                f'The image tower of {self.card.name!r} sees the prompt and runs for each of them: '
                'there is no encoding of the image alone to reuse. Set reuse_below 0, or choose a '
                'CLIPSeg'
            )

    def is_still(self, image: NDArray[np.uint8], settings: SegmentSettings | None = None) -> bool:
        """Decide whether the encoding at hand serves for the next image; False without reuse.

        What :meth:`set_image` does first, for those who call :meth:`infer`. If not, they must call
        it with this image.

        Args:
            image: (H, W, 3) uint8 RGB.
            settings: :attr:`settings` where None.

        Raises:
            ReuseError: As :meth:`check_settings`.
        """
        settings = settings or self.settings
        if not settings.reuse_below:
            self._forget_encoding()
            self.still.forget()
            return False
        return self._is_still(self.preprocessor.resize(image), settings)

    @torch.inference_mode()
    def set_image(self, image: NDArray[np.uint8], settings: SegmentSettings | None = None) -> None:
        """Encode an image once for all prompts that follow, or reuse an encoding.

        Args:
            image: (H, W, 3) uint8 RGB of any size. Zoom looks at it again in :meth:`predict`, so
                do not overwrite it before.
            settings: :attr:`settings` where None. Those of reuse count.

        Raises:
            ImageError: It is something else; an image that was set before is then forgotten.
            ReuseError: As :meth:`check_settings`.
        """
        self._features = None
        check_image(image)
        pixels = self.preprocessor.resize(image)
        self._reused = self._is_still(pixels, settings or self.settings)
        if not self._reused:
            self._encoded = self.runtime.encode_image(self.preprocessor.normalise(pixels))
        self._features = self._encoded
        self._image = image

    @torch.inference_mode()
    def prepare(
        self, prompts: Sequence[str | Prompt], settings: SegmentSettings | None = None
    ) -> list[Prompt]:
        """Embed prompts ahead of the first image, which also tells whether the model takes them.

        Args:
            prompts: As :meth:`predict` takes them.
            settings: :attr:`settings` where None. Template and visual method count.

        Returns:
            The same as prompts.

        Raises:
            PromptError: They are empty, too many, or not representable by the model.
        """
        wanted = as_prompts(prompts)
        self._prompt_features(wanted, settings or self.settings)
        return wanted

    @torch.inference_mode()
    def embed(
        self, prompts: Sequence[str | Prompt], settings: SegmentSettings | None = None
    ) -> Tensor:
        """Return the conditional vectors of prompts, as the decoder takes them.

        Args:
            prompts: As :meth:`predict` takes them.
            settings: :attr:`settings` where None. Template and visual method count.

        Returns:
            (P, E) float32 on the device, not normalised: of a phrase the average over the
            template's captions, of an example that of its prompt image, of both the mix that
            :attr:`Prompt.weight` says.

        Raises:
            PromptError: They are empty, too many, or not representable by the model.
        """
        return self._conditions(as_prompts(prompts), settings or self.settings)

    @torch.inference_mode()
    def predict(
        self,
        prompts: Sequence[str | Prompt],
        threshold: float | None = None,
        settings: SegmentSettings | None = None,
    ) -> Segmentation:
        """Segment the image that was set.

        Args:
            prompts: Phrases or :class:`~clipseg_model.prompts.Prompt`, 1 to 254 of them.
            threshold: Probability in (0, 1) for the prompts that have none of their own; the
                model's where None.
            settings: :attr:`settings` where None.

        Returns:
            A result for each prompt that is not negative, in their order.

        Raises:
            PromptError: The prompts are empty, too many, all negative, or not representable by
                the model; or one is negative and zoom is on.
            ImageError: No image was set.
            RegionError: A region to zoom into is not usable for this image.
        """
        settings = settings or self.settings
        wanted = _check_request(prompts, threshold, settings)
        if self._features is None:
            raise ImageError('There is no image to predict on: call set_image() first')
        logits = self._decode_prompts(self._features, wanted, settings)
        found = self.read(logits, wanted, threshold, self._image.shape[:2])
        return self._refine(self._image, replace(found, reused=self._reused), settings)

    def segment(
        self,
        image: NDArray[np.uint8],
        prompts: Sequence[str | Prompt],
        threshold: float | None = None,
        settings: SegmentSettings | None = None,
    ) -> Segmentation:
        """:meth:`set_image` and :meth:`predict` in one call."""
        settings = settings or self.settings
        wanted = _check_request(prompts, threshold, settings)
        self.set_image(image, settings)
        return self.predict(wanted, threshold, settings)

    @torch.inference_mode()
    def segment_batch(
        self,
        images: Sequence[NDArray[np.uint8]],
        prompts: Sequence[str | Prompt],
        threshold: float | None = None,
        settings: SegmentSettings | None = None,
    ) -> list[Segmentation]:
        """Segment images of one size by the same prompts, in one call of the model.

        Each is encoded: they are of several cameras, and encodings are reused for those of one.

        Args:
            images: At least one, such as the newest of each camera; (H, W, 3) uint8 RGB.
            prompts: As :meth:`predict` takes them.
            threshold: As :meth:`predict` takes it.
            settings: :attr:`settings` where None.

        Returns:
            One for each image, in their order.

        Raises:
            ImageError: There is no image, or one is no RGB image or of another size.
            PromptError: As :meth:`predict`.
        """
        settings = settings or self.settings
        wanted = _check_request(prompts, threshold, settings)
        sizes = []
        for image in images:
            check_image(image)
            sizes.append(image.shape[:2])
        if len(set(sizes)) != 1:
            seen = ', '.join(f'{width} × {height}' for height, width in sizes) or 'none'
            raise ImageError(
                f'A batch is of one or more images of one size, not {seen}: resize them, or '
                'segment those of each size by themselves'
            )
        pixels = torch.cat([self.preprocessor.pixels(image) for image in images])
        features = self.runtime.encode_image(pixels)
        condition = self._conditions(wanted, settings).expand(len(images), -1, -1)
        answers = self.decode(features, self.runtime.encode_prompts(condition))
        return [
            self._refine(image, self.read(logits, wanted, threshold, size), settings)
            for image, logits, size in zip(images, answers, sizes, strict=True)
        ]

    @torch.inference_mode()
    def infer(
        self,
        pixels: Tensor | None,
        prompts: Sequence[Prompt],
        settings: SegmentSettings | None = None,
    ) -> Tensor:
        """Run the model's part of :meth:`segment`, which leaves its answer on the device.

        Args:
            pixels: (1, 3, H, W) uint8 RGB, on the device; None for an image that
                :meth:`is_still`, whose pixels are not needed there.
            prompts: As :meth:`prepare` returns them.
            settings: :attr:`settings` where None. Zoom does not count.

        Returns:
            Logits (P, h, w) float32 at the model's resolution, on the device.

        Raises:
            ImageError: There are no pixels, and no encoding to reuse.
        """
        if pixels is not None:
            height, width = pixels.shape[2:]
            shape = self.preprocessor.shape_of(height, width)
            resized = self.preprocessor.resize_tensor(pixels, shape)
            self._encoded = self.runtime.encode_image(self.preprocessor.normalise(resized))
        if self._encoded is None:
            raise ImageError('There is no encoding to reuse: give the pixels of the image')
        return self._decode_prompts(self._encoded, list(prompts), settings or self.settings)

    def decode(self, features: ImageFeatures, prompts: PromptFeatures) -> Tensor:
        """Decode what the runtime made of images and prompts.

        Nothing here waits for a GPU; whether the answer is finite, :meth:`check_finite` says.

        Args:
            features: Of one image, or of B.
            prompts: Of P prompts, or of B sets of P.

        Returns:
            Logits at the model's resolution, float32: (P, h, w), or (B, P, h, w) of B sets.
        """
        # The same answer to the same prompts, exactly.
        if self._decoded is not None and self._decoded[0] is features:
            _, known, logits = self._decoded
            if known is prompts:
                return logits
        logits = self.runtime.decode(features, prompts).float()
        self._decoded = (features, prompts, logits) if features is self._encoded else None
        return logits

    def check_finite(self, logits: Tensor) -> None:
        """Make sure that the logits of :meth:`decode` are finite; waits for a GPU.

        Raises:
            ClipsegError: The logits are not finite.
        """
        if not math.isfinite(float(logits.sum())):
            raise ClipsegError(
                f'The model {self.card.name!r} gave logits that are not finite: its weights are '
                'damaged, or its precision is too low for them'
            )

    def read(
        self,
        logits: Tensor,
        prompts: Sequence[Prompt],
        threshold: float | None,
        size: tuple[int, int],
    ) -> Segmentation:
        """Make results of logits.

        Args:
            logits: (P, h, w), as :meth:`infer` gives them.
            prompts: Their prompts.
            threshold: As :meth:`predict` takes it.
            size: Height and width of the image, pixels.

        Raises:
            ClipsegError: The logits are not finite.
            PromptError: All prompts are negative.
        """
        self.check_finite(logits)
        default = self.card.threshold if threshold is None else threshold
        presence = self.card.presence_threshold
        logits, asked = compete(logits, prompts, default, presence)
        height, width = size
        answers = zip(asked, top_scores(logits), logits.cpu().numpy(), strict=True)
        results = [
            PromptResult(
                prompt=prompt,
                threshold=default if prompt.threshold is None else prompt.threshold,
                score=score,
                presence=score
                >= (presence if prompt.presence_threshold is None else prompt.presence_threshold),
                logits=array,
                height=height,
                width=width,
            )
            for prompt, score, array in answers
        ]
        return Segmentation(height, width, results, self.card.name)

    @torch.inference_mode()
    def warm_up(self, height: int = 480, width: int = 640, prompts: int = 1) -> None:
        """Run once on a black image, so that the first real one is not slow.

        Args:
            height: Of the images that will come.
            width: Of the images that will come.
            prompts: How many prompts there will be.

        Raises:
            ClipsegError: The answer is not finite.
        """
        pixels = self.preprocessor.pixels(np.zeros((height, width, 3), np.uint8))
        features = self.runtime.encode_image(pixels)
        condition = self.runtime.embed_texts(['a']).expand(prompts, -1)
        logits = self.decode(features, self.runtime.encode_prompts(condition))
        self.check_finite(logits)
        top_scores(logits)

    def release_caches(self) -> None:
        """Forget the image that was set and what the decoder knows of prompts, to free memory.

        Embeddings stay: they are small, and take long to compute.
        """
        self._features = None
        self._forget_encoding()
        self.embedder.release_features()

    def _forget_encoding(self) -> None:
        self._encoded = self._decoded = None

    def _conditions(self, prompts: Sequence[Prompt], settings: SegmentSettings) -> Tensor:
        return self.embedder.conditions(prompts, settings.template, settings.visual_method)

    def _prompt_features(
        self, prompts: Sequence[Prompt], settings: SegmentSettings
    ) -> PromptFeatures:
        return self.embedder.features(prompts, settings.template, settings.visual_method)

    def _decode_prompts(
        self, features: ImageFeatures, prompts: list[Prompt], settings: SegmentSettings
    ) -> Tensor:
        """Logits (P, h, w) of prompts of one image."""
        most = settings.prompts_at_once or len(prompts)
        parts = [
            self.decode(features, self._prompt_features(prompts[start : start + most], settings))
            for start in range(0, len(prompts), most)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _is_still(self, pixels: Tensor, settings: SegmentSettings) -> bool:
        """See :meth:`is_still`; pixels as they were resized."""
        self.check_settings(settings)
        if self._encoded is None:
            # What should have been encoded was not: it failed.
            self.still.forget()
        if not self.still.is_still(pixels[0].numpy(), settings.reuse_below, settings.reuse_frames):
            self._forget_encoding()
            return False
        return True

    def _refine(
        self, image: NDArray[np.uint8], found: Segmentation, settings: SegmentSettings
    ) -> Segmentation:
        """Zoom in, where the settings say so."""
        if settings.zoom is None:
            return found

        def segment_views(
            views: Sequence[Box], prompts: Sequence[Sequence[Prompt]]
        ) -> list[NDArray[np.float32]]:
            return self._segment_views(image, views, prompts, settings)

        return settings.zoom.refine(image, found, segment_views, self.card.presence_threshold)

    def _segment_views(
        self,
        image: NDArray[np.uint8],
        views: Sequence[Box],
        prompts: Sequence[Sequence[Prompt]],
        settings: SegmentSettings,
    ) -> list[NDArray[np.float32]]:
        """See :data:`clipseg_model.settings.SegmentViews`.

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
                crops = [image[views[number].slices] for number in batch]
                pixels = torch.cat([self.preprocessor.pixels(crop, shape) for crop in crops])
                features = self.runtime.encode_image(pixels)
                condition = torch.stack([self._conditions(prompts[n], settings) for n in batch])
                answers = self.decode(features, self.runtime.encode_prompts(condition))
                self.check_finite(answers)
                logits.update(zip(batch, answers.cpu().numpy(), strict=True))
        return [logits[number] for number in range(len(views))]


def _check_request(
    prompts: Sequence[str | Prompt], threshold: float | None, settings: SegmentSettings
) -> list[Prompt]:
    """Refuse what no image could change; returns the prompts."""
    wanted = as_prompts(prompts)
    if threshold is not None:
        check_probability(threshold, 'The threshold')
    if settings.zoom is not None and any(prompt.negative for prompt in wanted):
        raise PromptError('Negative prompts do not work with zoom: leave one of them out')
    return wanted


def _check_weights(model: SegmentationModel, name: str) -> None:
    """Refuse what would not always show in the logits: a fused ReLU makes NaN 0."""
    for key, value in model.named_parameters():
        if value.numel() and not all(bound.isfinite() for bound in value.detach().aminmax()):
            raise CheckpointError(
                f'The weights of the model {name!r} are damaged: {key} holds NaN or infinity. Get '
                'them anew'
            )
