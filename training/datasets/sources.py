"""Data sets by name, for settings that come from a file."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from clipseg_model.errors import ClipsegError
from training.datasets.samples import SampleSource, StrictSettings, mistakes_in

#: The module in :mod:`training.datasets` of each, what makes its settings there (their class, or a
#: function that returns them), and its own class.
SOURCES: dict[str, tuple[str, str, str]] = {
    'phrasecut': ('phrasecut', 'PhraseCutSettings', 'PhraseCut'),
    'phrasecut+': ('phrasecut', 'phrasecut_plus', 'PhraseCut'),
    'coco': ('coco', 'CocoSettings', 'Coco'),
    'coco-20i': ('coco', 'coco_20i', 'Coco'),
    'pascal-5i': ('pascal', 'PascalSettings', 'Pascal5i'),
    'lvis': ('lvis', 'LvisSettings', 'Lvis'),
    'refmatte': ('refmatte', 'RefMatteSettings', 'RefMatte'),
    'tabletop': ('tabletop_phrases', 'TabletopSettings', 'TabletopPhrases'),
    'tabletop+': ('tabletop_phrases', 'tabletop_plus', 'TabletopPhrases'),
    'folder': ('folder', 'FolderSettings', 'FolderData'),
}
#: Keys of their settings that say where files lie.
PLACES = ('folder', 'annotations', 'images', 'labels', 'mattes', 'sbd', 'chosen')


class SourceError(ClipsegError):
    """There is no data set of that name, or its settings are not valid."""


def check_source(config: Mapping[str, Any]) -> StrictSettings:
    """Validate the settings of a data set; raise SourceError with every mistake named.

    Args:
        config: The settings, and as ``dataset`` a key of :data:`SOURCES` or
            ``package.module:Class`` of one's own, a
            :class:`~training.datasets.samples.SampleSource` whose attribute ``Settings`` is the
            class of its settings.
    """
    values = dict(config)
    name = values.pop('dataset', None)
    make, _ = _classes(name)
    if isinstance(values.get('folder'), str):
        values['folder'] = Path(values['folder'])
    try:
        settings: StrictSettings = make(**values)
        return settings
    except ValidationError as error:
        mistakes = '; '.join(mistakes_in(error))
        raise SourceError(f'the settings of {name!r} are not valid: {mistakes}') from error
    except (TypeError, ValueError) as error:
        raise SourceError(f'the settings of {name!r} are not valid: {error}') from error


def without_places(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a data set but for where its files lie; they need not be there.

    Of a data set of one's own, these are ``folder``, and what its settings declare as a path.
    """
    name = config.get('dataset')
    make, _ = _classes(name)
    places = set(PLACES) if name in SOURCES else {'folder'}
    for key, field in getattr(make, 'model_fields', {}).items():
        if Path in (field.annotation, *get_args(field.annotation)):
            places.add(key)
    return {key: value for key, value in config.items() if key not in places}


def open_source(config: Mapping[str, Any]) -> SampleSource:
    """Open a data set; SourceError where settings are not valid, DataError where data are not."""
    settings = check_source(config)
    _, source = _classes(config['dataset'])
    try:
        opened: SampleSource = source(settings)
    except ValueError as error:
        # What only the files can tell, such as a class that they do not have.
        raise SourceError(
            f'the settings of {config["dataset"]!r} do not fit its files: {error}'
        ) from error
    opened.problems.opening = opened.problems.counts.copy()
    return opened


def tell_left_out(source: SampleSource, what: str = 'records') -> None:
    """Say on stderr what was found broken while a data set opened, with an example of each kind."""
    if source.problems.opening:
        print(f'broken {what}, left out:\n{source.problems.summary()}', file=sys.stderr)


def _classes(name: Any) -> tuple[Any, Any]:
    if name in SOURCES:
        module, settings, source = SOURCES[name]
        found = importlib.import_module(f'training.datasets.{module}')
        return getattr(found, settings), getattr(found, source)
    module, colon, source = name.partition(':') if isinstance(name, str) else ('', '', '')
    if not colon:
        raise SourceError(
            f'dataset must be one of {", ".join(SOURCES)}, or package.module:Class of your own, '
            f'not {name!r}'
        )
    try:
        own = getattr(importlib.import_module(module), source)
        return own.Settings, own
    except (ImportError, AttributeError) as error:
        raise SourceError(f'the data set {name!r} cannot be imported: {error}') from error
