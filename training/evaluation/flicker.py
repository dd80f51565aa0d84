"""Measure how much smoothing lowers the flicker of masks on a moving camera, and what it delays.

    python -m training.evaluation.flicker tabletop --scenes 12 --seconds 6 --rate 10

A camera circles a table of the test split as the node's demo camera does, with prompts for up to
four things of each scene. The model runs once on each frame; the smoother is then replayed on its
results with each time constant.

flicker: mean change of a mask's area from frame to frame beyond the change of the truth's, as a
    share of the truth's mean area.
lag: delay of the truth, in seconds, at which its mean IoU with the masks is highest (a parabola
    through the best lag and its neighbours).
appears: seconds until half of a mask is on after its thing has appeared (before, the probability
    is 0.2 % everywhere).
switches: changes of presence in 100 frames of a prompt, at the model card's threshold.
restarts: restarts of the average because of motion, in 100 frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from clipseg_model import Segmenter
from clipseg_model.segmentation import Segmentation
from clipseg_model.video.presence import PresenceGate
from clipseg_model.video.smoothing import MAX_GAP, TemporalSmoother
from tabletop_world.language.phrases import describe
from tabletop_world.language.truth import phrase_mask
from tabletop_world.render.live import LiveWorld
from training.console import print_figures, write_figures
from training.evaluation import scripts

#: Smallest and largest share of the first frame that a prompt is true of.
SHARES = (0.005, 0.3)
PROMPTS = 4
#: Logit of what has not appeared yet.
GONE = -6.2

Masks = NDArray[np.bool_]


@dataclass(frozen=True)
class Options:
    """How scenes are filmed, and their clips replayed."""

    seconds: float = 6.0
    rate: float = 10.0  #: frames a second
    width: int = 320  #: pixels
    height: int = 240
    noise: float = 3.0  #: standard deviation of the sensor's, levels of 255
    reset: float = 0.06  #: smoothing_reset of the node
    hysteresis: float = 0.05  #: presence_hysteresis of the node


@dataclass(frozen=True)
class Clip:
    """Frames of a moving camera, with results and truth.

    Attributes:
        images: Frames, uint8 (H, W, 3).
        found: Results of the model on each.
        truth: bool (T, P, H, W).
    """

    images: list[NDArray[np.uint8]]
    found: list[Segmentation]
    truth: Masks


def record(segmenter: Segmenter, seed: int, how: Options) -> Clip | None:
    """Film a scene and run the model on it; return None if no thing is well seen."""
    rng = np.random.default_rng(seed)
    images, found, truth = [], [], []
    with LiveWorld(seed, how.width, how.height, 'orbit', 'test') as world:
        first = world.frame(0.0)
        phrases = scripts.distinct_phrases(
            describe(first, np.random.default_rng(seed)),
            lambda phrase: float(phrase_mask(phrase, first).mean()),
            SHARES,
        )[:PROMPTS]
        if not phrases:
            return None
        for number in range(round(how.seconds * how.rate)):
            frame = world.frame(number / how.rate)
            noisy = frame.rgb + rng.normal(0, how.noise, frame.rgb.shape)
            image = noisy.clip(0, 255).round().astype(np.uint8)
            images.append(image)
            found.append(segmenter.segment(image, [phrase.text for phrase in phrases]))
            truth.append(np.stack([phrase_mask(phrase, frame) for phrase in phrases]))
    return Clip(images, found, np.stack(truth))


def smoothed(
    found: Sequence[Segmentation],
    images: Sequence[NDArray[np.uint8]],
    tau: float,
    how: Options,
) -> tuple[list[Segmentation], int]:
    """Replay the smoother; return its results and how often motion made it start anew."""
    smoother = TemporalSmoother()
    made = [
        smoother.smooth(frame, number / how.rate, image, tau, how.reset)
        for number, (frame, image) in enumerate(zip(found, images, strict=True))
    ]
    return made, smoother.restarts['motion']


def masks_of(found: Sequence[Segmentation]) -> Masks:
    """Return the masks, bool (T, P, H, W), whatever the presence."""
    return np.stack(
        [
            np.stack([result.resized_logits() > result.cut for result in frame.results])
            for frame in found
        ]
    )


def flicker(masks: Masks, truth: Masks) -> list[float]:
    """Return the flicker of each prompt; see the top of this file."""
    area, true_area = masks.mean(axis=(2, 3)), truth.mean(axis=(2, 3))
    beyond = np.abs(np.diff(area, axis=0) - np.diff(true_area, axis=0)).mean(axis=0)
    return list(beyond / true_area.mean(axis=0))


def ious_by_lag(masks: Masks, truth: Masks, most: int) -> NDArray[np.float64]:
    """Return the mean IoU of masks with the truth of 0…``most`` frames before."""
    values = []
    for lag in range(most + 1):
        now, then = masks[most:], truth[most - lag : len(truth) - lag]
        union = (now | then).sum(axis=(2, 3))
        values.append(float(np.mean((now & then).sum(axis=(2, 3)) / np.maximum(union, 1))))
    return np.array(values)


def peak(values: NDArray[np.float64]) -> float:
    """Return where a curve is highest, between its samples."""
    best = int(np.argmax(values))
    if best in (0, len(values) - 1):
        return float(best)
    before, at, after = values[best - 1 : best + 2]
    return best + 0.5 * float(before - after) / float(before - 2 * at + after)


def delays(clip: Clip, tau: float, how: Options) -> list[float]:
    """Return for each prompt the seconds until half of its mask is on."""
    first = clip.found[0]
    gone = [
        replace(result, logits=np.full_like(result.logits, GONE), score=0.0)
        for result in first.results
    ]
    hidden = min(round(5 * tau * how.rate) + 1, 100)
    shown = round(5 * tau * how.rate) + 2
    still = [replace(first, results=gone)] * hidden + [first] * shown
    made, _ = smoothed(still, [clip.images[0]] * len(still), tau, how)
    areas = masks_of(made)[hidden:].sum(axis=(2, 3))
    half = 0.5 * masks_of([first])[0].sum(axis=(1, 2))
    reached = areas >= half
    waits = np.where(reached.any(axis=0), reached.argmax(axis=0), len(areas))
    return [float(wait) / how.rate for wait, area in zip(waits, half, strict=True) if area > 0]


def switches(
    found: Sequence[Segmentation], threshold: float, hysteresis: float, rate: float
) -> float:
    """Return the changes of presence in 100 frames of a prompt."""
    gate = PresenceGate()
    said = [
        [result.presence for result in gate.decide(f, n / rate, threshold, hysteresis).results]
        for n, f in enumerate(found)
    ]
    return 100 * float(np.mean(np.diff(np.array(said).astype(int), axis=0) != 0))


def figures_at(
    clips: Sequence[Clip], tau: float, presence: float, how: Options
) -> dict[str, float]:
    """Return the figures at one time constant."""
    most = min(round((3 * tau + 0.5) * how.rate), round(how.seconds * how.rate) // 2)
    columns: dict[str, list[float]] = {
        key: [] for key in ('flicker', 'iou', 'appears', 'switches', 'steadied', 'restarts')
    }
    curves = []
    for clip in clips:
        made, restarts = smoothed(clip.found, clip.images, tau, how)
        masks = masks_of(made)
        columns['flicker'] += flicker(masks, clip.truth)
        columns['appears'] += delays(clip, tau, how)
        columns['switches'].append(switches(made, presence, 0.0, how.rate))
        columns['steadied'].append(switches(made, presence, how.hysteresis, how.rate))
        columns['restarts'].append(100 * restarts / len(made))
        curves.append(ious_by_lag(masks, clip.truth, most))
        columns['iou'].append(curves[-1][0])
    row = {key: round(float(np.mean(values)), 4) for key, values in columns.items()}
    return {'tau': tau, 'lag': round(peak(np.mean(curves, axis=0)) / how.rate, 3), **row}


def main() -> None:
    """Run the command line."""
    defaults = Options()
    parser = scripts.new_parser(__doc__)
    parser.add_argument('--scenes', type=int, default=12)
    parser.add_argument('--first', type=int, default=0, help='seed of the first scene')
    parser.add_argument('--seconds', type=float, default=defaults.seconds)
    parser.add_argument('--rate', type=float, default=defaults.rate, help='frames a second')
    parser.add_argument('--width', type=int, default=defaults.width)
    parser.add_argument('--height', type=int, default=defaults.height)
    parser.add_argument(
        '--noise', type=float, default=defaults.noise, help='of the sensor, levels of 255'
    )
    parser.add_argument('--taus', type=float, nargs='+', default=[0.0, 0.1, 0.2, 0.3, 0.5])
    parser.add_argument('--reset', type=float, default=defaults.reset, help='smoothing_reset')
    parser.add_argument(
        '--hysteresis', type=float, default=defaults.hysteresis, help='presence_hysteresis'
    )
    scripts.add_device(parser)
    args = parser.parse_args()
    if args.rate * MAX_GAP <= 1:
        parser.error(f'--rate {args.rate:g}: frames more than {MAX_GAP:g} s apart are not averaged')
    how = Options(
        args.seconds,
        args.rate,
        args.width,
        args.height,
        args.noise,
        args.reset,
        args.hysteresis,
    )
    segmenter = scripts.load_segmenter(args)
    seeds = range(args.first, args.first + args.scenes)
    recorded = (record(segmenter, seed, how) for seed in tqdm(seeds, unit='scene'))
    clips = [clip for clip in recorded if clip is not None]
    presence = segmenter.card.presence_threshold
    rows = [figures_at(clips, tau, presence, how) for tau in args.taus]
    prompts = sum(clip.truth.shape[1] for clip in clips)
    print_figures(f'{len(clips)} scenes, {prompts} prompts', rows)
    write_figures(args.output, {'model': args.model, 'rows': rows})


if __name__ == '__main__':
    main()
