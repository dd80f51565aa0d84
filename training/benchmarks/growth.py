"""Times how a model's work grows: with prompts, with the pixels of the frame, and with cameras.

    python -m training.benchmark growth
    python -m training.benchmark growth --model vit-b16 --frames 5 --output runs/growth
    python -m training.benchmark growth --axes cameras --cameras 1 2 4 --subjects eager-bf16

While one of them grows, the others stay at 4 prompts, 640 × 480 pixels and one camera. All steps of
an axis are timed in turn, again and again, so that a noisy machine disturbs all of them alike. A
straight line through the medians says what is paid once and what for each prompt, megapixel or
camera. Every mask is made at the frame's size, as if all that is asked for were there.

For cameras, the time is that of one frame of each: one after the other (``turns``), and in one call
of the model (``batch``). Subjects are those of ``speed``; its peers know one camera only.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from clipseg_model import Prompt, Segmenter
from clipseg_model.devices import resolve_device
from training.benchmarks import machine as benchmark_machine
from training.benchmarks.arguments import add_device, count_of_cameras, frame_size
from training.benchmarks.machine import summary
from training.benchmarks.peers import Subject
from training.benchmarks.plot import Line, line_chart
from training.benchmarks.speed import (
    PEERS,
    PROMPTS,
    RANDOM,
    all_masks,
    count_of_prompts,
    frames,
    interleaved,
    make_peer,
    own_segmenters,
)

AXES = ('prompts', 'pixels', 'cameras')
UNITS = {'prompts': 'prompt', 'pixels': 'megapixel', 'cameras': 'camera'}
USUAL_PROMPTS, USUAL_SIZE = 4, (480, 640)
PICTURES = 4
"""Different frames that are shown to every step in turn."""

Step = Callable[[int], object]
"""Segments what belongs to a turn, given its number."""


def asked(count: int) -> list[Prompt]:
    """Prompts that are on everywhere, since what is found nowhere costs no mask."""
    return [Prompt(text, threshold=1e-6, presence_threshold=0.0) for text in PROMPTS[:count]]


def make_run(name: str, own: dict[str, Segmenter], count: int, device: str) -> Subject:
    """A call in which a subject makes the masks of so many prompts of a frame."""
    if name in own:
        return all_masks(own[name], asked(count))
    return make_peer(name, PROMPTS[:count], device)


def prompt_steps(own: dict[str, Segmenter], args: argparse.Namespace) -> dict[str, dict[int, Step]]:
    """For each subject and number of prompts, what makes all masks of a frame."""
    pictures = frames(PICTURES, *USUAL_SIZE)
    steps: dict[str, dict[int, Step]] = {}
    for name in args.subjects:
        steps[name] = {}
        for count in args.prompts:
            run = make_run(name, own, count, args.device)
            steps[name][count] = lambda turn, run=run: run(pictures[turn % PICTURES])
    return steps


def pixel_steps(own: dict[str, Segmenter], args: argparse.Namespace) -> dict[str, dict[int, Step]]:
    """For each subject and number of pixels, the same."""
    sizes = {height * width: frames(PICTURES, height, width) for height, width in args.sizes}
    steps: dict[str, dict[int, Step]] = {}
    for name in args.subjects:
        run = make_run(name, own, USUAL_PROMPTS, args.device)
        steps[name] = {
            count: lambda turn, run=run, pictures=pictures: run(pictures[turn % PICTURES])
            for count, pictures in sizes.items()
        }
    return steps


def camera_steps(own: dict[str, Segmenter], args: argparse.Namespace) -> dict[str, dict[int, Step]]:
    """For each way and number of cameras, what makes all masks of a frame of each."""
    pictures = frames(max(args.cameras), *USUAL_SIZE)
    wanted = asked(USUAL_PROMPTS)
    steps: dict[str, dict[int, Step]] = {}
    for name, segmenter in own.items():
        one_by_one = all_masks(segmenter, wanted)
        steps[f'{name}, turns'] = {
            count: lambda turn, run=one_by_one, count=count: [run(x) for x in pictures[:count]]
            for count in args.cameras
        }
        steps[f'{name}, batch'] = {
            count: lambda turn, segmenter=segmenter, count=count: [
                [result.mask for result in found.results]
                for found in segmenter.segment_batch(pictures[:count], wanted)
            ]
            for count in args.cameras
        }
    return steps


def straight_line(steps: Sequence[int], medians: Sequence[float]) -> tuple[float, float] | None:
    """What is paid once and for each step, of the least squares of relative errors."""
    if len(set(steps)) < 2:
        return None
    # Weighed by 1 / median, so that the longest times do not decide alone.
    slope, once = np.polyfit(steps, medians, 1, w=1 / np.asarray(medians))
    return float(once), float(slope)


def measure_axis(axis: str, own: dict[str, Segmenter], args: argparse.Namespace) -> dict[str, Any]:
    """Times the steps of one axis."""
    make = {'prompts': prompt_steps, 'pixels': pixel_steps, 'cameras': camera_steps}[axis]
    steps = make(own, args)
    flat = {(name, step): run for name, some in steps.items() for step, run in some.items()}
    seconds = interleaved(flat, range(PICTURES), args.frames, args.warm)
    found: dict[str, Any] = {}
    for name, some in steps.items():
        times = {step: summary(seconds[name, step]) for step in sorted(some)}
        medians = [one['median'] for one in times.values()]
        scale = 1e6 if axis == 'pixels' else 1
        line = straight_line(list(times), medians)
        found[name] = {
            'ms': times,
            'ratio': medians[-1] / medians[0],
            'once': line and line[0],
            'each': line and line[1] * scale,
        }
    return found


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Runs what the command line asks for."""
    torch.set_num_threads(args.threads)
    own = own_segmenters(args)
    report: dict[str, Any] = {
        'model': args.model,
        'machine': benchmark_machine.describe(device=resolve_device(args.device)),
        'frames': args.frames,
        'sizes': {height * width: f'{width} × {height}' for height, width in args.sizes},
        'growth': {},
    }
    for axis in args.axes:
        if axis != 'cameras' or own:
            report['growth'][axis] = measure_axis(axis, own, args)
    return report


def label(axis: str, step: int, report: dict[str, Any]) -> str:
    """A step as people write it."""
    return str(report['sizes'][step] if axis == 'pixels' else step)


def markdown(report: dict[str, Any]) -> str:
    """The tables of a report as Markdown."""
    machine = report['machine']
    versions = ', '.join(f'{name} {number}' for name, number in machine['versions'].items())
    lines = [
        f'Model `{report["model"]}`{", random weights" if report["model"] == RANDOM else ""}; '
        f'{benchmark_machine.name_of(machine)}; Python {machine["python"]}, {versions}. '
        f'Milliseconds: median of {report["frames"]} (first to last decile).',
    ]
    for axis, found in report['growth'].items():
        names = list(found)
        lines += ['', f'| {axis} | {" | ".join(names)} |', f'|---|{"---|" * len(names)}']
        for step in found[names[0]]['ms']:
            cells = [
                f'{one["median"]:.1f} ({one["low"]:.1f}–{one["high"]:.1f})'
                for one in (found[name]['ms'][step] for name in names)
            ]
            lines.append(f'| {label(axis, step, report)} | {" | ".join(cells)} |')
        ratios = [f'{found[name]["ratio"]:.2f} ×' for name in names]
        lines.append(f'| last to first | {" | ".join(ratios)} |')
        if found[names[0]]['once'] is not None:
            fits = [f'{found[name]["once"]:.1f} + {found[name]["each"]:.2f}' for name in names]
            lines.append(f'| once + each {UNITS[axis]} | {" | ".join(fits)} |')
    return '\n'.join(lines) + '\n'


def charts(report: dict[str, Any]) -> dict[str, str]:
    """For each axis a chart, as SVG."""
    made = {}
    for axis, found in report['growth'].items():
        scale = 1e-6 if axis == 'pixels' else 1
        lines = [
            Line(
                name,
                [step * scale for step in one['ms']],
                [times['median'] for times in one['ms'].values()],
                [times['low'] for times in one['ms'].values()],
                [times['high'] for times in one['ms'].values()],
            )
            for name, one in found.items()
        ]
        across = 'megapixels' if axis == 'pixels' else axis
        made[axis] = line_chart(f'{report["model"]}: time against {axis}', across, 'ms', lines)
    return made


def show(report: dict[str, Any]) -> None:
    """Prints the times as tables."""
    machine = report['machine']
    for axis, found in report['growth'].items():
        table = Table(title=f'{report["model"]}, {benchmark_machine.name_of(machine)}')
        for heading in (axis, 'subject', 'median ms', '10–90 %', 'to the first'):
            table.add_column(heading, justify='left' if heading == 'subject' else 'right')
        for name, one in found.items():
            first = next(iter(one['ms'].values()))['median']
            for step, times in one['ms'].items():
                table.add_row(
                    label(axis, step, report),
                    name,
                    f'{times["median"]:.1f}',
                    f'{times["low"]:.1f}–{times["high"]:.1f}',
                    f'{times["median"] / first:.2f} ×',
                )
        Console().print(table)


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m training.benchmark growth',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--model', default='tabletop', help=f'name, checkpoint, or {RANDOM}')
    parser.add_argument('--axes', nargs='+', choices=AXES, default=list(AXES))
    parser.add_argument(
        '--subjects',
        nargs='+',
        default=['eager-fp32'],
        help=f'{", ".join(PEERS)}, or runtime-precision such as openvino-int8',
    )
    parser.add_argument(
        '--prompts', nargs='+', type=count_of_prompts, default=[1, 2, 4, 8, 16, 32, 64]
    )
    parser.add_argument(
        '--sizes',
        nargs='+',
        type=frame_size,
        default=[(240, 320), (480, 640), (720, 1280), (1080, 1920), (2160, 3840)],
        help='WIDTHxHEIGHT',
    )
    parser.add_argument('--cameras', nargs='+', type=count_of_cameras, default=[1, 2, 4, 8])
    parser.add_argument('--frames', type=int, default=20, help='times that each step is timed')
    parser.add_argument('--warm', type=int, default=2, help='times before them')
    add_device(parser)
    parser.add_argument('--threads', type=int, default=os.cpu_count())
    parser.add_argument('--exports', type=Path, help="folder of `clipseg export`'s files")
    parser.add_argument(
        '--output', type=Path, help='folder for growth.json, growth.md and a chart of each axis'
    )
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Measures, prints, and writes ``growth.json``, ``growth.md`` and ``growth_AXIS.svg``."""
    args = make_parser().parse_args(arguments)
    report = measure(args)
    show(report)
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        (args.output / 'growth.json').write_text(json.dumps(report, indent=2) + '\n', 'utf-8')
        (args.output / 'growth.md').write_text(markdown(report), 'utf-8')
        for axis, chart in charts(report).items():
            (args.output / f'growth_{axis}.svg').write_text(chart, 'utf-8')
