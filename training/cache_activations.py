"""Cache the activations of the frozen towers, so that training runs need no towers.

    python -m training.cache_activations training/configs/clipseg_pc_plus.yaml runs/activations \
        --epochs 4
    python -m training.train training/configs/clipseg_pc_plus.yaml \
        --set activations=runs/activations

Each epoch is another draw of the augmentations: crops, negatives, support images, captions. Runs
of more epochs see them again. Any run with the same data, prompts and seed can use the folder if
its model reads cached layers only; ``--layers 0,1,2,3`` caches more layers than the model of the
file reads. After an interruption, the same command continues with the shard that was incomplete.
Four processes share the work with ``--part 0/4`` … ``3/4``. ``--bits 8`` takes half the disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clipseg_model.errors import ClipsegError
from clipseg_model.modeling.base import SegmentationModel
from clipseg_model.runtime.devices import resolve_device
from training.datasets.sources import open_source, tell_left_out
from training.loop.activations import KIND, description, taps_of
from training.loop.feeding import DrawnPictures, Load, join
from training.loop.learner import Learner, begin_model, follow_card
from training.loop.packing import Packing, packing_parser, read_part
from training.loop.run_folder import frozen_fingerprint
from training.loop.settings import Settings, load_settings
from training.loop.shards import ActivationsError, Bits, ShardWriter


@torch.inference_mode()
def cache(
    settings: Settings,
    folder: Path,
    epochs: int,
    shard_size: int = 256,
    batch: int = 16,
    part: tuple[int, int] = (0, 1),
    layers: Sequence[int] | None = None,
    bits: Bits = 16,
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
        bits: Of a stored activation; see :meth:`training.loop.shards.ShardWriter.add`.

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
    device = torch.device(str(resolve_device('auto')))
    learner = Learner(model).to(device).eval()
    source = open_source(settings.data)
    tell_left_out(source)
    drawn = DrawnPictures(source, settings.prompts, settings.drawn_by)
    made = description(settings, model.config(), frozen_fingerprint(model), layers)
    kind = {'fp16': torch.float16, 'bf16': torch.bfloat16, 'no': torch.float32}
    cast = torch.autocast(
        device.type, kind[settings.mixed_precision], settings.mixed_precision != 'no'
    )

    def write(writer: ShardWriter, loads: list[Load]) -> None:
        with cast:
            _write(writer, learner, loads, layers, bits)

    def size(load: Load) -> int:
        with cast:
            return _size_of_sample(learner, load, layers, bits)

    Packing(
        folder,
        KIND,
        made if bits == 16 else {**made, 'bits': bits},
        len(source),
        epochs,
        settings.drawn_by,
        drawn.load,
        write,
        size,
        shard_size,
        batch,
        part,
        settings.workers,
    ).run()


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


def _size_of_sample(learner: Learner, load: Load, layers: Sequence[int] | None, bits: Bits) -> int:
    taps, prompts, _, _ = _computed(learner, load, layers)
    scales = 4 * taps[..., 0].numel() if bits == 8 else 0
    # Masks, names and the headers of a tar file come on top.
    return int(bits // 8 * taps.numel() + scales + 4 * prompts.numel()) + 8192


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
    writer: ShardWriter,
    learner: Learner,
    loads: list[Load],
    layers: Sequence[int] | None = None,
    bits: Bits = 16,
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
        writer.add(taps[row], prompts[row], load, grid, layers, bits)


def main() -> None:
    """Run the command line."""
    parser = packing_parser(__doc__)
    parser.add_argument('--batch', type=int, default=16, help='samples in the towers at once')
    parser.add_argument(
        '--layers',
        type=lambda text: [int(layer) for layer in text.split(',')],
        metavar='I,J,…',
        help="blocks to cache, 0-based, for several models (default: those that the file's reads)",
    )
    parser.add_argument(
        '--bits',
        type=int,
        choices=(8, 16),
        default=16,
        help='of a stored activation: 8 takes half the disk, rounded (docs/training.md)',
    )
    parser.add_argument('--init-from', metavar='MODEL', help='as training.train')
    args = parser.parse_args()
    part = read_part(args.part)
    try:
        settings = load_settings(args.config, args.set, init_from=args.init_from)
        cache(
            settings,
            args.folder,
            args.epochs,
            args.shard_size,
            args.batch,
            part,
            args.layers,
            args.bits,
        )
    except ClipsegError as error:
        raise SystemExit(f'{error}') from error


if __name__ == '__main__':
    main()
