"""Cached activations of frozen towers, which replace pictures in training.

They lie in the shards of :mod:`training.loop.shards`, in random order; an index finds any sample,
so the order of a run is the same as without. ``activations.json`` says what was cached.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.datasets import sources
from training.loop.feeding import Load, Place
from training.loop.settings import Settings
from training.loop.shards import (
    ActivationsError,
    description_of,
    index_of,
    name_of,
    read_sample,
    to_load,
)

KIND = 'activations'
"""What such shards are called."""


def taps_of(config: Mapping[str, Any]) -> list[int]:
    """Return the blocks whose activations a model reads, -1 for what enters the first.

    ClsCLIP reads one, the last before its prompt enters: what comes after depends on the prompt.
    """
    if config['architecture'] == 'clsclip':
        return [config['blocks'][0] - 1]
    return list(config['layers'])


def description(
    settings: Settings,
    config: Mapping[str, Any],
    frozen: str,
    layers: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Return all that activations depend on but the epochs, with the towers' fingerprint.

    Where the files of the data lie does not matter.
    """
    towers = {key: config[key] for key in ('backbone', 'image_tower') if key in config}
    dumped = settings.model_dump(mode='json')
    return {
        'data': sources.without_places(dumped['data']),
        'prompts': dumped['prompts'],
        'seed': settings.drawn_by,
        'towers': towers,
        'frozen': frozen,
        'layers': taps_of(config) if layers is None else list(layers),
    }


class CachedActivations:
    """Reads activations at any place, in place of :class:`~training.loop.feeding.DrawnPictures`.

    It has ``epochs`` draws of each of ``samples``; later epochs see them again.

    Raises:
        ActivationsError: The folder is incomplete.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / description_of(KIND)
        try:
            self._description = json.loads(path.read_text(encoding='utf-8'))
        except (OSError, ValueError) as error:
            raise ActivationsError(
                f'{path} cannot be read ({error}): write the folder with '
                'python -m training.cache_activations'
            ) from error
        self.samples = int(self._description['samples'])
        self.epochs = int(self._description['epochs'])
        self._places: dict[str, tuple[Path, int]] = {}
        for shard in sorted(folder.glob('*.tar')):
            places = json.loads(index_of(shard).read_text(encoding='utf-8'))
            self._places.update({name: (shard, offset) for name, offset in places.items()})
        wanted = self.samples * self.epochs
        if len(self._places) != wanted:
            raise ActivationsError(
                f'{folder} holds {len(self._places)} of {wanted} samples: run '
                'training.cache_activations again, it goes on where it was'
            )

    def check(self, settings: Settings, config: Mapping[str, Any], frozen: str) -> None:
        """Raise ActivationsError, which says why, unless they are those that a run would make."""
        check_description(self._description, str(self.folder), settings, config, frozen)

    def load(self, place: Place) -> Load:
        """Read the sample of a place, a batch of one; ActivationsError where it is damaged."""
        name = name_of((place[0] % self.epochs, place[1]))
        shard, offset = self._places[name]
        load = to_load(read_sample(shard, name, offset), str(shard))
        load.places = [place]
        return load


def check_description(
    stored: Mapping[str, Any],
    where: str,
    settings: Settings,
    config: Mapping[str, Any],
    frozen: str,
) -> None:
    """Make sure that activations ``stored`` at ``where`` are those that a run would make.

    More layers may be there.

    Raises:
        ActivationsError: They are not; says by what.
    """
    wanted = description(settings, config, frozen)
    # Earlier caches were described with the place of the data.
    if 'data' in stored:
        stored = {**stored, 'data': sources.without_places(stored['data'])}
    if set(wanted['layers']) <= set(stored.get('layers', ())):
        wanted['layers'] = stored['layers']
    differ = [
        f'{key}: {stored.get(key)!r} there, {value!r} here'
        for key, value in wanted.items()
        if stored.get(key) != value
    ]
    if differ:
        raise ActivationsError(
            f'the activations in {where} are of another run ({"; ".join(differ)}): cache '
            'them again, or set activations to null'
        )
