"""A tiny model in every runtime, and how far its answers may differ."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from clipseg_model.modeling.backbone import OpenClipBackbone
from clipseg_model.modeling.clipseg import CLIPSeg
from clipseg_model.registry import create_model
from clipseg_model.runtime import runtime_class
from clipseg_model.segmentation import Segmentation
from clipseg_model.segmenter import Segmenter

SMALL = {
    'embed_dim': 16,
    'vision_cfg': {'image_size': 64, 'layers': 3, 'width': 128, 'patch_size': 16},
    'text_cfg': {'context_length': 77, 'vocab_size': 49408, 'width': 32, 'heads': 2, 'layers': 1},
}


PROMPTS = ['a mug', 'the red cup', 'something to sit on', 'a chair', 'a drink']


def make_vit(seed: int = 0) -> CLIPSeg:
    """CLIPSeg on a tiny ViT of open_clip, whose logits differ between prompts and pixels."""
    torch.manual_seed(seed)
    towers = OpenClipBackbone(overrides=SMALL)
    model = CLIPSeg(towers, [0, 2], dim=16, num_heads=4, feedforward=32, head='refined')
    with torch.no_grad():
        model.decoder.head.deconv2.weight *= 20
    return model.eval()


def start(
    path: Path | str, name: str, precision: str, device: str = 'cpu', **more: Any
) -> Segmenter:
    """A segmenter, or a skip that says which package is missing."""
    package = runtime_class(name).package
    if package is not None and find_spec(package) is None:
        pytest.skip(f'{package} is not installed')
    return create_model(path, device, runtime=name, precision=precision, **more)


def error_of(found: NDArray[Any], expected: NDArray[Any], precision: str) -> float:
    """What a tolerance of :data:`RUNS` bounds."""
    difference = np.abs(found.astype(np.float64) - expected)
    if precision == 'fp32':
        return float(difference.max()) / max(1.0, float(np.abs(expected).max()))
    return float(np.sqrt((difference**2).mean()) / expected.std())


def assert_agrees(reference: Segmenter, other: Segmenter, picture: Any, tolerance: float) -> None:
    for count in (1, len(PROMPTS)):
        found = other.segment(picture, PROMPTS[:count])
        wanted = reference.segment(picture, PROMPTS[:count])
        assert_same(found, wanted, other.runtime.precision, tolerance)


def assert_same(
    found: Segmentation, wanted: Segmentation, precision: str, tolerance: float
) -> None:
    logits, expected = (
        np.stack([result.logits for result in answer.results]) for answer in (found, wanted)
    )
    assert logits.dtype == np.float32
    assert error_of(logits, expected, precision) <= tolerance
