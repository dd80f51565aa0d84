"""A table of a paper with the measured numbers: as Markdown, CSV, a plot, and JSON."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from training.benchmarks.plot import figure_to_svg
from training.console import markdown_table
from training.papers.published import Row, Source, Table


@dataclass
class Cell:
    """A number of a table.

    Attributes:
        column: Title of its column.
        published: The number of the paper; None if it has none, or it is not verified.
        measured: In the same unit; None if it was not run.
        reason: Why it was not run.
        mark: What keeps the number from being comparable; empty if nothing does.
    """

    column: str
    published: float | None
    measured: float | None
    reason: str
    mark: str = ''


@dataclass
class Report:
    """A table with the measured numbers.

    Attributes:
        name: ``PAPER/NUMBER``.
        table: As published.
        source: Where it was published.
        details: Options of the measurement.
        rows: Rows with their cells.
    """

    name: str
    table: Table
    source: Source
    details: dict[str, Any]
    rows: list[tuple[Row, list[Cell]]] = field(default_factory=list)

    def not_run(self) -> dict[str, list[str]]:
        """Return the cells that were not run, ``ROW: COLUMNS``, by reason."""
        by_reason: dict[str, list[str]] = {}
        for row, cells in self.rows:
            of_row: dict[str, list[str]] = {}
            for cell in cells:
                if cell.measured is None:
                    of_row.setdefault(cell.reason, []).append(cell.column)
            for reason, columns in of_row.items():
                all_of_it = len(columns) == len(cells)
                named = row.name if all_of_it else f'{row.name}: {", ".join(columns)}'
                by_reason.setdefault(reason, []).append(named)
        return by_reason

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        return {
            'table': self.name,
            'title': self.table.title,
            'source': {**self.source.model_dump(), 'where': self.table.where},
            'better': self.table.better,
            **self.details,
            'rows': [
                {'name': row.name, 't': row.t, 'cells': [asdict(cell) for cell in cells]}
                for row, cells in self.rows
            ],
        }


def number(value: float | None, table: Table) -> str:
    """Return a number as text; a dash for None."""
    if value is None:
        return '–'
    if table.scale == 100:
        return f'{value:.1f}'
    return f'{value:.4f}' if abs(value) < 1 else f'{value:.2f}'


def to_markdown(report: Report) -> str:
    """Return the table in Markdown: published / measured, and what was not run, with reasons."""
    table = report.table
    lines = [f'### {report.name}: {table.title}', '']
    with_t = any(row.t is not None for row, _ in report.rows)
    rows = []
    for row, cells in report.rows:
        shown = [
            f'{number(cell.published, table)} / '
            + (f'**{number(cell.measured, table)}**' if cell.measured is not None else '–')
            for cell in cells
        ]
        t = [f'{row.t:g}' if row.t is not None else ''] if with_t else []
        marks = sorted({cell.mark for cell in cells if cell.mark and cell.measured is not None})
        rows.append([' '.join([row.name, *(f'({mark})' for mark in marks)]), *t, *shown])
    if table.columns:
        heads = ['', *(['t'] if with_t else []), *(column.title for column in table.columns)]
        lines += markdown_table(heads, rows)
    unit = 'In percent; ' if table.scale == 100 else ''
    how = ', '.join(f'{key} {value}' for key, value in report.details.items())
    lines += ['', f'{unit}published / **measured**; {table.better} is better. Measured: {how}.']
    if report.details.get('samples') not in (None, 'all'):
        lines.append('This is a trial on some samples: not comparable with the published numbers.')
    lines += ['', f'Published: {report.source.cite}, {table.where}, <{report.source.url}>.']
    lines.append(f'What was read: {report.source.read}.')
    notes = [table.note, *(f'{row.name}: {row.note}' for row, _ in report.rows if row.note)]
    lines += ['', *(f'- {note}' for note in notes if note)] if any(notes) else []
    missing = report.not_run()
    if missing:
        lines += ['', 'Not run:', '']
        lines += [f'- {"; ".join(cells)}: {reason}' for reason, cells in missing.items()]
    return '\n'.join(lines) + '\n'


def to_csv(report: Report) -> str:
    """Return the table as CSV, a line for each cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    extra = list(report.details)
    writer.writerow(
        [
            'table',
            'row',
            't',
            'column',
            'published',
            'measured',
            'difference',
            'reason',
            'mark',
            *extra,
        ]
    )
    for row, cells in report.rows:
        for cell in cells:
            difference = None
            if cell.published is not None and cell.measured is not None:
                difference = round(cell.measured - cell.published, 6)
            measured = None if cell.measured is None else round(cell.measured, 6)
            known = [report.name, row.name, row.t, cell.column, cell.published, measured]
            found = [*known, difference, cell.reason, cell.mark]
            writer.writerow([*found, *report.details.values()])
    return text.getvalue()


def to_svg(report: Report) -> str:
    """Return a plot: a panel for each column, hollow for published, filled for measured."""
    columns, places = report.table.columns, range(len(report.rows))
    count = max(len(columns), 1)
    size = (2.5 + 1.9 * count, 1.2 + 0.24 * len(report.rows))
    figure = Figure(figsize=size, layout='constrained')
    figure.suptitle(f'{report.name}: {report.table.title}')
    panels = figure.subplots(1, count, sharey=True, squeeze=False)[0]
    panels[0].set_yticks(places, [row.name for row, _ in report.rows])
    panels[0].invert_yaxis()
    for number, (panel, column) in enumerate(zip(panels, columns, strict=False)):
        cells = [cells[number] for _, cells in report.rows]
        for name, colour in (('published', 'none'), ('measured', 'C1')):
            values = [getattr(cell, name) for cell in cells]
            numbers = [np.nan if value is None else value for value in values]
            style = {'facecolors': colour, 'edgecolors': 'C1', 'label': name}
            panel.scatter(numbers, places, **style, gid=f'{name} {number}')
        panel.set_title(column.title)
        panel.grid(alpha=0.3)
    if columns:
        figure.legend(*panels[0].get_legend_handles_labels(), loc='outside lower right', ncols=2)
    return figure_to_svg(figure)
