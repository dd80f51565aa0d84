"""Figures of the measurements of a table that are done, so that an interrupted table goes on."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from training.console import write_figures
from training.papers.published import TableError


class Finished:
    """Keeps the figures of finished measurements in a file.

    What is kept counts where all that decides about a measurement is as it was then: it is kept
    with its figures.

    Args:
        path: The file; nothing is kept where None.
        accelerator: The processes; the first one reads and writes for all.

    Raises:
        TableError: The file is there and cannot be read.
    """

    def __init__(self, path: Path | None, accelerator: Accelerator) -> None:
        self._path, self._accelerator = path, accelerator
        self._listed: list[dict[str, Any]] = []
        if path is not None and accelerator.is_main_process and path.exists():
            try:
                self._listed = [dict(entry) for entry in json.loads(path.read_text())]
                for entry in self._listed:
                    entry['figures'] = [float(value) for value in entry['figures']]
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise TableError(
                    f'{path} cannot be read: {error}. Remove it to measure anew, or give another '
                    '--output'
                ) from error
        if accelerator.num_processes > 1:
            shared: list[Any] = [self._listed]
            broadcast_object_list(shared)
            [self._listed] = shared

    def find(self, what: Mapping[str, Any]) -> list[float] | None:
        """Return the figures of a measurement, None where it is not done; say so where it is."""
        for entry in self._listed:
            if entry['what'] == what:
                if self._accelerator.is_main_process:
                    name = ', '.join(str(what[key]) for key in ('row', 'part', 'variant'))
                    print(f'kept from before: {name} ({self._path})', file=sys.stderr)
                return list(entry['figures'])
        return None

    def keep(self, what: Mapping[str, Any], figures: Sequence[float]) -> None:
        """Add a measurement to the file."""
        self._listed.append({'what': dict(what), 'figures': list(map(float, figures))})
        if self._accelerator.is_main_process:
            write_figures(self._path, self._listed)


def fingerprint(checkpoint: str) -> list[Any]:
    """Return what tells a checkpoint from another: its name, and size and time of its file."""
    path = Path(checkpoint)
    if not path.is_file():
        return [checkpoint]
    state = path.stat()
    return [checkpoint, state.st_size, state.st_mtime_ns]
