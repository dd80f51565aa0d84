"""The tables of the household, which stand in YAML files beside the modules that read them."""

from __future__ import annotations

from importlib import resources
from typing import Any

import yaml


def read_yaml(package: str, name: str) -> dict[str, Any]:
    """Read a YAML file that is shipped with a package.

    Args:
        package: Dotted name, such as ``__package__``.
        name: File name, such as ``names.yaml``.
    """
    text = resources.files(package).joinpath(name).read_text(encoding='utf-8')
    # libyaml reads these files ten times as fast, where PyYAML was built with it.
    loader = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)
    content: dict[str, Any] = yaml.load(text, Loader=loader)
    return content
