r"""Run a table of a paper, and print it beside the published numbers.

    python -m training.benchmark --table clipseg/3
    python -m training.benchmark --table clipseg/3 --model 'CLIPSeg (PC+)=clipseg-rd64' \
        --data /data --output runs/tables/clipseg_3
    python -m training.benchmark --table list

A row is run if there is its checkpoint, RUNS/NAME/model.safetensors of training.train or that of
--model, and its data below --data. All others are listed with the reason, which for a checkpoint is
the command that trains it. --output keeps the table as Markdown, CSV, a plot (SVG), and all figures
(JSON), written anew after every row. docs/papers.md has the rest.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from rich.console import Console

from clipseg_model.errors import ClipsegError
from clipseg_model.files.atomic_files import write_atomically
from clipseg_model.registry import load_model
from clipseg_model.zoom.torchvision_detectors import DEFAULT_DETECTOR
from training.console import write_figures
from training.datasets.named import NamedSamples
from training.datasets.pascal import Pascal5i, PascalZeroShot
from training.datasets.samples import BadRecord, evenly_spread
from training.datasets.sources import open_source
from training.evaluation.modes import PAPER_SIZE, Evaluation, device_of, evaluate
from training.loop.processes import begin_accelerator
from training.loop.run_folder import git_commit
from training.loop.settings import changed
from training.papers.published import Column, Part, Row, Table, TableError, filled, load_published
from training.papers.regions import zoom_for
from training.papers.report import Cell, Report, to_csv, to_markdown, to_svg
from training.papers.zero_shot import evaluate_zero_shot

#: Episodes of a few-shot test.
EPISODES = 1000
#: Settings that are paths below the folder of all data sets.
PLACES = ('folder', 'annotations', 'images', 'labels', 'mattes', 'sbd', 'chosen')


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


@dataclass
class Runner:
    """Measures the rows of a table.

    Attributes:
        table: The table.
        options: Checkpoints, data, and settings.
        accelerator: The processes.
    """

    table: Table
    options: Options
    accelerator: Accelerator

    def run_row(self, row: Row) -> list[Cell]:
        """Measure the cells of a row; those of a part that cannot be run get the reason."""
        cells = [
            Cell(column.title, published, None, '' if column.part else self.table.note)
            for column, published in zip(self.table.columns, self.table.published(row), strict=True)
        ]
        for key, part in self.table.parts.items():
            pairs = zip(self.table.columns, cells, strict=True)
            chosen = [(column, cell) for column, cell in pairs if column.part == key]
            columns = [column for column, _ in chosen]
            try:
                check_checkpoints(self.table, row, key, self.options)
                figures = [self.run_variant(row, key, v, columns) for v in part.variants()]
            except (ClipsegError, FileNotFoundError) as error:
                if isinstance(error, BadRecord) and self.accelerator.num_processes > 1:
                    # Other processes may not have met it, and would wait for this one.
                    raise
                for _, cell in chosen:
                    cell.reason = str(error)
                continue
            means = np.mean(figures, axis=0)
            for place, (column, cell) in enumerate(chosen):
                value = means[place]
                if column.of:
                    value = figures[part.variants().index(column.of)][place]
                value *= self.table.scale
                if was_seen(self.table, row, key, self.options):
                    cell.mark = 'seen in training'
                if np.isnan(value):
                    cell.reason = 'not a number: the samples have nothing to measure it on'
                else:
                    cell.measured = float(value)
        return cells

    def run_variant(
        self, row: Row, key: str, variant: dict[str, int], columns: list[Column]
    ) -> list[float]:
        """Measure one checkpoint on one data set.

        Returns:
            The figures of the columns, 0…1 where they are shares.

        Raises:
            ClipsegError: If there is no checkpoint, or no data.
        """
        options, seed, part = self.options, self.options.seed, self.table.parts[key]
        checkpoint = checkpoint_of(self.table, row, key, variant, options)
        how = Evaluation(
            mode=self.table.mode,
            prompt=part.prompt,
            template=part.template,
            method=row.method,
            fit=part.fit,
            size=options.size,
            seed=seed,
            batch=options.batch,
            workers=options.workers,
        )
        data = data_of(part, variant, options)
        if data['dataset'] == 'pascal-zero-shot':
            scenes = PascalZeroShot(Path(data['folder']), data['unseen'])
            model, card = load_model(checkpoint)
            found = evaluate_zero_shot(model, card, scenes, how, self.accelerator, options.samples)
            return [found[str(column.metric)] for column in columns]
        source = open_source(data)
        indices: list[int] = list(range(len(source)))
        if part.draw == 'protocol' and isinstance(source, Pascal5i):
            indices = source.protocol(seed)
        elif part.draw == 'episodes' and isinstance(source, NamedSamples):
            indices = source.episodes(EPISODES, seed)
        model, card = load_model(checkpoint)
        chosen = [indices[place] for place in evenly_spread(len(indices), options.samples)]
        # Before hours of work, a detector that is not here shows.
        zoom = row.regions and zoom_for(row.regions, options.detector, device_of(self.accelerator))
        tally = evaluate(model, card, source, how, self.accelerator, chosen, zoom=zoom or None)
        return [
            tally.figure(str(column.metric), row.t if column.at == 'row' else column.at)
            for column in columns
        ]


def run_table(
    name: str,
    options: Options,
    rows: list[str] | None = None,
    output: Path | None = None,
    accelerator: Accelerator | None = None,
) -> Report:
    """Run a table.

    Args:
        name: ``PAPER/NUMBER``.
        options: Checkpoints, data, and settings.
        rows: Names of the rows to run; all by default.
        output: Folder for table.md, table.csv, table.svg and table.json.
        accelerator: The processes; one is begun where None.

    Raises:
        TableError: If there is no such table or row.
    """
    published = load_published()
    table = published.table(name)
    known = [row.name for row in table.rows]
    unknown = [row for row in [*(rows or []), *options.models] if row not in known]
    if unknown:
        raise TableError(f'table {name} has no row {unknown[0]!r}; it has {", ".join(known)}')
    accelerator = accelerator or begin_accelerator()
    details = {
        'mode': table.mode,
        'pixels': f'{options.size} × {options.size}' if table.mode == 'paper' else "pictures' own",
        'samples': options.samples or 'all',
        'seed': options.seed,
        'commit': git_commit(),
    }
    report = Report(name, table, published.sources[table.source], details)
    runner = Runner(table, options, accelerator)

    def save() -> None:
        if output is not None and accelerator.is_main_process:
            write_report(report, output)

    # Before hours of work, an output that cannot be written shows.
    save()
    for row in table.rows:
        if not rows or row.name in rows:
            cells = runner.run_row(row)
        else:
            cells = [
                Cell(column.title, value, None, 'not asked for (--row)')
                for column, value in zip(table.columns, table.published(row), strict=True)
            ]
        report.rows.append((row, cells))
        save()
    return report


def write_report(report: Report, folder: Path) -> None:
    """Write a table in all its forms."""
    write_atomically(folder / 'table.md', to_markdown(report))
    write_atomically(folder / 'table.csv', to_csv(report))
    write_atomically(folder / 'table.svg', to_svg(report))
    write_figures(folder / 'table.json', report.as_json())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument('--table', required=True, metavar='PAPER/NUMBER', help='or list')
    parser.add_argument('--data', type=Path, default=Path('data'), help='folder of the data sets')
    parser.add_argument(
        '--runs', type=Path, default=Path('runs/train'), help='folder of the runs of training'
    )
    parser.add_argument(
        '--model', action='append', default=[], metavar='ROW=CHECKPOINT', help='name or path'
    )
    parser.add_argument(
        '--seen-in-training',
        action='store_true',
        help='measure a --model without {fold} or {part}, and mark its row',
    )
    parser.add_argument('--row', action='append', help='run this row alone; may be repeated')
    parser.add_argument(
        '--set', action='append', default=[], metavar='KEY=VALUE', help="of the data set's settings"
    )
    parser.add_argument('--samples', type=int, help='a trial on some samples of each measurement')
    parser.add_argument('--size', type=int, default=PAPER_SIZE, help='of the squares: 352')
    parser.add_argument('--batch', type=int, default=8, help='samples at once')
    parser.add_argument('--workers', type=int, default=4, help='processes that load')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--device', choices=('auto', 'cpu'), default='auto')
    parser.add_argument(
        '--detector',
        default=DEFAULT_DETECTOR,
        help=f"torchvision's, for the regions of ClsCLIP+: {DEFAULT_DETECTOR} (`clipseg download`)",
    )
    parser.add_argument('--output', type=Path, help='folder for Markdown, CSV, plot and JSON')


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m training.benchmark',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    args = parser.parse_args(arguments)
    if args.table == 'list':
        for name, table in load_published().tables.items():
            print(f'{name:20}{table.title}')
        return
    models = dict(pair.rsplit('=', 1) for pair in args.model if '=' in pair)
    if len(models) < len(args.model):
        parser.error("--model takes ROW=CHECKPOINT, such as 'CLIPSeg (PC+)=clipseg-rd64'")
    options = Options(
        data=args.data,
        runs=args.runs,
        models=models,
        changes=args.set,
        samples=args.samples,
        size=args.size,
        batch=args.batch,
        workers=args.workers,
        seed=args.seed,
        seen=args.seen_in_training,
        detector=args.detector,
    )
    try:
        accelerator = begin_accelerator(device=args.device)
        report = run_table(args.table, options, args.row, args.output, accelerator)
    except ClipsegError as error:
        raise SystemExit(f'{error}') from error
    if accelerator.is_main_process:
        print(to_markdown(report))
        if args.output:
            Console(stderr=True).print(f'Written to {args.output}')


if __name__ == '__main__':
    main()
