"""Measure what reuse of encodings and smaller inputs cost in IoU and save in time.

    python -m training.evaluation.still_camera tabletop --scenes 8 --clips runs/still_camera

A still camera with a noisy sensor looks at tables of the test split, 70 frames each at 10 a second:
nothing happens; an object is put onto the table from above, within a second; nothing happens;
another one is pushed aside slowly, by 3 mm a frame; nothing happens. There are prompts for up to
four things, those that move among them. The settings take turns frame by frame.

ms, ms_reused: mean time of a frame, from the image to its logits and scores, and of those that
    were not encoded.
encoded: share of the frames that were encoded.
iou_fg: intersection over union with the truth, summed over all frames and prompts.
miou: mean IoU over frames and prompts whose thing is there.
moving, miou_moving: share of the frames with something in motion, and miou over those.
kept: mean IoU with the masks of the first setting, where either has any.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from clipseg_model import Segmenter
from clipseg_model.files.atomic_files import replacing
from tabletop_world.language.phrases import describe
from tabletop_world.render.renderer import Renderer
from tabletop_world.scenes.random_scenes import generate_scene
from tabletop_world.scenes.scene import Scene
from training.console import print_figures, write_figures
from training.evaluation import scripts
from training.metrics.pixels import intersection_and_union

WIDTH, HEIGHT = 640, 480
#: Frames of a clip: still, arriving, still, pushed, still.
STAGES = (15, 10, 15, 20, 10)
#: Height above its place from which an object arrives, and length of a push by frame; metres.
ABOVE, STEP = 0.5, 0.003
#: Smallest and largest share of the picture that a thing takes which moves, or has a prompt.
SHARES = (0.004, 0.3)
PROMPTS = 4


@dataclass(frozen=True)
class Clip:
    """Frames of a still camera without noise, with their truth.

    Attributes:
        images: (T, H, W, 3) uint8.
        instances: Object ids, (T, H, W) uint8.
        moving: Whether something is in motion, (T,) bool.
        prompts: Texts.
        object_ids: The objects that each prompt is true of.
    """

    images: NDArray[np.uint8]
    instances: NDArray[np.uint8]
    moving: NDArray[np.bool_]
    prompts: list[str]
    object_ids: list[list[int]]

    def truth(self, frame: int) -> NDArray[np.bool_]:
        """Return the masks of the prompts in a frame, bool (P, H, W)."""
        return np.stack([np.isin(self.instances[frame], ids) for ids in self.object_ids])


@dataclass
class Setting:
    """One way to run the model, and its results."""

    name: str
    segmenter: Segmenter
    seconds: list[float] = field(default_factory=list)
    encoded: list[bool] = field(default_factory=list)
    moving: list[bool] = field(default_factory=list)
    intersection: int = 0
    union: int = 0
    ious: list[float] = field(default_factory=list)
    ious_moving: list[float] = field(default_factory=list)
    kept: list[float] = field(default_factory=list)

    def row(self) -> dict[str, float | str]:
        """Return the figures."""
        reused = [s for s, encoded in zip(self.seconds, self.encoded, strict=True) if not encoded]
        return {
            'setting': self.name,
            'ms': round(1e3 * mean(self.seconds), 2),
            'ms_reused': round(1e3 * mean(reused), 2),
            'encoded': mean(self.encoded),
            'iou_fg': round(self.intersection / max(self.union, 1), 4),
            'miou': mean(self.ious),
            'moving': mean(self.moving),
            'miou_moving': mean(self.ious_moving),
            'kept': mean(self.kept),
        }


def shifted(scene: Scene, offsets: dict[int, tuple[float, float, float]]) -> Scene:
    """Return a scene with objects moved by metres in x, y, z."""
    assert scene.blueprint is not None
    parts = tuple(
        replace(part, mesh=part.mesh.moved(*offsets[part.object_id]))
        if part.object_id in offsets
        else part
        for part in scene.blueprint.parts
    )
    return replace(scene, blueprint=replace(scene.blueprint, parts=parts))


def offsets_by_frame(arriving: int, pushed: int) -> Iterator[dict[int, tuple[float, float, float]]]:
    """Yield the positions of the two objects relative to their places in the scene, by frame."""
    before, arrival, between, push, _ = STAGES
    for frame in range(sum(STAGES)):
        arrived = np.clip((frame - before + 1) / arrival, 0.0, 1.0)
        # Out of sight before it comes: far above.
        height = 50.0 if frame < before else ABOVE * (1 - arrived)
        steps = np.clip(frame - before - arrival - between + 1, 0, push)
        yield {arriving: (0.0, 0.0, float(height)), pushed: (float(STEP * steps), 0.0, 0.0)}


def record(seed: int) -> Clip | None:
    """Film a scene; return None if no two of its things can be moved."""
    scene = generate_scene(seed, 'test', 'tabletop')
    rng = np.random.default_rng(seed)
    with Renderer(WIDTH, HEIGHT) as renderer:
        whole = renderer.render(scene, depth=False)
        share = {i: count / (WIDTH * HEIGHT) for i, count in whole.pixel_counts().items()}
        supports = {thing.support for thing in scene.objects}
        movable = [
            thing.id
            for thing in scene.objects
            if not thing.surface
            and thing.id not in supports
            and SHARES[0] <= share.get(thing.id, 0.0) <= SHARES[1]
        ]
        if len(movable) < 2:
            return None
        arriving, pushed = (int(i) for i in rng.permutation(movable)[:2])
        phrases = scripts.distinct_phrases(
            describe(whole, rng), lambda p: sum(share.get(i, 0.0) for i in p.object_ids), SHARES
        )
        # The things that move come first.
        phrases.sort(key=lambda phrase: not {arriving, pushed} & set(phrase.object_ids))
        del phrases[PROMPTS:]
        images, instances = [], []
        last: dict[int, Any] = {}
        for offsets in offsets_by_frame(arriving, pushed):
            # While the scene stands still, the picture of the frame before is used again.
            if offsets != last:
                frame, last = renderer.render(shifted(scene, offsets), depth=False), offsets
            images.append(frame.rgb)
            instances.append(frame.instances)
    moving = np.repeat([False, True, False, True, False], STAGES)
    return Clip(
        np.stack(images),
        np.stack(instances),
        moving,
        [phrase.text for phrase in phrases],
        [sorted(phrase.object_ids) for phrase in phrases],
    )


def load_clips(folder: Path, seeds: Sequence[int]) -> Iterator[Clip]:
    """Yield clips, and film those that are not in the folder yet."""
    for seed in seeds:
        path = folder / f'{seed}.npz'
        if not path.is_file():
            clip = record(seed)
            if clip is None:
                continue
            asked = json.dumps([clip.prompts, clip.object_ids])
            images, instances, moving = clip.images, clip.instances, clip.moving
            with replacing(path) as part, part.open('wb') as file:
                np.savez_compressed(
                    file, images=images, instances=instances, moving=moving, asked=asked
                )
        with np.load(path) as kept:
            prompts, ids = json.loads(str(kept['asked']))
            yield Clip(kept['images'], kept['instances'], kept['moving'], prompts, ids)


def noisy_frames(clip: Clip, deviation: float, seed: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames of a clip with the noise of a sensor, the same for every setting."""
    rng = np.random.default_rng(seed)
    for image in clip.images:
        noise = rng.standard_normal(image.shape, np.float32) * np.float32(deviation)
        yield (image + noise).round().clip(0, 255).astype(np.uint8)


def mean(values: Sequence[float]) -> float:
    """Return the mean, rounded; NaN if there are no values."""
    return round(float(np.mean(values)), 5) if len(values) else float('nan')


def run_settings(settings: Sequence[Setting], clip: Clip, deviation: float, seed: int) -> None:
    """Run every setting on every frame of a clip, in turns."""
    for setting in settings:
        setting.segmenter.still.forget()
    for number, image in enumerate(noisy_frames(clip, deviation, seed)):
        truth, moving = clip.truth(number), bool(clip.moving[number])
        exact: list[NDArray[np.bool_]] = []
        for setting in settings:
            start = time.perf_counter()
            found = setting.segmenter.segment(image, clip.prompts)
            setting.seconds.append(time.perf_counter() - start)
            setting.encoded.append(not found.reused)
            setting.moving.append(moving)
            masks = [result.mask for result in found.results]
            exact = exact or masks
            for mask, right, first in zip(masks, truth, exact, strict=True):
                common, either = intersection_and_union(mask, right)
                setting.intersection += common
                setting.union += either
                if right.any():
                    setting.ious.append(common / either)
                    if moving:
                        setting.ious_moving.append(common / either)
                same, all_of = intersection_and_union(mask, first)
                if all_of:
                    setting.kept.append(same / all_of)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = scripts.new_parser(__doc__)
    parser.add_argument('--clips', type=Path, required=True, help='folder that clips are kept in')
    parser.add_argument('--scenes', type=int, default=8)
    parser.add_argument('--first', type=int, default=0, help='seed of the first scene')
    parser.add_argument('--noise', type=float, default=3.0, help='of the sensor, levels of 255')
    parser.add_argument('--below', type=float, nargs='*', default=[3.0, 4.0, 6.0, 10.0, 20.0])
    parser.add_argument('--input-sizes', type=int, nargs='*', default=[192, 128])
    scripts.add_device(parser)
    args = parser.parse_args(arguments)
    seeds = range(args.first, args.first + args.scenes)
    options: dict[str, dict[str, Any]] = {'exact': {}}
    options |= {f'reuse_below {below:g}': {'reuse_below': below} for below in args.below}
    options |= {f'input_size {side}': {'input_size': side} for side in args.input_sizes}
    settings = [Setting(name, scripts.load_segmenter(args, **o)) for name, o in options.items()]
    for setting in settings:
        setting.segmenter.warm_up(HEIGHT, WIDTH, PROMPTS)
    count = 0
    for seed, clip in enumerate(tqdm(load_clips(args.clips, seeds), total=len(seeds)), args.first):
        run_settings(settings, clip, args.noise, seed)
        count += 1
    rows = [setting.row() for setting in settings]
    title = f'{count} scenes of {sum(STAGES)} frames, noise {args.noise:g}'
    print_figures(title, rows)
    report = {'model': args.model, 'scenes': count, 'noise': args.noise, 'rows': rows}
    write_figures(args.output, report)


if __name__ == '__main__':
    main()
