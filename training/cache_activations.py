"""Cache the activations of the frozen towers, so that training runs need no towers.

    python -m training.cache_activations training/configs/clipseg_pc_plus.yaml runs/activations \
        --epochs 4
    python -m training.train training/configs/clipseg_pc_plus.yaml \
        --set activations=runs/activations

Each epoch is another draw of the augmentations: crops, negatives, support images, captions. Runs
of more epochs see them again. Any run with the same data, prompts and seed can use the folder if
its model reads cached layers only; ``--layers 0,1,2,3`` caches more layers than the model of the
file reads. After an interruption, the same command continues with the shard that was incomplete.
Four processes share the work with ``--part 0/4`` … ``3/4``.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from clipseg_model.errors import ClipsegError
from clipseg_model.files.atomic_files import write_atomically
from clipseg_model.modeling.base import SegmentationModel
from clipseg_model.runtime.devices import resolve_device
from training.datasets.sources import open_source
from training.loop.activations import DESCRIPTION, description, taps_of
from training.loop.feeding import DrawnPictures, Load, Place, join
from training.loop.learner import Learner, begin_model, follow_card
from training.loop.run_folder import frozen_fingerprint
from training.loop.settings import Settings, load_settings
from training.loop.shards import ActivationsError, ShardWriter, writing


class _Samples(Dataset[list[Load]]):
    def __init__(self, drawn: DrawnPictures, batches: list[list[Place]]) -> None:
        self.drawn, self.batches = drawn, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> list[Load]:
        return [self.drawn.load(place) for place in self.batches[number]]


@torch.inference_mode()
def cache(
    settings: Settings,
    folder: Path,
    epochs: int,
    shard_size: int = 256,
    batch: int = 16,
    part: tuple[int, int] = (0, 1),
    layers: Sequence[int] | None = None,
) -> None:
    """Write the shards of a run.

    Args:
        settings: Of the run.
        folder: Where to.
        epochs: Draws of each sample.
        shard_size: Samples of a shard.
        batch: Samples that pass the towers at once.
        part: Which part of how many of the shards to write.
        layers: Blocks whose activations are written; by default those that the model reads.

    Raises:
        ActivationsError: The folder holds another run's, the disk is too small, a value is beyond
            float16, or there are no such layers.
    """
    settings = follow_card(settings)
    torch.manual_seed(settings.seed)
    model, _ = begin_model(settings)
    if model.config().get('learned_tokens'):
        raise ActivationsError('a model with learned_tokens has no frozen activations to cache')
    if layers is not None:
        layers = check_layers(layers, model)
    device = resolve_device('auto')
    learner = Learner(model).to(device).eval()
    source = open_source(settings.data)
    drawn = DrawnPictures(source, settings.prompts, settings.drawn_by)
    made = description(settings, model.config(), frozen_fingerprint(model), layers)
    made |= {'samples': len(source), 'epochs': epochs, 'shard_size': shard_size, 'order': 'random'}
    _claim(folder, made)
    in_order = [(epoch, index) for epoch in range(epochs) for index in range(len(source))]
    # Shards may be read from end to end, and neighbours in a data set are alike.
    shuffled = np.random.default_rng([settings.drawn_by, epochs]).permutation(len(in_order))
    places = [in_order[position] for position in shuffled]
    starts = range(0, len(places), shard_size)[part[0] :: part[1]]
    kind = {'fp16': torch.float16, 'bf16': torch.bfloat16, 'no': torch.float32}
    cast = torch.autocast(
        device.type, kind[settings.mixed_precision], settings.mixed_precision != 'no'
    )
    missing = [start for start in starts if not _shard(folder, start // shard_size).exists()]
    left = sum(len(places[start : start + shard_size]) for start in missing)
    if left:
        with cast:
            one = _size_of_sample(learner, drawn.load(places[missing[0]]), layers)
        check_room(folder, left, one)
    with tqdm(total=sum(min(shard_size, len(places) - start) for start in starts)) as bar:
        for start in starts:
            path = _shard(folder, start // shard_size)
            mine = places[start : start + shard_size]
            if path.exists():
                bar.update(len(mine))
                continue
            batches = [mine[first : first + batch] for first in range(0, len(mine), batch)]
            loader = DataLoader(
                _Samples(drawn, batches), batch_size=None, num_workers=settings.workers
            )
            with writing(path) as writer:
                for loads in loader:
                    with cast:
                        _write(writer, learner, loads, layers)
                    bar.update(len(loads))


def _claim(folder: Path, made: dict[str, object]) -> None:
    """Write down what the folder holds, or make sure that it holds just that."""
    path = folder / DESCRIPTION
    if path.exists():
        earlier = json.loads(path.read_text(encoding='utf-8'))
        if earlier != json.loads(json.dumps(made)):
            differ = [key for key in made if earlier.get(key) != made[key]]
            raise ActivationsError(
                f'{folder} holds activations of another run (its {", ".join(differ)} differ): '
                'delete it, or write to another folder'
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(made, indent=2))


def check_layers(layers: Sequence[int], model: SegmentationModel) -> list[int]:
    """Return the layers in ascending order; raise ActivationsError where the towers lack them."""
    if model.config()['architecture'] == 'vitseg':
        raise ActivationsError(
            "layers are blocks of CLIP's image tower, and vitseg reads another one: leave them out"
        )
    wanted = sorted(set(layers))
    if not wanted or wanted[0] < 0 or wanted[-1] >= model.backbone.num_blocks:
        raise ActivationsError(
            f'layers {list(layers)} are not all in 0…{model.backbone.num_blocks - 1}, the blocks '
            'of these towers'
        )
    return wanted


def check_room(folder: Path, samples: int, one: int) -> None:
    """Say how much disk samples of ``one`` byte each take; ActivationsError if it is not free."""
    needed, free = samples * one, shutil.disk_usage(folder).free
    what = f'{samples:,} samples of {one / 1e6:.2f} MB take {needed / 1e9:,.1f} GB'
    if needed > free:
        raise ActivationsError(
            f'{what}, and {folder} has {free / 1e9:,.1f} GB free: make room, write to another '
            'folder, cache fewer --epochs or --layers, or share the shards between disks by --part'
        )
    print(f'{what} in {folder}, which has {free / 1e9:,.1f} GB free')


def _shard(folder: Path, number: int) -> Path:
    return folder / f'activations-{number:06d}.tar'


def _size_of_sample(learner: Learner, load: Load, layers: Sequence[int] | None) -> int:
    taps, prompts, _, _ = _computed(learner, load, layers)
    # Masks, names and the headers of a tar file come on top.
    return int(2 * taps.numel() + 4 * prompts.numel()) + 8192


def _computed(
    learner: Learner, load: Load, layers: Sequence[int] | None
) -> tuple[Tensor, Tensor, tuple[int, int], Sequence[int]]:
    """Return taps (B, L, N, C), embeddings (B, 2, E), the grid of tokens, and the layers."""
    if layers is None:
        layers = taps_of(learner.model.config())
        features = learner.features(load)
        tapped, grid = features.taps, features.grid
    else:
        pixels = learner.normalised(load.batch.images)
        tapped, grid = learner.model.backbone.image_tokens(pixels, layers)
    texts, supports = learner.embeddings(load)
    return torch.stack(tapped, 1), torch.stack([texts, supports], 1).float(), grid, layers


def _write(
    writer: ShardWriter, learner: Learner, loads: list[Load], layers: Sequence[int] | None = None
) -> None:
    whole = join(loads)
    tapped, embedded, grid, layers = _computed(learner, whole, layers)
    taps, prompts = tapped.half().cpu().numpy(), embedded.cpu().numpy()
    if not np.isfinite(taps).all():
        raise ActivationsError(
            f'activations of {whole.batch.keys} are beyond the range of float16: these towers '
            'cannot be cached'
        )
    for row, load in enumerate(loads):
        writer.add(taps[row], prompts[row], load, grid, layers)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', type=Path, help='YAML file of the run')
    parser.add_argument('folder', type=Path, help='where the shards go')
    parser.add_argument('--epochs', type=int, default=1, help='draws of each sample')
    parser.add_argument('--shard-size', type=int, default=256, help='samples of a shard')
    parser.add_argument('--batch', type=int, default=16, help='samples in the towers at once')
    parser.add_argument('--part', default='0/1', metavar='I/N', help='this of N parts')
    parser.add_argument(
        '--layers',
        type=lambda text: [int(layer) for layer in text.split(',')],
        metavar='I,J,…',
        help="blocks to cache, 0-based, for several models (default: those that the file's reads)",
    )
    parser.add_argument('--init-from', metavar='MODEL', help='as training.train')
    parser.add_argument('--set', action='append', default=[], metavar='KEY=VALUE')
    args = parser.parse_args()
    try:
        number, count = (int(value) for value in args.part.split('/'))
        if not 0 <= number < count:
            raise ValueError
    except ValueError:
        raise SystemExit(f'--part is I/N with 0 ≤ I < N, such as 0/4, not {args.part}') from None
    try:
        settings = load_settings(args.config, args.set, init_from=args.init_from)
        part = (number, count)
        cache(settings, args.folder, args.epochs, args.shard_size, args.batch, part, args.layers)
    except ClipsegError as error:
        raise SystemExit(f'{error}') from error


if __name__ == '__main__':
    main()
