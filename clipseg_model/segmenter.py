"""From an image and prompts to masks: encoding once, decoding, postprocessing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

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
from clipseg_model.prompting.visual_prompt import DEFAULT_METHOD
from clipseg_model.prompts import Prompt, as_prompts, check_probability
from clipseg_model.runtime import Runtime, wrap_model
from clipseg_model.segmentation import PromptResult, Segmentation
from clipseg_model.video.still import StillDetector
from clipseg_model.zoom.refinement import Zoom

__all__ = ['PromptResult', 'Segmentation', 'Segmenter', 'input_shape']


class Segmenter:
    """A model at work on numpy images. Not for use by two threads at once.

    Args:
        model: The model, which torch then runs in float32 on ``device``; or a runtime that executes
            one on a device of its own, see :func:`clipseg_model.runtime.create_runtime`.
        card: What its output means and its input must be.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; a runtime's own device is what counts.
        visual_method: How example images with masks become prompt images, a key of
            :data:`clipseg_model.prompting.visual_prompt.METHODS`.
        template: What phrases are put into, a key of :data:`clipseg_model.prompts.TEMPLATES` or a
            caption with one ``{}``; the card's where None.
        zoom: How to look closely at parts of each image; None not to.
        reuse_below: As :attr:`reuse_below`.

    Attributes:
        model: The model, in evaluation mode on ``device``; it embeds prompts.
        runtime: What executes it on images.
        preprocessor: What makes its input of images.
        embedder: What embeds prompts for it.
        card: Its card.
        device: Where it runs.
        zoom: As given; may be set at any time.
        still: Decides whether an image is encoded, where encodings are reused.
        prompts_at_once: Most prompts that are decoded at once, None for no limit; may be set at
            any time. A small number takes less memory and more time, for the same answers.

    Raises:
        DeviceError: The device is not there.
        CheckpointError: The card's sizes do not fit the model's patches, or a weight is NaN or
            infinite.
        PromptError: There is no such visual method or template.
        ReuseError: As :meth:`check_reuse`.
    """

    def __init__(
        self,
        model: SegmentationModel | Runtime,
        card: ModelCard,
        device: str | torch.device = 'auto',
        visual_method: str = DEFAULT_METHOD,
        template: str | None = None,
        zoom: Zoom | None = None,
        reuse_below: float = 0.0,
    ) -> None:
        _check_weights(model.model if isinstance(model, Runtime) else model, card.name)
        if not isinstance(model, Runtime):
            model = wrap_model(model, resolve_device(device))
        self.runtime = model
        self.model = model.model
        self.device = model.device
        self.card = card
        self.zoom = zoom
        self.prompts_at_once: int | None = None
        self.preprocessor = Preprocessor(card, self.model.backbone, self.device)
        self.embedder = PromptEmbedder(model, card, self.preprocessor, visual_method, template)
        self.still = StillDetector()
        self.reuse_below = reuse_below
        self._encoded: ImageFeatures | None = None
        self._decoded: tuple[ImageFeatures, PromptFeatures, Tensor] | None = None
        self._reused = False
        self._features: ImageFeatures | None = None
        self._image = np.zeros((0, 0, 3), np.uint8)

    @property
    def visual_method(self) -> str:
        """How example images with masks become prompt images; may be set at any time.

        Raises:
            PromptError: On setting, there is no such method.
        """
        return self.embedder.visual_method

    @visual_method.setter
    def visual_method(self, name: str) -> None:
        self.embedder.visual_method = name

    @property
    def template(self) -> str:
        """What phrases are put into; may be set at any time, None for the card's.

        Raises:
            PromptError: On setting, there is no such template.
        """
        return self.embedder.template

    @template.setter
    def template(self, template: str | None) -> None:
        self.embedder.template = template

    @property
    def reuse_below(self) -> float:
        """An approximation for a camera that stands still; may be set at any time, 0 is off.

        While an image differs by less than this from the one that was encoded last (in levels of
        255, see :func:`clipseg_model.video.still.picture_difference`), that encoding is reused, at
        most ``still.at_most`` times in a row. Other prompts than those of the image before are
        decoded on it at once. The images must be of one camera: keep a segmenter for each, or call
        ``still.forget()`` between.

        Raises:
            ReuseError: On setting, as :meth:`check_reuse`.
        """
        return self.still.below

    @reuse_below.setter
    def reuse_below(self, below: float) -> None:
        self.check_reuse(below)
        self.still.below = below

    def check_reuse(self, below: float) -> None:
        """Make sure that :attr:`reuse_below` can be set to a value; changes nothing.

        Raises:
            ReuseError: It is out of range; or it is not 0, and the model's image tower sees the
                prompt, or zoom is on.
        """
        StillDetector(below)
        if below and not self.model.shares_image_features:
            raise ReuseError(
                f'The image tower of {self.card.name!r} sees the prompt and runs for each of them: '
                'there is no encoding of the image alone to reuse. Set reuse_below 0, or choose a '
                'CLIPSeg'
            )
        if below and self.zoom is not None:
            raise ReuseError(
                'Zoom encodes parts of every image anew, so no encoding is reused with it: set '
                'reuse_below 0, or leave zoom out'
            )

    def is_still(self, image: NDArray[np.uint8]) -> bool:
        """Decides whether the encoding at hand serves for the next image; False without reuse.

        What :meth:`set_image` does first, for those who call :meth:`infer`. If not, they must call
        it with this image.

        Args:
            image: (H, W, 3) uint8 RGB.
        """
        if not self.reuse_below:
            self._encoded = self._decoded = None
            return False
        return self._is_still(self.preprocessor.resize(image))

    @torch.inference_mode()
    def set_image(self, image: NDArray[np.uint8]) -> None:
        """Encode an image, once for all prompts that follow; or see :attr:`reuse_below`.

        Args:
            image: (H, W, 3) uint8 RGB of any size. Zoom looks at it again in :meth:`predict`, so
                do not overwrite it before.

        Raises:
            ImageError: It is something else; an image that was set before is then forgotten.
        """
        self._features = None
        check_image(image)
        pixels = self.preprocessor.resize(image)
        self._reused = self._is_still(pixels)
        if not self._reused:
            self._encoded = self.runtime.encode_image(self.preprocessor.normalise(pixels))
        self._features = self._encoded
        self._image = image

    @torch.inference_mode()
    def prepare(self, prompts: Sequence[str | Prompt]) -> list[Prompt]:
        """Embed prompts ahead of the first image, which also tells whether the model takes them.

        Args:
            prompts: As :meth:`predict` takes them.

        Returns:
            The same as prompts.

        Raises:
            PromptError: They are empty, too many, or not representable by the model.
        """
        wanted = as_prompts(prompts)
        self.embedder.features(wanted)
        return wanted

    @torch.inference_mode()
    def embed(self, prompts: Sequence[str | Prompt]) -> Tensor:
        """The conditional vectors of prompts, as the decoder takes them.

        Args:
            prompts: As :meth:`predict` takes them.

        Returns:
            (P, E) float32 on the device, not normalised: of a phrase the average over the
            template's captions, of an example that of its prompt image, of both the mix that
            :attr:`Prompt.weight` says.

        Raises:
            PromptError: They are empty, too many, or not representable by the model.
        """
        return self.embedder.conditions(as_prompts(prompts))

    @torch.inference_mode()
    def predict(
        self, prompts: Sequence[str | Prompt], threshold: float | None = None
    ) -> Segmentation:
        """Segment the image that was set, zooming in if :attr:`zoom` says how.

        Args:
            prompts: Phrases or :class:`~clipseg_model.prompts.Prompt`, 1 to 254 of them.
            threshold: Probability in (0, 1) for the prompts that have none of their own; the
                model's where None.

        Returns:
            A result for each prompt that is not negative, in their order.

        Raises:
            PromptError: The prompts are empty, too many, all negative, or not representable by
                the model; or one is negative and zoom is on.
            ImageError: No image was set.
            RegionError: A region to zoom into is not usable for this image.
        """
        wanted = as_prompts(prompts)
        if threshold is not None:
            check_probability(threshold, 'The threshold')
        if self._features is None:
            raise ImageError('There is no image to predict on: call set_image() first')
        logits = self._decode_prompts(self._features, wanted)
        found = self.read(logits, wanted, threshold, self._image.shape[:2])
        found = replace(found, reused=self._reused)
        return found if self.zoom is None else self.zoom.refine(self, self._image, found)

    def segment(
        self,
        image: NDArray[np.uint8],
        prompts: Sequence[str | Prompt],
        threshold: float | None = None,
    ) -> Segmentation:
        """:meth:`set_image` and :meth:`predict` in one call."""
        wanted = as_prompts(prompts)
        self.set_image(image)
        return self.predict(wanted, threshold)

    @torch.inference_mode()
    def segment_batch(
        self,
        images: Sequence[NDArray[np.uint8]],
        prompts: Sequence[str | Prompt],
        threshold: float | None = None,
    ) -> list[Segmentation]:
        """Segment images of one size by the same prompts, in one call of the model.

        Each is encoded: they are of several cameras, and encodings are reused for those of one.

        Args:
            images: At least one, such as the newest of each camera; (H, W, 3) uint8 RGB.
            prompts: As :meth:`predict` takes them.
            threshold: As :meth:`predict` takes it.

        Returns:
            One for each image, in their order.

        Raises:
            ImageError: There is no image, or one is no RGB image or of another size.
            PromptError: As :meth:`predict`.
        """
        wanted = as_prompts(prompts)
        if threshold is not None:
            check_probability(threshold, 'The threshold')
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
        condition = self.embedder.conditions(wanted).expand(len(images), -1, -1)
        answers = self.decode(features, self.runtime.encode_prompts(condition))
        found = [
            self.read(logits, wanted, threshold, size)
            for logits, size in zip(answers, sizes, strict=True)
        ]
        if self.zoom is None:
            return found
        pairs = zip(images, found, strict=True)
        return [self.zoom.refine(self, image, segmentation) for image, segmentation in pairs]

    @torch.inference_mode()
    def infer(self, pixels: Tensor | None, prompts: Sequence[Prompt]) -> Tensor:
        """The model's part of :meth:`segment`, which leaves its answer on the device.

        Args:
            pixels: (1, 3, H, W) uint8 RGB, on the device; None for an image that
                :meth:`is_still`, whose pixels are not needed there.
            prompts: As :meth:`prepare` returns them.

        Returns:
            Logits (P, h, w) float32 at the model's resolution, on the device.

        Raises:
            ImageError: There are no pixels, and no encoding to reuse.
        """
        features = self._encoded
        if pixels is not None:
            height, width = pixels.shape[2:]
            shape = self.preprocessor.shape_of(height, width)
            resized = self.preprocessor.resize_tensor(pixels, shape)
            features = self.runtime.encode_image(self.preprocessor.normalise(resized))
            self._encoded = features if self.reuse_below else None
        if features is None:
            raise ImageError('There is no encoding to reuse: give the pixels of the image')
        return self._decode_prompts(features, list(prompts))

    def decode(self, features: ImageFeatures, prompts: PromptFeatures) -> Tensor:
        """Decodes what the runtime made of images and prompts.

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
        reusable = self.reuse_below and features is self._encoded
        self._decoded = (features, prompts, logits) if reusable else None
        return logits

    def check_finite(self, logits: Tensor) -> None:
        """Make sure that an answer of :meth:`decode` is one, for which a GPU is waited for.

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
        """What logits mean.

        Args:
            logits: (P, h, w), as :meth:`infer` gives them.
            prompts: Their prompts.
            threshold: As :meth:`predict` takes it.
            size: Height and width of the image, pixels.

        Raises:
            ClipsegError: The logits are not finite.
            PromptError: All prompts are negative, or one is and zoom is on.
        """
        if self.zoom is not None and any(prompt.negative for prompt in prompts):
            raise PromptError('Negative prompts do not work with zoom: leave one of them out')
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

        Embeddings are kept: they are small, and dear.
        """
        self._features = self._encoded = self._decoded = None
        self.embedder.release_features()

    def _decode_prompts(self, features: ImageFeatures, prompts: list[Prompt]) -> Tensor:
        """Logits (P, h, w) of prompts of one image."""
        most = self.prompts_at_once or len(prompts)
        parts = [
            self.decode(features, self.embedder.features(prompts[start : start + most]))
            for start in range(0, len(prompts), most)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _is_still(self, pixels: Tensor) -> bool:
        """See :meth:`is_still`; pixels as they were resized."""
        if self.reuse_below:
            # Zoom may have been switched on since.
            self.check_reuse(self.reuse_below)
            if self._encoded is None:
                # What should have been encoded was not: it failed.
                self.still.forget()
        if not self.still.is_still(pixels[0].numpy()):
            self._encoded = self._decoded = None
            return False
        return True


def _check_weights(model: SegmentationModel, name: str) -> None:
    """Refuse what would not always show in the logits: a fused ReLU makes NaN 0."""
    for key, value in model.named_parameters():
        if value.numel() and not all(bound.isfinite() for bound in value.detach().aminmax()):
            raise CheckpointError(
                f'The weights of the model {name!r} are damaged: {key} holds NaN or infinity. Get '
                'them anew'
            )
