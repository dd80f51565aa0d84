"""From prompts to conditional vectors and what a decoder makes of them, computed once and kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from clipseg_model.errors import CheckpointError
from clipseg_model.features import PromptFeatures
from clipseg_model.model_card import ModelCard
from clipseg_model.pixels.preprocessing import Preprocessor
from clipseg_model.prompting.templates import find_captions
from clipseg_model.prompting.visual_prompt import METHODS, find_method, visual_prompt
from clipseg_model.prompts import Prompt
from clipseg_model.runtime.base import Runtime

Floats = NDArray[np.float32]

PROMPT_SETS = 32
"""Sets of prompts whose features are kept."""

MOST_ROWS = 256
"""Most patches along a side of an image."""

TEXT_CHUNK = 256
"""Captions embedded at once: the most prompts in nine captions each would take gigabytes."""


class EmbeddingCache:
    """The embeddings that were used last, ``capacity`` of them at most."""

    def __init__(self, capacity: int = 1024) -> None:
        if capacity < 1:
            raise ValueError(f'capacity must be at least 1, not {capacity}')
        self.capacity = capacity
        self._kept: OrderedDict[Hashable, Floats] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(
        self, keys: Sequence[Hashable], embed: Callable[[list[int]], Sequence[Floats]]
    ) -> list[Floats]:
        """Return one embedding a key; those not kept are made together in one call.

        ``embed`` is given positions in ``keys``, one for each distinct missing key, and returns
        their embeddings in that order.
        """
        missing: dict[Hashable, int] = {}
        for position, key in enumerate(keys):
            if key not in self._kept:
                missing.setdefault(key, position)
        # What this call needs is held here too: more keys than the capacity must not evict
        # each other before they are returned.
        found: dict[Hashable, Floats] = {}
        if missing:
            found.update(zip(missing, embed(list(missing.values())), strict=True))
        for key in keys:
            if key in self._kept:
                self._kept.move_to_end(key)
                found[key] = self._kept[key]
        for key in missing:
            self._kept[key] = found[key]
        while len(self._kept) > self.capacity:
            self._kept.popitem(last=False)
        return [found[key] for key in keys]


class PromptEmbedder:
    """Embeds the prompts of one model. Not for use by two threads at once.

    Raises:
        CheckpointError: The card's sizes do not fit the model's patches or are too many of them,
            or it names a visual method that there is not.
    """

    def __init__(self, runtime: Runtime, card: ModelCard, preprocessor: Preprocessor) -> None:
        self._runtime, self._card, self._preprocessor = runtime, card, preprocessor
        traits = runtime.traits
        self._ground = card.ground_levels(traits.mean)
        self._size = card.prompt_image_size or card.input_size
        if card.input_size % traits.patch_size or self._size % traits.patch_size:
            raise CheckpointError(
                f'The card of {card.name!r} has input_size {card.input_size} and '
                f'prompt_image_size {self._size}, which are not both multiples of the '
                f'patch size {traits.patch_size}'
            )
        if max(card.input_size, self._size) // traits.patch_size > MOST_ROWS:
            raise CheckpointError(
                f'The card of {card.name!r} has input_size {card.input_size} and prompt_image_size '
                f'{self._size}, which are more than {MOST_ROWS} patches of {traits.patch_size} '
                'pixels: no memory holds what attention makes of them'
            )
        if card.visual_method not in METHODS:
            raise CheckpointError(
                f'The card of {card.name!r} names the visual method {card.visual_method!r}; there '
                f'are {", ".join(METHODS)}'
            )
        self._texts = EmbeddingCache()
        self._images = EmbeddingCache()
        self._sets: OrderedDict[Hashable, PromptFeatures] = OrderedDict()

    def release_features(self) -> None:
        """Forget what :meth:`features` kept; embeddings stay."""
        self._sets.clear()

    def features(
        self,
        prompts: Sequence[Prompt],
        template: str | None,
        visual_method: str | None,
    ) -> PromptFeatures:
        """Return what the decoder needs of a set of prompts, kept for the frames that follow.

        Args:
            prompts: At least one.
            template: A key of :data:`~clipseg_model.prompting.templates.TEMPLATES` or a caption
                with one ``{}``; the card's where None.
            visual_method: A key of :data:`clipseg_model.prompting.visual_prompt.METHODS`; the
                card's where None.

        Raises:
            PromptError: A prompt is not representable by the model, or there is no such template
                or visual method.
        """
        key = (
            template,
            visual_method,
            *((prompt.text, prompt.image_key, prompt.weight) for prompt in prompts),
        )
        features = self._sets.get(key)
        if features is None:
            conditions = self.conditions(prompts, template, visual_method)
            features = self._sets[key] = self._runtime.encode_prompts(conditions)
            if len(self._sets) > PROMPT_SETS:
                self._sets.popitem(last=False)
        else:
            self._sets.move_to_end(key)
        return features

    def conditions(
        self,
        prompts: Sequence[Prompt],
        template: str | None,
        visual_method: str | None,
    ) -> Floats:
        """Return conditional vectors (P, E); see :meth:`clipseg_model.segmenter.Segmenter.embed`.

        Arguments and errors are those of :meth:`features`.
        """
        with_text = [index for index, prompt in enumerate(prompts) if prompt.text is not None]
        with_image = [index for index, prompt in enumerate(prompts) if prompt.image is not None]
        captions = find_captions(self._card.template if template is None else template)
        texts = self._embed_texts([prompts[index] for index in with_text], captions)
        method = self._card.visual_method if visual_method is None else visual_method
        images = self._embed_images([prompts[index] for index in with_image], method)
        vectors: dict[int, Floats] = dict(zip(with_text, texts, strict=True))
        for index, image in zip(with_image, images, strict=True):
            text = vectors.get(index)
            vectors[index] = image if text is None else _mix(image, text, prompts[index].weight)
        return np.stack([vectors[index] for index in range(len(prompts))])

    def _embed_texts(self, prompts: list[Prompt], captions: tuple[str, ...]) -> list[Floats]:
        filled: list[tuple[str, ...]] = [
            tuple(caption.replace('{}', prompt.text or '') for caption in captions)
            for prompt in prompts
        ]

        def embed(positions: list[int]) -> Sequence[Floats]:
            texts = [text for position in positions for text in filled[position]]
            parts = [
                self._runtime.embed_texts(texts[start : start + TEXT_CHUNK])
                for start in range(0, len(texts), TEXT_CHUNK)
            ]
            vectors = np.concatenate(parts)
            return list(vectors.reshape(len(positions), -1, vectors.shape[1]).mean(axis=1))

        return self._texts.get(filled, embed)

    def _embed_images(self, prompts: list[Prompt], visual_method: str) -> list[Floats]:
        keys: list[Hashable] = [(prompt.image_key, visual_method) for prompt in prompts]

        def embed(positions: list[int]) -> Sequence[Floats]:
            return [self._embed_image(prompts[position], visual_method) for position in positions]

        return self._images.get(keys, embed)

    def _embed_image(self, prompt: Prompt, visual_method: str) -> Floats:
        assert prompt.image is not None
        shape = (self._size, self._size)
        scope = find_method(visual_method).attention
        image = prompt.image
        if prompt.mask is not None and not scope:
            image = visual_prompt(image, prompt.mask, self._size, visual_method, self._ground)
        pixels = self._preprocessor.pixels(image, shape)
        if prompt.mask is None or not scope:
            return self._runtime.embed_images(pixels)[0]
        return self._runtime.embed_masked(pixels, prompt.mask[None], scope)[0]


def _mix(image: Floats, text: Floats, share: float) -> Floats:
    """Mix two vectors, of which the text has a share of 0…1; exact at both ends."""
    weight = np.float32(share)
    if share < 0.5:
        return image + weight * (text - image)
    return text - (text - image) * (1 - weight)
