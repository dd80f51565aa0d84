"""Writes what the frozen towers make of the training data, for runs that then need no towers.

    python -m training.cache_activations training/configs/clipseg_pc_plus.yaml runs/activations \
        --epochs 4
    python -m training.train training/configs/clipseg_pc_plus.yaml \
        --set activations=runs/activations

Each epoch is another draw of the augmentations: crops, negatives, support images, captions. Runs
of more epochs see them again. The folder serves every run with the same data, prompts, seed and
taps, whatever the decoder. Interrupted, the script goes on with the shard that it was at; with
``--part 0/4`` … ``3/4`` four of them share the work.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from clipseg_model.devices import resolve_device
from clipseg_model.errors import ClipsegError
from training.activations import DESCRIPTION, ActivationsError, ShardWriter, description
from training.feeding import DrawnPictures, Load, Place, join
from training.learner import Learner, begin_model, follow_card
from training.run_folder import frozen_fingerprint, write_atomically
from training.settings import Settings, load_settings
from training.sources import open_source


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
) -> None:
    """Writes the shards of a run.

    Args:
        settings: Of the run.
        folder: Where to.
        epochs: Draws of each sample.
        shard_size: Samples of a shard.
        batch: Samples that pass the towers at once.
        part: Which part of how many of the shards to write.

    Raises:
        ActivationsError: The folder holds those of another run, or a value is beyond float16.
    """
    settings = follow_card(settings)
    torch.manual_seed(settings.seed)
    model, _ = begin_model(settings)
    if model.config().get('learned_tokens'):
        raise ActivationsError('a model with learned_tokens has no frozen activations to cache')
    device = resolve_device('auto')
    learner = Learner(model).to(device).eval()
    source = open_source(settings.data)
    drawn = DrawnPictures(source, settings.prompts, settings.seed)
    made = description(settings, model.config(), frozen_fingerprint(model))
    made |= {'samples': len(source), 'epochs': epochs, 'shard_size': shard_size, 'order': 'random'}
    _claim(folder, made)
    in_order = [(epoch, index) for epoch in range(epochs) for index in range(len(source))]
    # Shards may be read from end to end, and neighbours in a data set are alike.
    shuffled = np.random.default_rng([settings.seed, epochs]).permutation(len(in_order))
    places = [in_order[position] for position in shuffled]
    starts = range(0, len(places), shard_size)[part[0] :: part[1]]
    kind = {'fp16': torch.float16, 'bf16': torch.bfloat16, 'no': torch.float32}
    cast = torch.autocast(
        device.type, kind[settings.mixed_precision], settings.mixed_precision != 'no'
    )
    with tqdm(total=sum(min(shard_size, len(places) - start) for start in starts)) as bar:
        for start in starts:
            path = folder / f'activations-{start // shard_size:06d}.tar'
            mine = places[start : start + shard_size]
            if path.exists():
                bar.update(len(mine))
                continue
            batches = [mine[first : first + batch] for first in range(0, len(mine), batch)]
            loader = DataLoader(
                _Samples(drawn, batches), batch_size=None, num_workers=settings.workers
            )
            writer = ShardWriter(path)
            try:
                for loads in loader:
                    with cast:
                        _write(writer, learner, loads)
                    bar.update(len(loads))
                writer.close()
            except BaseException:
                writer.abandon()
                raise


def _claim(folder: Path, made: dict[str, object]) -> None:
    """Writes down what the folder holds, or makes sure that it holds just that."""
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


def _write(writer: ShardWriter, learner: Learner, loads: list[Load]) -> None:
    whole = join(loads)
    features = learner.features(whole)
    texts, supports = learner.embeddings(whole)
    taps = torch.stack(features.taps, 1).half().cpu().numpy()
    if not np.isfinite(taps).all():
        raise ActivationsError(
            f'activations of {whole.batch.keys} are beyond the range of float16: these towers '
            'cannot be cached'
        )
    prompts = torch.stack([texts, supports], 1).float().cpu().numpy()
    for row, load in enumerate(loads):
        writer.add(load.places[0], taps[row], prompts[row], load, features.grid)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', type=Path, help='YAML file of the run')
    parser.add_argument('folder', type=Path, help='where the shards go')
    parser.add_argument('--epochs', type=int, default=1, help='draws of each sample')
    parser.add_argument('--shard-size', type=int, default=256, help='samples of a shard')
    parser.add_argument('--batch', type=int, default=16, help='samples in the towers at once')
    parser.add_argument('--part', default='0/1', metavar='I/N', help='this of N parts')
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
        cache(settings, args.folder, args.epochs, args.shard_size, args.batch, (number, count))
    except ClipsegError as error:
        raise SystemExit(f'{error}') from error


if __name__ == '__main__':
    main()
