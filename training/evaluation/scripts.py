"""What the scripts of this folder share: options, scenes and phrases, tables and files."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from clipseg_model import Segmenter, create_model
from clipseg_model.atomic_files import write_atomically
from tabletop_world.language.phrases import Phrase
from training.datasets.tabletop import TabletopViews


def new_parser(description: str | None, **model: Any) -> argparse.ArgumentParser:
    """Return a parser with the options ``model`` and ``--output``.

    Args:
        description: Printed as it is.
        **model: Further keywords of the argument ``model``.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('model', help='name of a model, or a checkpoint', **model)
    parser.add_argument('--output', type=Path, help='JSON file for the figures')
    return parser


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add the options ``--device`` and ``--threads``."""
    parser.add_argument('--device', default='auto')
    parser.add_argument('--threads', type=int, help='threads of the model on a CPU')


def load_segmenter(args: argparse.Namespace, **options: Any) -> Segmenter:
    """Load the model that the command line names, with further options of ``create_model``."""
    return create_model(args.model, device=args.device, threads=args.threads, **options)


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


def write_figures(path: Path | None, report: Mapping[str, Any]) -> None:
    """Write the figures as JSON, if there is a path."""
    if path is not None:
        write_atomically(path, json.dumps(report, indent=2) + '\n')


def first_views(
    views: TabletopViews, scenes: int, usable: Callable[[dict[str, Any]], bool] = bool
) -> list[int]:
    """Return the first usable view of each scene, of at most so many scenes."""
    first: dict[int, int] = {}
    for number, record in enumerate(views.records):
        if usable(record):
            first.setdefault(record['seed'], number)
    return list(first.values())[:scenes]


def distinct_phrases(
    phrases: Iterable[Phrase], share: Callable[[Phrase], float], limits: tuple[float, float]
) -> list[Phrase]:
    """Return one name for each thing, or set of things, that is well seen.

    Args:
        phrases: Phrases that are true of a picture.
        share: Returns the share of the picture that a phrase is true of, 0…1.
        limits: Smallest and largest share.
    """
    chosen: dict[tuple[int, ...], Phrase] = {}
    for phrase in phrases:
        if phrase.kind in ('name', 'colour') and limits[0] <= share(phrase) <= limits[1]:
            chosen.setdefault(tuple(sorted(phrase.object_ids)), phrase)
    return list(chosen.values())
