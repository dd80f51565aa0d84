"""What the scripts of this folder share: options, the model, scenes and phrases."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from clipseg_model import Segmenter, create_model
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
    add_model(parser, **model)
    return parser


def add_model(parser: argparse.ArgumentParser, **model: Any) -> None:
    """Add the argument ``model``, with further keywords of it, and the option ``--output``."""
    parser.add_argument('model', help='name of a model, or a checkpoint', **model)
    parser.add_argument('--output', type=Path, help='JSON file for the figures')


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add the options ``--device`` and ``--threads``."""
    parser.add_argument('--device', default='auto')
    parser.add_argument('--threads', type=int, help='threads of the model on a CPU')


def load_segmenter(args: argparse.Namespace, **options: Any) -> Segmenter:
    """Load the model that the command line names, with further options of ``create_model``."""
    options.setdefault('runtime', 'eager')
    return create_model(args.model, device=args.device, threads=args.threads, **options)


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
