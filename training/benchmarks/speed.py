"""Times models from uint8 frame to masks, against each other and their peers in one run.

    python -m training.benchmark speed
    python -m training.benchmark speed --model vit-b16 --prompts 1 4 8 16 64 --subjects \
        documented clever eager-fp32 eager-bf16 openvino-fp32 --output runs/speed
    python -m training.benchmark speed --model vit-b16 --device cuda --prompts 1 16 64 \
        --subjects documented clever eager-fp16 compile-fp16 compile-bf16 --batch 1 16

Every subject sees the same frames in turn, frame by frame (A B A B), so that a noisy machine
disturbs all of them alike; what is reported are medians, deciles, and ratios of medians. The
prompts are known beforehand (a robot asks for the same things of many frames); every frame is new.
All begin and end in the host's memory, with one bool mask a prompt at the frame's size.

Subjects: ``documented`` and ``clever`` are CLIPSeg of transformers (training/benchmarks/peers.py);
any other is a runtime and a precision of this project. The model ``vit-b16`` is CLIPSeg
rd64-refined on ViT-B/16 with random weights, as the peers' are: speed does not depend on them.
"""

from __future__ import annotations

import argparse
import json
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
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from clipseg_model import Prompt, Segmenter, create_model
from clipseg_model.devices import resolve_device
from clipseg_model.model_card import ModelCard
from clipseg_model.modeling.base import SegmentationModel, build_model
from clipseg_model.quantization import FEWEST_IMAGES, export_int8
from clipseg_model.registry import get_card, load_model
from clipseg_model.runtime import create_runtime
from clipseg_model.runtime.export_files import exports_folder, weights_digest
from clipseg_model.runtime.openvino_runtime import INT8_VARIANT
from training.benchmarks import machine as benchmark_machine
from training.benchmarks import peers as benchmark_peers
from training.benchmarks.arguments import add_device, count_of_cameras, frame_size
from training.benchmarks.machine import summary, timed
from training.benchmarks.peers import Subject

NameT = TypeVar('NameT')
PictureT = TypeVar('PictureT')

RANDOM = 'vit-b16'
PEERS = {
    'documented': benchmark_peers.documented,
    'documented-bf16': partial(benchmark_peers.documented, bf16=True),
    'clever': benchmark_peers.clever,
    'clever-bf16': partial(benchmark_peers.clever, bf16=True),
}
_NOUNS = ('mug', 'book', 'bottle', 'bowl', 'box', 'chair', 'lamp', 'phone')
_COLOURS = ('red', 'blue', 'green', 'yellow', 'black', 'white', 'brown', 'grey')
PROMPTS = tuple(f'a {colour} {noun}' for colour in _COLOURS for noun in _NOUNS)
_TYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}


def frames(count: int, height: int, width: int) -> list[NDArray[np.uint8]]:
    """Returns random pictures, uint8 (height, width, 3)."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)]


def own_segmenter(model: str, subject: str, exports: Path | None, device: str) -> Segmenter:
    """Returns a model of this project in the runtime and precision that a subject names."""
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
    """Returns :func:`own_segmenter` of every subject that is no peer."""
    return {
        name: own_segmenter(args.model, name, args.exports, args.device)
        for name in args.subjects
        if name not in PEERS
    }


def make_peer(name: str, prompts: Sequence[str], device: str) -> Subject:
    """Returns a call of a peer, which finds these prompts."""
    return PEERS[name](prompts, resolve_device(device))


def quantise(made: SegmentationModel, card: ModelCard, exports: Path | None) -> Path:
    """Exports random weights in int8, on random frames, and returns the folder; or finds them.

    Whether masks agree does not matter here: neither of them means anything.
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
    """Returns a call that segments a frame and makes every mask."""

    def run(image: NDArray[np.uint8]) -> object:
        return [result.mask for result in segmenter.segment(image, prompts).results]

    return run


def interleaved(
    subjects: dict[NameT, Callable[[PictureT], object]],
    pictures: Sequence[PictureT],
    turns: int,
    warm: int,
) -> dict[NameT, list[float]]:
    """Seconds of each subject, which take turns frame by frame; the first ``warm`` do not count."""
    seconds: dict[NameT, list[float]] = {name: [] for name in subjects}
    for turn in range(-warm, turns):
        picture = pictures[turn % len(pictures)]
        for name, run in subjects.items():
            taken = timed(partial(run, picture))
            if turn >= 0:
                seconds[name].append(taken)
    return seconds


def gflops(model: str, shape: tuple[int, int]) -> dict[str, float]:
    """GFLOP of an image and of a prompt, counted by torch."""
    # On the meta device nothing is computed; the bundled model's towers do not run there.
    device = 'meta' if model == RANDOM else 'cpu'
    card = get_card('clipseg-rd64-refined') if model == RANDOM else load_model(model)[1]
    network = build_model(card.config).eval().to(device)
    counters = [FlopCounterMode(display=False) for _ in range(2)]
    with torch.no_grad():
        with counters[0]:
            features = network.encode_image(torch.empty(1, 3, *shape, device=device))
        condition = torch.empty(1, network.backbone.embed_dim, device=device)
        with counters[1]:
            network.decode(features, condition)
    image, prompt = (counter.get_total_flops() / 1e9 for counter in counters)
    return {'image': image, 'prompt': prompt}


def peak_memory(model: str, subject: str, exports: Path | None, threads: int, device: str) -> float:
    """MiB that a subject takes at most with four prompts; in a fresh process.

    Of the GPU's memory where it works on one, else of the host's above the imports.
    """
    import transformers  # noqa: F401  (what is imported is not part of it)

    torch.set_num_threads(threads)
    before = benchmark_machine.resident_mib(peak=False)
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
        return torch.cuda.max_memory_reserved(place) / 2**20
    return benchmark_machine.resident_mib(peak=True) - before


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Runs what the command line asks for."""
    torch.set_num_threads(args.threads)
    own = own_segmenters(args)
    device = resolve_device(args.device)
    report: dict[str, Any] = {
        'model': args.model,
        'machine': benchmark_machine.describe(device=device),
        'peak': {},
        'encoder': {},
        'times': [],
        'memory': {},
    }
    for height, width in args.sizes:
        pictures = frames(4, height, width)
        for count in args.prompts:
            prompts = PROMPTS[:count]
            subjects = {
                name: all_masks(own[name], prompts)
                if name in own
                else make_peer(name, prompts, args.device)
                for name in args.subjects
            }
            seconds = interleaved(subjects, pictures, args.frames, args.warm)
            times = {name: summary(values) for name, values in seconds.items()}
            report['times'].append(
                {'height': height, 'width': width, 'prompts': count, 'ms': times}
            )
    if own:
        report['peak'] = {
            name: benchmark_machine.peak_gflops(dtype, device=device)
            for name, dtype in _TYPES.items()
            if name != 'fp16' or device.type == 'cuda'
        }
        first = next(iter(own.values()))
        shape = first.preprocessor.shape_of(*args.sizes[0])
        report['gflop'] = gflops(args.model, shape)
        report['encoder'] = encoder_shares(
            own, args, device, report['peak'], report['gflop']['image']
        )
    if args.memory:
        for name in args.subjects:
            with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as child:
                words = (args.model, name, args.exports, args.threads, args.device)
                job = child.submit(peak_memory, *words)
                report['memory'][name] = job.result()
    return report


@torch.inference_mode()
def encoder_shares(
    own: dict[str, Segmenter],
    args: argparse.Namespace,
    device: torch.device,
    peak: dict[str, float],
    work: float,
) -> dict[str, Any]:
    """Time of the image encoder alone, its GFLOP/s, and their share of the peak.

    Args:
        own: The models.
        args: The command line.
        device: That the peak is of: who computes on another has no share.
        peak: GFLOP/s of the precisions.
        work: GFLOP of an image.
    """
    shares = {}
    picture = frames(1, *args.sizes[0])[0]
    for (name, segmenter), batch in product(own.items(), args.batch):
        pixels = segmenter.preprocessor.pixels(picture).repeat(batch, 1, 1, 1)
        times = [
            timed(lambda s=segmenter, x=pixels: s.runtime.encode_image(x), segmenter.device)
            for _ in range(args.warm + args.frames)
        ]
        middle = summary(times[args.warm :])['median']
        rate = batch * work / middle * 1e3
        precision = name.rpartition('-')[2]
        known = precision in peak and segmenter.device.type == device.type
        shares[name if batch == 1 else f'{name}, {batch} images'] = {
            'ms': middle,
            'gflops': rate,
            'share_of_peak': rate / peak[precision] if known else None,
        }
    return shares


def markdown(report: dict[str, Any]) -> str:
    """The tables of a report as Markdown."""
    names = list(report['times'][0]['ms'])
    machine = report['machine']
    versions = ', '.join(f'{name} {number}' for name, number in machine['versions'].items())
    lines = [
        f'Model `{report["model"]}`{", random weights" if report["model"] == RANDOM else ""}; '
        f'{benchmark_machine.name_of(machine)}; Python {machine["python"]}, {versions}.',
        '',
        f'| frame | prompts | {" | ".join(names)} |',
        f'|---|---|{"---|" * len(names)}',
    ]
    for row in report['times']:
        first = row['ms'][names[0]]['median']
        cells = []
        for name in names:
            one = row['ms'][name]
            ratio = '' if name == names[0] else f', {first / one["median"]:.2f} ×'
            cells.append(f'{one["median"]:.1f} ({one["low"]:.1f}–{one["high"]:.1f}){ratio}')
        lines.append(
            f'| {row["width"]} × {row["height"]} | {row["prompts"]} | {" | ".join(cells)} |'
        )
    lines += ['', 'Milliseconds: median (first to last decile), times the speed of the first.']
    if report['encoder']:
        lines += [
            '',
            'Peak of matrix products, GFLOP/s: '
            + ', '.join(f'{peak:.0f} in {name}' for name, peak in report['peak'].items())
            + f'. {report["gflop"]["image"]:.2f} GFLOP an image, '
            f'{report["gflop"]["prompt"]:.3f} a prompt.',
            '',
            '| encoder | ms | GFLOP/s | of the peak |',
            '|---|---|---|---|',
        ]
        for name, one in report['encoder'].items():
            share = '' if one['share_of_peak'] is None else f'{one["share_of_peak"]:.0%}'
            lines.append(f'| {name} | {one["ms"]:.1f} | {one["gflops"]:.0f} | {share} |')
    if report['memory']:
        what = 'of the GPU' if machine['gpu'] else 'above imports'
        lines += ['', f'| 4 prompts | peak memory {what}, MiB |', '|---|---|']
        lines += [f'| {name} | {value:.0f} |' for name, value in report['memory'].items()]
    return '\n'.join(lines) + '\n'


def show(report: dict[str, Any]) -> None:
    """Prints the times as a table."""
    machine = report['machine']
    table = Table(title=f'{report["model"]}, {benchmark_machine.name_of(machine)}')
    for heading in ('frame', 'prompts', 'subject', 'median ms', '10–90 %', 'frames/s', 'ratio'):
        table.add_column(heading, justify='left' if heading == 'subject' else 'right')
    for row in report['times']:
        first = next(iter(row['ms'].values()))['median']
        for name, one in row['ms'].items():
            table.add_row(
                f'{row["width"]} × {row["height"]}',
                str(row['prompts']),
                name,
                f'{one["median"]:.1f}',
                f'{one["low"]:.1f}–{one["high"]:.1f}',
                f'{1e3 / one["median"]:.1f}',
                f'{first / one["median"]:.2f} ×',
            )
    Console().print(table)


def count_of_prompts(text: str) -> int:
    """A number of prompts that there are."""
    if not text.isdigit() or not 1 <= int(text) <= len(PROMPTS):
        raise argparse.ArgumentTypeError(f'there are 1 to {len(PROMPTS)} prompts, not {text!r}')
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``speed``."""
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
    """Measures, prints, and writes ``speed.json`` and ``speed.md``."""
    report = measure(args)
    show(report)
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        (args.output / 'speed.json').write_text(json.dumps(report, indent=2) + '\n')
        (args.output / 'speed.md').write_text(markdown(report))
