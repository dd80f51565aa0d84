"""Render scenes of the tabletop world into arrays that training reads by memory map.

    python -m training.bundled.render_scenes runs/tabletop --split train --scenes 4000

A split is a folder of shards, each ``rgb_K.npy`` (N, S, S, 3) and ``ids_K.npy`` (N, S, S), both
uint8, with ``views_K.json``: per view the scene's seed, its objects and its phrases with the ids
of the objects they are true of. A shard is a pure function of its seeds, so a run that was cut
off goes on where it stopped, and several may run side by side.
"""

from __future__ import annotations

import argparse
import json
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from clipseg_model.files.atomic_files import write_atomically
from tabletop_world.language.phrases import Phrase, absent, describe, describe_unseen_pairs
from tabletop_world.language.vocabulary import UNSEEN_WORDS
from tabletop_world.render.renderer import Renderer
from tabletop_world.scenes.random_scenes import SPLITS, generate_scene
from tabletop_world.scenes.scene import Frame
from tabletop_world.scenes.variation import sensor

#: Phrases true of nothing in the view that are stored with it.
ABSENT_PHRASES = 24
#: Largest number of true phrases stored of one view.
PRESENT_PHRASES = 48


def phrase_record(phrase: Phrase) -> list[Any]:
    """Return a phrase as JSON: text, kind, sorted object ids."""
    return [phrase.text, phrase.kind, sorted(phrase.object_ids)]


def unseen_word_records(frame: Frame, min_fraction: float = 0.003) -> list[list[Any]]:
    """Return every word outside the grammar that is clearly true, or wholly false, of a view."""
    counts = frame.pixel_counts()
    least = min_fraction * frame.instances.size
    records = []
    for word, categories in UNSEEN_WORDS.items():
        ids = [o.id for o in frame.scene.objects if o.category in categories]
        pixels = sum(counts.get(i, 0) for i in ids)
        if pixels == 0 or pixels >= least:
            records.append([word, 'unseen_word', [i for i in ids if i in counts]])
    return records


def view_record(frame: Frame, camera: int, rng: np.random.Generator) -> dict[str, Any]:
    """Return all that training and evaluation need to know of a view besides its pixels."""
    counts = frame.pixel_counts()
    record: dict[str, Any] = {
        'seed': frame.scene.seed,
        'camera': camera,
        'kind': frame.scene.kind,
        'objects': [[o.id, o.category, o.colour, counts.get(o.id, 0)] for o in frame.scene.objects],
        'absent': [phrase_record(p) for p in absent(frame, rng, ABSENT_PHRASES)],
    }
    if frame.scene.split == 'unseen_pairs':
        present = describe_unseen_pairs(frame, rng)
    else:
        present = describe(frame, rng)
        if frame.scene.split not in ('train', 'textured'):
            record['unseen_words'] = unseen_word_records(frame)
    order = rng.permutation(len(present))[:PRESENT_PHRASES]
    record['present'] = [phrase_record(present[i]) for i in order]
    return record


def render_shard(folder: Path, split: str, shard: int, scenes: int, size: int) -> int:
    """Render one shard, unless it is complete already; return its number of views."""
    views_path = folder / f'views_{shard:04d}.json'
    if views_path.exists():
        return len(json.loads(views_path.read_text()))
    rgb, ids, views = [], [], []
    with Renderer(size, size) as renderer:
        for seed in range(shard * scenes, (shard + 1) * scenes):
            scene = generate_scene(seed, split)
            for camera in range(len(scene.cameras)):
                frame = renderer.render(scene, camera, depth=False)
                rng = np.random.default_rng([seed, camera, 77])
                record = view_record(frame, camera, rng)
                if not record['present']:
                    continue
                views.append(record)
                varied = split == 'varied'
                rgb.append(sensor(rng, frame.rgb) if varied else frame.rgb)
                ids.append(frame.instances)
    np.save(folder / f'rgb_{shard:04d}.npy', np.stack(rgb))
    np.save(folder / f'ids_{shard:04d}.npy', np.stack(ids))
    # Written last: it marks the shard as complete.
    write_atomically(views_path, json.dumps(views))
    return len(views)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('output', type=Path, help='folder of the rendered splits')
    parser.add_argument('--split', default='train', help=f'one of {", ".join(SPLITS)}')
    parser.add_argument('--scenes', type=int, required=True, help='number of scenes')
    parser.add_argument('--into', help='folder in the output, that of the split by default')
    parser.add_argument('--first-shard', type=int, default=0, help='shard to begin with')
    parser.add_argument('--shard-scenes', type=int, default=100, help='scenes a shard')
    parser.add_argument('--size', type=int, default=288, help='side of the pictures, pixels')
    parser.add_argument('--workers', type=int, default=os.cpu_count(), help='processes')
    args = parser.parse_args()
    folder: Path = args.output / (args.into or args.split)
    folder.mkdir(parents=True, exist_ok=True)
    shards = range(args.first_shard, args.first_shard + -(-args.scenes // args.shard_scenes))
    with ProcessPoolExecutor(args.workers) as pool:
        jobs = [
            pool.submit(render_shard, folder, args.split, shard, args.shard_scenes, args.size)
            for shard in shards
        ]
        views = 0
        for job in tqdm(as_completed(jobs), total=len(jobs), unit='shard'):
            views += job.result()
    print(f'{folder}: {views} views')


if __name__ == '__main__':
    main()
