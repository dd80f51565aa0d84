r"""Run the frozen part of the bundled model's image tower once over all that it is trained on.

    python -m training.bundled.cache_features START.safetensors runs/cache photos \
        --annotations photos/instances.json --images photos/images
    python -m training.bundled.cache_features START.safetensors runs/cache views \
        --views runs/tabletop/train

A cache is a folder for each source with shards of crops: features at stride 16 and 32 and the
likeliest ImageNet classes (float16), masks (packed bits) and records (JSON). ``key.txt`` says which
weights it was made with; training refuses a cache of others.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from clipseg_model.prompting.visual_prompt import visual_prompt
from clipseg_model.registry import load_model
from tabletop_world.scenes.variation import sensor
from training.bundled.crops import background, crop, paste
from training.datasets.photographs import Photograph, PhotographFile, held_out, training_numbers
from training.datasets.tabletop import TabletopViews

SIZE = 288
"""Side of a crop, pixels."""
SUPPORT_SIZE = 160
"""Side of a prompt image, pixels."""
TOP_CLASSES = 32
SHARD = 250
CROPS = {
    'coco': 12,
    'pantry': 5,
    'clothing': 2,
    'tools': 1,
    'cocoperson': 2,
    'cocopartial': 2,
    'balloon': 2,
}
"""Crops of each photograph, by source; two where a source is not listed."""
DONORS = ('coco', 'coco', 'coco', 'pantry', 'pantry', 'tools', 'balloon')
"""Sources whose objects are pasted, as often as they are listed; all where a file has none of
them."""


def feature_key(backbone: nn.Module) -> str:
    """Return a digest of the weights that features are made with."""
    digest = hashlib.sha256()
    for part in ('stem', 'deep'):
        for name, tensor in sorted(getattr(backbone, part).state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


@torch.inference_mode()
def features(backbone: Any, images: list[Any], pooled: bool) -> dict[str, Any]:
    """Compute features of pictures of one size, uint8 (S, S, 3) each, as float16 arrays."""
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    mean = torch.tensor(backbone.mean).view(3, 1, 1)
    std = torch.tensor(backbone.std).view(3, 1, 1)
    fine = backbone.stem((pixels - mean) / std)
    deep = backbone.deep(fine)
    likely: Tensor = backbone.deep.probabilities(deep, pooled=pooled)
    best = likely.topk(TOP_CLASSES, -1)
    return {
        'fine': fine.permute(0, 2, 3, 1).half().numpy(),
        'deep': deep.permute(0, 2, 3, 1).half().numpy(),
        'likely': best.values.half().numpy(),
        'classes': best.indices.short().numpy(),
    }


def write_shards(
    folder: Path,
    backbone: Any,
    samples: Iterable[tuple[Any, list[Any], dict[str, Any]]],
    pooled: bool = False,
) -> int:
    """Write samples (picture, masks, record) as shards; return their number."""
    folder.mkdir(parents=True, exist_ok=True)
    count, waiting = 0, []
    for sample in samples:
        waiting.append(sample)
        if len(waiting) == SHARD:
            _write_shard(folder, count // SHARD, backbone, waiting, pooled)
            count += len(waiting)
            waiting = []
    if waiting:
        _write_shard(folder, count // SHARD, backbone, waiting, pooled)
    (folder / 'key.txt').write_text(feature_key(backbone))
    return count + len(waiting)


def _write_shard(folder: Path, number: int, backbone: Any, samples: Any, pooled: bool) -> None:
    parts: dict[str, list[Any]] = {}
    for start in range(0, len(samples), 8):
        made = features(backbone, [image for image, _, _ in samples[start : start + 8]], pooled)
        for name, array in made.items():
            parts.setdefault(name, []).append(array)
    for name, arrays in parts.items():
        np.save(folder / f'{name}_{number:03d}.npy', np.concatenate(arrays))
    masks = [np.packbits(mask) for _, known, _ in samples for mask in known]
    empty = np.zeros((0, samples[0][0].shape[0] ** 2 // 8), np.uint8)
    np.save(folder / f'masks_{number:03d}.npy', np.stack(masks) if masks else empty)
    records = [record for _, _, record in samples]
    (folder / f'records_{number:03d}.json').write_text(json.dumps(records))


def _sample(photo: Photograph) -> tuple[Any, list[Any], dict[str, Any]]:
    record = {
        'photo': photo.name,
        'source': photo.source,
        'names': list(photo.masks),
        'unknown': sorted(photo.unknown),
        'exhaustive': bool(photo.vocabulary),
    }
    return photo.image, list(photo.masks.values()), record


def photo_crops(
    file: PhotographFile, source: str, crops: int, seed: int
) -> Iterator[tuple[Any, list[Any], dict[str, Any]]]:
    """Yield crops of a source's photographs, some with objects of other photographs pasted in."""
    held = held_out()
    rng = np.random.default_rng(seed)
    for number in tqdm(list(training_numbers(file, source, held)), desc=source, mininterval=10):
        photo = file.read(number, held['unseen_names'])
        for index in range(crops):
            yield _sample(crop(photo, SIZE, rng, (0.95, 1.0) if index == 0 else (0.45, 0.95)))


def pasted(
    file: PhotographFile, backgrounds: list[Path], count: int, seed: int
) -> Iterator[tuple[Any, list[Any], dict[str, Any]]]:
    """Yield objects of all sources pasted into photographs of COCO, labelled ones or not."""
    held = held_out()
    rng = np.random.default_rng(seed)
    numbers = {source: list(training_numbers(file, source, held)) for source in file.vocabulary}
    donors = [source for source in DONORS if numbers.get(source)] or list(numbers)
    rooms = numbers.get('coco') or [n for source in donors for n in numbers[source]]

    def draw(among: list[int]) -> Photograph:
        return file.read(among[rng.integers(len(among))], held['unseen_names'])

    for _ in tqdm(range(count), desc='pasted', mininterval=10):
        if backgrounds and rng.random() < 0.35:
            photo = background(backgrounds[rng.integers(len(backgrounds))], SIZE, rng)
        else:
            photo = crop(draw(rooms), SIZE, rng, (0.5, 1.0))
        for _ in range(rng.integers(1, 4)):
            paste(photo, draw(numbers[donors[rng.integers(len(donors))]]), rng)
        if photo.masks:
            yield _sample(photo)


def supports(
    file: PhotographFile, seed: int, each: int = 40
) -> Iterator[tuple[Any, list[Any], dict[str, Any]]]:
    """Prompt images: the largest object of a name in a photograph, ``each`` of a name at most."""
    held = held_out()
    rng = np.random.default_rng(seed)
    seen: dict[str, int] = {}
    numbers = [n for source in file.vocabulary for n in training_numbers(file, source, held)]
    for number in tqdm(rng.permutation(numbers).tolist(), desc='supports', mininterval=10):
        photo = file.read(number, held['unseen_names'])
        for name in photo.masks:
            areas = [m.mean() if n == name else 0 for n, m in photo.objects]
            best = int(np.argmax(areas))
            if areas[best] < 0.01 or seen.get(name, 0) >= each:
                continue
            seen[name] = seen.get(name, 0) + 1
            image = visual_prompt(photo.image, photo.objects[best][1], SUPPORT_SIZE)
            yield image, [], {'photo': photo.name, 'name': name}


def view_samples(
    views: TabletopViews, seed: int
) -> Iterator[tuple[Any, list[Any], dict[str, Any]]]:
    """Yield rendered views, half of them as a cheap sensor does; masks stay in files."""
    rng = np.random.default_rng(seed)
    for view in tqdm(range(len(views)), desc='views', mininterval=10):
        rgb = np.array(views.rgb(view))
        yield sensor(rng, rgb) if rng.random() < 0.5 else rgb, [], {'view': view}


def view_supports(
    views: TabletopViews, count: int, seed: int
) -> Iterator[tuple[Any, list[Any], dict[str, Any]]]:
    """Prompt images of rendered things."""
    rng = np.random.default_rng(seed)
    keys = sorted(views.supports)
    for index in tqdm(range(count), desc='view supports', mininterval=10):
        key = keys[index % len(keys)]
        rows = views.supports[key]
        view = rows[rng.integers(len(rows))]
        ids = views.kinds_of_thing(view, 0.01)[key]
        areas = np.bincount(views.ids(view).ravel(), minlength=256)
        mask = views.mask(view, [max(ids, key=lambda i: areas[i])])
        image = visual_prompt(np.asarray(views.rgb(view)), mask, SUPPORT_SIZE)
        yield image, [], {'seed': views.records[view]['seed'], 'key': list(key)}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('start', type=Path, help='model whose frozen features are cached')
    parser.add_argument('output', type=Path, help='folder of the cache')
    parser.add_argument('what', choices=['photos', 'pasted', 'supports', 'views'])
    parser.add_argument('--annotations', type=Path, help="file in COCO's instance format")
    parser.add_argument('--images', type=Path, help='folder of its pictures')
    parser.add_argument('--sources', nargs='*', help='sources of the file, all by default')
    parser.add_argument('--backgrounds', type=Path, help='folder of pictures to paste into')
    parser.add_argument('--views', type=Path, help='folder of a rendered split')
    parser.add_argument('--count', type=int, default=2500, help='pictures to paste into')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    backbone = load_model(args.start)[0].backbone
    out = args.output
    if args.what == 'views':
        views = TabletopViews(args.views)
        print(write_shards(out / 'views', backbone, view_samples(views, args.seed)))
        made = view_supports(views, 1200, args.seed)
        print(write_shards(out / 'view_supports', backbone, made, pooled=True))
        return
    file = PhotographFile(args.annotations, args.images)
    if args.what == 'photos':
        for source in args.sources or file.vocabulary:
            crops = photo_crops(file, source, CROPS.get(source, 2), args.seed)
            print(source, write_shards(out / (source or 'photos'), backbone, crops))
    elif args.what == 'pasted':
        places = sorted(args.backgrounds.iterdir()) if args.backgrounds else []
        made = pasted(file, places, args.count, args.seed)
        print(write_shards(out / 'pasted', backbone, made))
    else:
        print(write_shards(out / 'supports', backbone, supports(file, args.seed), pooled=True))


if __name__ == '__main__':
    main()
