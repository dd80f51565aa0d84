"""Settings of :mod:`training.train_tabletop`: YAML files, validated on load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from training.datasets.samples import StrictSettings
from training.loop.settings import read_yaml, validated


class DataSettings(StrictSettings):
    """Where the rendered views lie and how prompts are drawn."""

    folder: Path
    texts: int = Field(6, ge=1, description='text prompts of a view and step')
    more_texts: int = Field(24, ge=1, description='texts of a view for the alignment losses alone')
    absent_share: float = Field(0.45, ge=0, le=1, description='share that is true of nothing')
    wide_share: float = Field(0.5, ge=0, le=1, description='share of steps with 4:3 pictures')
    support_size: int = Field(192, ge=32, multiple_of=16, description='side of prompt images')


class LossWeights(StrictSettings):
    """Factors of the losses in :mod:`training.bundled.losses`."""

    bce: float = 4.0
    dice: float = 1.0
    patch: float = 2.0
    region: float = 0.5
    support: float = 0.2
    classes: float = 0.5


class Stage(StrictSettings):
    """A stretch of training at one input size."""

    iterations: int = Field(gt=0)
    input_size: int = Field(ge=64, multiple_of=16)
    batch: int = Field(8, ge=1, description='views of a step and process')


class Settings(StrictSettings):
    """One training run."""

    name: str
    model: dict[str, Any] = Field(
        description='configuration for clipseg_model.modeling.clipseg.build_clipseg'
    )
    frozen: Path = Field(description='weights made by training.bundled.frozen_parts')
    data: DataSettings
    losses: LossWeights = LossWeights()
    stages: list[Stage] = Field(min_length=1)
    learning_rate: float = Field(1e-3, gt=0)
    stem_rate: float = Field(0.1, gt=0, description="the stem's learning rate, relative")
    weight_decay: float = Field(0.02, ge=0)
    warmup: int = Field(200, ge=0, description='iterations of linear warm-up')
    decay: int = Field(ge=0, description='last iterations, over which the rate falls to zero')
    clip_norm: float = Field(1.0, gt=0)
    average: float = Field(0.999, ge=0, lt=1, description='decay of the weights moving average')
    word_noise: float = Field(0.5, ge=0)
    word_dropout: float = Field(0.1, ge=0, lt=1)
    stem_from: int = Field(11, ge=0, le=11, description='first block of the stem that is trained')
    compile: bool = Field(False, description='compile the image path (slow start, faster steps)')
    seed: int = 0
    save_every: int = Field(500, gt=0)

    @property
    def iterations(self) -> int:
        """Iterations of all stages together."""
        return sum(stage.iterations for stage in self.stages)

    def stage(self, iteration: int) -> Stage:
        """Return the stage of an iteration, counted from 0."""
        for stage in self.stages:
            if iteration < stage.iterations:
                return stage
            iteration -= stage.iterations
        return self.stages[-1]

    def rate_factor(self, iteration: int) -> float:
        """Return the share of the learning rates: linear warm-up, 1, then 1 − √x to zero."""
        return rate_factor(iteration, self.iterations, self.warmup, self.decay)


def rate_factor(iteration: int, iterations: int, warmup: int, decay: int) -> float:
    """Return the share of the learning rates: linear warm-up, 1, then 1 − √x to zero.

    Args:
        iteration: Counted from 0.
        iterations: Of the whole run.
        warmup: The first ones.
        decay: The last ones.
    """
    if iteration < warmup:
        return (iteration + 1) / warmup
    left = iterations - iteration
    return 1.0 if left >= decay else 1 - (1 - left / decay) ** 0.5


def load_settings(path: Path) -> Settings:
    """Read and validate a YAML file; raise SettingsError with every mistake named."""
    return validated(Settings, read_yaml(path), path)
