"""The tabletop world as training samples: a view, text prompts and one support image."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipseg_model.visual_prompt import visual_prompt

#: Relative frequency of each kind among the true phrases that are drawn.
KIND_WEIGHTS = {
    'name': 1.0,
    'colour': 1.2,
    'attribute': 0.6,
    'relation': 0.7,
    'affordance': 1.0,
    'surface': 0.4,
}
#: Smallest share of its picture that an object fills where it serves as support.
SUPPORT_FRACTION = 0.01


class TabletopViews:
    """A rendered split: pictures by memory map, records in memory.

    Args:
        folder: Folder written by :mod:`training.datasets.tabletop_render`.

    Raises:
        FileNotFoundError: If the folder holds no complete shard.
    """

    def __init__(self, folder: Path) -> None:
        self.records: list[dict[str, Any]] = []
        self._where: list[tuple[int, int]] = []
        self._rgb: list[NDArray[np.uint8]] = []
        self._ids: list[NDArray[np.uint8]] = []
        for path in sorted(folder.glob('views_*.json')):
            number = path.stem.split('_')[1]
            records = json.loads(path.read_text())
            self._where += [(len(self._rgb), row) for row in range(len(records))]
            self.records += records
            self._rgb.append(np.load(folder / f'rgb_{number}.npy', mmap_mode='r'))
            self._ids.append(np.load(folder / f'ids_{number}.npy', mmap_mode='r'))
        if not self.records:
            raise FileNotFoundError(
                f'{folder} holds no rendered views: make them with '
                f'`python -m training.datasets.tabletop_render {folder.parent} '
                f'--split {folder.name} --scenes 100`'
            )
        self.size = self._rgb[0].shape[1]
        self.supports = self._index_supports()

    def __len__(self) -> int:
        return len(self.records)

    def rgb(self, view: int) -> NDArray[np.uint8]:
        """Returns the picture of a view, uint8 (S, S, 3)."""
        shard, row = self._where[view]
        return self._rgb[shard][row]

    def ids(self, view: int) -> NDArray[np.uint8]:
        """Returns the object ids of a view, uint8 (S, S)."""
        shard, row = self._where[view]
        return self._ids[shard][row]

    def mask(self, view: int, object_ids: list[int]) -> NDArray[np.bool_]:
        """Returns where any of these objects is seen, bool (S, S)."""
        table = np.zeros(256, bool)
        table[object_ids] = True
        return table[self.ids(view)]

    def kinds_of_thing(self, view: int, fraction: float) -> dict[tuple[str, str], list[int]]:
        """Returns object ids by (colour, category), of items that fill enough of the view."""
        groups: dict[tuple[str, str], list[int]] = defaultdict(list)
        pixels: dict[tuple[str, str], int] = defaultdict(int)
        for object_id, category, colour, count in self.records[view]['objects']:
            if colour and category not in ('tabletop', 'floor', 'wall'):
                groups[colour, category].append(object_id)
                pixels[colour, category] = max(pixels[colour, category], count)
        least = fraction * self.size**2
        return {key: ids for key, ids in groups.items() if pixels[key] >= least}

    def _index_supports(self) -> dict[tuple[str, str], list[int]]:
        index: dict[tuple[str, str], list[int]] = defaultdict(list)
        for view in range(len(self.records)):
            for key in self.kinds_of_thing(view, SUPPORT_FRACTION):
                index[key].append(view)
        return dict(index)

    def support_example(
        self, key: tuple[str, str], query: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]] | None:
        """Draws an example of a kind of thing from another scene.

        Args:
            key: (colour, category).
            query: View whose scene must not be drawn.
            rng: Source of the draw.

        Returns:
            A picture, uint8 (S, S, 3), and the mask of the largest such thing in it, bool
            (S, S); or None where no other scene shows one.
        """
        seed = self.records[query]['seed']
        views = [v for v in self.supports.get(key, []) if self.records[v]['seed'] != seed]
        if not views:
            return None
        view = views[rng.integers(len(views))]
        ids = self.kinds_of_thing(view, SUPPORT_FRACTION)[key]
        areas = np.bincount(self.ids(view).ravel(), minlength=256)
        return np.asarray(self.rgb(view)), self.mask(view, [max(ids, key=lambda i: areas[i])])


@dataclass
class Batch:
    """Training samples of one step.

    Attributes:
        images: uint8 (B, S, S, 3).
        texts: B × T texts, row by row.
        masks: bool (B, T + 1, S, S): truth of the texts, then of the support image.
        known: bool (B, T + 1): false where a sample has no support image.
        supports: uint8 (B, s, s, 3) prompt images.
        support_texts: B texts that name what the support images show.
        objects: B lists of T sets of object ids.
    """

    images: Tensor
    texts: list[str]
    masks: Tensor
    known: Tensor
    supports: Tensor
    support_texts: list[str]
    objects: list[list[frozenset[int]]]


def draw_texts(
    record: dict[str, Any], count: int, absent_share: float, rng: np.random.Generator
) -> list[list[Any]]:
    """Draws phrases of a view, true ones balanced over their kinds."""
    absent = int(rng.binomial(count, absent_share)) if record['absent'] else 0
    present = min(count - absent, len(record['present']))
    absent = min(count - present, len(record['absent']))
    weights = np.array([KIND_WEIGHTS[phrase[1]] for phrase in record['present']])
    kinds, sizes = np.unique([phrase[1] for phrase in record['present']], return_counts=True)
    weights /= [dict(zip(kinds, sizes, strict=True))[phrase[1]] for phrase in record['present']]
    true = rng.choice(len(weights), present, replace=False, p=weights / weights.sum())
    false = rng.choice(len(record['absent']), absent, replace=False) if absent else []
    phrases = [record['present'][i] for i in true] + [record['absent'][i] for i in false]
    while len(phrases) < count:
        phrases.append(phrases[rng.integers(len(phrases))])
    return phrases


def make_batch(
    views: TabletopViews,
    rows: list[int],
    texts: int,
    absent_share: float,
    support_size: int,
    rng: np.random.Generator,
) -> Batch:
    """Draws prompts for these views and gathers truth."""
    size = views.size
    images = np.empty((len(rows), size, size, 3), np.uint8)
    masks = np.zeros((len(rows), texts + 1, size, size), bool)
    known = np.ones((len(rows), texts + 1), bool)
    supports = np.zeros((len(rows), support_size, support_size, 3), np.uint8)
    words, support_texts, objects = [], [], []
    for b, view in enumerate(rows):
        images[b] = views.rgb(view)
        phrases = draw_texts(views.records[view], texts, absent_share, rng)
        words += [phrase[0] for phrase in phrases]
        objects.append([frozenset(phrase[2]) for phrase in phrases])
        for p, phrase in enumerate(phrases):
            if phrase[2]:
                masks[b, p] = views.mask(view, phrase[2])
        groups = views.kinds_of_thing(view, 0.002)
        key = list(groups)[rng.integers(len(groups))] if groups else ('', '')
        example = views.support_example(key, view, rng) if groups else None
        support_texts.append(f'{key[0]} {key[1].replace("_", " ")}'.strip() or 'nothing')
        if example is None:
            known[b, -1] = False
        else:
            supports[b] = visual_prompt(*example, support_size)
            masks[b, -1] = views.mask(view, groups[key])
    return Batch(
        torch.from_numpy(images),
        words,
        torch.from_numpy(masks),
        torch.from_numpy(known),
        torch.from_numpy(supports),
        support_texts,
        objects,
    )


def endless_rows(count: int, batch: int, rng: np.random.Generator) -> Iterator[list[int]]:
    """Yields batches of shuffled indices for ever; each index once an epoch."""
    while True:
        order = rng.permutation(count)
        for first in range(0, count - batch + 1, batch):
            yield [int(i) for i in order[first : first + batch]]
