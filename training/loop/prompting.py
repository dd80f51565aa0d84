"""From samples to tensors: squares, captions, prompt images, and the mix of text and image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationInfo, field_validator, model_validator
from torch import Tensor
from torch.nn import functional

from clipseg_model.prompting.templates import TEMPLATES
from clipseg_model.prompting.visual_prompt import DEFAULT_METHOD, METHODS, visual_prompt
from training.datasets.samples import Sample, StrictSettings


class PromptSettings(StrictSettings):
    """How samples become prompts; the defaults are those of CLIPSeg's rd64-uni.

    The paper's text draws the weight over U(0, 1); its published configuration, over U(0, 0.5).
    """

    size: int = Field(352, ge=32, description='side of the squares, pixels')
    fit: Literal['squeeze', 'pad'] = Field(
        'squeeze', description='squeeze a picture to a square, or pad it right and below'
    )
    template: str = Field('shuffle+', description='captions that phrases are put into')
    method: str = Field(DEFAULT_METHOD, description='how support images are made prompt images')
    ground: tuple[float, float, float] = Field(
        (0, 0, 0), description='RGB that backgrounds of prompt images fade to, 0…255'
    )
    text_weight: tuple[float, float] = Field(
        (0.0, 0.5), description='range of the share of the text where there is a support image'
    )

    @field_validator('template', 'method')
    @classmethod
    def _known(cls, value: str, info: ValidationInfo) -> str:
        known = TEMPLATES if info.field_name == 'template' else METHODS
        if value not in known:
            raise ValueError(f'no {info.field_name} {value!r}; there are {", ".join(known)}')
        return value

    @model_validator(mode='after')
    def _range_of_weights(self) -> PromptSettings:
        low, high = self.text_weight
        if not 0 <= low <= high <= 1:
            raise ValueError(f'text_weight must be a range in 0…1, not {self.text_weight}')
        return self


@dataclass
class PromptBatch:
    """Samples of one step."""

    keys: list[str]
    images: Tensor  #: float32 (B, 3, S, S), 0…1, not normalised
    masks: Tensor  #: float32 (B, 1, S, S): 0 or 1, or between for a matte
    valid: Tensor  #: bool (B, 1, S, S): pixels that count
    texts: list[str]  #: phrases in captions
    supports: Tensor  #: uint8 (B, S, S, 3), zeros where there is none
    has_support: Tensor  #: bool (B,)
    text_weights: Tensor  #: float32 (B,), a in a · text + (1 - a) · image; 1: no image
    class_ids: Tensor  #: int64 (B,); -1 where there is none


def make_batch(
    samples: Sequence[Sample], settings: PromptSettings, rng: np.random.Generator
) -> PromptBatch:
    """Make the tensors of B samples; ``rng`` draws captions and weights."""
    size = settings.size
    templates = TEMPLATES[settings.template]
    images, masks, valid, supports, texts = [], [], [], [], []
    for sample in samples:
        image, mask, counts = square(sample, size, settings.fit)
        images.append(image)
        masks.append(mask)
        valid.append(counts)
        texts.append(templates[rng.integers(len(templates))].format(sample.phrase))
        prompt = np.zeros((size, size, 3), np.uint8)
        if sample.support is not None:
            prompt = visual_prompt(
                sample.support.image, sample.support.mask, size, settings.method, settings.ground
            )
        supports.append(torch.from_numpy(prompt))
    has_support = torch.tensor([sample.support is not None for sample in samples])
    drawn = torch.from_numpy(rng.uniform(*settings.text_weight, len(samples))).float()
    class_ids = [-1 if sample.class_id is None else sample.class_id for sample in samples]
    return PromptBatch(
        [sample.key for sample in samples],
        torch.stack(images),
        torch.stack(masks),
        torch.stack(valid),
        texts,
        torch.stack(supports),
        has_support,
        torch.where(has_support, drawn, 1.0),
        torch.tensor(class_ids),
    )


def square(
    sample: Sample, size: int, fit: Literal['squeeze', 'pad'] = 'squeeze'
) -> tuple[Tensor, Tensor, Tensor]:
    """Resize picture and truth: float32 (3, S, S) of 0…1, float32 (1, S, S), bool: what counts.

    ``squeeze`` is what CLIPSeg's code does with PhraseCut: the picture bilinearly with corners
    aligned and without antialiasing, the truth by its nearest pixel. ``pad`` keeps the aspect and
    fills with black what does not count.
    """
    image = torch.from_numpy(np.ascontiguousarray(sample.image)).permute(2, 0, 1)[None].float()
    exact = sample.alpha is None
    truth = _plane(sample.mask if sample.alpha is None else sample.alpha)
    counts = _plane(np.ones_like(sample.mask) if sample.valid is None else sample.valid)
    height, width = image.shape[-2:]
    if fit == 'pad':
        side = max(height, width)
        # New pixels come last, so points of the picture keep their coordinates.
        padding = (0, side - width, 0, side - height)
        image, truth, counts = (functional.pad(x, padding) for x in (image, truth, counts))
    image = functional.interpolate(image, (size, size), mode='bilinear', align_corners=True)
    truth = (
        functional.interpolate(truth, (size, size), mode='nearest')
        if exact
        else functional.interpolate(truth, (size, size), mode='bilinear', align_corners=True)
    )
    counts = functional.interpolate(counts, (size, size), mode='nearest')
    return image[0] / 255, truth[0], counts[0] > 0.5


def _plane(values: NDArray[np.bool_] | NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))[None, None]
