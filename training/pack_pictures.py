"""Pack the samples of a run into shards, so that training needs no files of the data set.

    python -m training.pack_pictures training/configs/clipseg_pc_plus.yaml runs/pictures --epochs 4
    python -m training.train training/configs/clipseg_pc_plus.yaml \
        --set shards=https://example.org/pictures

Each epoch is another draw of the crops, negatives, support images and captions. Runs of more epochs
see them again. Any run with the same data and seed can use the shards, whatever its model, size
and captions are. They are WebDataset tar files of PNG, for a folder or a web server. After an
interruption, the same command continues with the shard that was incomplete. Four processes share
the work with ``--part 0/4`` … ``3/4``.
"""

from __future__ import annotations

from pathlib import Path

from clipseg_model.errors import ClipsegError
from training.datasets.sources import open_source, tell_left_out
from training.loop.feeding import DrawnPictures, Place
from training.loop.packed_pictures import KIND, describe, pack
from training.loop.packing import Packing, packing_parser, read_part
from training.loop.settings import Settings, load_settings
from training.loop.shards import ShardWriter

Packed = tuple[Place, dict[str, bytes]]


def pack_pictures(
    settings: Settings,
    folder: Path,
    epochs: int,
    shard_size: int = 256,
    part: tuple[int, int] = (0, 1),
) -> None:
    """Write the shards of a run.

    Args:
        settings: Of the run.
        folder: Where to.
        epochs: Draws of each sample.
        shard_size: Samples of a shard.
        part: Which part of how many of the shards to write.

    Raises:
        ActivationsError: The folder holds another run's, or the disk is too small.
        DataError: The data set, or a record of it, is broken.
    """
    source = open_source(settings.data)
    tell_left_out(source)
    drawn = DrawnPictures(source, settings.prompts, settings.drawn_by)
    Packing(
        folder,
        KIND,
        describe(settings),
        len(source),
        epochs,
        settings.drawn_by,
        _Packer(drawn),
        _write,
        _size,
        shard_size,
        part=part,
        workers=settings.workers,
    ).run()


class _Packer:
    """Packs the sample of a place; loading processes get a copy."""

    def __init__(self, drawn: DrawnPictures) -> None:
        self._drawn = drawn

    def __call__(self, place: Place) -> Packed:
        return place, pack(self._drawn, place)


def _write(writer: ShardWriter, items: list[Packed]) -> None:
    for place, members in items:
        writer.write(place, members)


def _size(item: Packed) -> int:
    # A header for each member of a tar file, which is filled up to blocks.
    return sum(len(content) + 1024 for content in item[1].values())


def main() -> None:
    """Run the command line."""
    args = packing_parser(__doc__).parse_args()
    part = read_part(args.part)
    try:
        settings = load_settings(args.config, args.set)
        pack_pictures(settings, args.folder, args.epochs, args.shard_size, part)
    except ClipsegError as error:
        raise SystemExit(f'{error}') from error


if __name__ == '__main__':
    main()
