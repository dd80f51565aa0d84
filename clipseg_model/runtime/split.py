"""A model in four parts for other runtimes, as ONNX: encoder, decoder, and what embeds prompts.

All sizes are dynamic: images, their height and width (multiples of the patch size), prompts and
the length of texts. Encoder and decoder are the model's own ``encode_image`` and ``decode``, so
what those share between prompts is shared here, too.
"""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clipseg_model.errors import ExportError
from clipseg_model.features import ImageFeatures
from clipseg_model.modeling.backbone import OpenClipBackbone
from clipseg_model.modeling.base import SegmentationModel, traits_of
from clipseg_model.modeling.bundled.small_clip import SmallClip
from clipseg_model.runtime.base import require
from clipseg_model.runtime.exports.files import DECODER, ENCODER, PROMPT, TEXT
from clipseg_model.runtime.exports.onnx_files import (
    WEIGHTS,
    Checkpoint,
    NewShelf,
    Shelf,
    store_weights,
)
from clipseg_model.runtime.exports.text_tokens import CLIP, WORD_PIECES

OPSET = 18


def weights_digest(model: SegmentationModel) -> str:
    """Return the SHA-256 of a model's configuration and weights, whatever files they came from."""
    digest = hashlib.sha256(json.dumps(model.config(), sort_keys=True).encode())
    for key, value in sorted(model.state_dict().items()):
        digest.update(f'{key} {value.dtype} {tuple(value.shape)}'.encode())
        flat = value.detach().cpu().contiguous().view(-1)
        digest.update(memoryview(flat.view(torch.uint8).numpy()))
    return digest.hexdigest()


def check_exportable(model: SegmentationModel) -> None:
    """Make sure that a model can be split.

    Raises:
        ExportError: Its image encoding depends on the prompt, or its patches on the image.
    """
    if not model.shares_image_features:
        raise ExportError(
            f'A {type(model).__name__} cannot be exported: its image tower runs again for each '
            'prompt, so there is no image encoder apart from the decoder. Use the runtime eager or '
            'compile'
        )
    if getattr(model.backbone, 'n_tokens', None) is not None:
        raise ExportError(
            'A model with the option n_tokens cannot be exported: its patches are resampled for '
            'each height. Use the runtime eager or compile'
        )


def shared_features(features: ImageFeatures) -> list[Tensor]:
    """All that a decoder reads of images: the projected taps where the model projects them."""
    return list(features.taps if features.projected is None else features.projected)


def restore_features(
    shared: list[Tensor], grid: tuple[int, int], size: tuple[int, int]
) -> ImageFeatures:
    """Return the features that a model decodes, of what :func:`shared_features` kept of them."""
    return ImageFeatures(shared, grid, *size, projected=tuple(shared))


def _have_cls(model: SegmentationModel) -> list[bool]:
    """Tell which of the model's shared features have a CLS token beside the patches."""
    side = 2 * model.backbone.patch_size
    with torch.no_grad():
        shared = shared_features(model.encode_image(torch.zeros(1, 3, side, side)))
    return [tokens.shape[1] == 5 for tokens in shared]


class ImageEncoder(nn.Module):
    """From normalised pixels (B, 3, H, W) to what the decoder needs.

    For each of the model's shared features, the outputs are the CLS token (B, 1, C), where it has
    one, and the patches (B, H / patch, W / patch, C).
    """

    def __init__(self, model: SegmentationModel) -> None:
        super().__init__()
        self.model = model
        self.have_cls = _have_cls(model)

    @property
    def names(self) -> list[str]:
        """Names of the outputs."""
        names = []
        for number, has_cls in enumerate(self.have_cls):
            names += [f'cls_{number}'] * has_cls + [f'patches_{number}']
        return names

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        features = self.model.encode_image(pixels)
        batch, _, height, width = pixels.shape
        patch = self.model.backbone.patch_size
        grid = (height // patch, width // patch)
        parts: list[Tensor] = []
        for tokens, has_cls in zip(shared_features(features), self.have_cls, strict=True):
            if has_cls:
                parts.append(tokens[:, :1])
                tokens = tokens[:, 1:]
            parts.append(tokens.reshape(batch, *grid, tokens.shape[2]))
        return tuple(parts)


class Decoder(nn.Module):
    """From the encoder's outputs and conditional vectors (B, P, E) to logits (B, P, H, W)."""

    def __init__(self, model: SegmentationModel) -> None:
        super().__init__()
        self.model = model
        self.have_cls = _have_cls(model)

    def forward(self, condition: Tensor, parts: Sequence[Tensor]) -> Tensor:
        """See the class."""
        patch = self.model.backbone.patch_size
        height, width = parts[-1].shape[1:3]
        left = list(parts)
        shared: list[Tensor] = []
        for has_cls in self.have_cls:
            cls = [left.pop(0)] if has_cls else []
            shared.append(torch.cat([*cls, left.pop(0).flatten(1, 2)], 1))
        features = restore_features(shared, (height, width), (height * patch, width * patch))
        return self.model.decode(features, condition)


class TextEncoder(nn.Module):
    """From the tokens of P texts to conditional vectors (P, E).

    The ``tokens`` (P, T) of open_clip are zero-padded behind the end token; those of the bundled
    model come with a ``mask`` (P, T) that is true on them.
    """

    def __init__(self, model: SegmentationModel) -> None:
        super().__init__()
        backbone: Any = model.backbone
        if not isinstance(backbone, (OpenClipBackbone, SmallClip)):
            raise ExportError(f'The text tower of a {type(backbone).__name__} cannot be exported')
        self.backbone: Any = backbone

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """See the class."""
        if mask is not None:
            embedding: Tensor = self.backbone.text(self.backbone.text.words(tokens), mask)
            return embedding
        model = self.backbone.model
        length = tokens.shape[1]
        states = model.token_embedding(tokens) + model.positional_embedding[:length]
        states = model.transformer(states, attn_mask=model.attn_mask[:length, :length])
        ends = tokens.argmax(-1)[:, None, None].expand(-1, 1, states.shape[-1])
        projected: Tensor = model.ln_final(states.gather(1, ends)[:, 0]) @ model.text_projection
        return projected

    def example(self) -> tuple[Tensor, ...]:
        """Return the inputs of two texts of six tokens."""
        tokens = torch.arange(12).view(2, 6)
        if isinstance(self.backbone, SmallClip):
            return tokens, torch.ones(2, 6, dtype=torch.bool)
        return (tokens,)


class PromptEncoder(nn.Module):
    """From normalised prompt images (P, 3, H, W) to conditional vectors (P, E)."""

    def __init__(self, model: SegmentationModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        """See the class."""
        return self.model.embed_images(pixels)


def write_onnx(
    model: SegmentationModel, folder: Path, checkpoint: Path | None = None, prefix: str = ''
) -> dict[str, Any]:
    """Write the four parts of a model in float32 on the CPU, and its tokenizer.

    Args:
        model: The model.
        folder: Where to.
        checkpoint: File in that folder that holds the weights; a new one where None.
        prefix: Of the names of the files.

    Returns:
        What a manifest says of them, as JSON types: ``parts`` (file, inputs and outputs of each),
        ``traits`` and ``tokenizer``.

    Raises:
        ExportError: The model cannot be exported.
        RuntimeMissingError: The packages onnx or onnxscript are not installed.
    """
    check_exportable(model)
    for package in ('onnx', 'onnxscript'):
        require(package, 'onnxruntime', 'export')
    backbone: Any = model.backbone
    patch = backbone.patch_size
    dynamic = torch.export.Dim.DYNAMIC
    encoder, decoder, text = ImageEncoder(model), Decoder(model), TextEncoder(model)
    pixels = torch.zeros(2, 3, 6 * patch, 4 * patch)
    with torch.inference_mode(False), torch.no_grad():
        # Contiguous: the strides of slices would be dynamic, which the exporter has no words for.
        parts = [part.contiguous() for part in encoder(pixels)]
        names = encoder.names
        condition = torch.zeros(2, 3, backbone.embed_dim)
        tokens = text.example()
        signature = {
            ENCODER: (['pixels'], names),
            DECODER: (['condition', *names], ['logits']),
            TEXT: (['tokens', 'mask'][: len(tokens)], ['condition']),
            PROMPT: (['pixels'], ['condition']),
        }
        shapes = [
            {0: dynamic} if part.dim() == 3 else dict.fromkeys((0, 1, 2), dynamic) for part in parts
        ]
        images = (dict.fromkeys((0, 2, 3), dynamic),)
        jobs: dict[str, tuple[nn.Module, tuple[Any, ...], tuple[Any, ...]]] = {
            ENCODER: (encoder, (pixels,), images),
            DECODER: (decoder, (condition, parts), (dict.fromkeys((0, 1), dynamic), shapes)),
            TEXT: (text, tokens, tuple(dict.fromkeys((0, 1), dynamic) for _ in tokens)),
            PROMPT: (PromptEncoder(model), (pixels,), images),
        }
        shelf: Shelf = NewShelf(folder / WEIGHTS) if checkpoint is None else Checkpoint(checkpoint)
        # The exporter takes len(tensor) for a constant, fails, and traces anew in another way,
        # which takes half as long again: modules ask for shape[0].
        for part, (module, inputs, dynamics) in jobs.items():
            program = _export(part, module.eval(), inputs, dynamics, *signature[part])
            store_weights(program, shelf, folder / f'{prefix}{part}.onnx')
        if isinstance(shelf, NewShelf):
            shelf.close()
    traits = traits_of(model)
    return {
        'parts': {
            part: {'file': f'{prefix}{part}.onnx', 'inputs': inputs, 'outputs': outputs}
            for part, (inputs, outputs) in signature.items()
        },
        'traits': {
            'kind': traits.kind,
            'patch_size': traits.patch_size,
            'embed_dim': traits.embed_dim,
            'mean': list(traits.mean),
            'std': list(traits.std),
        },
        'tokenizer': _write_tokenizer(backbone, folder, shelf),
    }


def _write_tokenizer(backbone: Any, folder: Path, shelf: Shelf) -> dict[str, Any]:
    """Return what a manifest says of a tokenizer, whose files are written."""
    if isinstance(backbone, SmallClip):
        text = backbone.text
        vocabulary = text.vocabulary.cpu().numpy().tobytes()
        entry = {'kind': WORD_PIECES, 'pieces': len(text.table), 'most': text.max_pieces}
        if isinstance(shelf, Checkpoint):
            offset, size = shelf.offsets['backbone.text.vocabulary']
            return {**entry, 'file': shelf.name, 'offset': offset, 'bytes': size}
        (folder / 'vocabulary.bin').write_bytes(vocabulary)
        return {**entry, 'file': 'vocabulary.bin', 'offset': 0, 'bytes': len(vocabulary)}
    (folder / 'tokenizer.json').write_text(_clip_tokenizer(backbone.tokenizer))
    return {'kind': CLIP, 'file': 'tokenizer.json', 'most': backbone.context_length}


def _clip_tokenizer(tokenizer: Any) -> str:
    """Return open_clip's tokenizer as that of the package tokenizers, in JSON."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    merges = sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.get)
    made = Tokenizer(models.BPE(tokenizer.encoder, merges, end_of_word_suffix='</w>'))
    words = Regex(tokenizer.pat.pattern)
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, 'removed', invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.add_special_tokens(['<start_of_text>', '<end_of_text>'])
    text: str = made.to_str()
    return text


def _export(
    part: str,
    module: nn.Module,
    inputs: tuple[Any, ...],
    dynamic_shapes: tuple[Any, ...],
    input_names: list[str],
    output_names: list[str],
) -> Any:
    """Return a module as an ``onnx.ModelProto``."""
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                inputs,
                dynamo=True,
                dynamic_shapes=dynamic_shapes,
                opset_version=OPSET,
                input_names=input_names,
                output_names=output_names,
                verbose=False,
            )
            assert program is not None
            return program.model_proto
    except (torch.onnx.errors.OnnxExporterError, OSError, RuntimeError) as error:
        raise ExportError(
            f'The {part} could not be exported with torch {torch.__version__}: {error}'
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's notes, hundreds of them, out of the user's log."""
    loggers = [logging.getLogger(name) for name in ('torch.onnx', 'onnxscript', 'onnx_ir')]
    levels = [each.level for each in loggers]
    try:
        for each in loggers:
            each.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
