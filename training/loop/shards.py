"""Shards of cached activations: WebDataset tar files, written and read.

    EPOCH-INDEX.taps.npy        float16 (L, N, C), the activations that the decoder reads
    EPOCH-INDEX.prompts.npy     float32 (2, E), embeddings of the caption and of the prompt image
    EPOCH-INDEX.mask.png        the truth, 8 bit
    EPOCH-INDEX.valid.png       pixels that count; missing where all do
    EPOCH-INDEX.json            key, text, share of the text, token grid, layers

``SHARD.tar.index`` says where in its shard each sample begins.
"""

from __future__ import annotations

import http.client
import json
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast
from urllib.request import urlopen

import numpy as np
import torch
import webdataset
from numpy.typing import NDArray
from torch import Tensor
from webdataset.tariterators import group_by_keys, tar_file_expander

from clipseg_model.errors import ClipsegError
from clipseg_model.files.atomic_files import replacing, write_atomically
from training.loop.feeding import Load, Place
from training.loop.prompting import PromptBatch

#: Seconds that a server may be silent.
SILENCE = 60.0
#: Seconds before a place on a network is tried again; after the last of them it is given up.
PAUSES = (1.0, 2.0, 4.0)
#: What opening and reading a place on a network may raise.
FAILURES = (OSError, http.client.HTTPException)
_MEMBERS = ('json', 'mask.png', 'prompts.npy', 'taps.npy', 'valid.png')
# Only these members: webdataset would unpickle others.
_decode = webdataset.Decoder([webdataset.imagehandler('l8')], only=_MEMBERS)


class ActivationsError(ClipsegError):
    """Cached activations are missing, damaged, or of another run."""


class ShardWriter:
    """Adds samples to a shard; see :func:`writing`."""

    def __init__(self, tar: webdataset.TarWriter) -> None:
        self._tar = tar
        self.offsets: dict[str, int] = {}

    def add(
        self,
        taps: NDArray[np.float16],
        prompts: NDArray[np.float32],
        load: Load,
        grid: tuple[int, int],
        layers: Sequence[int],
    ) -> None:
        """Add a sample, a batch of one: taps (L, N, C) of ``layers``, prompts (2, E)."""
        batch, name = load.batch, name_of(load.places[0])
        self.offsets[name] = self._tar.tarstream.offset
        members = {
            'taps.npy': taps,
            'prompts.npy': prompts,
            'mask.png': _levels(batch.masks),
            'json': {
                'key': batch.keys[0],
                'text': batch.texts[0],
                'text_weight': float(batch.text_weights[0]),
                'has_support': bool(batch.has_support[0]),
                'class_id': int(batch.class_ids[0]),
                'grid': list(grid),
                'layers': list(layers),
            },
        }
        if not bool(batch.valid.all()):
            members['valid.png'] = _levels(batch.valid)
        self._tar.write({'__key__': name, **members})


@contextmanager
def writing(path: Path) -> Iterator[ShardWriter]:
    """Write a shard and its index, complete or not at all."""
    with replacing(path) as temporary:
        # Equal samples make equal files.
        with temporary.open('wb') as file, webdataset.TarWriter(file, mtime=0) as tar:
            writer = ShardWriter(tar)
            yield writer
        write_atomically(index_of(path), json.dumps(writer.offsets))


def index_of(shard: Path) -> Path:
    """Return the file that says where the samples of a shard are."""
    return shard.with_name(shard.name + '.index')


def name_of(place: Place) -> str:
    """Return the name of a sample in its shard."""
    return f'{place[0]:04d}-{place[1]:08d}'


def read_shard(place: str, count: int, skip: int = 0) -> Iterator[dict[str, Any]]:
    """Yield the samples of a shard in order: undecoded members by suffix, the name as ``__key__``.

    Args:
        place: File, or an address that :func:`open_place` can open. Where a connection breaks, it
            is opened again and read up to the sample that was reached.
        count: Samples that the shard has.
        skip: Samples to leave out at its beginning.

    Raises:
        ActivationsError: The shard is missing, damaged, or has another number of samples.
    """
    seen = skip
    for pause in (*pauses_of(place), None):
        reason = ''
        try:
            with open_place(place) as stream:
                members = tar_file_expander([{'url': place, 'stream': stream}])
                for sample in islice(group_by_keys(members), seen, None):
                    seen += 1
                    yield sample
        except (*FAILURES, ValueError, tarfile.TarError) as error:
            # webdataset adds the stream to the text, and stream and place to the arguments.
            if error.args[-1:] == (place,):
                error.args = error.args[:-2]
            reason = f' ({str(error).partition(" @ ")[0]})'
        if seen == count and not reason:
            return
        # A connection that breaks between two members looks like the end of the shard.
        if pause is None or seen > count:
            break
        time.sleep(pause)
    came = f'{seen} of {count} samples came{reason}'
    if pauses_of(place) and seen <= count:
        raise unreachable(place, came)
    raise _damaged(place, f'or cannot be read: {came}')


def open_place(place: str) -> IO[bytes]:
    """Open a file, an address, or what else webdataset can open.

    A server (http, https) that says nothing for :data:`SILENCE` seconds is an OSError.
    """
    if place.startswith(('http://', 'https://')):
        return cast(IO[bytes], urlopen(place, timeout=SILENCE))
    return cast(IO[bytes], webdataset.gopen(place))


def pauses_of(place: str) -> tuple[float, ...]:
    """Return how many seconds to wait each time before a place is tried again; no file is."""
    return PAUSES if '://' in place else ()


def unreachable(place: str, what: str) -> ActivationsError:
    """Return the error for a place on a network, which may be there another time."""
    return ActivationsError(
        f'{place} cannot be read: {what}. Check the address and the server, then go on with '
        '--resume'
    )


def read_sample(shard: Path, name: str, offset: int) -> dict[str, Any]:
    """Read the sample at ``offset`` bytes, as :func:`read_shard` yields it, or ActivationsError."""
    try:
        with shard.open('rb') as file:
            file.seek(offset)
            members = tar_file_expander([{'url': str(shard), 'stream': file}])
            sample: dict[str, Any] = next(group_by_keys(members))
    except (OSError, ValueError, tarfile.TarError, StopIteration) as error:
        raise _damaged(str(shard), f'at sample {name} ({error!r})') from error
    return sample


def to_load(sample: Mapping[str, Any], where: str) -> Load:
    """Decode a sample of :func:`read_shard` to a batch of one; ActivationsError if damaged."""
    try:
        members = _decode(dict(sample))
        epoch, index = sample['__key__'].split('-')
        record = members['json']
        height, width = record['grid']
        prompts = torch.from_numpy(members['prompts.npy'])
        masks = _plane(members['mask.png'])
        valid = _plane(members['valid.png']) if 'valid.png' in members else torch.ones_like(masks)
        batch = PromptBatch(
            keys=[record['key']],
            images=torch.zeros(1, 0),
            masks=masks,
            valid=valid > 0.5,
            texts=[record['text']],
            supports=torch.zeros(1, 0),
            has_support=torch.tensor([record['has_support']]),
            text_weights=torch.tensor([record['text_weight']], dtype=torch.float32),
            class_ids=torch.tensor([record['class_id']]),
        )
        return Load(
            [(int(epoch), int(index))],
            batch,
            taps=[tap[None] for tap in torch.from_numpy(members['taps.npy'])],
            grid=(height, width),
            layers=record['layers'],
            texts=prompts[:1],
            supports=prompts[1:],
        )
    except (KeyError, ValueError, TypeError, webdataset.DecodingError) as error:
        raise _damaged(where, f'at sample {sample.get("__key__")} ({error!r})') from error


def _damaged(where: str, what: str) -> ActivationsError:
    return ActivationsError(
        f'{where} is damaged {what}. Delete it, and run training.cache_activations again'
    )


def _levels(plane: Tensor) -> NDArray[np.uint8]:
    return (plane[0, 0].float() * 255).round().to(torch.uint8).numpy()


def _plane(levels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(levels.astype(np.float32) / np.float32(255))[None, None]
