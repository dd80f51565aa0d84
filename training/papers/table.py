r"""Run a table of a paper, and print it beside the published numbers.

    python -m training.benchmark --table clipseg/3
    python -m training.benchmark --table clipseg/3 --model 'CLIPSeg (PC+)=clipseg-rd64' \
        --data /data --output runs/tables/clipseg_3
    python -m training.benchmark --table list

A row is run if there is its checkpoint, RUNS/NAME/model.safetensors of training.train or that of
--model, and its data below --data. All others are listed with the reason, which for a checkpoint is
the command that trains it. --output keeps the table as Markdown, CSV, a plot (SVG), and all figures
(JSON), written anew after every row; finished.json keeps the figures of every checkpoint that was
measured, and the same command goes on from there after an interruption. samples_ROW_PART.csv has a
line for each sample, so far, while a row is measured. The rest: docs/papers.md.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

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
from training.datasets.sources import open_source, tell_left_out
from training.evaluation.modes import PAPER_SIZE, Evaluation, device_of, evaluate
from training.evaluation.outcomes import Outcomes, has_counts
from training.loop.processes import begin_accelerator
from training.loop.run_folder import git_commit
from training.metrics.outcomes import Outcome, gathered, write_csv
from training.papers.checkpoints import (
    Options,
    check_checkpoints,
    checkpoint_of,
    data_of,
    was_seen,
)
from training.papers.finished import Finished, fingerprint
from training.papers.published import Column, Row, Table, TableError, load_published
from training.papers.regions import zoom_for
from training.papers.report import Cell, Report, to_csv, to_markdown, to_svg
from training.papers.zero_shot import evaluate_zero_shot

#: Episodes of a few-shot test.
EPISODES = 1000


@dataclass
class Runner:
    """Measures the rows of a table.

    Attributes:
        table: The table.
        options: Checkpoints, data, and settings.
        accelerator: The processes.
        finished: Measurements of before that count.
        output: Folder for what came out for each sample; None: it is not kept.
    """

    table: Table
    options: Options
    accelerator: Accelerator
    finished: Finished
    output: Path | None = None

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
                figures = [self.figures(row, key, v, columns) for v in part.variants()]
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

    def figures(
        self, row: Row, key: str, variant: dict[str, int], columns: list[Column]
    ) -> list[float]:
        """Return what :meth:`run_variant` does, from an earlier run if it is the same."""
        options, part = self.options, self.table.parts[key]
        what = {
            'row': row.name,
            'part': key,
            'variant': variant,
            'columns': [[str(one.metric), row.t if one.at == 'row' else one.at] for one in columns],
            'checkpoint': fingerprint(checkpoint_of(self.table, row, key, variant, options)),
            'data': data_of(part, variant, options),
            'samples': options.samples,
            'size': options.size,
            'seed': options.seed,
            'detector': options.detector if row.regions else None,
            'commit': git_commit(),
        }
        found = self.finished.find(what)
        if found is None:
            found = self.run_variant(row, key, variant, columns)
            self.finished.keep(what, found)
        return found

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
            shown: list[Outcome] = []
            found = evaluate_zero_shot(
                model, card, scenes, how, self.accelerator, options.samples, shown
            )
            self.keep_samples(row, key, variant, gathered(shown, self.accelerator))
            return [found[str(column.metric)] for column in columns]
        source = open_source(data)
        if self.accelerator.is_main_process:
            tell_left_out(source)
        indices: list[int] = list(range(len(source)))
        if part.draw == 'protocol' and isinstance(source, Pascal5i):
            indices = source.protocol(seed)
        elif part.draw == 'episodes' and isinstance(source, NamedSamples):
            indices = source.episodes(EPISODES, seed)
        model, card = load_model(checkpoint)
        chosen = [indices[place] for place in evenly_spread(len(indices), options.samples)]
        # Before hours of work, a detector that is not here shows.
        zoom = row.regions and zoom_for(row.regions, options.detector, device_of(self.accelerator))
        outcomes = None
        if self.output is not None:
            outcomes = Outcomes(source, subsets=has_counts(source))

        def keep(_: object) -> None:
            if outcomes is not None:
                self.keep_samples(row, key, variant, outcomes.listed)

        tally = evaluate(
            model, card, source, how, self.accelerator, chosen, outcomes, zoom or None, keep
        )
        if outcomes is not None:
            listed = gathered(outcomes.listed, self.accelerator)
            self.keep_samples(row, key, variant, listed)
        return [
            tally.figure(str(column.metric), row.t if column.at == 'row' else column.at)
            for column in columns
        ]

    def keep_samples(
        self, row: Row, key: str, variant: dict[str, int], listed: list[Outcome]
    ) -> None:
        """Write what came out for each sample, in the main process."""
        if self.output is not None and self.accelerator.is_main_process:
            write_csv(self.output / samples_file(row.name, key, variant), listed)


def samples_file(row: str, part: str, variant: dict[str, int]) -> str:
    """Return the name of the file with a line for each sample of a measurement."""
    words = re.findall(r'[\w+.-]+', row)
    return '_'.join(['samples', *words, part, *map(str, variant.values())]) + '.csv'


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
        output: Folder for table.md, table.csv, table.svg and table.json; for a line for each
            sample in samples_ROW_PART.csv; and for finished.json, from which an interrupted table
            goes on.
        accelerator: The processes; one is begun where None.

    Raises:
        TableError: If there is no such table or row, or finished.json is damaged.
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
    kept = Finished(output / 'finished.json' if output else None, accelerator)
    runner = Runner(table, options, accelerator, kept, output)

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
        help="torchvision's (`clipseg download`), or a model, for the regions of ClsCLIP+: "
        f'{DEFAULT_DETECTOR}',
    )
    parser.add_argument(
        '--output',
        type=Path,
        help='folder for Markdown, CSV, plot and JSON; an interrupted table goes on there',
    )


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
