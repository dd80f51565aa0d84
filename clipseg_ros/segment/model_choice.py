"""Which models may be chosen while the node runs: any peer may set a parameter.

Whoever starts the node chooses any file. Later, a path has to lie in the folder of that file, or
where downloads lie: else a peer could have any file of this machine opened, and learn from the
answers which there are.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from clipseg_model.files.user_folders import expanded
from clipseg_model.registry import list_models
from clipseg_model.weights import store

CHOICES = ('model', 'zoom_detector')
"""The parameters that name models."""


def find_choice_problem(name: str, wish: str | None, at_start: Collection[str]) -> str:
    """Return why a model may not be chosen while the node runs; empty where it may.

    Args:
        name: One of :data:`CHOICES`.
        wish: Its value; None for no model.
        at_start: The models that the node was started with.
    """
    if wish is None or wish in at_start or not _is_path(wish):
        return ''
    allowed = [store.models_folder().resolve()]
    allowed += [expanded(one).resolve().parent for one in at_start if _is_path(one)]
    if any(expanded(wish).resolve().is_relative_to(each) for each in allowed):
        return ''
    return (
        f'{name} is neither a name that is known nor in a folder that is open to choices while '
        f'the node runs ({", ".join(map(str, allowed))}): choose one of '
        f'{", ".join(list_models())}, or start the node with the path'
    )


def _is_path(value: str) -> bool:
    if value in list_models() or _is_downloaded(value):
        return False
    # A misspelt name is one that has neither; configuring tells of those that are close.
    return bool(os.sep in value or Path(value).suffix or os.path.lexists(expanded(value)))


def _is_downloaded(name: str) -> bool:
    """Return whether a name of the Hugging Face hub is on this machine, and no path."""
    source = store.source_of(name)
    return source is not None and not Path(name).exists() and bool(store.find_downloaded(source))
