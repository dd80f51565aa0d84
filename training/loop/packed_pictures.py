"""Samples of a data set in shards: pictures and records, with all that is drawn from other samples.

    EPOCH-INDEX.image.png           the picture, as it was cropped
    EPOCH-INDEX.mask.png            where the phrase is true, 8 bit
    EPOCH-INDEX.valid.png           pixels that count; missing where all do
    EPOCH-INDEX.alpha.npy           float32, of a matte
    EPOCH-INDEX.support.png         the support picture, and support_mask.png; missing where none is
    EPOCH-INDEX.json                key, phrase, class, and the random generator after the drawing

With its generator, a sample becomes the same batch as without shards, whatever the captions and the
size of a run are.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.datasets import sources
from training.datasets.samples import Sample, Support, sample_rng
from training.loop.feeding import DrawnPictures, Load, Place
from training.loop.prompting import PromptSettings, make_batch
from training.loop.settings import Settings
from training.loop.shards import ActivationsError, damaged

KIND = 'pictures'
"""What such shards are called."""


#: What members that are not as they were written raise.
_DAMAGE = (KeyError, ValueError, TypeError, OSError, SyntaxError, Image.DecompressionBombError)


def describe(settings: Settings) -> dict[str, Any]:
    """Return all that the samples of a run depend on, wherever its files lie."""
    return {
        'data': sources.without_places(settings.model_dump(mode='json')['data']),
        'seed': settings.drawn_by,
    }


def check(stored: Mapping[str, Any], where: str, settings: Settings) -> None:
    """Make sure that samples ``stored`` at ``where`` are those that a run would draw.

    Raises:
        ActivationsError: They are not; says by what.
    """
    differ = [
        f'{key}: {stored.get(key)!r} there, {value!r} here'
        for key, value in describe(settings).items()
        if stored.get(key) != value
    ]
    if differ:
        raise ActivationsError(
            f'the pictures in {where} are of another run ({"; ".join(differ)}): pack them again, '
            'or set shards to null'
        )


def pack(drawn: DrawnPictures, place: Place) -> dict[str, bytes]:
    """Draw a sample, and return the members that it is kept as."""
    rng = sample_rng(drawn.seed, *place)
    sample = drawn.source.draw(place[1], rng)
    record = {
        'key': sample.key,
        'phrase': sample.phrase,
        'class_id': sample.class_id,
        'negative': sample.negative,
        'support': None if sample.support is None else sample.support.key,
        'generator': rng.bit_generator.state,
    }
    members = {'image.png': _png(sample.image), 'mask.png': _png(sample.mask)}
    if sample.valid is not None:
        members['valid.png'] = _png(sample.valid)
    if sample.alpha is not None:
        content = io.BytesIO()
        np.save(content, sample.alpha)
        members['alpha.npy'] = content.getvalue()
    if sample.support is not None:
        members['support.png'] = _png(sample.support.image)
        members['support_mask.png'] = _png(sample.support.mask)
    members['json'] = json.dumps(record).encode()
    return members


def unpack(members: Mapping[str, Any], where: str, prompts: PromptSettings) -> Load:
    """Make a batch of one of the members of a sample; ActivationsError where they are damaged."""
    try:
        epoch, index = members['__key__'].split('-')
        record = json.loads(members['json'])
        rng = np.random.default_rng()
        rng.bit_generator.state = record['generator']
        support = None
        if record['support'] is not None:
            image, mask = _pixels(members['support.png']), _mask(members['support_mask.png'])
            support = Support(record['support'], image, mask)
        alpha = members.get('alpha.npy')
        sample = Sample(
            record['key'],
            record['phrase'],
            _pixels(members['image.png']),
            _mask(members['mask.png']),
            _mask(members['valid.png']) if 'valid.png' in members else None,
            support,
            record['class_id'],
            record['negative'],
            None if alpha is None else np.load(io.BytesIO(alpha), allow_pickle=False),
        )
        return Load([(int(epoch), int(index))], make_batch([sample], prompts, rng))
    except _DAMAGE as error:
        raise damaged(where, f'at sample {members.get("__key__")} ({error!r})', KIND) from error


def _png(values: NDArray[Any]) -> bytes:
    content = io.BytesIO()
    levels = values.astype(np.uint8) * np.uint8(255) if values.dtype == bool else values
    Image.fromarray(levels).save(content, format='PNG', compress_level=4)
    return content.getvalue()


def _pixels(content: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(content), formats=['PNG']) as image:
        return np.array(image)


def _mask(content: bytes) -> NDArray[np.bool_]:
    return _pixels(content) > 127
