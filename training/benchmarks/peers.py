"""The peers of the speed benchmark: CLIPSeg of transformers, used in two ways.

Weights are random: speed does not depend on them. The result is that of this project's subjects:
one bool mask a prompt at the size of the image.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipseg_model.modeling.backbone import IMAGENET_MEAN, IMAGENET_STD

Subject = Callable[[NDArray[np.uint8]], object]

SIZE = 352


def documented(prompts: Sequence[str], device: torch.device, bf16: bool = False) -> Subject:
    """Return a call as in the documentation of transformers.

    ``processor(text=texts, images=[image] * len(texts), padding=True)`` and ``model(**inputs)``:
    the image is resized and encoded once a prompt, and the texts again for each frame.
    """
    model, processor = _load(device, bf16)
    texts = list(prompts)

    @torch.inference_mode()
    def run(image: NDArray[np.uint8]) -> object:
        inputs = processor(
            text=texts, images=[image] * len(texts), padding=True, return_tensors='pt'
        ).to(device)
        if bf16:
            inputs['pixel_values'] = inputs['pixel_values'].bfloat16()
        logits = model(**inputs).logits
        return _masks(logits, image)

    return run


def clever(prompts: Sequence[str], device: torch.device, bf16: bool = False) -> Subject:
    """Return a call that avoids repeated work, written with the source of transformers at hand.

    The vision tower runs once a frame, with all its twelve blocks, and the text tower only here;
    the decoder gets the tokens once for each prompt, as it needs them.
    """
    model, processor = _load(device, bf16)
    tokens = processor.tokenizer(list(prompts), padding=True, return_tensors='pt').to(device)
    with torch.inference_mode():
        condition = model.get_conditional_embeddings(
            batch_size=len(prompts),
            input_ids=tokens['input_ids'],
            attention_mask=tokens['attention_mask'],
        )

    @torch.inference_mode()
    def run(image: NDArray[np.uint8]) -> object:
        pixels = processor.image_processor(images=image, return_tensors='pt')['pixel_values']
        pixels = pixels.to(device, condition.dtype)
        states = model.clip.vision_model(pixels, output_hidden_states=True).hidden_states
        taps = tuple(
            states[layer + 1].expand(len(prompts), -1, -1) for layer in model.extract_layers
        )
        return _masks(model.decoder(taps, condition).logits, image)

    return run


def _masks(logits: Tensor, image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    # A single prompt has come back without its axis from some versions.
    stacked = logits.float().reshape(-1, 1, *logits.shape[-2:])
    resized = torch.nn.functional.interpolate(stacked, image.shape[:2], mode='bilinear')
    masks: NDArray[np.bool_] = (resized.sigmoid() > 0.5)[:, 0].cpu().numpy()
    return masks


def _load(device: torch.device, bf16: bool) -> tuple[Any, Any]:
    """Return CLIPSeg rd64-refined with random weights, and its processor."""
    from transformers import (
        CLIPSegConfig,
        CLIPSegForImageSegmentation,
        CLIPSegProcessor,
        ViTImageProcessor,
    )

    torch.manual_seed(0)
    config = CLIPSegConfig(
        vision_config={'patch_size': 16, 'image_size': SIZE},
        reduce_dim=64,
        use_complex_transposed_convolution=True,
    )
    model = CLIPSegForImageSegmentation(config).eval().to(device)
    images = ViTImageProcessor(
        size={'height': SIZE, 'width': SIZE},
        image_mean=list(IMAGENET_MEAN),
        image_std=list(IMAGENET_STD),
    )
    return model.bfloat16() if bf16 else model, CLIPSegProcessor(images, _tokenizer())


def _tokenizer() -> Any:
    """Return CLIP's tokenizer, made of the vocabulary in open_clip."""
    from transformers import CLIPTokenizerFast  # type: ignore[attr-defined]

    source = open_clip.SimpleTokenizer()
    merges = sorted(source.bpe_ranks, key=lambda pair: source.bpe_ranks[pair])
    names = {'<start_of_text>': '<|startoftext|>', '<end_of_text>': '<|endoftext|>'}
    vocabulary = {names.get(piece, piece): number for piece, number in source.encoder.items()}
    with tempfile.TemporaryDirectory() as folder:
        pieces, rules = Path(folder) / 'vocab.json', Path(folder) / 'merges.txt'
        pieces.write_text(json.dumps(vocabulary), encoding='utf-8')
        lines = ['#version: 0.2', *(' '.join(pair) for pair in merges)]
        rules.write_text('\n'.join(lines), encoding='utf-8')
        return CLIPTokenizerFast(str(pieces), str(rules))
