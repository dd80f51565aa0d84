"""From an image and prompts to masks: preprocessing, encoding once, decoding, postprocessing."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from clipseg_model.calibration import top_scores
from clipseg_model.competition import compete
from clipseg_model.devices import resolve_device
from clipseg_model.errors import CheckpointError, ClipsegError, ImageError, PromptError
from clipseg_model.images import check_image
from clipseg_model.masked_attention import masked_attention
from clipseg_model.model_card import ModelCard
from clipseg_model.models import ImageFeatures, PromptFeatures, SegmentationModel
from clipseg_model.prompts import (
    EmbeddingCache,
    Prompt,
    as_prompts,
    check_probability,
    fill_template,
    find_captions,
)
from clipseg_model.regions import Box
from clipseg_model.runtime import Runtime, wrap_model
from clipseg_model.segmentation import PromptResult, Segmentation
from clipseg_model.visual_prompt import DEFAULT_METHOD, find_method, visual_prompt
from clipseg_model.zoom import Zoom

__all__ = ['PromptResult', 'Segmentation', 'Segmenter', 'input_shape']

PROMPT_SETS = 32
"""Sets of prompts whose features are kept."""

TEXT_CHUNK = 256
"""Captions embedded at once: the most prompts in nine captions each would take gigabytes."""
VIEW_BATCH = 8
"""Parts of an image encoded at once."""


def input_shape(
    height: int, width: int, input_size: int, patch_size: int, resize: str = 'square'
) -> tuple[int, int]:
    """The size that an image is resized to before it enters a model.

    Args:
        height: Of the image.
        width: Of the image.
        input_size: Side of the square.
        patch_size: What both sides must be multiples of.
        resize: ``square``, or ``aspect`` for about the same area at about the image's proportions
            (at least two patches a side).

    Returns:
        (height, width).
    """
    if resize == 'square':
        return input_size, input_size
    proportion = math.sqrt(width / height)

    def side(length: float) -> int:
        return max(2, round(length / patch_size)) * patch_size

    return side(input_size / proportion), side(input_size * proportion)


class Segmenter:
    """A model at work on numpy images. Not for use by two threads at once.

    Args:
        model: The model, which torch then runs in float32 on ``device``; or a runtime that executes
            one on a device of its own, see :func:`clipseg_model.runtime.create_runtime`.
        card: What its output means and its input must be.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; a runtime's own device is what counts.
        visual_method: How example images with masks become prompt images, a key of
            :data:`clipseg_model.visual_prompt.METHODS`.
        template: What phrases are put into, a key of :data:`clipseg_model.prompts.TEMPLATES` or a
            caption with one ``{}``; the card's where None.
        zoom: How to look closely at parts of each image; None not to.

    Attributes:
        model: The model, in evaluation mode on ``device``; it embeds prompts.
        runtime: What executes it on images.
        card: Its card.
        device: Where it runs.
        zoom: As given; may be set at any time.
        prompts_at_once: Most prompts that are decoded at once, None for no limit; may be set at
            any time. A small number takes less memory and more time, for the same answers.

    Raises:
        DeviceError: The device is not there.
        CheckpointError: The card's sizes do not fit the model's patches, or a weight is NaN or
            infinite.
        PromptError: There is no such visual method or template.
    """

    def __init__(
        self,
        model: SegmentationModel | Runtime,
        card: ModelCard,
        device: str | torch.device = 'auto',
        visual_method: str = DEFAULT_METHOD,
        template: str | None = None,
        zoom: Zoom | None = None,
    ) -> None:
        _check_weights(model.model if isinstance(model, Runtime) else model, card.name)
        if not isinstance(model, Runtime):
            model = wrap_model(model, resolve_device(device))
        self.runtime = model
        self.model = model.model
        self.device = model.device
        self.card = card
        self.visual_method = visual_method
        self.template = template
        self.zoom = zoom
        self.prompts_at_once: int | None = None
        backbone = self.model.backbone
        red, green, blue = (255 * level for level in backbone.mean)
        self._ground = (red, green, blue) if card.prompt_ground == 'mean' else (0, 0, 0)
        self._prompt_size = card.prompt_image_size or card.input_size
        if card.input_size % backbone.patch_size or self._prompt_size % backbone.patch_size:
            raise CheckpointError(
                f'The card of {card.name!r} has input_size {card.input_size} and '
                f'prompt_image_size {self._prompt_size}, which are not both multiples of the '
                f'patch size {backbone.patch_size}'
            )
        # Of 0…255. In this order and precision, Hugging Face's numbers come out bit for bit.
        self._mean = (255 * torch.tensor(backbone.mean)).view(1, 3, 1, 1).to(self.device)
        self._std = (255 * torch.tensor(backbone.std)).view(1, 3, 1, 1).to(self.device)
        self._texts = EmbeddingCache()
        self._images = EmbeddingCache()
        self._sets: OrderedDict[Hashable, PromptFeatures] = OrderedDict()
        self._features: ImageFeatures | None = None
        self._image = np.zeros((0, 0, 3), np.uint8)

    @property
    def visual_method(self) -> str:
        """How example images with masks become prompt images; may be set at any time.

        Raises:
            PromptError: On setting, there is no such method.
        """
        return self._visual_method

    @visual_method.setter
    def visual_method(self, name: str) -> None:
        find_method(name)
        self._visual_method = name

    @property
    def template(self) -> str:
        """What phrases are put into; may be set at any time, None for the card's.

        Raises:
            PromptError: On setting, there is no such template.
        """
        return self._template

    @template.setter
    def template(self, template: str | None) -> None:
        chosen = self.card.template if template is None else template
        self._captions = find_captions(chosen)
        self._template = chosen

    @torch.inference_mode()
    def set_image(self, image: NDArray[np.uint8]) -> None:
        """Encode an image, once for all prompts that follow.

        Args:
            image: (H, W, 3) uint8 RGB of any size. Zoom looks at it again in :meth:`predict`, so
                do not overwrite it before.

        Raises:
            ImageError: It is something else; an image that was set before is then forgotten.
        """
        self._features = None
        check_image(image)
        shape = self._input_shape(image)
        self._features = self.runtime.encode_image(self._pixels(image, shape))
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
        self._prompt_features(wanted)
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
        return self._conditions(as_prompts(prompts))

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
        logits = self._answer(self._features, wanted)
        found = self.read(logits, wanted, threshold, self._image.shape[:2])
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
        shape = self._input_shape(images[0])
        features = self.runtime.encode_image(torch.cat([self._pixels(x, shape) for x in images]))
        condition = self._conditions(wanted).expand(len(images), -1, -1)
        answers = self._decode(features, self.runtime.encode_prompts(condition))
        found = [
            self.read(logits, wanted, threshold, size)
            for logits, size in zip(answers, sizes, strict=True)
        ]
        if self.zoom is None:
            return found
        pairs = zip(images, found, strict=True)
        return [self.zoom.refine(self, image, segmentation) for image, segmentation in pairs]

    @torch.inference_mode()
    def infer(self, pixels: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """The model's part of :meth:`segment`, which leaves its answer on the device.

        Args:
            pixels: (1, 3, H, W) uint8 RGB, on the device.
            prompts: As :meth:`prepare` returns them.

        Returns:
            Logits (P, h, w) float32 at the model's resolution, on the device.
        """
        height, width = pixels.shape[2:]
        shape = self._shape_for(height, width)
        features = self.runtime.encode_image(self._normalise(pixels, shape))
        return self._answer(features, list(prompts))

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
            PromptError: All prompts are negative, or one is and zoom is on.
        """
        if self.zoom is not None and any(prompt.negative for prompt in prompts):
            raise PromptError('Negative prompts do not work with zoom: leave one of them out')
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
    def segment_views(
        self,
        image: NDArray[np.uint8],
        views: Sequence[Box],
        prompts: Sequence[Sequence[Prompt]],
    ) -> list[NDArray[np.float32]]:
        """Segment parts of an image, each as if it were a whole one, in batches.

        Args:
            image: (H, W, 3) uint8 RGB.
            views: The parts. They are resized to one shape, that of the whole image, so they
                should have its proportions.
            prompts: For each view, at least one.

        Returns:
            For each view, logits (P, h, w) float32 at the model's resolution.

        Raises:
            PromptError: A prompt is not representable by the model.
        """
        shape = self._input_shape(image)
        # A batch has the same number of prompts for each of its images.
        groups: dict[int, list[int]] = {}
        for number, own in enumerate(prompts):
            groups.setdefault(len(own), []).append(number)
        logits: dict[int, NDArray[np.float32]] = {}
        for numbers in groups.values():
            for start in range(0, len(numbers), VIEW_BATCH):
                batch = numbers[start : start + VIEW_BATCH]
                crops = [self._pixels(image[views[number].slices], shape) for number in batch]
                features = self.runtime.encode_image(torch.cat(crops))
                condition = torch.stack([self._conditions(list(prompts[n])) for n in batch])
                known = self.runtime.encode_prompts(condition)
                answers = self._decode(features, known).cpu().numpy()
                logits.update(zip(batch, answers, strict=True))
        return [logits[number] for number in range(len(views))]

    @torch.inference_mode()
    def warm_up(self, height: int = 480, width: int = 640, prompts: int = 1) -> None:
        """Run once on a black image, so that the first real one is not slow.

        Args:
            height: Of the images that will come.
            width: Of the images that will come.
            prompts: How many prompts there will be.
        """
        self.set_image(np.zeros((height, width, 3), np.uint8))
        assert self._features is not None
        condition = self.runtime.embed_texts(['a']).expand(prompts, -1)
        top_scores(self._decode(self._features, self.runtime.encode_prompts(condition)))
        self._features = None

    def release_caches(self) -> None:
        """Forget the image that was set and what the decoder knows of prompts, to free memory.

        Embeddings are kept: they are small, and dear.
        """
        self._features = None
        self._sets.clear()

    def _answer(self, features: ImageFeatures, prompts: list[Prompt]) -> Tensor:
        """Logits (P, h, w) of prompts of one image."""
        most = self.prompts_at_once or len(prompts)
        parts = [
            self._decode(features, self._prompt_features(prompts[start : start + most]))
            for start in range(0, len(prompts), most)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _input_shape(self, image: NDArray[np.uint8]) -> tuple[int, int]:
        """What an image is resized to."""
        return self._shape_for(*image.shape[:2])

    def _shape_for(self, height: int, width: int) -> tuple[int, int]:
        return input_shape(
            height,
            width,
            self.card.input_size,
            self.model.backbone.patch_size,
            self.card.resize,
        )

    def _pixels(self, image: NDArray[np.uint8], shape: tuple[int, int]) -> Tensor:
        """Resized and normalised, (1, 3, h, w) float32 on the device.

        Resized as uint8 with antialiasing, then normalised, bit for bit as Hugging Face's CLIPSeg
        processor does on a CPU.
        """
        # torch cannot share memory that is read-only or runs backwards.
        if not image.flags.writeable or not image.flags.c_contiguous:
            image = np.array(image, order='C')
        return self._normalise(torch.from_numpy(image).permute(2, 0, 1)[None], shape)

    def _normalise(self, pixels: Tensor, shape: tuple[int, int]) -> Tensor:
        if tuple(pixels.shape[2:]) != shape:
            if pixels.device.type != 'cpu':
                # Only the CPU resizes uint8; this differs from it by less than a level.
                pixels = pixels.float()
            pixels = F.interpolate(pixels, size=shape, mode='bilinear', antialias=True)
            if pixels.is_floating_point():
                pixels = pixels.round_().clamp_(0, 255)
        return pixels.to(self.device).float().sub_(self._mean).div_(self._std)

    def _prompt_features(self, prompts: list[Prompt]) -> PromptFeatures:
        """What the decoder needs to know of a set of prompts, kept for the frames that follow."""
        key = (
            self._captions,
            self.visual_method,
            *((prompt.text, prompt.image_key, prompt.weight) for prompt in prompts),
        )
        features = self._sets.get(key)
        if features is None:
            features = self.runtime.encode_prompts(self._conditions(prompts))
            self._sets[key] = features
            if len(self._sets) > PROMPT_SETS:
                self._sets.popitem(last=False)
        else:
            self._sets.move_to_end(key)
        return features

    def _conditions(self, prompts: list[Prompt]) -> Tensor:
        """Conditional vectors (P, E)."""
        with_text = [index for index, prompt in enumerate(prompts) if prompt.text is not None]
        with_image = [index for index, prompt in enumerate(prompts) if prompt.image is not None]
        texts = self._embed_texts([prompts[index] for index in with_text])
        images = self._embed_images([prompts[index] for index in with_image])
        vectors: dict[int, Tensor] = dict(zip(with_text, texts, strict=True))
        for index, image in zip(with_image, images, strict=True):
            text = vectors.get(index)
            # lerp(a, b, w) is a + w · (b - a), so w is the share of the text.
            mixed = image if text is None else torch.lerp(image, text, prompts[index].weight)
            vectors[index] = mixed
        return torch.stack([vectors[index] for index in range(len(prompts))])

    def _embed_texts(self, prompts: list[Prompt]) -> list[Tensor]:
        filled: list[tuple[str, ...]] = [
            tuple(fill_template(caption, prompt.text or '') for caption in self._captions)
            for prompt in prompts
        ]

        def embed(positions: list[int]) -> Sequence[Tensor]:
            texts = [text for position in positions for text in filled[position]]
            parts = [
                self.runtime.embed_texts(texts[start : start + TEXT_CHUNK])
                for start in range(0, len(texts), TEXT_CHUNK)
            ]
            return torch.cat(parts).unflatten(0, (len(positions), -1)).mean(1).unbind()

        return self._texts.get(filled, embed)

    def _embed_images(self, prompts: list[Prompt]) -> list[Tensor]:
        keys: list[Hashable] = [(prompt.image_key, self.visual_method) for prompt in prompts]

        def embed(positions: list[int]) -> Sequence[Tensor]:
            return [self._embed_image(prompts[position]) for position in positions]

        return self._images.get(keys, embed)

    def _embed_image(self, prompt: Prompt) -> Tensor:
        assert prompt.image is not None
        shape = (self._prompt_size, self._prompt_size)
        scope = find_method(self.visual_method).attention
        if prompt.mask is None:
            return self.runtime.embed_images(self._pixels(prompt.image, shape))[0]
        if scope:
            mask = torch.from_numpy(prompt.mask.copy())[None]
            with masked_attention(self.model, mask, scope):
                return self.runtime.embed_images(self._pixels(prompt.image, shape))[0]
        image = visual_prompt(prompt.image, prompt.mask, shape[0], self.visual_method, self._ground)
        return self.runtime.embed_images(self._pixels(image, shape))[0]

    def _decode(self, features: ImageFeatures, prompts: PromptFeatures) -> Tensor:
        """Logits, float32: (P, h, w) of prompts of one image, or (B, P, h, w) of those of B.

        Raises:
            ClipsegError: They are not finite.
        """
        logits = self.runtime.decode(features, prompts).float()
        if not math.isfinite(float(logits.sum())):
            raise ClipsegError(
                f'The model {self.card.name!r} gave logits that are not finite: its weights are '
                'damaged, or its precision is too low for them'
            )
        return logits


def _check_weights(model: SegmentationModel, name: str) -> None:
    """Refuse what would not always show in the logits: a fused ReLU makes NaN 0."""
    for key, value in model.named_parameters():
        if value.numel() and not all(bound.isfinite() for bound in value.detach().aminmax()):
            raise CheckpointError(
                f'The weights of the model {name!r} are damaged: {key} holds NaN or infinity. Get '
                'them anew'
            )
