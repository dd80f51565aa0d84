"""From an image and prompts to masks: encoding once, decoding, postprocessing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipseg_model.errors import ImageError, PromptError, ReuseError
from clipseg_model.features import ImageFeatures
from clipseg_model.images import check_image
from clipseg_model.inference import Inference
from clipseg_model.model_card import ModelCard
from clipseg_model.prompts import Prompt, as_prompts, check_probability
from clipseg_model.regions import Box
from clipseg_model.runtime import Runtime
from clipseg_model.segmentation import Segmentation
from clipseg_model.settings import SegmentSettings
from clipseg_model.video.still import StillDetector

if TYPE_CHECKING:
    from clipseg_model.modeling.base import SegmentationModel


class _Default:
    """One field of a segmenter's default settings as an attribute of it; the card's where None."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, segmenter: Segmenter | None, owner: type) -> Any:
        if segmenter is None:
            return self
        value = getattr(segmenter.settings, self._name)
        return getattr(segmenter.card, self._name, None) if value is None else value

    def __set__(self, segmenter: Segmenter, value: Any) -> None:
        segmenter.change_settings(**{self._name: value})


class Segmenter(Inference):
    """A model at work on numpy images. Not for use by two threads at once.

    Args:
        model: The model, which torch then runs in float32 on ``device``; or a runtime that executes
            one on a device of its own, see :func:`clipseg_model.runtime.create_runtime`.
        card: What its output means and its input must be.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; a runtime's own device is what counts.
        settings: As :attr:`settings`; those of :class:`SegmentSettings` where None.

    Attributes:
        settings: Those of every call that is given none. Each of its fields is an attribute too,
            which may be set at any time and changes that field; errors are those of
            :meth:`change_settings`.
        still: Decides whether an image is encoded, where encodings are reused.

    Raises:
        DeviceError, CheckpointError: As :class:`~clipseg_model.inference.Inference`.
        ReuseError: As :meth:`check_settings`.
    """

    template = _Default()
    visual_method = _Default()
    zoom = _Default()
    reuse_below = _Default()
    reuse_frames = _Default()
    prompts_at_once = _Default()

    def __init__(
        self,
        model: SegmentationModel | Runtime,
        card: ModelCard,
        device: object = 'auto',
        settings: SegmentSettings | None = None,
    ) -> None:
        super().__init__(model, card, device)
        self.settings = settings or SegmentSettings()
        self.check_settings(self.settings)
        self.still = StillDetector()
        self._reused = False
        self._features: ImageFeatures | None = None
        self._image = np.zeros((0, 0, 3), np.uint8)

    def change_settings(self, **changes: Any) -> None:
        """Change fields of :attr:`settings`.

        Raises:
            PromptError, ReuseError: As :class:`SegmentSettings` and :meth:`check_settings`.
        """
        settings = replace(self.settings, **changes)
        self.check_settings(settings)
        self.settings = settings

    def check_settings(self, settings: SegmentSettings) -> None:
        """Make sure that the model can follow settings; changes nothing.

        Raises:
            ReuseError: Encodings are to be reused, and the model's image tower sees the prompt.
        """
        if settings.reuse_below and not self.runtime.traits.shares_image_features:
            raise ReuseError(
                f'The image tower of {self.card.name!r} sees the prompt and runs for each of them: '
                'there is no encoding of the image alone to reuse. Set reuse_below 0, or choose a '
                'CLIPSeg'
            )

    def is_still(self, image: NDArray[np.uint8], settings: SegmentSettings | None = None) -> bool:
        """Decide whether the encoding at hand serves for the next image; False without reuse.

        For those who call :meth:`infer`, and must call it with this image, (H, W, 3) uint8 RGB, if
        not.

        Raises:
            ReuseError: As :meth:`check_settings`.
        """
        settings = settings or self.settings
        if not settings.reuse_below:
            self.forget_encoding()
            self.still.forget()
            return False
        return self._is_still(self.preprocessor.resize(image), settings)

    def set_image(self, image: NDArray[np.uint8], settings: SegmentSettings | None = None) -> None:
        """Encode an image once for all prompts that follow, or reuse an encoding.

        Args:
            image: (H, W, 3) uint8 RGB of any size. Zoom looks at it again in :meth:`predict`, so do
                not overwrite it before.
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

    def prepare(
        self, prompts: Sequence[str | Prompt], settings: SegmentSettings | None = None
    ) -> list[Prompt]:
        """Embed prompts ahead of the first image, which also tells whether the model takes them.

        Takes prompts as :meth:`predict` does; template and visual method of the settings count.

        Raises:
            PromptError: They are empty, too many, or not representable by the model.
        """
        wanted = as_prompts(prompts)
        self.prompt_features(wanted, settings or self.settings)
        return wanted

    def embed(
        self, prompts: Sequence[str | Prompt], settings: SegmentSettings | None = None
    ) -> NDArray[np.float32]:
        """Return conditional vectors (P, E) float32, as the decoder takes them.

        They are not normalised: of a phrase the average over the template's captions, of an example
        that of its prompt image, of both the mix that :attr:`Prompt.weight` says. Arguments and
        errors are those of :meth:`prepare`.
        """
        return self.conditions(as_prompts(prompts), settings or self.settings)

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
        return self._predict(_check_request(prompts, threshold, settings), threshold, settings)

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
        return self._predict(wanted, threshold, settings)

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
        pixels = [self.preprocessor.pixels(image) for image in images]
        one = self.conditions(wanted, settings)
        condition = np.broadcast_to(one, (len(images), *one.shape))
        answers = self.answer(pixels, condition)
        return [
            self._refine(image, self.read(logits, wanted, threshold, size), settings)
            for image, logits, size in zip(images, answers, sizes, strict=True)
        ]

    def infer(
        self,
        pixels: Any,
        prompts: Sequence[Prompt],
        settings: SegmentSettings | None = None,
    ) -> Any:
        """Run the model's part of :meth:`segment` on a device, and leave its answer there.

        For a runtime that :attr:`~clipseg_model.runtime.base.Runtime.streams`.

        Args:
            pixels: A tensor of torch (1, 3, H, W) uint8 RGB, on the device; None for an image that
                :meth:`is_still`.
            prompts: As :meth:`prepare` returns them.
            settings: :attr:`settings` where None. Zoom does not count.

        Returns:
            Logits, a tensor (P, h, w) float32 at the model's resolution, on the device.

        Raises:
            ImageError: There are no pixels, and no encoding to reuse.
        """
        settings, features = settings or self.settings, self._encoded
        if pixels is not None:
            runtime: Any = self.runtime
            shape = self.preprocessor.shape_of(*pixels.shape[2:])
            features = runtime.encode_image(runtime.prepare(pixels, shape))
            self._encoded = features if settings.reuse_below else None
        if features is None:
            raise ImageError('There is no encoding to reuse: give the pixels of the image')
        return self.decode_prompts(features, list(prompts), settings, on_device=True)

    def release_caches(self) -> None:
        """Forget the image that was set and what the decoder knows of prompts, to free memory.

        Embeddings stay: they are small, and take long to compute.
        """
        self._features = None
        self.forget_encoding()
        self.embedder.release_features()

    def _predict(
        self, prompts: list[Prompt], threshold: float | None, settings: SegmentSettings
    ) -> Segmentation:
        """Segment the image that was set; the request has been checked."""
        if self._features is None:
            raise ImageError('There is no image to predict on: call set_image() first')
        logits = self.decode_prompts(self._features, prompts, settings)
        found = self.read(logits, prompts, threshold, self._image.shape[:2])
        return self._refine(self._image, replace(found, reused=self._reused), settings)

    def _is_still(self, pixels: NDArray[np.uint8], settings: SegmentSettings) -> bool:
        """See :meth:`is_still`; pixels as they were resized."""
        self.check_settings(settings)
        if self._encoded is None:
            # What should have been encoded was not: it failed.
            self.still.forget()
        if not self.still.is_still(pixels[0], settings.reuse_below, settings.reuse_frames):
            self.forget_encoding()
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
            return self.segment_views(image, views, prompts, settings)

        return settings.zoom.refine(image, found, segment_views, self.card.presence_threshold)


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
