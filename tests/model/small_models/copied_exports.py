"""Exports that are copied from one that is there: to make one takes half a minute."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def copying(source: Path) -> Callable[[Any, Path], dict[str, Any]]:
    """Return what stands in for ``write_onnx``: it copies the folder of a complete export."""
    manifest = json.loads((source / 'manifest.json').read_text())

    def write(_: Any, folder: Path) -> dict[str, Any]:
        for path in source.iterdir():
            if path.name != 'manifest.json':
                shutil.copy(path, folder)
        return {key: manifest[key] for key in ('parts', 'traits', 'tokenizer')}

    return write
