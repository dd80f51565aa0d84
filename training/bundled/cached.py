"""The bundled model's training samples, read from caches of features."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.bundled.crops import LEAST_SHARE
from training.datasets.photographs import HELD_OUT, held_out
from training.datasets.samples import DataError
from training.datasets.tabletop import TabletopViews, draw_texts

OTHER_WORDS: dict[str, tuple[str, ...]] = {
    'airplane': ('plane', 'aeroplane', 'aircraft'),
    'bicycle': ('bike', 'cycle'),
    'motorcycle': ('motorbike',),
    'cell phone': ('phone', 'mobile phone', 'smartphone'),
    'couch': ('sofa',),
    'tv': ('television', 'monitor', 'screen'),
    'dining table': ('table',),
    'potted plant': ('plant', 'houseplant'),
    'person': ('people', 'human', 'someone'),
    'refrigerator': ('fridge',),
    'donut': ('doughnut',),
    'cup': ('mug',),
    'remote': ('remote control',),
    'laptop': ('notebook computer', 'computer'),
    'sports ball': ('ball',),
    'hair drier': ('hair dryer',),
    'suitcase': ('luggage',),
    'stop sign': ('traffic sign',),
    'mouse': ('computer mouse',),
    'keyboard': ('computer keyboard',),
    'backpack': ('rucksack',),
    'microwave': ('microwave oven',),
    'train': ('railway train',),
    'teddy bear': ('stuffed toy',),
    'tie': ('necktie',),
    'cow': ('cattle',),
    'oven': ('stove',),
    'hot dog': ('sausage in a bun',),
    'wrench': ('spanner',),
    'pants': ('trousers',),
    'jumper': ('pullover',),
    'handbag': ('purse',),
}
"""Other words for names, drawn now and then."""

_FORMS = ('{}', '{}', '{}', 'a {}', 'the {}', '{}s', 'a photo of a {}')


def other_words(name: str, rng: np.random.Generator) -> str:
    """Return a name, or now and then other words for it."""
    if name in OTHER_WORDS and rng.random() < 0.3:
        words = OTHER_WORDS[name]
        name = words[rng.integers(len(words))]
    return _FORMS[rng.integers(len(_FORMS))].format(name)


class Cache:
    """A source's crops, by memory map.

    Args:
        folder: Written by :mod:`training.bundled.cache_features`.
        key: Of the weights that train, see ``feature_key``.

    Raises:
        DataError: There is no such cache, or it was made with other weights.
    """

    def __init__(self, folder: Path, key: str) -> None:
        if not (folder / 'key.txt').is_file():
            raise DataError(
                f'{folder} holds no complete cache: make it with '
                'python -m training.bundled.cache_features'
            )
        if (folder / 'key.txt').read_text() != key:
            raise DataError(
                f'{folder} was made with other weights than those that train: make it again with '
                'python -m training.bundled.cache_features'
            )
        self.folder = folder
        self.records: list[dict[str, Any]] = []
        self._where: list[tuple[int, int]] = []
        self._first_mask: list[int] = []
        self._shards: list[dict[str, NDArray[Any]]] = []
        for path in sorted(folder.glob('records_*.json')):
            number = path.stem.split('_')[1]
            parts = ('fine', 'deep', 'likely', 'classes', 'masks')
            self._shards.append(
                {part: np.load(folder / f'{part}_{number}.npy', mmap_mode='r') for part in parts}
            )
            first = 0
            for row, record in enumerate(json.loads(path.read_text())):
                self.records.append(record)
                self._where.append((len(self._shards) - 1, row))
                self._first_mask.append(first)
                first += len(record.get('names', ()))

    def __len__(self) -> int:
        return len(self.records)

    def features(self, index: int) -> list[NDArray[Any]]:
        """Return features at stride 16 and 32, the likeliest classes and their probabilities."""
        shard, row = self._where[index]
        return [self._shards[shard][part][row] for part in ('fine', 'deep', 'likely', 'classes')]

    def mask(self, index: int, name: str, size: int) -> NDArray[np.bool_]:
        """Where a name is seen, bool (size, size)."""
        shard, _ = self._where[index]
        row = self._first_mask[index] + self.records[index]['names'].index(name)
        packed = np.asarray(self._shards[shard]['masks'][row])
        return np.unpackbits(packed).reshape(size, size).astype(bool)


@dataclass
class CachedBatch:
    """B crops with P prompts each, the last of them an image.

    Attributes:
        features: Of the crops: fine, deep, likely, classes.
        supports: Of the prompt images, likewise.
        texts: B × (P − 1) texts, row by row.
        support_texts: B names of what the prompt images show.
        masks: bool (B, P, S, S).
        known: bool (B, P); false where there is no such prompt.
    """

    features: list[Tensor]
    supports: list[Tensor]
    texts: list[str]
    support_texts: list[str]
    masks: Tensor
    known: Tensor


def _stack(items: Sequence[Sequence[NDArray[Any]]]) -> list[Tensor]:
    return [torch.from_numpy(np.stack(column)) for column in zip(*items, strict=True)]


class CachedData:
    """Draws batches from the caches of several sources.

    Args:
        folder: Of the caches.
        weights: How often each source is drawn, relatively; ``views`` are rendered scenes.
        vocabulary: Names that each source labels exhaustively.
        views: Rendered views, where ``views`` are drawn.
        key: See :class:`Cache`.
        size: Side of the crops, pixels.

    Raises:
        DataError: A cache is missing or of other weights, or a source has no vocabulary.
    """

    def __init__(
        self,
        folder: Path,
        weights: Mapping[str, float],
        vocabulary: Mapping[str, Sequence[str]],
        views: Path | None,
        key: str,
        size: int = 288,
    ) -> None:
        self.size = size
        held = set(held_out()['unseen_names']) if HELD_OUT.exists() else set()
        self.vocabulary = {
            source: sorted(set(names) - held) for source, names in vocabulary.items()
        }
        self.sources = [name for name in weights if weights[name] > 0]
        chances = np.array([weights[name] for name in self.sources])
        self.chances = chances / chances.sum()
        self.caches = {name: Cache(folder / name, key) for name in self.sources}
        self.views = TabletopViews(views) if views is not None else None
        self.support_cache = Cache(folder / 'supports', key)
        self.supports: dict[str, list[int]] = defaultdict(list)
        for index, record in enumerate(self.support_cache.records):
            self.supports[record['name']].append(index)
        self.view_support_cache: Cache | None = None
        self.view_supports: dict[tuple[str, ...], list[int]] = defaultdict(list)
        if 'views' in self.sources:
            if self.views is None:
                raise DataError('the source views needs the folder of the rendered views')
            self.view_support_cache = Cache(folder / 'view_supports', key)
            for index, record in enumerate(self.view_support_cache.records):
                self.view_supports[tuple(record['key'])].append(index)
        counts: dict[str, int] = defaultdict(int)
        for source, cache in self.caches.items():
            for record in cache.records:
                for name in record.get('names', ()):
                    counts[name] += 1
                if record.get('exhaustive') and not self.vocabulary.get(record['source']):
                    raise DataError(f'the vocabulary of the source {source!r} is unknown')
        self.counts = counts
        # Names of hand tools and food in jars: hardly ever in COCO's photographs unseen.
        self.strangers = sorted(
            set(self.vocabulary.get('tools', []) + self.vocabulary.get('pantry', []))
            - set(self.vocabulary.get('coco', []))
            - {'hand', 'gun', 'bread', 'egg', 'cheese'}
        )

    def batch(
        self, size: int, texts: int, window: int, visual: bool, rng: np.random.Generator
    ) -> CachedBatch:
        """Draw crops and prompts.

        Args:
            size: B, crops.
            texts: T, texts of each.
            window: Side of the part of each crop that is shown, in tokens; an even number.
            visual: Whether prompt images are wanted.
            rng: Source of the draws.
        """
        features, supports, words, support_words = [], [], [], []
        masks = np.zeros((size, texts + 1, self.size, self.size), bool)
        known = np.ones((size, texts + 1), bool)
        for row in range(size):
            source = self.sources[rng.choice(len(self.sources), p=self.chances)]
            cache = self.caches[source]
            index = int(rng.integers(len(cache)))
            features.append(cache.features(index))
            draw = self._view if source == 'views' else self._photograph
            said, support, word = draw(cache, index, masks[row], known[row], texts, rng)
            words += said
            if support is None:
                known[row, -1] = False
                support = self.support_cache.features(0)
            supports.append(support)
            support_words.append(word)
        features, shown = self._windows(features, masks, window, rng)
        share = shown.mean((2, 3))
        # Cut off but for a rim: neither shown nor absent.
        known &= (share >= LEAST_SHARE) | (share == 0)
        masks = shown
        if not visual:
            supports, support_words = [], []
            masks, known = masks[:, :-1], known[:, :-1]
        return CachedBatch(
            _stack(features),
            _stack(supports),
            words,
            support_words,
            torch.from_numpy(masks),
            torch.from_numpy(known),
        )

    def _windows(
        self,
        features: list[list[NDArray[Any]]],
        masks: NDArray[np.bool_],
        window: int,
        rng: np.random.Generator,
    ) -> tuple[list[list[NDArray[Any]]], NDArray[np.bool_]]:
        grid = features[0][0].shape[0]
        side, pixel = grid // 2, self.size // grid
        shown = np.empty((*masks.shape[:2], window * pixel, window * pixel), bool)
        parts = []
        for row, (fine, deep, likely, classes) in enumerate(features):
            y, x = 2 * rng.integers((grid - window) // 2 + 1, size=2)
            half = (slice(y // 2, (y + window) // 2), slice(x // 2, (x + window) // 2))
            likely, classes = (
                part.reshape(side, side, -1)[half].reshape(-1, part.shape[-1])
                for part in (likely, classes)
            )
            parts.append([fine[y : y + window, x : x + window], deep[half], likely, classes])
            rows = slice(y * pixel, (y + window) * pixel)
            shown[row] = masks[row, :, rows, x * pixel : (x + window) * pixel]
        return parts, shown

    def _photograph(
        self,
        cache: Cache,
        index: int,
        masks: NDArray[np.bool_],
        known: NDArray[np.bool_],
        texts: int,
        rng: np.random.Generator,
    ) -> tuple[list[str], Any, str]:
        record = cache.records[index]
        names = record['names']
        weights = np.array([self.counts[name] ** -0.5 for name in names])
        vocabulary = self.vocabulary[record['source']] if record['exhaustive'] else []
        absent = [n for n in vocabulary if n not in names and n not in record['unknown']]
        strange = record['source'] in ('coco', 'captioned') and self.strangers
        shown = min(len(names), max(1, int(rng.binomial(texts, 0.55)))) if names else 0
        drawn = (
            list(rng.choice(len(names), shown, replace=False, p=weights / weights.sum()))
            if shown
            else []
        )
        words = []
        for place in range(texts):
            if place < len(drawn):
                name = names[drawn[place]]
                masks[place] = cache.mask(index, name, self.size)
            elif strange and (not absent or rng.random() < 0.15):
                name = self.strangers[rng.integers(len(self.strangers))]
                known[place] = name not in names and name not in record['unknown']
            elif absent:
                name = absent[rng.integers(len(absent))]
            elif names:
                name = names[rng.integers(len(names))]
                masks[place] = cache.mask(index, name, self.size)
            else:
                name, known[place] = 'nothing', False
            words.append(other_words(name, rng))
        # A prompt image: of a thing that is there, or of one that is not.
        if names and (not absent or rng.random() < 0.75):
            pool, there = names, True
        else:
            pool, there, weights = absent, False, np.ones(len(absent))
        if not pool:
            return words, None, 'nothing'
        name = pool[rng.choice(len(pool), p=weights / weights.sum())]
        found = [
            support
            for support in self.supports.get(name, ())
            if self.support_cache.records[support]['photo'] != record['photo']
        ]
        if not found:
            return words, None, name
        if there:
            masks[-1] = cache.mask(index, name, self.size)
        return words, self.support_cache.features(found[rng.integers(len(found))]), name

    def _view(
        self,
        cache: Cache,
        index: int,
        masks: NDArray[np.bool_],
        known: NDArray[np.bool_],
        texts: int,
        rng: np.random.Generator,
    ) -> tuple[list[str], Any, str]:
        views, view = self.views, cache.records[index]['view']
        assert views is not None
        assert self.view_support_cache is not None
        words = []
        for place, (text, _, ids) in enumerate(draw_texts(views.records[view], texts, 0.45, rng)):
            masks[place] = views.mask(view, ids)
            words.append(text)
        groups = views.kinds_of_thing(view, 0.002)
        seed = views.records[view]['seed']
        for key in rng.permutation(np.array(list(groups), object)) if groups else ():
            found = [
                support
                for support in self.view_supports.get(tuple(key), ())
                if self.view_support_cache.records[support]['seed'] != seed
            ]
            if found:
                masks[-1] = views.mask(view, groups[tuple(key)])
                support = self.view_support_cache.features(found[rng.integers(len(found))])
                return words, support, f'{key[0]} {key[1].replace("_", " ")}'
        return words, None, 'nothing'
