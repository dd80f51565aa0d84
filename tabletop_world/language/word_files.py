"""The words of the household, which stand in YAML files beside this module."""

from __future__ import annotations

from importlib import resources
from typing import Any

import yaml


def read_words(name: str) -> dict[str, Any]:
    """Read one of this folder's YAML files.

    Args:
        name: File name, such as ``names.yaml``.
    """
    text = resources.files(__package__).joinpath(name).read_text(encoding='utf-8')
    # libyaml reads these files ten times as fast, where PyYAML was built with it.
    loader = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)
    words: dict[str, Any] = yaml.load(text, Loader=loader)
    return words
