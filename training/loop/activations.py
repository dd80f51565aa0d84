"""Activations of frozen towers on disk, and how they stand in for pictures in training.

They lie in WebDataset shards: plain tar files in which the members of a sample share a name.

    EPOCH-INDEX.taps.npy        float16 (L, N, C), the activations that the decoder reads
    EPOCH-INDEX.prompts.npy     float32 (2, E), embeddings of the caption and of the prompt image
    EPOCH-INDEX.mask.png        the truth, 8 bit
    EPOCH-INDEX.valid.png       pixels that count; missing where all do
    EPOCH-INDEX.json            key, text, share of the text, token grid, layers

``SHARD.tar.index`` says where in its shard each sample begins, so that any sample can be read at
any time: the order of a run is then the same as without activations. ``activations.json`` says
what was cached. Samples lie in random order, so that :mod:`training.loop.streaming` can read
shards from end to end.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from clipseg_model.errors import ClipsegError
from training.loop.feeding import Load, Place
from training.loop.prompting import PromptBatch
from training.loop.run_folder import write_atomically
from training.loop.settings import Settings

DESCRIPTION = 'activations.json'
#: What reading a damaged sample raises.
DAMAGES = (KeyError, ValueError, cv2.error)


class ActivationsError(ClipsegError):
    """Cached activations are missing, damaged, or of another run."""


def taps_of(config: Mapping[str, Any]) -> list[int]:
    """Returns the blocks whose activations a model reads, -1 for what enters the first.

    ClsCLIP reads one, the last before its prompt enters: what comes after depends on the prompt.

    Args:
        config: Of the model.
    """
    if config['architecture'] == 'clsclip':
        return [config['blocks'][0] - 1]
    return list(config['layers'])


def description(
    settings: Settings,
    config: Mapping[str, Any],
    frozen: str,
    layers: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Returns what activations depend on, apart from the number of epochs.

    Args:
        settings: Of the run.
        config: Of the model; what comes after the taps does not matter.
        frozen: Fingerprint of the towers.
        layers: Blocks that are tapped, where they are not those that the model reads.
    """
    towers = {key: config[key] for key in ('backbone', 'image_tower') if key in config}
    dumped = settings.model_dump(mode='json')
    return {
        'data': dumped['data'],
        'prompts': dumped['prompts'],
        'seed': settings.drawn_by,
        'towers': towers,
        'frozen': frozen,
        'layers': taps_of(config) if layers is None else list(layers),
    }


class ShardWriter:
    """Writes one shard, complete or not at all.

    Args:
        path: The tar file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partial = path.with_name(f'.{path.name}.part')
        self._tar = tarfile.open(self._partial, 'w', format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        self._places: dict[str, int] = {}

    def add(
        self,
        place: Place,
        taps: NDArray[np.float16],
        prompts: NDArray[np.float32],
        load: Load,
        grid: tuple[int, int],
        layers: Sequence[int],
    ) -> None:
        """Adds a sample.

        Args:
            place: Its epoch and index.
            taps: (L, N, C).
            prompts: (2, E), embeddings of caption and prompt image.
            load: The sample, a batch of one.
            grid: Token grid of the taps.
            layers: Blocks that were tapped.
        """
        batch = load.batch
        name = f'{place[0]:04d}-{place[1]:08d}'
        self._places[name] = self._tar.offset
        record = {
            'key': batch.keys[0],
            'text': batch.texts[0],
            'text_weight': float(batch.text_weights[0]),
            'has_support': bool(batch.has_support[0]),
            'class_id': int(batch.class_ids[0]),
            'grid': list(grid),
            'layers': list(layers),
        }
        self._member(f'{name}.taps.npy', _npy(taps))
        self._member(f'{name}.prompts.npy', _npy(prompts))
        self._member(f'{name}.mask.png', _png(batch.masks[0, 0].numpy()))
        if not bool(batch.valid.all()):
            self._member(f'{name}.valid.png', _png(batch.valid[0, 0].numpy()))
        self._member(f'{name}.json', json.dumps(record).encode())

    def close(self) -> None:
        """Gives the shard its name, after its index."""
        self._tar.close()
        write_atomically(index_of(self.path), json.dumps(self._places))
        self._partial.replace(self.path)

    def abandon(self) -> None:
        """Removes what was written."""
        self._tar.close()
        self._partial.unlink(missing_ok=True)

    def _member(self, name: str, content: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        self._tar.addfile(member, io.BytesIO(content))


class CachedActivations:
    """Reads activations at any place, in place of :class:`~training.loop.feeding.DrawnPictures`.

    Args:
        folder: Of :mod:`training.cache_activations`.

    Attributes:
        samples: Number of samples.
        epochs: Draws of each; later epochs see them again.

    Raises:
        ActivationsError: The folder is incomplete.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / DESCRIPTION
        try:
            self._description = json.loads(path.read_text(encoding='utf-8'))
        except (OSError, ValueError) as error:
            raise ActivationsError(
                f'{path} cannot be read ({error}): write the folder with '
                'python -m training.cache_activations'
            ) from error
        self.samples = int(self._description['samples'])
        self.epochs = int(self._description['epochs'])
        self._places: dict[str, tuple[Path, int]] = {}
        for shard in sorted(folder.glob('*.tar')):
            places = json.loads(index_of(shard).read_text(encoding='utf-8'))
            self._places.update({name: (shard, offset) for name, offset in places.items()})
        wanted = self.samples * self.epochs
        if len(self._places) != wanted:
            raise ActivationsError(
                f'{folder} holds {len(self._places)} of {wanted} samples: run '
                'training.cache_activations again, it goes on where it was'
            )

    def check(self, settings: Settings, config: Mapping[str, Any], frozen: str) -> None:
        """Makes sure that the activations are those that a run would make.

        Raises:
            ActivationsError: They are not; says by what.
        """
        check_description(self._description, str(self.folder), settings, config, frozen)

    def load(self, place: Place) -> Load:
        """Reads the sample of a place, a batch of one.

        Raises:
            ActivationsError: Its shard is damaged.
        """
        name = f'{place[0] % self.epochs:04d}-{place[1]:08d}'
        shard, offset = self._places[name]
        members: dict[str, bytes] = {}
        try:
            with shard.open('rb') as file:
                file.seek(offset)
                # The members of a sample lie side by side.
                with tarfile.open(fileobj=file, mode='r:') as tar:
                    while (member := tar.next()) is not None and member.name.startswith(name):
                        content = tar.extractfile(member)
                        assert content is not None
                        members[member.name[len(name) + 1 :]] = content.read()
            return to_load(place, members)
        except (OSError, tarfile.TarError, *DAMAGES) as error:
            raise ActivationsError(
                f'{shard} is damaged at sample {name} ({error!r}): delete it, and run '
                'training.cache_activations again'
            ) from error


def check_description(
    stored: Mapping[str, Any],
    where: str,
    settings: Settings,
    config: Mapping[str, Any],
    frozen: str,
) -> None:
    """Makes sure that activations are those that a run would make; more layers may be there.

    Args:
        stored: Their description.
        where: They are, for messages.
        settings: Of the run.
        config: Of the model.
        frozen: Fingerprint of the towers.

    Raises:
        ActivationsError: They are not; says by what.
    """
    wanted = description(settings, config, frozen)
    if set(wanted['layers']) <= set(stored.get('layers', ())):
        wanted['layers'] = stored['layers']
    differ = [
        f'{key}: {stored.get(key)!r} there, {value!r} here'
        for key, value in wanted.items()
        if stored.get(key) != value
    ]
    if differ:
        raise ActivationsError(
            f'the activations in {where} are of another run ({"; ".join(differ)}): cache '
            'them again, or set activations to null'
        )


def to_load(place: Place, members: Mapping[str, bytes]) -> Load:
    """Makes a batch of one of the members of a sample.

    Args:
        place: Its epoch and index.
        members: Contents by the end of their names, as they lie in a shard.

    Raises:
        KeyError: A member is missing.
        ValueError: One is damaged; or ``cv2.error``.
    """
    record = json.loads(members['json'])
    taps = torch.from_numpy(_array(members['taps.npy']))
    prompts = torch.from_numpy(_array(members['prompts.npy']))
    masks = torch.from_numpy(_pixels(members['mask.png']))[None, None]
    counts = torch.ones_like(masks)
    if 'valid.png' in members:
        counts = torch.from_numpy(_pixels(members['valid.png']))[None, None]
    batch = PromptBatch(
        keys=[record['key']],
        images=torch.zeros(1, 0),
        masks=masks,
        valid=counts > 0.5,
        texts=[record['text']],
        supports=torch.zeros(1, 0),
        has_support=torch.tensor([record['has_support']]),
        text_weights=torch.tensor([record['text_weight']], dtype=torch.float32),
        class_ids=torch.tensor([record['class_id']]),
    )
    height, width = record['grid']
    return Load(
        [place],
        batch,
        taps=[tap[None] for tap in taps],
        grid=(height, width),
        layers=record['layers'],
        texts=prompts[:1],
        supports=prompts[1:],
    )


def index_of(shard: Path) -> Path:
    """Returns the file that says where the samples of a shard are."""
    return shard.with_name(shard.name + '.index')


def _npy(values: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(values), allow_pickle=False)
    return buffer.getvalue()


def _array(content: bytes) -> NDArray[Any]:
    return np.asarray(np.load(io.BytesIO(content), allow_pickle=False))


def _png(plane: NDArray[Any]) -> bytes:
    levels = np.round(np.asarray(plane, np.float32) * 255).astype(np.uint8)
    return bytes(cv2.imencode('.png', levels)[1])


def _pixels(content: bytes) -> NDArray[np.float32]:
    plane = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
    if plane is None:
        raise ValueError('a mask is no PNG')
    return np.asarray(plane, np.float32) / np.float32(255)
