"""CLIPSeg: a FiLM-conditioned transformer decoder on the tokens of a CLIP image tower.

Lüddecke & Ecker, *Image Segmentation Using Text and Image Prompts*, CVPR 2022, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from clipseg_model.modeling.backbone import Backbone, build_backbone
from clipseg_model.modeling.base import ImageFeatures, PromptFeatures, SegmentationModel
from clipseg_model.modeling.bundled.guided import GuidedDecoder
from clipseg_model.modeling.bundled.photo_clip import PhotoClip
from clipseg_model.modeling.decoder import CLIPSegDecoder

CACHE_BYTES = 8 << 20
"""Of hidden activations decoded at once on a CPU: more no longer lies in its caches, and from
32 MiB on every allocation costs a page fault each 4 KiB."""


def pairs_that_fit(features: ImageFeatures, feedforward: int) -> int:
    """Return how many pairs of image and prompt a transformer decodes at once.

    ``feedforward`` is the width of the decoder's widest layer.
    """
    tap = features.taps[0]
    if tap.device.type != 'cpu':
        return 64
    return max(1, CACHE_BYTES // (tap.shape[1] * feedforward * tap.element_size()))


class FilmDecoding(SegmentationModel):
    """What models have in common whose decoder is conditioned by FiLM."""

    # A CLIPSegDecoder, or another module with its methods and options.
    decoder: Any

    def encode_prompts(self, condition: Tensor) -> PromptFeatures:
        """Compute FiLM's scale and shift."""
        return PromptFeatures(condition, self.decoder.modulate(condition))

    def _features(self, taps: list[Tensor], grid: tuple[int, int], pixels: Tensor) -> ImageFeatures:
        projected = None if torch.is_grad_enabled() else self._project(taps)
        return ImageFeatures(taps, grid, pixels.shape[-2], pixels.shape[-1], projected)

    def _decode(self, features: ImageFeatures, prompts: PromptFeatures) -> Tensor:
        projected = features.projected
        # Made without gradients: the projections would not learn.
        if projected is None or torch.is_grad_enabled():
            projected = self._project(features.taps)
        logits: Tensor = self.decoder.decode(projected, features.grid, prompts.modulation)
        return logits

    def _project(self, taps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        projected: tuple[Tensor, ...] = self.decoder.project(taps)
        return projected

    def _pairs_at_once(self, features: ImageFeatures) -> int:
        return pairs_that_fit(features, self.decoder.options['feedforward'])


def check_layers(layers: Sequence[int], blocks: int, tower: str) -> None:
    """Raise ValueError unless taps are blocks of a tower, in ascending order."""
    if list(layers) != sorted(set(layers)) or not layers:
        raise ValueError(f'layers must be ascending and distinct, not {list(layers)}')
    if layers[0] < 0 or layers[-1] >= blocks:
        raise ValueError(
            f'layers {list(layers)} are not all in 0…{blocks - 1}, the blocks of this {tower}'
        )


class CLIPSeg(FilmDecoding):
    """A frozen backbone and the CLIPSeg decoder on its tokens.

    Args:
        backbone: Gives tokens and embeddings.
        layers: Blocks after which tokens are tapped, 0-based, ascending (paper: 3, 7, 9; the
            released weights: 3, 6, 9).
        **decoder: Options of :class:`CLIPSegDecoder`.

    Raises:
        ValueError: A layer does not exist or the layers are not ascending.
    """

    def __init__(self, backbone: Backbone, layers: Sequence[int], **decoder: Any) -> None:
        super().__init__(backbone)
        check_layers(layers, backbone.num_blocks, 'backbone')
        self.layers = tuple(layers)
        options = {'num_layers': len(self.layers), 'patch_size': backbone.patch_size, **decoder}
        if isinstance(backbone, PhotoClip):
            self.decoder = GuidedDecoder(backbone, **options)
        else:
            self.decoder = CLIPSegDecoder(backbone.token_width, backbone.embed_dim, **options)

    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        """Run the image tower up to the deepest tap."""
        taps, grid = self.backbone.image_tokens(pixels, self.layers)
        return self._features(taps, grid, pixels)

    def config(self) -> dict[str, Any]:
        """See :meth:`SegmentationModel.config`."""
        return {
            'architecture': 'clipseg',
            'backbone': self.backbone.config(),
            'layers': list(self.layers),
            'decoder': dict(self.decoder.options),
        }


def build_clipseg(config: dict[str, Any]) -> CLIPSeg:
    """Build a model from :meth:`CLIPSeg.config`, weights random.

    Raises ValueError if the configuration is not one of a CLIPSeg model.
    """
    if config.get('architecture') != 'clipseg':
        raise ValueError(f"architecture must be 'clipseg', not {config.get('architecture')!r}")
    return CLIPSeg(build_backbone(config['backbone']), config['layers'], **config['decoder'])
