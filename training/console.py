"""What scripts leave behind: tables for people, and files of figures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from clipseg_model.files.atomic_files import write_atomically


def print_table(title: str, columns: Iterable[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table whose first column is a name and whose others are figures."""
    table = Table(title=title)
    for number, column in enumerate(columns):
        table.add_column(column, justify='right' if number else 'left')
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def print_figures(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows with the same keys; the keys are the columns."""
    cells = [[v if isinstance(v, str) else f'{v:g}' for v in row.values()] for row in rows]
    print_table(title, rows[0], cells)


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table in Markdown."""
    lines = [columns, ['---'] * len(columns), *rows]
    return [f'| {" | ".join(line)} |' for line in lines]


def write_figures(path: Path | None, report: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write the figures as JSON, if there is a path."""
    if path is not None:
        write_atomically(path, json.dumps(report, indent=2) + '\n')
