"""The published numbers, from ``published.yaml``, and how their rows are measured here."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from clipseg_model.errors import ClipsegError

FILE = Path(__file__).with_name('published.yaml')
#: Tables of ClsCLIP+, whose rows look at regions.
REGIONS_FILE = Path(__file__).with_name('published_regions.yaml')


class TableError(ClipsegError):
    """There is no such table, row or column."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra='forbid', frozen=True)


class Source(_Strict):
    """A paper.

    Attributes:
        cite: Authors, title, place and year.
        url: Of the paper.
        read: The parts that were read to verify the numbers.
    """

    cite: str
    url: str
    read: str


class Part(_Strict):
    """A measurement; some columns of a table show its figures.

    Attributes:
        data: Settings of the data set, with paths below the folder of all data sets.
        prompt: Kind of the prompts.
        template: Caption of the phrases.
        fit: How a picture becomes a square in paper mode.
        draw: Which samples: all, each picture once (PFENet's protocol), or 1,000 episodes
            (HSNet's).
        over: Names and values to repeat it for; the figure is the mean.
        run: Appended to the name of each row's run; ``{NAME}`` stands for a value of ``over``.
        set: Appended to each row's changes of its configuration.
    """

    data: dict[str, Any]
    prompt: Literal['text', 'image'] = 'text'
    template: str = 'plain'
    fit: Literal['squeeze', 'pad'] = 'squeeze'
    draw: Literal['all', 'protocol', 'episodes'] = 'all'
    over: dict[str, list[int]] = {}
    run: str = ''
    set: list[str] = []

    def variants(self) -> list[dict[str, int]]:
        """Return the variants to repeat it for: values by name."""
        names = list(self.over)
        combined = itertools.product(*self.over.values())
        return [dict(zip(names, values, strict=True)) for values in combined]


class Column(_Strict):
    """A column with numbers.

    Attributes:
        title: As printed.
        part: Key of the table's parts; none where nothing is run.
        metric: What :func:`training.metrics.tally.Tally.figure` calls it.
        at: Threshold: a number, ``row`` for the row's, ``best``; nothing where none matters.
        of: The variant of the part that is shown; the mean over all where there is none.
        own: Measured here without a published number to compare with.
    """

    title: str
    part: str | None = None
    metric: str | None = None
    at: float | Literal['row', 'best'] | None = None
    of: dict[str, int] = {}
    own: bool = False


class Row(_Strict):
    """A model of a table.

    Attributes:
        name: As printed.
        values: Published, in the order of the columns that are not ``own``; None where empty.
        t: Threshold that the paper states.
        config: File of ``training/configs`` that trains it; none for other people's models.
        run: Name of the run; that of ``config`` by default.
        set: Changes of the configuration.
        whole: All parts use one run, as it is.
        method: Of prompt images, if it is not the default.
        regions: Which regions of the pictures it is shown; the whole pictures where None.
        note: Remark.
    """

    name: str
    values: list[float | None]
    t: float | None = Field(None, gt=0, lt=1)
    config: str | None = None
    run: str | None = None
    set: list[str] = []
    whole: bool = False
    method: str | None = None
    regions: Literal['detector', 'manual', 'boxes'] | None = None
    note: str = ''

    def run_name(self, part: Part, variant: dict[str, int]) -> str:
        """Return the name of the run that is measured, and of its folder."""
        suffix = '' if self.whole else part.run
        return filled((self.run or self.config or '') + suffix, variant)

    def train_command(self, part: Part, variant: dict[str, int]) -> str:
        """Return the command that trains the run."""
        changes = [*self.set, *([] if self.whole else part.set)]
        name = self.run_name(part, variant)
        if name != self.config:
            changes.append(f'name={name}')
        words = [f"--set '{filled(change, variant)}'" for change in changes]
        return ' '.join(
            ['python -m training.train', f'training/configs/{self.config}.yaml', *words]
        )


class Table(_Strict):
    """A table of a paper.

    Attributes:
        title: Its subject.
        source: Key of the sources.
        where: In the source.
        note: Remark.
        better: Direction of better numbers.
        scale: Factor from figures here to published ones.
        mode: Mode of evaluation.
        parts: Measurements.
        columns: Columns with numbers.
        rows: Models.
    """

    title: str
    source: str
    where: str
    note: str = ''
    better: Literal['higher', 'lower'] = 'higher'
    scale: float = 100
    mode: Literal['paper', 'native'] = 'paper'
    parts: dict[str, Part]
    columns: list[Column]
    rows: list[Row]

    @model_validator(mode='after')
    def _consistent(self) -> Table:
        for column in self.columns:
            if column.part is not None and column.part not in self.parts:
                raise ValueError(f'column {column.title!r} names the part {column.part!r}')
            if (column.part is None) != (column.metric is None):
                raise ValueError(f'column {column.title!r} needs a part and a metric, or neither')
            if column.of and column.of not in self.parts[str(column.part)].variants():
                raise ValueError(f'column {column.title!r} is of {column.of}, no variant')
        published = sum(not column.own for column in self.columns)
        for row in self.rows:
            if len(row.values) != published:
                raise ValueError(f'row {row.name!r} has not one value for each published column')
            if row.config and row.t is None and any(c.at == 'row' for c in self.columns):
                raise ValueError(f'row {row.name!r} has no t')
            if row.regions and self.mode != 'native':
                raise ValueError(f'row {row.name!r} has regions, which are of native mode')
        return self

    def published(self, row: Row) -> list[float | None]:
        """Return a row's published value of every column; None for those of our own."""
        values = iter(row.values)
        return [None if column.own else next(values) for column in self.columns]

    def placeholders(self, row: Row, key: str) -> list[str]:
        """Return what tells apart the checkpoints of a row that a part asks for.

        A part over folds has a checkpoint for each, which has not seen the fold's classes in
        training; a part with a run of its own has one that has not seen what the part asks for.
        """
        part = self.parts[key]
        if row.whole or not part.run:
            return []
        return [*part.over] or ['part']


class Published(_Strict):
    """The file.

    Attributes:
        sources: Papers by key.
        tables: Tables by name, ``PAPER/NUMBER``.
    """

    sources: dict[str, Source]
    tables: dict[str, Table]

    @model_validator(mode='after')
    def _known_sources(self) -> Published:
        unknown = {table.source for table in self.tables.values()} - self.sources.keys()
        if unknown:
            raise ValueError(f'no source {", ".join(sorted(unknown))}')
        return self

    def table(self, name: str) -> Table:
        """Return a table.

        Raises:
            TableError: If there is none of that name.
        """
        if name not in self.tables:
            raise TableError(f'there is no table {name!r}; there are {", ".join(self.tables)}')
        return self.tables[name]


def load_published(path: Path = FILE) -> Published:
    """Read the published numbers."""
    values = yaml.safe_load(path.read_text(encoding='utf-8'))
    if path == FILE:
        values['tables'] |= yaml.safe_load(REGIONS_FILE.read_text(encoding='utf-8'))['tables']
    return Published(**values)


def filled(text: Any, variant: Mapping[str, int | str]) -> Any:
    """Replace names in braces by their values, in texts, lists and dictionaries.

    A text that is nothing but ``{NAME}`` becomes the value itself.
    """
    if isinstance(text, dict):
        return {key: filled(value, variant) for key, value in text.items()}
    if isinstance(text, list):
        return [filled(value, variant) for value in text]
    if not isinstance(text, str):
        return text
    for name, value in variant.items():
        if text == f'{{{name}}}':
            return value
        text = text.replace(f'{{{name}}}', str(value))
    return text
