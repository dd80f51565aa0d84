"""A table of a paper as it was measured: as Markdown, CSV, a plot, and JSON."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass, field
from typing import Any
from xml.sax.saxutils import escape

from training.papers.published import Row, Source, Table

#: Of the plot, pixels.
LABELS, PANEL, LINE, HEAD = 250, 190, 24, 64


@dataclass
class Cell:
    """A number of a table.

    Attributes:
        column: Title of its column.
        published: As the paper has it; None where it has none, or none is verified.
        measured: As measured, in the same unit; None where it was not run.
        reason: Why it was not run.
    """

    column: str
    published: float | None
    measured: float | None
    reason: str


@dataclass
class Report:
    """A table with what was measured.

    Attributes:
        name: ``PAPER/NUMBER``.
        table: As published.
        source: Where it was published.
        details: How it was measured.
        rows: Rows with their cells.
    """

    name: str
    table: Table
    source: Source
    details: dict[str, Any]
    rows: list[tuple[Row, list[Cell]]] = field(default_factory=list)

    def not_run(self) -> dict[str, list[str]]:
        """Returns the cells that were not run, ``ROW: COLUMNS``, by reason."""
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
        """Returns everything as JSON types."""
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
    """Returns a number as a table shows it; a dash where there is none."""
    if value is None:
        return '–'
    if table.scale == 100:
        return f'{value:.1f}'
    return f'{value:.4f}' if abs(value) < 1 else f'{value:.2f}'


def to_markdown(report: Report) -> str:
    """Returns the table in Markdown: published / measured, and what was not run, with reasons."""
    table = report.table
    lines = [f'### {report.name}: {table.title}', '']
    with_t = any(row.t is not None for row, _ in report.rows)
    if table.columns:
        heads = ['', *(['t'] if with_t else []), *(column.title for column in table.columns)]
        lines += ['| ' + ' | '.join(heads) + ' |', '|' + '---|' * len(heads)]
    for row, cells in report.rows:
        shown = [
            f'{number(cell.published, table)} / '
            + (f'**{number(cell.measured, table)}**' if cell.measured is not None else '–')
            for cell in cells
        ]
        t = [f'{row.t:g}' if row.t is not None else ''] if with_t else []
        lines.append('| ' + ' | '.join([row.name, *t, *shown]) + ' |')
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
    """Returns the table as CSV, a line for each cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    extra = list(report.details)
    writer.writerow(
        ['table', 'row', 't', 'column', 'published', 'measured', 'difference', 'reason', *extra]
    )
    for row, cells in report.rows:
        for cell in cells:
            difference = None
            if cell.published is not None and cell.measured is not None:
                difference = round(cell.measured - cell.published, 6)
            measured = None if cell.measured is None else round(cell.measured, 6)
            known = [report.name, row.name, row.t, cell.column, cell.published, measured]
            writer.writerow([*known, difference, cell.reason, *report.details.values()])
    return text.getvalue()


def to_svg(report: Report) -> str:
    """Returns a plot: a panel for each column, hollow for published, filled for measured."""
    columns = report.table.columns
    width = LABELS + PANEL * max(len(columns), 1)
    height = HEAD + LINE * len(report.rows) + 20
    title = escape(f'{report.name}: {report.table.title}')
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="8" y="18" font-size="14">{title}</text>',
        '<circle cx="14" cy="36" r="5" fill="none" stroke="#555"/>'
        '<text x="24" y="40">published</text>'
        '<circle cx="104" cy="36" r="5" fill="#c2410c"/><text x="114" y="40">measured</text>',
    ]
    for line, (row, _) in enumerate(report.rows):
        y = HEAD + LINE * (line + 0.5)
        parts.append(f'<text x="8" y="{y + 4:g}">{escape(row.name)}</text>')
    for place, column in enumerate(columns):
        left = LABELS + PANEL * place + 10
        right = left + PANEL - 30
        cells = [cells[place] for _, cells in report.rows]
        known = [v for cell in cells for v in (cell.published, cell.measured) if v is not None]
        low, high = min([0.0, *known]), max([*known, 1e-9])
        head = f'<text x="{left}" y="{HEAD - 6}" font-weight="bold">'
        parts.append(f'{head}{escape(column.title)}</text>')
        parts.append(
            f'<text x="{right}" y="{height - 6}" text-anchor="end" fill="#555">'
            f'{number(low, report.table)} … {number(high, report.table)}</text>'
        )
        for line, cell in enumerate(cells):
            y = HEAD + LINE * (line + 0.5)
            parts.append(f'<path d="M{left} {y:g}H{right}" stroke="#ddd"/>')
            for value, style in (
                (cell.published, 'fill="none" stroke="#555"'),
                (cell.measured, 'fill="#c2410c"'),
            ):
                if value is not None:
                    x = left + (right - left) * (value - low) / (high - low)
                    hint = f'<title>{number(value, report.table)}</title>'
                    parts.append(f'<circle cx="{x:.1f}" cy="{y:g}" r="5" {style}>{hint}</circle>')
    return '\n'.join([*parts, '</svg>']) + '\n'
