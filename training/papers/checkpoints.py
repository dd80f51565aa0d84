"""What a table is measured with: checkpoints of its rows, data of its parts, and settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipseg_model.errors import ClipsegError
from clipseg_model.zoom.torchvision_detectors import DEFAULT_DETECTOR
from training.datasets.sources import PLACES
from training.evaluation.modes import PAPER_SIZE
from training.loop.settings import changed
from training.papers.published import Part, Row, Table, filled

#: Stands where a row's masks are a detector's boxes, and no model has a say: the quickest here.
ANY_MODEL = 'tabletop'


class NotRun(ClipsegError):
    """A cell cannot be run; the message says why."""


@dataclass
class Options:
    """Options of the command line.

    Attributes:
        data: Folder of all data sets.
        runs: Folder of the runs of training.
        models: Checkpoint by row; ``{fold}`` stands for the fold, ``{part}`` for the part.
        seen: Measure a checkpoint that may have seen in training what a row's protocol holds out,
            and mark the row.
        changes: ``KEY=VALUE``, of the settings of the data sets.
        samples: Most samples of a measurement, for a trial.
        size: Side of the squares of paper mode.
        batch: Samples at once.
        workers: Processes that load.
        seed: Of random draws.
        detector: Name of torchvision's that gives the regions of ClsCLIP+.
    """

    data: Path = Path('data')
    runs: Path = Path('runs/train')
    models: dict[str, str] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    samples: int | None = None
    size: int = PAPER_SIZE
    batch: int = 8
    workers: int = 0
    seed: int = 0
    seen: bool = False
    detector: str = DEFAULT_DETECTOR


def checkpoint_of(
    table: Table, row: Row, key: str, variant: dict[str, int], options: Options
) -> str:
    """Return the checkpoint of a row, for a variant of the part of that key.

    Raises:
        NotRun: If there is none, or one for all folds that was given may have seen their classes.
    """
    part = table.parts[key]
    if row.regions == 'boxes':
        return ANY_MODEL
    if row.name in options.models:
        named = options.models[row.name]
        if was_seen(table, row, key, options) and not options.seen:
            wanted = ' and '.join(f'{{{name}}}' for name in table.placeholders(row, key))
            raise NotRun(
                f'{named} is one checkpoint, and the protocol asks for one that has not seen what '
                f'is tested, named with {wanted} in place of '
                f'{", ".join(map(str, part.over.get("fold", [key])))}; --seen-in-training measures '
                'it and marks the row'
            )
        return str(filled(named, {**variant, 'part': key}))
    if row.config is None:
        raise NotRun('a model of others, which is not trained here')
    path = options.runs / row.run_name(part, variant) / 'model.safetensors'
    if not path.is_file():
        raise NotRun(f'no checkpoint {path}: {row.train_command(part, variant)}')
    return str(path)


def was_seen(table: Table, row: Row, key: str, options: Options) -> bool:
    """Return whether a checkpoint that was given may have seen in training what a part tests."""
    named = options.models.get(row.name)
    if named is None:
        return False
    return any(f'{{{name}}}' not in named for name in table.placeholders(row, key))


def check_checkpoints(table: Table, row: Row, key: str, options: Options) -> None:
    """Check that the checkpoints of all folds exist, before hours go into one of them.

    Raises:
        NotRun: If some are missing; it names all of them.
    """
    missing = []
    for variant in table.parts[key].variants():
        try:
            checkpoint_of(table, row, key, variant, options)
        except NotRun as reason:
            missing.append(str(reason))
    if missing:
        raise NotRun('; '.join(dict.fromkeys(missing)))


def data_of(part: Part, variant: dict[str, int], options: Options) -> dict[str, Any]:
    """Return the settings of the data set of a part."""
    values: dict[str, Any] = filled(part.data, variant)
    for name in PLACES:
        if name in values:
            values[name] = str(options.data / values[name])
    return changed(values, options.changes)
