"""Measures how much smoothing lowers the flicker of masks on a moving camera, and what it delays.

    python -m training.evaluation.flicker tabletop --scenes 12 --seconds 6 --rate 10

A camera circles a table of the test split as the node's demo camera does; up to four things of each
scene are asked for. The model runs once on each frame; the smoother is then replayed on what it
found with each time constant.

flicker: mean change of a mask's area from frame to frame beyond the change of the truth's, as a
    share of the truth's mean area.
lag: by how many seconds the truth has to be moved back to overlap best with the masks (mean IoU
    over the frames, a parabola through the best lag and its neighbours).
appears: seconds until half of a mask is there after its thing has appeared (before, the model has
    said 0.2 % everywhere).
switches: changes of presence in 100 frames of a prompt, at the model card's threshold.
restarts: of the average because of motion, in 100 frames.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from clipseg_model import Segmenter, create_model
from clipseg_model.segmentation import Segmentation
from clipseg_model.video.presence import PresenceGate
from clipseg_model.video.smoothing import MAX_GAP, TemporalSmoother
from tabletop_world.language.phrases import Phrase, describe
from tabletop_world.language.truth import phrase_mask
from tabletop_world.render.live import LiveWorld

#: Share of the picture that what is asked for takes in the first frame.
SHARES = (0.005, 0.3)
PROMPTS = 4
#: What is not there yet, as a logit.
GONE = -6.2

Masks = NDArray[np.bool_]


@dataclass(frozen=True)
class Clip:
    """What a moving camera saw.

    Attributes:
        images: Frames, uint8 (H, W, 3).
        found: What the model found in each.
        truth: (T, P, H, W).
    """

    images: list[NDArray[np.uint8]]
    found: list[Segmentation]
    truth: Masks


def choose_phrases(frame: Any, seed: int) -> list[Phrase]:
    """Returns names of different things that are well seen."""
    chosen: dict[tuple[int, ...], Phrase] = {}
    for phrase in describe(frame, np.random.default_rng(seed)):
        ids = tuple(sorted(phrase.object_ids))
        share = phrase_mask(phrase, frame).mean()
        if phrase.kind in ('name', 'colour') and SHARES[0] <= share <= SHARES[1]:
            chosen.setdefault(ids, phrase)
    return list(chosen.values())[:PROMPTS]


def record(segmenter: Segmenter, seed: int, args: argparse.Namespace) -> Clip | None:
    """Films a scene and runs the model on it; None where nothing is there to ask for."""
    rng = np.random.default_rng(seed)
    images, found, truth = [], [], []
    with LiveWorld(seed, args.width, args.height, 'orbit', 'test') as world:
        phrases = choose_phrases(world.frame(0.0), seed)
        if not phrases:
            return None
        for number in range(round(args.seconds * args.rate)):
            frame = world.frame(number / args.rate)
            noisy = frame.rgb + rng.normal(0, args.noise, frame.rgb.shape)
            image = noisy.clip(0, 255).round().astype(np.uint8)
            images.append(image)
            found.append(segmenter.segment(image, [phrase.text for phrase in phrases]))
            truth.append(np.stack([phrase_mask(phrase, frame) for phrase in phrases]))
    return Clip(images, found, np.stack(truth))


def smoothed(
    found: Sequence[Segmentation], images: Sequence[NDArray[np.uint8]], tau: float, args: Any
) -> tuple[list[Segmentation], int]:
    """Replays the smoother; returns what it made and how often motion had it start anew."""
    smoother = TemporalSmoother()
    made = [
        smoother.smooth(frame, number / args.rate, image, tau, args.reset)
        for number, (frame, image) in enumerate(zip(found, images, strict=True))
    ]
    return made, smoother.restarts['motion']


def masks_of(found: Sequence[Segmentation]) -> Masks:
    """Returns (T, P, H, W), whatever the presence."""
    return np.stack(
        [
            np.stack([result.resized_logits() > result.cut for result in frame.results])
            for frame in found
        ]
    )


def flicker(masks: Masks, truth: Masks) -> list[float]:
    """Returns the flicker of each prompt; see the top of this file."""
    area, true_area = masks.mean(axis=(2, 3)), truth.mean(axis=(2, 3))
    beyond = np.abs(np.diff(area, axis=0) - np.diff(true_area, axis=0)).mean(axis=0)
    return list(beyond / true_area.mean(axis=0))


def overlaps(masks: Masks, truth: Masks, most: int) -> NDArray[np.float64]:
    """Returns the mean IoU of masks with the truth of 0…``most`` frames before."""
    values = []
    for lag in range(most + 1):
        now, then = masks[most:], truth[most - lag : len(truth) - lag]
        union = (now | then).sum(axis=(2, 3))
        values.append(float(np.mean((now & then).sum(axis=(2, 3)) / np.maximum(union, 1))))
    return np.array(values)


def peak(values: NDArray[np.float64]) -> float:
    """Returns where a curve is highest, between its samples."""
    best = int(np.argmax(values))
    if best in (0, len(values) - 1):
        return float(best)
    before, at, after = values[best - 1 : best + 2]
    return best + 0.5 * float(before - after) / float(before - 2 * at + after)


def appearing(clip: Clip, tau: float, args: argparse.Namespace) -> list[float]:
    """Returns for each prompt the seconds until half of its mask is there."""
    first = clip.found[0]
    gone = [
        replace(result, logits=np.full_like(result.logits, GONE), score=0.0)
        for result in first.results
    ]
    hidden = min(round(5 * tau * args.rate) + 1, 100)
    shown = round(5 * tau * args.rate) + 2
    still = [replace(first, results=gone)] * hidden + [first] * shown
    made, _ = smoothed(still, [clip.images[0]] * len(still), tau, args)
    areas = masks_of(made)[hidden:].sum(axis=(2, 3))
    half = 0.5 * masks_of([first])[0].sum(axis=(1, 2))
    reached = areas >= half
    waits = np.where(reached.any(axis=0), reached.argmax(axis=0), len(areas))
    return [float(wait) / args.rate for wait, area in zip(waits, half, strict=True) if area > 0]


def switches(
    found: Sequence[Segmentation], threshold: float, hysteresis: float, args: argparse.Namespace
) -> float:
    """Returns changes of presence in 100 frames of a prompt."""
    gate = PresenceGate()
    said = [
        [result.presence for result in gate.decide(f, n / args.rate, threshold, hysteresis).results]
        for n, f in enumerate(found)
    ]
    return 100 * float(np.mean(np.diff(np.array(said).astype(int), axis=0) != 0))


def measure(clips: Sequence[Clip], tau: float, presence: float, args: Any) -> dict[str, float]:
    """Returns the figures at one time constant."""
    most = min(round((3 * tau + 0.5) * args.rate), round(args.seconds * args.rate) // 2)
    columns: dict[str, list[float]] = {
        key: [] for key in ('flicker', 'iou', 'appears', 'switches', 'steadied', 'restarts')
    }
    curves = []
    for clip in clips:
        made, restarts = smoothed(clip.found, clip.images, tau, args)
        masks = masks_of(made)
        columns['flicker'] += flicker(masks, clip.truth)
        columns['appears'] += appearing(clip, tau, args)
        columns['switches'].append(switches(made, presence, 0.0, args))
        columns['steadied'].append(switches(made, presence, args.hysteresis, args))
        columns['restarts'].append(100 * restarts / len(made))
        curves.append(overlaps(masks, clip.truth, most))
        columns['iou'].append(curves[-1][0])
    row = {key: round(float(np.mean(values)), 4) for key, values in columns.items()}
    return {'tau': tau, 'lag': round(peak(np.mean(curves, axis=0)) / args.rate, 3), **row}


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('model', help='name of a model, or a checkpoint')
    parser.add_argument('--scenes', type=int, default=12)
    parser.add_argument('--first', type=int, default=0, help='seed of the first scene')
    parser.add_argument('--seconds', type=float, default=6.0)
    parser.add_argument('--rate', type=float, default=10.0, help='frames a second')
    parser.add_argument('--width', type=int, default=320)
    parser.add_argument('--height', type=int, default=240)
    parser.add_argument('--noise', type=float, default=3.0, help='of the sensor, levels of 255')
    parser.add_argument('--taus', type=float, nargs='+', default=[0.0, 0.1, 0.2, 0.3, 0.5])
    parser.add_argument('--reset', type=float, default=0.06, help='smoothing_reset')
    parser.add_argument('--hysteresis', type=float, default=0.05, help='presence_hysteresis')
    parser.add_argument('--device', default='auto')
    parser.add_argument('--threads', type=int, help='threads of the model on a CPU')
    parser.add_argument('--output', type=Path, help='JSON file for the figures')
    args = parser.parse_args()
    if args.rate * MAX_GAP <= 1:
        parser.error(f'--rate {args.rate:g}: frames more than {MAX_GAP:g} s apart are not averaged')
    segmenter = create_model(args.model, device=args.device, threads=args.threads)
    seeds = range(args.first, args.first + args.scenes)
    recorded = (record(segmenter, seed, args) for seed in tqdm(seeds, unit='scene'))
    clips = [clip for clip in recorded if clip is not None]
    presence = segmenter.card.presence_threshold
    rows = [measure(clips, tau, presence, args) for tau in args.taus]
    table = Table(title=f'{len(clips)} scenes, {sum(c.truth.shape[1] for c in clips)} prompts')
    for key in rows[0]:
        table.add_column(key, justify='right')
    for row in rows:
        table.add_row(*(f'{value:g}' for value in row.values()))
    Console().print(table)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps({'model': args.model, 'rows': rows}, indent=2) + '\n')


if __name__ == '__main__':
    main()
