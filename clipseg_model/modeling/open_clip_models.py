"""open_clip's plain CLIPs: made by hand, refused where they are not plain, and made faster."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from clipseg_model.errors import CheckpointError, refusal_of
from clipseg_model.files.archives import check_archive
from clipseg_model.files.small_files import shorten
from clipseg_model.modeling.attention import ImageAttention
from clipseg_model.modeling.dense import FeedForward

# open_clip takes seconds to import, and small models do without it: where it is needed only.
if TYPE_CHECKING:
    import open_clip


def create_clip(
    architecture: str, pretrained: str | Path | None, overrides: dict[str, Any]
) -> open_clip.CLIP:
    """Make open_clip's plain CLIP by hand: its factory may reach for a network."""
    import open_clip

    if pretrained is not None:
        _check_file(Path(pretrained))
    # Others are addresses to open_clip: hf-hub:… is fetched from a network, local-dir:… read.
    if architecture not in open_clip.list_models():
        raise CheckpointError(
            f'open_clip {open_clip.__version__} knows no architecture {shorten(architecture)}'
        )
    configuration = open_clip.get_model_config(architecture)
    configuration.update(overrides)
    missing = _missing_parts(configuration)
    if missing:
        raise CheckpointError(
            f'{architecture!r} is not a plain CLIP: it has no {"; no ".join(missing)}. Use one '
            "that has, such as 'ViT-B-16-quickgelu' or 'ViT-L-14-336-quickgelu'"
        )
    # Set where an architecture is not a plain CLIP, or for its training alone.
    configuration.pop('custom_text', None)
    try:
        model = open_clip.CLIP(**configuration)
    except (TypeError, RuntimeError, AssertionError) as error:
        raise CheckpointError(f'{architecture!r} is not a plain CLIP: {error}') from error
    if pretrained is not None:
        _load(model, Path(pretrained))
    return model


def speed_up(blocks: Any) -> None:
    """Give open_clip's ordinary blocks faster attention and feed-forward layers, same weights."""
    from open_clip.transformer import QuickGELU, ResidualAttentionBlock

    names = {QuickGELU: 'quick_gelu', nn.GELU: 'gelu'}
    for block in blocks:
        if type(block) is not ResidualAttentionBlock:
            continue
        if block.attn.batch_first and type(block.attn) is nn.MultiheadAttention:
            block.attn = ImageAttention(block.attn)
        activation = names.get(type(block.mlp.gelu))
        if activation is not None:
            block.mlp = FeedForward(block.mlp, activation)


def _missing_parts(configuration: Mapping[str, Any]) -> list[str]:
    """Return what towers of this open_clip configuration lack for a model."""
    vision, text = configuration['vision_cfg'], configuration['text_cfg']
    missing = []
    if vision.get('timm_model_name'):
        missing.append(
            "image tower of open_clip's own, whose CLS token and blocks can be read: it is timm's "
            f'{vision["timm_model_name"]!r}'
        )
    elif not isinstance(vision.get('layers', 12), int):
        missing.append('vision transformer, and so no tokens: its image tower is a ResNet')
    elif vision.get('attentional_pool') or vision.get('pool_type', 'tok') != 'tok':
        missing.append('image embedding at a CLS token: it pools the others')
    if 'multimodal_cfg' in configuration:
        missing.append('text tower apart from its captioning decoder (CoCa)')
    if text.get('hf_model_name'):
        missing.append(f"text tower of CLIP's kind: it is {text['hf_model_name']!r}")
    tokenizer = text.get('hf_tokenizer_name')
    if tokenizer or 'tokenizer_kwargs' in text:
        missing.append(f'tokenizer that comes with open_clip: it needs {tokenizer or "options"!r}')
    if text.get('no_causal_mask') or text.get('pool_type', 'argmax') != 'argmax':
        missing.append('causal text tower that is read at its end token')
    return missing


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise CheckpointError(
            f'pretrained must be a local file with weights, and {str(path)!r} is not one: '
            'nothing is downloaded here'
        )
    check_archive(path)


def _load(model: open_clip.CLIP, path: Path) -> None:
    import open_clip

    try:
        open_clip.load_checkpoint(model, str(path), strict=True, weights_only=True)
    except Exception as error:  # torch, pickle, zip and safetensors each raise their own kinds
        raise CheckpointError(
            f'{str(path)!r} does not hold weights of this open_clip model: {refusal_of(error)}'
        ) from error
