"""int8 for OpenVINO: quantised on the user's own images, and kept only if the masks agree."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipseg_model.errors import ExportError, PrecisionError
from clipseg_model.model_card import ModelCard
from clipseg_model.prompts import Prompt
from clipseg_model.runtime.base import require
from clipseg_model.runtime.devices import Device
from clipseg_model.runtime.exporting import ensure_onnx, package_versions
from clipseg_model.runtime.exports.files import DECODER, ENCODER, write_variant
from clipseg_model.runtime.openvino_runtime import INT8_VARIANT, OpenVinoRuntime
from clipseg_model.segmenter import Segmenter

if TYPE_CHECKING:
    from clipseg_model.modeling.base import SegmentationModel

logger = logging.getLogger(__name__)

LEAST_IOU = 0.95
"""Agreement with fp32 below which an int8 model is refused, unless another bound is asked for."""

MOST_IMAGES = 128
"""Calibration images that are used; more change the ranges no further."""

FEWEST_IMAGES = 8


@dataclass(frozen=True)
class Agreement:
    """How far the masks of two segmenters agree.

    Attributes:
        iou: Pixels on in both over pixels on in either, summed over images and prompts; 0…1.
        correlation: Of the logits, over all pixels.
        share_on: Share of the pixels that the reference switches on, 0…1.
        images: How many were compared.
    """

    iou: float
    correlation: float
    share_on: float
    images: int


def mask_agreement(
    reference: Segmenter,
    other: Segmenter,
    images: Sequence[NDArray[np.uint8]],
    prompts: Sequence[Sequence[str | Prompt]],
) -> Agreement:
    """Compare two segmenters' masks at the model's resolution; those of ``reference`` are right.

    Images are (H, W, 3) uint8 RGB; each has one or more prompts of its own.

    Raises:
        PrecisionError: The reference switches no pixel on, so nothing can be said.
    """
    both = either = on = pixels = 0
    sums = np.zeros(5)
    for image, asked in zip(images, prompts, strict=True):
        ours = other.segment(image, asked).results
        for right, result in zip(reference.segment(image, asked).results, ours, strict=True):
            level = np.log(right.threshold / (1 - right.threshold))
            wanted, found = right.logits > level, result.logits > level
            both += int((wanted & found).sum())
            either += int((wanted | found).sum())
            on += int(wanted.sum())
            pixels += wanted.size
            x, y = right.logits.astype(np.float64), result.logits.astype(np.float64)
            sums += [x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()]
    if not on:
        raise PrecisionError(
            f'None of the prompts is seen in any of the {len(images)} images, so there are no '
            'masks to compare: name prompts for things that the images show'
        )
    x, y, xx, yy, xy = sums / pixels
    spread = float(np.sqrt((xx - x * x) * (yy - y * y)))
    correlation = float(xy - x * y) / spread if spread else 0.0
    return Agreement(both / either, correlation, on / pixels, len(images))


def export_int8(
    model: SegmentationModel,
    card: ModelCard,
    digest: str,
    root: Path,
    images: Sequence[NDArray[np.uint8]],
    prompts: Sequence[str | Prompt],
    least_iou: float = LEAST_IOU,
) -> Agreement:
    """Quantise a model, compare its masks on the same images, and write it if they agree.

    Post-training quantisation by NNCF with SmoothQuant (Xiao et al. 2023), which moves the outlier
    channels that trained transformers have from activations into weights.

    Args:
        model: In float32, on the CPU.
        card: Its card.
        digest: Of its weights.
        root: Folder of the variants.
        images: Such as the model will see, (H, W, 3) uint8 RGB each; 8 at least, 128 are used.
        prompts: Such as it will be asked for; the images should show some of them.
        least_iou: Agreement in 0…1 below which nothing is written.

    Raises:
        PrecisionError: The masks do not agree, or show nothing.
        ExportError: There are too few images, or the model cannot be exported or written.
        RuntimeMissingError: openvino or nncf is not installed.
    """
    nncf = require('nncf', 'openvino', 'quantize')
    ov = require('openvino', 'openvino', 'openvino')
    if len(images) < FEWEST_IMAGES:
        raise ExportError(
            f'Calibration needs at least {FEWEST_IMAGES} images, and there are {len(images)}: give '
            'some dozens of what the camera sees'
        )
    # Spread over what was given, which may be a video.
    chosen = [
        images[int(i)] for i in np.linspace(0, len(images) - 1, min(len(images), MOST_IMAGES))
    ]
    place = Device('cpu')
    export = ensure_onnx(model, card, digest, root)
    reference = Segmenter(OpenVinoRuntime(export, None, place), card)
    core = ov.Core()
    encoder, decoder = (core.read_model(export.part(part)) for part in (ENCODER, DECODER))
    seen, asked = _calibration(reference, chosen, prompts)
    quantised = {}
    for name, network, inputs in ((ENCODER, encoder, seen), (DECODER, decoder, asked)):
        logger.info('Quantising the %s on %d inputs', name, len(inputs))
        quantised[name] = nncf.quantize(
            network,
            nncf.Dataset(inputs),
            model_type=nncf.ModelType.TRANSFORMER,
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(inputs),
            # Little of the work, and most of the error: 0.958 with them, 0.991 without them
            # (bundled model, IoU with fp32 masks on 30 tabletop scenes).
            ignored_scope=nncf.IgnoredScope(
                types=['Convolution', 'GroupConvolution'], validate=False
            ),
        )
    agreement: list[Agreement] = []

    def write(made: Path) -> dict[str, Any]:
        for name, network in quantised.items():
            ov.save_model(network, made / f'{name}.xml', compress_to_fp16=False)
        other = Segmenter(OpenVinoRuntime(export, made, place, 'int8'), card)
        found = mask_agreement(reference, other, chosen, [prompts] * len(chosen))
        if found.iou < least_iou:
            raise PrecisionError(
                f'In int8 the masks of {card.name!r} agree with those of fp32 at IoU '
                f'{found.iou:.3f} over {found.images} images, and {least_iou:g} is asked for: use '
                'bf16, calibrate on more images like those of the camera, or allow less'
            )
        agreement.append(found)
        names = [getattr(prompt, 'text', prompt) for prompt in prompts]
        return {
            'calibration': {
                'images': len(chosen),
                'prompts': names,
                'iou': round(found.iou, 5),
                'correlation': round(found.correlation, 5),
                'least_iou': least_iou,
            }
        }

    versions = package_versions('clipseg_ros', 'openvino', 'nncf')
    write_variant(root / INT8_VARIANT, card, digest, versions, write)
    return agreement[0]


def _calibration(
    segmenter: Segmenter, images: Sequence[NDArray[np.uint8]], prompts: Sequence[str | Prompt]
) -> tuple[list[Any], list[Any]]:
    """Return inputs of the encoder and, for a pair of prompts in turn, of the decoder."""
    seen: list[Any] = []
    asked: list[Any] = []
    condition = segmenter.embed(prompts)
    for number, image in enumerate(images):
        pixels = segmenter.preprocessor.pixels(image)
        features = segmenter.runtime.encode_image(pixels)
        seen.append([pixels])
        turn = [(2 * number + k) % len(condition) for k in range(2)]
        asked.append([condition[turn][None], *features.taps])
    return seen, asked
