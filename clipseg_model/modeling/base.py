"""What every model has in common, and how one is built from its configuration."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from clipseg_model.errors import CheckpointError
from clipseg_model.features import ImageFeatures, ModelTraits, PromptFeatures
from clipseg_model.modeling.backbone import Backbone
from clipseg_model.modeling.buffers import empty

#: Architectures by name: the module that holds each, and the function in it that builds one.
#: Modules are imported when they are needed: some need packages that are slow to import.
ARCHITECTURES = {
    'clipseg': ('clipseg', 'build_clipseg'),
    'clip-deconv': ('clip_deconv', 'build_clip_deconv'),
    'vitseg': ('vitseg', 'build_vitseg'),
    'clsclip': ('clsclip', 'build_clsclip'),
}


class SegmentationModel(nn.Module, ABC):
    """A network that gives one logit a pixel for each prompt; what a ``Segmenter`` works with.

    A prompt enters as a conditional vector of the joint embedding space of a CLIP, whatever it was
    made of: :meth:`embed_texts` and :meth:`embed_images` make them.

    Attributes:
        backbone: The CLIP towers; ``backbone.mean``, ``backbone.std`` and ``backbone.patch_size``
            say what pixels the model takes.
        shares_image_features: Whether :meth:`encode_image` does all the work on the image, so that
            one encoding serves every prompt; if not, a part of the image tower runs again for each
            prompt.
    """

    backbone: Backbone
    shares_image_features: bool = True

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def encode_prompts(self, condition: Tensor) -> PromptFeatures:
        """Compute what decoding needs of conditional vectors, (P, E) or (B, P, E)."""
        return PromptFeatures(condition)

    @abstractmethod
    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        """Encode images, as far as no prompt is needed.

        Pixels are normalised, (B, 3, H, W), H and W multiples of the patch size.
        """

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Return what :func:`build_model` needs to rebuild this model, as plain JSON types."""

    @abstractmethod
    def _decode(self, features: ImageFeatures, prompts: PromptFeatures) -> Tensor:
        """Decode prompts whose tensors have the axes B and P first to logits (B, P, h, w)."""

    def _pairs_at_once(self, features: ImageFeatures) -> int:
        """Return how many pairs of image and prompt to decode together, without gradients."""
        return 2**31

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed P texts as conditional vectors (P, E)."""
        return self.backbone.embed_texts(texts)

    def embed_images(self, pixels: Tensor) -> Tensor:
        """Embed normalised prompt images (P, 3, H, W) as conditional vectors (P, E)."""
        return self.backbone.embed_images(pixels)

    def decode(self, features: ImageFeatures, prompts: Tensor | PromptFeatures) -> Tensor:
        """Decode prompts on the features of B encoded images.

        Prompts are conditional vectors (B, P, E), or (P, E) when B is 1; or what
        :meth:`encode_prompts` made of them.

        Returns:
            Logits (B, P, H, W), or (P, H, W) for a two-dimensional condition; H and W are those of
            the model's input.

        Raises:
            ValueError: The condition is two-dimensional and there is more than one image.
        """
        if isinstance(prompts, Tensor):
            prompts = self.encode_prompts(prompts)
        single = prompts.condition.dim() == 2
        batch = features.taps[0].shape[0]
        if single:
            if batch != 1:
                raise ValueError(
                    f'a condition of shape {tuple(prompts.condition.shape)} is for one image, but '
                    f'the features hold {batch}: give (B, P, E)'
                )
            prompts = PromptFeatures(
                prompts.condition[None], tuple(one[None] for one in prompts.modulation)
            )
        logits = self._decode_in_chunks(features, prompts)
        size = (features.height, features.width)
        if logits.shape[-2:] != size:
            # Patches of another size than those that the head makes (the option n_tokens of the
            # towers): resized as the official code does.
            logits = functional.interpolate(logits, size, mode='bilinear', align_corners=True)
        return logits[0] if single else logits

    def _decode_in_chunks(self, features: ImageFeatures, prompts: PromptFeatures) -> Tensor:
        # Gradients keep every activation anyway, and an exported model leaves it to its runtime.
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return self._decode(features, prompts)
        size = max(1, self._pairs_at_once(features) // len(prompts.condition))
        count = len(prompts)
        if count <= size:
            return self._decode(features, prompts)
        logits: Tensor | None = None
        for start in range(0, count, size):
            stop = min(start + size, count)
            part = slice(start, stop)
            chunk = PromptFeatures(
                prompts.condition[:, part], tuple(one[:, part] for one in prompts.modulation)
            )
            decoded = self._decode(features, chunk)
            if logits is None:
                # Of 16 bits they become float32 in the end: at once, rather than by another copy.
                dtype = torch.promote_types(decoded.dtype, torch.float32)
                shape = decoded.shape[0], count, *decoded.shape[2:]
                logits = empty(*shape, dtype=dtype, device=decoded.device)
            logits[:, part] = decoded
        assert logits is not None
        return logits

    def forward(self, pixels: Tensor, condition: Tensor) -> Tensor:
        """Encode and decode: (B, 3, H, W) and (B, P, E) to logits (B, P, H, W)."""
        return self.decode(self.encode_image(pixels), condition)


def traits_of(model: SegmentationModel) -> ModelTraits:
    """Return what must be known of a model to give it images and prompts."""
    backbone = model.backbone
    return ModelTraits(
        type(model).__name__,
        backbone.patch_size,
        backbone.embed_dim,
        _triple(backbone.mean),
        _triple(backbone.std),
        model.shares_image_features,
    )


def _triple(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def build_model(config: Mapping[str, Any]) -> SegmentationModel:
    """Build the model that a configuration of :meth:`SegmentationModel.config` describes.

    Weights are random.

    Raises:
        ValueError: There is no such architecture, or its options do not fit together.
        KeyError: An entry is missing.
        TypeError: An option is unknown.
        CheckpointError: The towers cannot be built.
    """
    name = config.get('architecture')
    if name not in ARCHITECTURES:
        raise ValueError(
            f'architecture must be one of {", ".join(map(repr, ARCHITECTURES))}, not {name!r}'
        )
    module, function = ARCHITECTURES[name]
    build = getattr(importlib.import_module(f'clipseg_model.modeling.{module}'), function)
    return cast(SegmentationModel, build(dict(config)))


def check_weights(model: SegmentationModel, name: str) -> None:
    """Raise CheckpointError if a weight is NaN or infinite."""
    # Logits need not show it: a fused ReLU makes NaN 0.
    for key, value in model.named_parameters():
        if value.numel() and not all(bound.isfinite() for bound in value.detach().aminmax()):
            raise CheckpointError(
                f'The weights of the model {name!r} are damaged: {key} holds NaN or infinity. Get '
                'them anew'
            )
