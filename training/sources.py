"""Data sets by name, for settings that come from a file."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from clipseg_model.errors import ClipsegError
from training.datasets.samples import DataSettings, SampleSource

#: The module in :mod:`training.datasets` of each, the class of its settings, its own class, and
#: settings that the name stands for.
SOURCES: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    'phrasecut': ('phrasecut', 'PhraseCutSettings', 'PhraseCut', {}),
    'phrasecut+': (
        'phrasecut', 'PhraseCutSettings', 'PhraseCut', {'negatives': 0.2, 'visual': True}
    ),
}  # fmt: skip


class SourceError(ClipsegError):
    """There is no data set of that name, or its settings are not valid."""


def check_source(config: Mapping[str, Any]) -> DataSettings:
    """Validates the settings of a data set.

    Args:
        config: ``dataset``, a key of :data:`SOURCES` or ``package.module:Class`` of one's own (a
            :class:`~training.datasets.samples.SampleSource` whose attribute ``Settings`` is the
            class of its settings), and its settings.

    Raises:
        SourceError: With every mistake named.
    """
    values = dict(config)
    name = values.pop('dataset', None)
    settings, _, preset = _classes(name)
    try:
        return settings(**{**preset, **values})
    except ValidationError as error:
        mistakes = '; '.join(
            f'{".".join(map(str, mistake["loc"])) or "settings"}: '
            + mistake['msg'].removeprefix('Value error, ')
            for mistake in error.errors()
        )
        raise SourceError(f'the settings of {name!r} are not valid: {mistakes}') from error


def open_source(config: Mapping[str, Any]) -> SampleSource:
    """Opens a data set.

    Args:
        config: As :func:`check_source` takes it.

    Raises:
        SourceError: The settings are not valid.
        DataError: The data are missing or broken.
    """
    settings = check_source(config)
    _, source, _ = _classes(config['dataset'])
    return source(settings)


def _classes(name: Any) -> tuple[Any, Any, dict[str, Any]]:
    if name in SOURCES:
        module, settings, source, preset = SOURCES[name]
        found = importlib.import_module(f'training.datasets.{module}')
        return getattr(found, settings), getattr(found, source), preset
    module, colon, source = name.partition(':') if isinstance(name, str) else ('', '', '')
    if not colon:
        raise SourceError(
            f'dataset must be one of {", ".join(SOURCES)}, or package.module:Class of your own, '
            f'not {name!r}'
        )
    try:
        own = getattr(importlib.import_module(module), source)
        return own.Settings, own, {}
    except (ImportError, AttributeError) as error:
        raise SourceError(f'the data set {name!r} cannot be imported: {error}') from error
