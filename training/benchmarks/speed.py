"""Time models from uint8 frame to masks, against each other and their peers in one run.

    python -m training.benchmark speed
    python -m training.benchmark speed --model vit-b16 --prompts 1 4 8 16 64 --subjects \
        documented clever eager-fp32 eager-bf16 openvino-fp32 --output runs/speed
    python -m training.benchmark speed --model vit-b16 --device cuda --prompts 1 16 64 \
        --subjects documented clever eager-fp16 compile-fp16 compile-bf16 --batch 1 16

Subjects take turns on the same frames (A B A B), so that noise of the machine disturbs all of them
alike; the report has medians, deciles, and ratios of medians. The prompts are known beforehand (a
robot has the same ones for many frames); every frame is new. All begin and end in the host's
memory, with one bool mask a prompt at the size of the frame.

Subjects: ``documented`` and ``clever`` are CLIPSeg of transformers (training/benchmarks/peers.py);
any other is a runtime and a precision of this project. The model ``vit-b16`` is CLIPSeg
rd64-refined on ViT-B/16 with random weights, like those of the peers: speed does not depend on
them.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from clipseg_model import Prompt, Segmenter, create_model
from clipseg_model.files.atomic_files import write_atomically
from clipseg_model.model_card import ModelCard
from clipseg_model.modeling.base import SegmentationModel, build_model
from clipseg_model.quantization import FEWEST_IMAGES, export_int8
from clipseg_model.registry import get_card, load_model
from clipseg_model.runtime import create_runtime
from clipseg_model.runtime.devices import resolve_device
from clipseg_model.runtime.exports.files import exports_folder
from clipseg_model.runtime.openvino_runtime import INT8_VARIANT
from clipseg_model.runtime.split import weights_digest
from training.benchmarks.arguments import add_device, count_of_cameras, frame_size
from training.benchmarks.machine import (
    as_text,
    count_gflops,
    describe,
    name_of,
    peak_gflops,
    resident_mib,
    summary,
    timed,
)
from training.benchmarks.peers import Subject, clever, documented
from training.console import markdown_table, print_table, write_figures

NameT = TypeVar('NameT')
PictureT = TypeVar('PictureT')

RANDOM = 'vit-b16'
PEERS: dict[str, Callable[[Sequence[str], torch.device], Subject]] = {
    'documented': documented,
    'documented-bf16': partial(documented, bf16=True),
    'clever': clever,
    'clever-bf16': partial(clever, bf16=True),
}
_NOUNS = ('mug', 'book', 'bottle', 'bowl', 'box', 'chair', 'lamp', 'phone')
_COLOURS = ('red', 'blue', 'green', 'yellow', 'black', 'white', 'brown', 'grey')
PROMPTS = tuple(f'a {colour} {noun}' for colour in _COLOURS for noun in _NOUNS)
_TYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}


def frames(count: int, height: int, width: int) -> list[NDArray[np.uint8]]:
    """Return random pictures, uint8 (height, width, 3)."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)]


def own_segmenter(model: str, subject: str, exports: Path | None, device: str) -> Segmenter:
    """Return a model of this project in the runtime and precision that a subject names."""
    runtime, _, precision = subject.rpartition('-')
    if model != RANDOM:
        return create_model(model, device, runtime=runtime, precision=precision, exports=exports)
    torch.manual_seed(0)
    card = replace(get_card('clipseg-rd64-refined'), name=RANDOM)
    made = build_model(card.config).eval()
    if precision == 'int8':
        exports = quantise(made, card, exports)
    return Segmenter(create_runtime(made, card, device, runtime, precision, exports), card)


def own_segmenters(args: argparse.Namespace) -> dict[str, Segmenter]:
    """Return :func:`own_segmenter` of every subject that is not a peer."""
    return {
        name: own_segmenter(args.model, name, args.exports, args.device)
        for name in args.subjects
        if name not in PEERS
    }


def make_peer(name: str, prompts: Sequence[str], device: str) -> Subject:
    """Return a call of a peer that segments these prompts."""
    return PEERS[name](prompts, torch.device(str(resolve_device(device))))


def quantise(made: SegmentationModel, card: ModelCard, exports: Path | None) -> Path:
    """Return a folder with random weights in int8, exported on random frames if it is not there.

    Agreement of the masks does not matter: they mean nothing.
    """
    digest = weights_digest(made)
    folder = exports or exports_folder(card, digest)
    if not (folder / INT8_VARIANT).is_dir():
        agreement = export_int8(
            made, card, digest, folder, frames(FEWEST_IMAGES, 480, 640), PROMPTS[:4], least_iou=0.0
        )
        print(f'int8: logits correlate with those of fp32 by {agreement.correlation:.4f}')
    return folder


def all_masks(segmenter: Segmenter, prompts: Sequence[str | Prompt]) -> Subject:
    """Return a call that segments a frame and makes every mask."""

    def run(image: NDArray[np.uint8]) -> object:
        return [result.mask for result in segmenter.segment(image, prompts).results]

    return run


def interleaved(
    subjects: dict[NameT, Callable[[PictureT], object]],
    pictures: Sequence[PictureT],
    turns: int,
    warm: int,
) -> dict[NameT, list[float]]:
    """Time subjects in turns, frame by frame; return the seconds after the first ``warm`` turns."""
    seconds: dict[NameT, list[float]] = {name: [] for name in subjects}
    for turn in range(-warm, turns):
        picture = pictures[turn % len(pictures)]
        for name, run in subjects.items():
            taken = timed(partial(run, picture))
            if turn >= 0:
                seconds[name].append(taken)
    return seconds


def gflops(model: str, shape: tuple[int, int]) -> dict[str, float]:
    """Return the GFLOP of an image and of a prompt."""
    # The towers of the bundled model do not run on the meta device.
    device = 'meta' if model == RANDOM else 'cpu'
    card = get_card('clipseg-rd64-refined') if model == RANDOM else load_model(model)[1]
    image, prompt = count_gflops(build_model(card.config).eval().to(device), shape, device)
    return {'image': image, 'prompt': prompt}


def peak_memory(model: str, subject: str, exports: Path | None, threads: int, device: str) -> float:
    """Return the peak memory of a subject with four prompts, MiB; call it in a fresh process.

    That of the GPU where it runs on one, else that of the host above the imports.
    """
    import transformers  # noqa: F401  (its import is not part of the peak)

    torch.set_num_threads(threads)
    before = resident_mib(peak=False)
    prompts = PROMPTS[:4]
    place = resolve_device(device)
    if subject in PEERS:
        run = make_peer(subject, prompts, device)
    else:
        segmenter = own_segmenter(model, subject, exports, device)
        place, run = segmenter.device, all_masks(segmenter, prompts)
    for picture in frames(3, 480, 640):
        run(picture)
    if place.type == 'cuda':
        return torch.cuda.max_memory_reserved(str(place)) / 2**20
    return resident_mib(peak=True) - before


def time_subjects(args: argparse.Namespace) -> dict[str, Any]:
    """Run what the command line asks for."""
    torch.set_num_threads(args.threads)
    own = own_segmenters(args)
    device = torch.device(str(resolve_device(args.device)))
    report: dict[str, Any] = {
        'model': args.model,
        'machine': describe(device=device),
        'peak': {},
        'encoder': {},
        'times': [],
        'memory': {},
    }
    for (height, width), count in product(args.sizes, args.prompts):
        prompts = PROMPTS[:count]
        subjects = {
            name: all_masks(own[name], prompts)
            if name in own
            else make_peer(name, prompts, args.device)
            for name in args.subjects
        }
        seconds = interleaved(subjects, frames(4, height, width), args.frames, args.warm)
        times = {name: summary(values) for name, values in seconds.items()}
        report['times'].append({'height': height, 'width': width, 'prompts': count, 'ms': times})
    if own:
        report['peak'] = {
            name: peak_gflops(dtype, device=device)
            for name, dtype in _TYPES.items()
            if name != 'fp16' or device.type == 'cuda'
        }
        first = next(iter(own.values()))
        report['gflop'] = gflops(args.model, first.preprocessor.shape_of(*args.sizes[0]))
        report['encoder'] = encoder_speeds(own, args, report['gflop']['image'])
        for name, one in report['encoder'].items():
            subject = name.partition(',')[0]
            peak = report['peak'].get(subject.rpartition('-')[2])
            known = peak and own[subject].device.type == device.type
            one['share_of_peak'] = one['gflops'] / peak if known else None
    if args.memory:
        for name in args.subjects:
            with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as child:
                words = (args.model, name, args.exports, args.threads, args.device)
                report['memory'][name] = child.submit(peak_memory, *words).result()
    return report


def encoder_speeds(
    own: dict[str, Segmenter], args: argparse.Namespace, work: float
) -> dict[str, Any]:
    """Time the image encoders alone, of which an image takes ``work`` GFLOP."""
    speeds = {}
    picture = frames(1, *args.sizes[0])[0]
    for (name, segmenter), batch in product(own.items(), args.batch):
        pixels = np.tile(segmenter.preprocessor.pixels(picture), (batch, 1, 1, 1))
        run = partial(segmenter.runtime.encode_image, pixels)
        times = [
            timed(run, torch.device(str(segmenter.device))) for _ in range(args.warm + args.frames)
        ]
        middle = summary(times[args.warm :])['median']
        key = name if batch == 1 else f'{name}, {batch} images'
        speeds[key] = {'ms': middle, 'gflops': batch * work / middle * 1e3}
    return speeds


def heading(report: dict[str, Any]) -> str:
    """Return a sentence that names the model and the machine of a report."""
    machine = report['machine']
    weights = ', random weights' if report['model'] == RANDOM else ''
    versions = ', '.join(f'{name} {number}' for name, number in machine['versions'].items())
    where = f'{name_of(machine)}; Python {machine["python"]}, {versions}'
    return f'Model `{report["model"]}`{weights}; {where}.'


def markdown(report: dict[str, Any]) -> str:
    """Return the tables of a report as Markdown."""
    names = list(report['times'][0]['ms'])
    machine = report['machine']
    rows = []
    for row in report['times']:
        first = row['ms'][names[0]]['median']
        cells = []
        for name in names:
            one = row['ms'][name]
            ratio = '' if name == names[0] else f', {first / one["median"]:.2f} ×'
            cells.append(as_text(one) + ratio)
        rows.append([f'{row["width"]} × {row["height"]}', str(row['prompts']), *cells])
    lines = [heading(report), '']
    lines += markdown_table(['frame', 'prompts', *names], rows)
    lines += ['', 'Milliseconds: median (first to last decile), times the speed of the first.']
    if report['encoder']:
        peaks = ', '.join(f'{peak:.0f} in {name}' for name, peak in report['peak'].items())
        work = f'{report["gflop"]["image"]:.2f} GFLOP an image, {report["gflop"]["prompt"]:.3f}'
        lines += ['', f'Peak of matrix products, GFLOP/s: {peaks}. {work} a prompt.', '']
        rows = []
        for name, one in report['encoder'].items():
            share = '' if one['share_of_peak'] is None else f'{one["share_of_peak"]:.0%}'
            rows.append([name, f'{one["ms"]:.1f}', f'{one["gflops"]:.0f}', share])
        lines += markdown_table(['encoder', 'ms', 'GFLOP/s', 'of the peak'], rows)
    if report['memory']:
        where = 'of the GPU' if machine['gpu'] else 'above imports'
        rows = [[name, f'{value:.0f}'] for name, value in report['memory'].items()]
        lines += ['', *markdown_table(['4 prompts', f'peak memory {where}, MiB'], rows)]
    return '\n'.join(lines) + '\n'


def show(report: dict[str, Any]) -> None:
    """Print the times as a table."""
    rows = []
    for row in report['times']:
        first = next(iter(row['ms'].values()))['median']
        frame = f'{row["width"]} × {row["height"]}', str(row['prompts'])
        for name, one in row['ms'].items():
            ratios = f'{1e3 / one["median"]:.1f}', f'{first / one["median"]:.2f} ×'
            rows.append((name, *frame, as_text(one), *ratios))
    columns = ('subject', 'frame', 'prompts', 'median ms (10–90 %)', 'frames/s', 'ratio')
    print_table(f'{report["model"]}, {name_of(report["machine"])}', columns, rows)


def count_of_prompts(text: str) -> int:
    """Return a number of prompts."""
    if not text.isdigit() or not 1 <= int(text) <= len(PROMPTS):
        raise argparse.ArgumentTypeError(f'there are 1 to {len(PROMPTS)} prompts, not {text!r}')
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``speed``."""
    parser.add_argument('--model', default='tabletop', help=f'name, checkpoint, or {RANDOM}')
    parser.add_argument(
        '--subjects',
        nargs='+',
        default=['eager-fp32'],
        help=f'{", ".join(PEERS)}, or runtime-precision such as openvino-int8; '
        'ratios are to the first',
    )
    parser.add_argument('--prompts', nargs='+', type=count_of_prompts, default=[4])
    parser.add_argument('--sizes', nargs='+', type=frame_size, default=[(480, 640)])
    parser.add_argument('--frames', type=int, default=30, help='frames timed')
    parser.add_argument('--warm', type=int, default=3, help='frames before them')
    parser.add_argument(
        '--batch',
        nargs='+',
        type=count_of_cameras,
        default=[1],
        help='images at once, one of each camera, where the encoder alone is timed',
    )
    add_device(parser)
    parser.add_argument('--threads', type=int, default=os.cpu_count())
    parser.add_argument('--exports', type=Path, help="folder of `clipseg export`'s files")
    parser.add_argument('--memory', action='store_true', help='peak memory, each in a new process')
    parser.add_argument('--output', type=Path, help='folder for speed.json and speed.md')


def run(args: argparse.Namespace) -> None:
    """Time, print, and write ``speed.json`` and ``speed.md``."""
    report = time_subjects(args)
    show(report)
    if args.output:
        write_figures(args.output / 'speed.json', report)
        write_atomically(args.output / 'speed.md', markdown(report))
