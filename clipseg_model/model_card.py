"""What is known of a model beside its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from clipseg_model.errors import CheckpointError
from clipseg_model.files.small_files import shorten

AS_RELEASED: Mapping[str, Any] = {'prompt_ground': 'mean', 'visual_method': 'blur_10_crop'}
"""Fields that say how the released weights of CLIPSeg saw prompt images."""

_RESIZES = ('square', 'aspect')
_GROUNDS = ('black', 'mean')
# Given by the checkpoint's own place and configuration, so not by the fields it stores.
_DERIVED = ('architecture', 'config', 'weights', 'sha256')


@dataclass(frozen=True)
class ModelCard:
    """A model's identity, how to feed it, and how to read its output.

    Attributes:
        architecture: Kind of model, a key of :data:`clipseg_model.modeling.base.ARCHITECTURES`.
        config: What builds it; see :func:`clipseg_model.modeling.base.build_model`.
        input_size: Side of the square that images are resized to, pixels; with ``resize`` set to
            ``aspect``, the side of the square of about the same area.
        threshold: Probability in (0, 1) above which a pixel is on.
        presence_threshold: Score in 0…1 below which a prompt counts as absent and its mask is
            empty; 0 switches this off.
        resize: ``square``, or ``aspect`` to keep the proportions of the image (nearly: sides are
            multiples of the patch size).
        prompt_image_size: Side of the square prompt images made of example images, pixels;
            ``input_size`` where None.
        prompt_ground: What the background of a prompt image fades to: ``black``, or ``mean``, the
            mean colour that the model subtracts, which the released CLIPSeg weights were trained
            with.
        visual_method: How example images with masks become prompt images, a key of
            :data:`clipseg_model.prompting.visual_prompt.METHODS`: that of the model's training.
        template: Caption that phrases are put into; ``{}`` alone for none.
        licence: Terms of the weights.
        source: Where the weights come from, a URL or a few words.
        notice: What every user must be told once; empty for nothing.
        details: Anything else: data, recipe, seed, measured quality. JSON types.
        weights: File of the weights; None where they are not part of this installation.
        sha256: Hexadecimal digest of that file, where it is known.

    Raises:
        CheckpointError: A value is out of range.
    """

    name: str
    architecture: str
    config: Mapping[str, Any]
    input_size: int
    threshold: float = 0.5
    presence_threshold: float = 0.0
    resize: str = 'square'
    prompt_image_size: int | None = None
    prompt_ground: str = 'black'
    visual_method: str = 'crop_blur_10'
    template: str = '{}'
    licence: str = ''
    source: str = ''
    description: str = ''
    notice: str = ''
    details: Mapping[str, Any] = field(default_factory=dict)
    weights: Path | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        texts = ('name', 'architecture', 'template', 'licence', 'source', 'description', 'notice')
        for key in (*texts, 'visual_method'):
            if not isinstance(getattr(self, key), str):
                raise self._wrong(key, 'text')
        if not isinstance(self.details, Mapping):
            raise self._wrong('details', 'a mapping')
        if not self.name.strip():
            raise self._wrong('name', 'a name that is not blank')
        if self.template.count('{}') != 1:
            raise self._wrong('template', 'a caption with one {}')
        if not _is_side(self.input_size):
            raise self._wrong('input_size', 'an integer in 16…4096')
        if self.prompt_image_size is not None and not _is_side(self.prompt_image_size):
            raise self._wrong('prompt_image_size', 'an integer in 16…4096, or none')
        if not _is_number(self.threshold) or not 0 < self.threshold < 1:
            raise self._wrong('threshold', 'a number strictly between 0 and 1')
        if not _is_number(self.presence_threshold) or not 0 <= self.presence_threshold <= 1:
            raise self._wrong('presence_threshold', 'a number in 0…1')
        if self.resize not in _RESIZES:
            raise self._wrong('resize', f'one of {_RESIZES}')
        if self.prompt_ground not in _GROUNDS:
            raise self._wrong('prompt_ground', f'one of {_GROUNDS}')

    def ground_levels(self, mean: Sequence[float]) -> tuple[float, float, float]:
        """Return :attr:`prompt_ground` in RGB of 0…255; the ``mean`` is in 0…1."""
        if self.prompt_ground != 'mean':
            return 0, 0, 0
        red, green, blue = (255 * level for level in mean)
        return red, green, blue

    @property
    def layers(self) -> tuple[int, ...]:
        """Blocks of the image tower that are tapped, 0-based."""
        return tuple(self.config.get('layers', ()))

    @property
    def present(self) -> bool:
        """Whether the weights are on this machine."""
        return self.weights is not None and self.weights.is_file()

    def stored_fields(self) -> dict[str, Any]:
        """Return what a checkpoint stores of this card, as JSON types."""
        return {
            item.name: _plain(getattr(self, item.name))
            for item in fields(self)
            if item.name not in _DERIVED
        }

    @classmethod
    def from_stored(
        cls, stored: Mapping[str, Any], config: Mapping[str, Any], weights: Path
    ) -> ModelCard:
        """Return the card of a checkpoint's file.

        Args:
            stored: As :meth:`stored_fields` returns them; those with a default may be missing.
            config: The model's configuration.
            weights: The checkpoint's file.

        Raises:
            CheckpointError: A field is unknown, missing or out of range.
        """
        known = {item.name for item in fields(cls)} - set(_DERIVED)
        unknown = sorted(set(stored) - known)
        if unknown:
            raise CheckpointError(
                f'A model card has no field {", ".join(map(shorten, unknown[:5]))}; it has '
                f'{", ".join(sorted(known))}, and details for anything else'
            )
        missing = [key for key in ('name', 'input_size') if key not in stored]
        if missing:
            raise CheckpointError(f'A model card lacks {", ".join(map(repr, missing))}')
        architecture = str(config.get('architecture', ''))
        return cls(architecture=architecture, config=config, weights=weights, **stored)

    def _wrong(self, key: str, wanted: str) -> CheckpointError:
        return CheckpointError(
            f"A model card's {key} must be {wanted}, not {shorten(getattr(self, key))}"
        )


def _is_side(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 16 <= value <= 4096


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def to_json(value: Mapping[str, Any], what: str) -> str:
    """Return a mapping as JSON; raise CheckpointError if JSON has no type for something in it."""
    try:
        return json.dumps(dict(value), ensure_ascii=False, allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f'The {what} cannot be stored as JSON: {error}') from error
