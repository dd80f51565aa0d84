"""Settings of :mod:`training.train`: YAML files, validated on load.

The defaults are the recipe of CLIPSeg's supplement, so that a file of ``configs/`` states the
model, the data and what departs from it.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from clipseg_model.errors import ClipsegError, FileError
from clipseg_model.files import small_files
from clipseg_model.modeling.base import ARCHITECTURES
from training.datasets import sources
from training.datasets.samples import StrictSettings, mistakes_in
from training.datasets.sources import SourceError, check_source
from training.loop.prompting import PromptSettings

#: Settings that a run may change when it is resumed: none of them touches the weights.
FREE_ON_RESUME = ('save_every', 'log_every', 'workers', 'pictures')


class SettingsError(ClipsegError):
    """A file of settings is missing, unreadable, or not valid."""


Model = TypeVar('Model', bound=BaseModel)


def _checked_source(value: dict[str, Any]) -> dict[str, Any]:
    try:
        check_source(value)
    except SourceError as error:
        raise ValueError(str(error)) from error
    return value


Data = Annotated[dict[str, Any], AfterValidator(_checked_source)]


class Schedule(StrictSettings):
    """The learning rate over the iterations: a function of the iteration alone."""

    kind: Literal['cosine', 'cyclic'] = Field(
        'cosine', description='one fall from rate to final_rate, or one in every cycle'
    )
    rate: float = Field(1e-3, gt=0, description='learning rate at the start (of every cycle)')
    final_rate: float = Field(1e-4, ge=0, description='at the end (of every cycle)')
    cycle_epochs: float | None = Field(None, gt=0, description='epochs of a cycle, for cyclic')

    @model_validator(mode='after')
    def _consistent(self) -> Schedule:
        if self.final_rate > self.rate:
            raise ValueError(f'final_rate {self.final_rate} is above rate {self.rate}')
        if (self.kind == 'cyclic') != (self.cycle_epochs is not None):
            raise ValueError('cycle_epochs is for kind: cyclic, which needs it')
        return self


class Validation(StrictSettings):
    """Validation during training, on the text prompts and whole pictures of a split."""

    data: Data = Field(description='a data set, as the data of the run')
    every: int = Field(1000, gt=0, description='iterations between two validations')
    samples: int | None = Field(1000, gt=0, description='at most so many, evenly spread; all: null')
    prompt: Literal['text', 'image'] = Field('text', description='kind of prompt')
    best_by: Literal['loss', 'iou_fg', 'ap'] = Field(
        'iou_fg', description='what makes a checkpoint the best; iou_fg is at its best threshold'
    )


class Settings(StrictSettings):
    """One training run."""

    name: str = Field(pattern=r'^[\w.+-]+$', description='of the run and of the model')
    model: dict[str, Any] | None = Field(
        None,
        description='configuration for clipseg_model.build_model; that of init_from where missing',
    )
    towers: str | None = Field(
        None,
        description="CLIP's weights: a file of open_clip, a folder or checkpoint of CLIPSeg, or "
        "the name of a downloaded one; 'random' for none",
    )
    image_tower: Path | None = Field(None, description="ViTSeg: timm's weights, safetensors")
    init_from: str | None = Field(
        None, description='checkpoint or name of a model whose weights the run begins with'
    )
    data: Data = Field(description="dataset: its name, and that data set's settings")
    prompts: PromptSettings = PromptSettings()
    activations: str | None = Field(
        None, description='folder of training.cache_activations: read instead of running towers'
    )
    stream: bool = Field(
        False,
        description='read activations shard by shard, in a shuffled stream, and not any sample at '
        'any time; they may then be at an address (http, https)',
    )
    shards: str | None = Field(
        None,
        description='folder or address (http, https) of training.pack_pictures: pictures and '
        'records are streamed from there, and the files of data are not needed',
    )
    validation: Validation | None = None
    batch_size: int = Field(64, gt=0, description='samples of a step, of all processes together')
    accumulate: int = Field(1, gt=0, description='parts that a step is computed in, to save memory')
    iterations: int | None = Field(None, gt=0, description='steps; 20,000 without epochs')
    epochs: int | None = Field(None, gt=0, description='passes over the data, in place of it')
    schedule: Schedule = Schedule()
    weight_decay: float = Field(0.01, ge=0, description="AdamW's; its default is the paper's")
    clip_norm: float | None = Field(None, gt=0, description='largest norm of the gradient')
    mixed_precision: Literal['no', 'fp16', 'bf16'] = 'fp16'
    seed: int = Field(0, ge=0)
    draw_seed: int | None = Field(
        None,
        ge=0,
        description='of crops, negatives, support images and captions, where other than seed: runs '
        'of several seeds then read the same cached activations',
    )
    workers: int = Field(4, ge=0, description='processes that load samples, for each process')
    save_every: int = Field(500, gt=0, description='iterations between two checkpoints')
    log_every: int = Field(20, gt=0, description='iterations between two lines of the log')
    pictures: int = Field(4, ge=0, description='validation samples that TensorBoard shows')
    licence: str = Field(
        'as the data and the weights that it began with', description='for the model card'
    )

    @field_validator('mixed_precision', mode='before')
    @classmethod
    def _no_is_a_word(cls, value: Any) -> Any:
        # YAML reads a bare no as false.
        return 'no' if value is False else value

    @field_validator('model')
    @classmethod
    def _known_architecture(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None and value.get('architecture') not in ARCHITECTURES:
            raise ValueError(
                f'architecture must be one of {", ".join(ARCHITECTURES)}, '
                f'not {value.get("architecture")!r}'
            )
        return value

    @model_validator(mode='after')
    def _consistent(self) -> Settings:
        if self.stream and self.activations is None:
            raise ValueError('stream is of activations: say where they are')
        if self.shards is not None and self.activations is not None:
            raise ValueError('give activations or shards, not both')
        if self.iterations is not None and self.epochs is not None:
            raise ValueError('give iterations or epochs, not both')
        if self.model is None and self.init_from is None:
            raise ValueError('give a model, or init_from (--init-from), whose model is trained')
        if self.init_from is None and self.towers is None:
            raise ValueError(
                "towers is missing: name CLIP's weights, or say 'random' to train without"
            )
        if self.init_from is not None and (self.towers or self.image_tower):
            raise ValueError('towers and image_tower come with init_from: leave them out')
        vitseg = self.model is not None and self.model['architecture'] == 'vitseg'
        if self.image_tower is not None and not vitseg:
            raise ValueError('image_tower is for the architecture vitseg')
        return self

    @property
    def streams(self) -> bool:
        """Whether samples come shard by shard."""
        return self.stream or self.shards is not None

    @property
    def drawn_by(self) -> int:
        """Seed of what is random about the samples."""
        return self.seed if self.draw_seed is None else self.draw_seed

    def length(self, samples: int) -> int:
        """Return the steps of a run on so many samples."""
        if self.epochs is not None:
            return max(1, round(self.epochs * samples / self.batch_size))
        return self.iterations or 20_000

    def cycle(self, samples: int) -> int:
        """Return the steps over which the learning rate falls: a cycle's, or the run's."""
        epochs = self.schedule.cycle_epochs
        if epochs is None:
            return self.length(samples)
        return max(1, round(epochs * samples / self.batch_size))


def load_settings(
    path: Path, changes: Sequence[str] = (), init_from: str | None = None
) -> Settings:
    """Read and validate the YAML file of a run; raise SettingsError with every mistake named.

    Args:
        path: The file.
        changes: ``KEY=VALUE`` each, with dots between the keys of sections (``data.fold=1``) and
            the value in YAML.
        init_from: Replaces that of the file, and its towers, unless None.
    """
    values = changed(read_yaml(path), changes)
    if init_from is not None:
        values['init_from'] = init_from
        # What the towers of a file would have been, the checkpoint brings.
        values.pop('towers', None)
        values.pop('image_tower', None)
    return validated(Settings, values, path)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file of keys and values, or raise SettingsError."""
    try:
        values = small_files.read_yaml(path)
    except FileError as error:
        raise SettingsError(f'{path} cannot be read: {error}') from error
    if not isinstance(values, dict):
        raise SettingsError(f'{path} holds {type(values).__name__}, not keys and values')
    return values


def validated(kind: type[Model], values: Mapping[str, Any], path: Path) -> Model:
    """Make settings of the values in a file; raise SettingsError with every mistake named."""
    try:
        return kind(**values)
    except ValidationError as error:
        listed = ''.join(f'\n  {mistake}' for mistake in mistakes_in(error))
        raise SettingsError(f'{path} is not valid: {listed}') from error


def changed(values: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """Return a copy of settings with changes ``KEY=VALUE``; SettingsError for another form."""
    copied = copy.deepcopy(dict(values))
    for change in changes:
        _change(copied, change)
    return copied


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name what differs between two dumps of settings, but for :data:`FREE_ON_RESUME`."""
    keys = sorted((before.keys() | now.keys()) - set(FREE_ON_RESUME))
    return [
        f'{key}: {before.get(key)!r} then, {now.get(key)!r} now'
        for key in keys
        if before.get(key) != now.get(key)
    ]


def without_places(dump: Mapping[str, Any]) -> dict[str, Any]:
    """Return a dump of settings without the paths in it: where data and weights lie.

    Names of models and addresses stay: another one may be another thing.
    """
    bare = dict(dump)
    for key in ('towers', 'image_tower', 'init_from', 'activations', 'shards'):
        if isinstance(bare.get(key), str) and is_path(bare[key]):
            bare[key] = None
    bare['data'] = sources.without_places(dump['data'])
    if bare.get('validation') is not None:
        bare['validation'] = {
            **bare['validation'],
            'data': sources.without_places(bare['validation']['data']),
        }
    return bare


def is_path(text: str) -> bool:
    """Return whether a setting that may be a name or a path is a path of this machine."""
    return '://' not in text and (os.sep in text or Path(text).suffix != '')


def _change(values: dict[str, Any], change: str) -> None:
    name, equals, text = change.partition('=')
    *sections, last = name.split('.')
    if not equals or not all((*sections, last)):
        raise SettingsError(f'--set takes KEY=VALUE, such as data.fold=1, not {change!r}')
    place = values
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise SettingsError(f'--set {change}: {section} is {place!r} and has no keys')
    try:
        place[last] = small_files.parse_yaml(text, 'the value')
    except FileError as error:
        raise SettingsError(f'--set {change}: {error}') from error
