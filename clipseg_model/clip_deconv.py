"""CLIP-Deconv: what CLIP's tokens give without a transformer behind them.

The baseline of Lüddecke & Ecker, *Image Segmentation Using Text and Image Prompts*, CVPR 2022,
section 5: CLIPSeg's conditioning, projection and transposed convolution on one tap, so that no
token hears of another after the image tower.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from clipseg_model.backbone import Backbone, build_backbone
from clipseg_model.clipseg import PlainHead
from clipseg_model.models import ImageFeatures, SegmentationModel

__all__ = ['CLIPDeconv', 'CLIPDeconvDecoder', 'build_clip_deconv']


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
        """Decodes P prompts on each of B images.

        Args:
            patches: Activations (B, gh·gw, C), without CLS.
            grid: Token grid (gh, gw).
            condition: Conditional vectors (B, P, E).

        Returns:
            Logits (B, P, gh·patch, gw·patch).
        """
        batch, prompts, _ = condition.shape
        reduced = self.reduce(patches).unsqueeze(1)
        scale = self.film_mul(condition).unsqueeze(2)
        shift = self.film_add(condition).unsqueeze(2)
        state = self.project(scale * reduced + shift)
        state = state.reshape(batch * prompts, *grid, -1).permute(0, 3, 1, 2)
        logits = self.head(state)
        return logits.view(batch, prompts, *logits.shape[-2:])


class CLIPDeconv(SegmentationModel):
    """A frozen backbone and :class:`CLIPDeconvDecoder` on the tokens after one block.

    Args:
        backbone: Gives tokens and embeddings.
        layer: Block after which tokens are tapped, 0-based (official code: 9).
        **decoder: Options of :class:`CLIPDeconvDecoder`.

    Raises:
        ValueError: If the layer does not exist.
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
        """Runs the image tower up to the tap: (B, 3, H, W) to features."""
        taps, grid = self.backbone.image_tokens(pixels, [self.layer])
        return ImageFeatures(taps, grid, pixels.shape[-2], pixels.shape[-1])

    def _decode(self, features: ImageFeatures, condition: Tensor) -> Tensor:
        logits: Tensor = self.decoder(features.taps[0][:, 1:], features.grid, condition)
        return logits

    def config(self) -> dict[str, Any]:
        """Returns what :func:`build_clip_deconv` needs to rebuild this model, as JSON types."""
        return {
            'architecture': 'clip-deconv',
            'backbone': self.backbone.config(),
            'layers': [self.layer],
            'decoder': dict(self.decoder.options),
        }


def build_clip_deconv(config: dict[str, Any]) -> CLIPDeconv:
    """Builds a randomly initialised model from :meth:`CLIPDeconv.config`.

    Raises:
        ValueError: If it names more than one layer, or one that is not there.
    """
    if len(config['layers']) != 1:
        raise ValueError(f'layers of clip-deconv must be one block, not {config["layers"]}')
    backbone = build_backbone(config['backbone'])
    return CLIPDeconv(backbone, config['layers'][0], **config['decoder'])
