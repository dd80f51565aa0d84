"""ViTSeg: CLIPSeg's decoder on a vision transformer that never saw a text.

The baseline of Lüddecke & Ecker, *Image Segmentation Using Text and Image Prompts*, CVPR 2022,
section 5: the image goes through a ViT-B/16 trained on ImageNet, and prompts still through CLIP,
which tells how much of CLIPSeg is owed to CLIP's image tower.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from clipseg_model.errors import CheckpointError
from clipseg_model.files.small_files import shorten
from clipseg_model.modeling.backbone import (
    Backbone,
    build_backbone,
    interpolate_positions,
    token_grid,
)
from clipseg_model.modeling.base import ImageFeatures
from clipseg_model.modeling.clipseg import FilmDecoding, check_layers
from clipseg_model.modeling.decoder import CLIPSegDecoder


class ImageNetViT(nn.Module):
    """A frozen vision transformer of `timm <https://github.com/huggingface/pytorch-image-models>`_.

    The weights are random unless a local file is named: nothing is ever fetched from a network.
    ``mean`` and ``std`` are the normalisation of RGB in 0…1 that timm trained it with.

    Args:
        architecture: timm's name of a plain ViT with a CLS token.
        pretrained: Local ``.safetensors`` file with timm's weights of it (its classifier is
            ignored), or None for random ones.
        overrides: Options of timm's ``VisionTransformer`` that replace the architecture's
            (``depth``, ``embed_dim``, ``num_heads``).

    Raises:
        CheckpointError: The architecture is unknown or of another kind, or ``pretrained`` does not
            hold its weights.
    """

    def __init__(
        self,
        architecture: str = 'vit_base_patch16_384',
        pretrained: str | Path | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self._architecture = architecture
        self._overrides = dict(overrides or {})
        if architecture not in timm.list_models(module='vision_transformer'):
            raise CheckpointError(
                f'timm {timm.__version__} knows no plain vision transformer '
                f'{shorten(architecture)}; use '
                "one, such as 'vit_base_patch16_384'"
            )
        # These are not the tower's, but say where timm gets weights from.
        reserved = inspect.signature(timm.create_model).parameters.keys() & self._overrides.keys()
        if reserved:
            raise CheckpointError(
                f'{", ".join(sorted(reserved))} are no options of a vision transformer: leave them '
                'out of overrides'
            )
        model = timm.create_model(
            architecture, pretrained=False, num_classes=0, dynamic_img_size=True, **self._overrides
        )
        if (
            not isinstance(model, VisionTransformer)
            or model.num_prefix_tokens != 1
            or model.cls_token is None
            or model.pos_embed is None
            or model.no_embed_class
        ):
            raise CheckpointError(
                f'{architecture!r} is not a plain vision transformer with a CLS token and learned '
                "positions; use one, such as 'vit_base_patch16_384'"
            )
        # Neither is on the way to a tap, and strict loading would ask for them.
        model.norm = nn.Identity()
        model.fc_norm = nn.Identity()
        # timm's attributes are of several types each; what was checked above is what is used.
        self.model = cast(Any, model)
        if pretrained is not None:
            self._load(Path(pretrained))
        self.token_width = int(self.model.embed_dim)
        self.patch_size = int(self.model.patch_embed.patch_size[0])
        self.num_blocks = len(self.model.blocks)
        self.mean: tuple[float, ...] = tuple(self.model.pretrained_cfg['mean'])
        self.std: tuple[float, ...] = tuple(self.model.pretrained_cfg['std'])
        self.requires_grad_(False)
        self.eval()

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments but the file, as plain JSON types."""
        return {'architecture': self._architecture, 'overrides': self._overrides}

    def image_tokens(
        self, pixels: Tensor, layers: Sequence[int]
    ) -> tuple[list[Tensor], tuple[int, int]]:
        """Return token taps after the blocks ``layers``, ascending, like those of a ``Backbone``.

        Position embeddings are interpolated to the image's grid as CLIPSeg's are. (The official
        code resizes every image to the size that the ViT was trained on instead.)
        """
        model = self.model
        grid = token_grid(pixels, self.patch_size)
        patches = model.patch_embed(pixels).flatten(1, 2)
        cls = model.cls_token.expand(patches.shape[0], -1, -1)
        native = tuple(model.patch_embed.grid_size)
        positions = interpolate_positions(model.pos_embed[0], (native[0], native[1]), grid)
        tokens = model.norm_pre(torch.cat([cls, patches], 1) + positions)
        taps = []
        for number, block in enumerate(model.blocks[: max(layers) + 1]):
            tokens = block(tokens)
            if number in layers:
                taps.append(tokens)
        return taps, grid

    def _load(self, path: Path) -> None:
        if not path.is_file():
            raise CheckpointError(
                f'pretrained must be a local file with weights, and {str(path)!r} is not one: '
                'nothing is downloaded here'
            )
        dropped = ('head.', 'norm.', 'fc_norm.')
        try:
            weights = {k: v for k, v in load_file(path).items() if not k.startswith(dropped)}
            self.model.load_state_dict(weights, strict=True)
        except (SafetensorError, RuntimeError) as error:
            raise CheckpointError(
                f"{str(path)!r} does not hold timm's weights of {self._architecture!r} as "
                f'safetensors: {error}'
            ) from error


class ViTSeg(FilmDecoding):
    """CLIPSeg's decoder on the tokens of an ImageNet ViT, conditioned by CLIP.

    Prompts, texts and images alike, go through CLIP's towers. (In the official code prompt images
    go through the ViT and a random projection, so texts and images have no space in common.)

    Args:
        backbone: CLIP towers for the prompts.
        image_tower: Gives the image's tokens.
        layers: Blocks of the ViT after which tokens are tapped, 0-based, ascending (official code:
            3, 6, 9).
        **decoder: Options of :class:`~clipseg_model.modeling.decoder.CLIPSegDecoder`.

    Raises:
        ValueError: A layer does not exist, the layers are not ascending, or the patches of both
            towers differ in size.
    """

    def __init__(
        self,
        backbone: Backbone,
        image_tower: ImageNetViT,
        layers: Sequence[int],
        **decoder: Any,
    ) -> None:
        super().__init__(backbone)
        check_layers(layers, image_tower.num_blocks, 'image tower')
        if image_tower.patch_size != backbone.patch_size:
            raise ValueError(
                f'the image tower has patches of {image_tower.patch_size} px and CLIP of '
                f'{backbone.patch_size} px: choose towers with the same'
            )
        self.image_tower = image_tower
        self.layers = tuple(layers)
        self.decoder = CLIPSegDecoder(
            image_tower.token_width,
            backbone.embed_dim,
            num_layers=len(self.layers),
            patch_size=image_tower.patch_size,
            **decoder,
        )
        # From pixels normalised for CLIP to pixels normalised for the ViT: a · x + b.
        channels = zip(backbone.mean, backbone.std, image_tower.mean, image_tower.std, strict=True)
        scale_shift = [(s / vit_s, (m - vit_m) / vit_s) for m, s, vit_m, vit_s in channels]
        pair = torch.tensor(scale_shift).T.reshape(2, 3, 1, 1)
        self._scale: Tensor
        self._shift: Tensor
        self.register_buffer('_scale', pair[0].clone(), persistent=False)
        self.register_buffer('_shift', pair[1].clone(), persistent=False)

    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        """Run the ViT up to the deepest tap, of images normalised for the backbone."""
        own = pixels * self._scale + self._shift
        taps, grid = self.image_tower.image_tokens(own, self.layers)
        return self._features(taps, grid, pixels)

    def config(self) -> dict[str, Any]:
        """See :meth:`SegmentationModel.config`."""
        return {
            'architecture': 'vitseg',
            'backbone': self.backbone.config(),
            'image_tower': self.image_tower.config(),
            'layers': list(self.layers),
            'decoder': dict(self.decoder.options),
        }


def build_vitseg(config: dict[str, Any]) -> ViTSeg:
    """Build a model from :meth:`ViTSeg.config`, weights random."""
    backbone = build_backbone(config['backbone'])
    image_tower = ImageNetViT(**config['image_tower'])
    return ViTSeg(backbone, image_tower, config['layers'], **config['decoder'])
