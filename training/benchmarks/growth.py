"""Time how the work of a model grows: with prompts, with the pixels of the frame, with cameras.

    python -m training.benchmark growth
    python -m training.benchmark growth --model vit-b16 --frames 5 --output runs/growth
    python -m training.benchmark growth --axes cameras --cameras 1 2 4 --subjects eager-bf16

While one of them grows, the others stay at 4 prompts, 640 × 480 pixels and one camera. All steps of
an axis are timed in turns, so that noise of the machine disturbs all of them alike. A straight line
through the medians has the time that is spent once, and for each prompt, megapixel or camera. Every
mask is made at the size of the frame, as if all prompts were present.

The time of cameras is that of one frame of each: one after the other (``turns``), and in one call
of the model (``batch``). Subjects are those of ``speed``; its peers take one camera only.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clipseg_model import Prompt, Segmenter
from clipseg_model.files.atomic_files import write_atomically
from clipseg_model.runtime.devices import resolve_device
from training.benchmarks.arguments import add_device, count_of_cameras, frame_size
from training.benchmarks.machine import as_text, describe, name_of, summary
from training.benchmarks.peers import Subject
from training.benchmarks.speed import (
    PEERS,
    PROMPTS,
    RANDOM,
    all_masks,
    count_of_prompts,
    frames,
    heading,
    interleaved,
    make_peer,
    own_segmenters,
)
from training.console import markdown_table, print_table, write_figures

AXES = ('prompts', 'pixels', 'cameras')
UNITS = {'prompts': 'prompt', 'pixels': 'megapixel', 'cameras': 'camera'}
USUAL_PROMPTS, USUAL_SIZE = 4, (480, 640)
PICTURES = 4
"""Number of frames that every step gets in turn."""

Step = Callable[[int], object]
"""Segments the frame, or frames, of a turn."""
Steps = dict[str, dict[int, Step]]
"""Steps of an axis, by subject and size."""


def asked(count: int) -> list[Prompt]:
    """Return prompts that are on everywhere, since a mask without a pixel costs nothing."""
    return [Prompt(text, threshold=1e-6, presence_threshold=0.0) for text in PROMPTS[:count]]


def make_run(name: str, own: dict[str, Segmenter], count: int, device: str) -> Subject:
    """Return a call in which a subject makes the masks of so many prompts of a frame."""
    if name in own:
        return all_masks(own[name], asked(count))
    return make_peer(name, PROMPTS[:count], device)


def in_turn(run: Subject, pictures: Sequence[NDArray[np.uint8]]) -> Step:
    """Return a step that runs a subject on the picture of the turn."""
    return lambda turn: run(pictures[turn % len(pictures)])


def prompt_steps(own: dict[str, Segmenter], args: argparse.Namespace) -> Steps:
    """Return what makes all masks of a frame, by subject and number of prompts."""
    pictures = frames(PICTURES, *USUAL_SIZE)
    return {
        name: {
            count: in_turn(make_run(name, own, count, args.device), pictures)
            for count in args.prompts
        }
        for name in args.subjects
    }


def pixel_steps(own: dict[str, Segmenter], args: argparse.Namespace) -> Steps:
    """Return what makes all masks of a frame, by subject and number of pixels."""
    sizes = {height * width: frames(PICTURES, height, width) for height, width in args.sizes}
    steps: Steps = {}
    for name in args.subjects:
        run = make_run(name, own, USUAL_PROMPTS, args.device)
        steps[name] = {count: in_turn(run, pictures) for count, pictures in sizes.items()}
    return steps


def camera_steps(own: dict[str, Segmenter], args: argparse.Namespace) -> Steps:
    """Return what makes all masks of a frame of each camera, in turns and in a batch."""
    pictures = frames(max(args.cameras), *USUAL_SIZE)
    wanted = asked(USUAL_PROMPTS)

    def turns(segmenter: Segmenter, count: int) -> Step:
        run = all_masks(segmenter, wanted)
        return lambda _: [run(picture) for picture in pictures[:count]]

    def batch(segmenter: Segmenter, count: int) -> Step:
        return lambda _: [
            [result.mask for result in found.results]
            for found in segmenter.segment_batch(pictures[:count], wanted)
        ]

    return {
        f'{name}, {make.__name__}': {count: make(segmenter, count) for count in args.cameras}
        for name, segmenter in own.items()
        for make in (turns, batch)
    }


def straight_line(steps: Sequence[int], medians: Sequence[float]) -> tuple[float, float] | None:
    """Return intercept and slope with the least squares of relative errors; None for one step."""
    if len(set(steps)) < 2:
        return None
    # Weights of 1 / median: else the longest times would decide alone.
    slope, once = np.polyfit(steps, medians, 1, w=1 / np.asarray(medians))
    return float(once), float(slope)


def time_axis(axis: str, own: dict[str, Segmenter], args: argparse.Namespace) -> dict[str, Any]:
    """Time the steps of one axis."""
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


def time_growth(args: argparse.Namespace) -> dict[str, Any]:
    """Run what the command line asks for."""
    torch.set_num_threads(args.threads)
    own = own_segmenters(args)
    report: dict[str, Any] = {
        'model': args.model,
        'machine': describe(device=torch.device(str(resolve_device(args.device)))),
        'frames': args.frames,
        'sizes': {height * width: f'{width} × {height}' for height, width in args.sizes},
        'growth': {},
    }
    for axis in args.axes:
        if axis != 'cameras' or own:
            report['growth'][axis] = time_axis(axis, own, args)
    return report


def label(axis: str, step: int, report: dict[str, Any]) -> str:
    """Return a step as people write it."""
    return str(report['sizes'][step] if axis == 'pixels' else step)


def markdown(report: dict[str, Any]) -> str:
    """Return the tables of a report as Markdown."""
    lines = [f'{heading(report)} Milliseconds: median of {report["frames"]} (10–90 %).']
    for axis, found in report['growth'].items():
        subjects = list(found.values())
        rows = [
            [label(axis, step, report), *(as_text(one['ms'][step]) for one in subjects)]
            for step in subjects[0]['ms']
        ]
        rows.append(['last to first', *(f'{one["ratio"]:.2f} ×' for one in subjects)])
        if subjects[0]['once'] is not None:
            fits = [f'{one["once"]:.1f} + {one["each"]:.2f}' for one in subjects]
            rows.append([f'once + each {UNITS[axis]}', *fits])
        lines += ['', *markdown_table([axis, *found], rows)]
    return '\n'.join(lines) + '\n'


def charts(report: dict[str, Any]) -> dict[str, str]:
    """Return a chart of each axis, as SVG."""
    # Only charts need matplotlib, which comes with the extra for training.
    from training.benchmarks.plot import Line, line_chart

    made = {}
    for axis, found in report['growth'].items():
        scale = 1e-6 if axis == 'pixels' else 1
        lines = [
            Line(
                name,
                [step * scale for step in one['ms']],
                *(
                    [times[key] for times in one['ms'].values()]
                    for key in ('median', 'low', 'high')
                ),
            )
            for name, one in found.items()
        ]
        across = 'megapixels' if axis == 'pixels' else axis
        made[axis] = line_chart(f'{report["model"]}: time against {axis}', across, 'ms', lines)
    return made


def show(report: dict[str, Any]) -> None:
    """Print the times as tables."""
    title = f'{report["model"]}, {name_of(report["machine"])}'
    for axis, found in report['growth'].items():
        rows = []
        for name, one in found.items():
            first = next(iter(one['ms'].values()))['median']
            for step, times in one['ms'].items():
                ratio = f'{times["median"] / first:.2f} ×'
                rows.append((name, label(axis, step, report), as_text(times), ratio))
        print_table(title, ('subject', axis, 'median ms (10–90 %)', 'to the first'), rows)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
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
    """Time, print, and write ``growth.json``, ``growth.md`` and ``growth_AXIS.svg``."""
    args = make_parser().parse_args(arguments)
    report = time_growth(args)
    show(report)
    if args.output:
        write_figures(args.output / 'growth.json', report)
        write_atomically(args.output / 'growth.md', markdown(report))
        for axis, chart in charts(report).items():
            write_atomically(args.output / f'growth_{axis}.svg', chart)
