"""From prompts to conditional vectors and what a decoder makes of them, computed once and kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from clipseg_model.errors import CheckpointError
from clipseg_model.model_card import ModelCard
from clipseg_model.modeling.base import PromptFeatures
from clipseg_model.modeling.masked_attention import masked_attention
from clipseg_model.modeling.preprocessing import Preprocessor
from clipseg_model.prompting.visual_prompt import find_method, visual_prompt
from clipseg_model.prompts import EmbeddingCache, Prompt, fill_template, find_captions
from clipseg_model.runtime.base import Runtime

__all__ = ['PromptEmbedder']

PROMPT_SETS = 32
"""Sets of prompts whose features are kept."""

TEXT_CHUNK = 256
"""Captions embedded at once: the most prompts in nine captions each would take gigabytes."""


class PromptEmbedder:
    """Embeds the prompts of one model. Not for use by two threads at once.

    Args:
        runtime: What executes the model.
        card: What size prompt images have, and what is around them.
        preprocessor: The model's.
        visual_method: A key of :data:`clipseg_model.prompting.visual_prompt.METHODS`.
        template: As :attr:`template` takes it.

    Raises:
        CheckpointError: The card's sizes do not fit the model's patches.
        PromptError: There is no such visual method or template.
    """

    def __init__(
        self,
        runtime: Runtime,
        card: ModelCard,
        preprocessor: Preprocessor,
        visual_method: str,
        template: str | None,
    ) -> None:
        self._runtime, self._card, self._preprocessor = runtime, card, preprocessor
        self.visual_method = visual_method
        self.template = template
        backbone = runtime.model.backbone
        self._ground = card.ground_levels(backbone.mean)
        self._size = card.prompt_image_size or card.input_size
        if card.input_size % backbone.patch_size or self._size % backbone.patch_size:
            raise CheckpointError(
                f'The card of {card.name!r} has input_size {card.input_size} and '
                f'prompt_image_size {self._size}, which are not both multiples of the '
                f'patch size {backbone.patch_size}'
            )
        self._texts = EmbeddingCache()
        self._images = EmbeddingCache()
        self._sets: OrderedDict[Hashable, PromptFeatures] = OrderedDict()

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
        chosen = self._card.template if template is None else template
        self._captions = find_captions(chosen)
        self._template = chosen

    def release_features(self) -> None:
        """Forgets what :meth:`features` kept; embeddings stay."""
        self._sets.clear()

    def features(self, prompts: Sequence[Prompt]) -> PromptFeatures:
        """What the decoder needs to know of a set of prompts, kept for the frames that follow."""
        key = (
            self._captions,
            self.visual_method,
            *((prompt.text, prompt.image_key, prompt.weight) for prompt in prompts),
        )
        features = self._sets.get(key)
        if features is None:
            features = self._runtime.encode_prompts(self.conditions(prompts))
            self._sets[key] = features
            if len(self._sets) > PROMPT_SETS:
                self._sets.popitem(last=False)
        else:
            self._sets.move_to_end(key)
        return features

    def conditions(self, prompts: Sequence[Prompt]) -> Tensor:
        """Conditional vectors (P, E); see :meth:`clipseg_model.segmenter.Segmenter.embed`."""
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
                self._runtime.embed_texts(texts[start : start + TEXT_CHUNK])
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
        shape = (self._size, self._size)
        scope = find_method(self.visual_method).attention
        image = prompt.image
        if prompt.mask is not None and not scope:
            image = visual_prompt(image, prompt.mask, self._size, self.visual_method, self._ground)
        pixels = self._preprocessor.pixels(image, shape)
        if prompt.mask is None or not scope:
            return self._runtime.embed_images(pixels)[0]
        mask = torch.from_numpy(prompt.mask.copy())[None]
        with masked_attention(self._runtime.model, mask, scope):
            return self._runtime.embed_images(pixels)[0]
