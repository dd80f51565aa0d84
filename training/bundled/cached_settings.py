"""What a run on cached features is told: YAML files, validated on load."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from training.bundled.settings import rate_factor
from training.datasets.samples import StrictSettings
from training.loop.settings import read_yaml, validated

WHOLE = 18
"""Side of a whole cached crop, in tokens."""


class CachedWeights(StrictSettings):
    """Factors of the losses in :mod:`training.bundled.cached_training`."""

    bce: float = 4.0
    dice: float = 1.0
    patch: float = 1.0
    presence: float = 0.1
    support: float = 0.2
    distil: float = 1.0


class CachedSettings(StrictSettings):
    """One run of training.train_bundled, on cached features."""

    name: str
    start: str = Field(description='model to start with, made by training.bundled.towers')
    cache: Path = Field(description='folder of the caches, by training.bundled.cache_features')
    annotations: Path = Field(description="the photographs' file in COCO's format")
    corpus: Path = Field(description='phrases and vectors, made by training.bundled.towers')
    views: Path | None = Field(None, description='rendered views, where they are a source')
    sources: dict[str, float] = Field(min_length=1, description='how often each is drawn')
    terms: dict[str, str] = Field(
        {}, description='what each source is, and its terms: for the card'
    )
    losses: CachedWeights = CachedWeights()
    iterations: int = Field(gt=0)
    bf16: bool = Field(
        False, description='mixed precision, on a CPU that has it: twice as fast with AMX'
    )
    batch: int = Field(8, ge=1, description='crops of a step')
    texts: int = Field(3, ge=1, description='texts of a crop; one more where no image is asked')
    visual_every: int = Field(3, ge=1, description='steps of which one asks by prompt images')
    window: int = Field(14, ge=2, multiple_of=2, description='side of what is shown, in tokens')
    whole: int = Field(0, ge=0, description='last iterations, which show whole crops')
    distil: int = Field(64, ge=1, description='phrases of a step to distil with')
    learning_rate: float = Field(8e-4, gt=0)
    weight_decay: float = Field(0.02, ge=0)
    warmup: int = Field(60, ge=0, description='iterations of linear warm-up')
    decay: int = Field(ge=0, description='last iterations, over which the rate falls to zero')
    clip_norm: float = Field(1.0, gt=0)
    average: float = Field(0.995, ge=0, lt=1, description='decay of the weights moving average')
    word_noise: float = Field(0.5, ge=0)
    word_dropout: float = Field(0.1, ge=0, lt=1)
    meaning_noise: float = Field(0.1, ge=0, description='on the words of the meaning half')
    seed: int = 0
    save_every: int = Field(100, gt=0)

    def rate_factor(self, iteration: int) -> float:
        """Return the share of the learning rate: linear warm-up, 1, then 1 − √x to zero."""
        return rate_factor(iteration, self.iterations, self.warmup, self.decay)

    def window_at(self, iteration: int) -> int:
        """Return the side of what is shown of a crop, in tokens."""
        return WHOLE if self.iterations - iteration <= self.whole else self.window


def load_cached_settings(path: Path) -> CachedSettings:
    """Read and validate a YAML file.

    Raises:
        SettingsError: With every mistake named, if the file is not valid.
    """
    return validated(CachedSettings, read_yaml(path), path)
