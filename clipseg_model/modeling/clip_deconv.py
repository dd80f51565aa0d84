"""CLIP-Deconv: what CLIP's tokens give without a transformer behind them.

The baseline of Lüddecke & Ecker, *Image Segmentation Using Text and Image Prompts*, CVPR 2022,
section 5: CLIPSeg's conditioning, projection and transposed convolution on one tap, so that no
token hears of another after the image tower.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clipseg_model.modeling.backbone import Backbone, build_backbone
from clipseg_model.modeling.base import ImageFeatures
from clipseg_model.modeling.clipseg import FilmDecoding, pairs_that_fit
from clipseg_model.modeling.decoder import PlainHead


class CLIPDeconvDecoder(nn.Module):
    """Reduce, FiLM, two linear layers and a transposed convolution, patch by patch.

    Args:
        token_width: Channels C of the tap.
        embed_dim: Size E of the conditional vector.
        dim: Width D.
        hidden: Width between the two linear layers.
        patch_size: Pixels a token covers in each direction.
    """

    def __init__(
        self,
        token_width: int,
        embed_dim: int,
        dim: int = 64,
        hidden: int = 64,
        patch_size: int = 16,
    ) -> None:
        super().__init__()
        self.options = {'dim': dim, 'hidden': hidden}
        self.reduce = nn.Linear(token_width, dim)
        self.film_mul = nn.Linear(embed_dim, dim)
        self.film_add = nn.Linear(embed_dim, dim)
        self.project = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, dim))
        self.head = PlainHead(dim, patch_size)

    def forward(self, patches: Tensor, grid: tuple[int, int], condition: Tensor) -> Tensor:
        """Decode P prompts, conditional vectors (B, P, E), on patches (B, gh·gw, C) without CLS.

        Returns logits (B, P, gh·patch, gw·patch).
        """
        return self.decode([self.reduce(patches)], grid, self.modulate(condition))

    def modulate(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Compute FiLM's scale and shift, (…, D) each, of conditional vectors (…, E)."""
        return self.film_mul(condition), self.film_add(condition)

    def decode(
        self, projected: Sequence[Tensor], grid: tuple[int, int], modulation: Sequence[Tensor]
    ) -> Tensor:
        """Decode patches [(B, gh·gw, D)] with what :meth:`modulate` made of P prompts each."""
        (reduced,) = projected
        scale, shift = modulation
        batch, prompts, _ = scale.shape
        state = torch.addcmul(shift.unsqueeze(2), scale.unsqueeze(2), reduced.unsqueeze(1))
        state = self.project(state)
        state = state.reshape(batch * prompts, *grid, -1).permute(0, 3, 1, 2)
        logits = self.head(state)
        return logits.view(batch, prompts, *logits.shape[-2:])


class CLIPDeconv(FilmDecoding):
    """A frozen backbone and :class:`CLIPDeconvDecoder` on the tokens after one block.

    Args:
        backbone: Gives tokens and embeddings.
        layer: Block after which tokens are tapped, 0-based (official code: 9).
        **decoder: Options of :class:`CLIPDeconvDecoder`.

    Raises:
        ValueError: The layer does not exist.
    """

    def __init__(self, backbone: Backbone, layer: int, **decoder: Any) -> None:
        super().__init__(backbone)
        if not 0 <= layer < backbone.num_blocks:
            raise ValueError(
                f'layer {layer} is not in 0…{backbone.num_blocks - 1}, the blocks of this backbone'
            )
        self.layer = layer
        self.decoder = CLIPDeconvDecoder(
            backbone.token_width, backbone.embed_dim, patch_size=backbone.patch_size, **decoder
        )

    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        """Run the image tower up to the tap."""
        taps, grid = self.backbone.image_tokens(pixels, [self.layer])
        return self._features(taps, grid, pixels)

    def _project(self, taps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return (self.decoder.reduce(taps[0][:, 1:]),)

    def _pairs_at_once(self, features: ImageFeatures) -> int:
        return pairs_that_fit(features, self.decoder.options['hidden'])

    def config(self) -> dict[str, Any]:
        """See :meth:`SegmentationModel.config`."""
        return {
            'architecture': 'clip-deconv',
            'backbone': self.backbone.config(),
            'layers': [self.layer],
            'decoder': dict(self.decoder.options),
        }


def build_clip_deconv(config: dict[str, Any]) -> CLIPDeconv:
    """Build a model from :meth:`CLIPDeconv.config`, weights random.

    Raises ValueError if it names more than one layer, or one that is not there.
    """
    if len(config['layers']) != 1:
        raise ValueError(f'layers of clip-deconv must be one block, not {config["layers"]}')
    backbone = build_backbone(config['backbone'])
    return CLIPDeconv(backbone, config['layers'][0], **config['decoder'])
