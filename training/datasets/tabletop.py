"""The tabletop world as training samples: a view, text prompts and one support image."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipseg_model.prompting.visual_prompt import visual_prompt
from tabletop_world.catalogue.categories import CATEGORIES, COLOURS

#: Relative frequency of each kind among the true phrases that are drawn.
KIND_WEIGHTS = {
    'name': 1.0,
    'colour': 1.2,
    'attribute': 0.6,
    'relation': 0.7,
    'affordance': 1.0,
    'surface': 0.4,
}
SURFACES = ('tabletop', 'floor', 'wall')
#: Classes of the auxiliary losses.
CATEGORY_CLASSES = {name: index for index, name in enumerate((*CATEGORIES, *SURFACES))}
COLOUR_CLASSES = {name: index for index, name in enumerate(COLOURS)}
#: Label of what has no class.
NO_CLASS = -100
#: Smallest share of its picture that an object fills where it serves as support.
SUPPORT_FRACTION = 0.01


class TabletopViews:
    """A rendered split: pictures by memory map, records in memory.

    Raises:
        FileNotFoundError: If the folder holds no complete shard, or less than ``count`` views.
        ValueError: If a file is damaged.
    """

    def __init__(self, folder: Path, count: int | None = None) -> None:
        self.records: list[dict[str, Any]] = []
        self._where: list[tuple[int, int]] = []
        self._rgb: list[NDArray[np.uint8]] = []
        self._ids: list[NDArray[np.uint8]] = []
        for path in sorted(folder.glob('views_*.json')):
            if count is not None and len(self.records) >= count:
                break
            number = path.stem.split('_')[1]
            records = json.loads(path.read_text())[: None if count is None else count - len(self)]
            self._where += [(len(self._rgb), row) for row in range(len(records))]
            self.records += records
            self._rgb.append(np.load(folder / f'rgb_{number}.npy', mmap_mode='r'))
            self._ids.append(np.load(folder / f'ids_{number}.npy', mmap_mode='r'))
        if not self.records:
            raise FileNotFoundError(
                f'{folder} holds no rendered views: make them with '
                f'`python -m training.bundled.render_scenes {folder.parent} '
                f'--split {folder.name} --scenes 100`'
            )
        if count is not None and len(self) < count:
            raise FileNotFoundError(
                f'{folder} holds {len(self)} views, and {count} are wanted: render more scenes '
                'with training.bundled.render_scenes'
            )
        self.size = self._rgb[0].shape[1]

    def __len__(self) -> int:
        return len(self.records)

    def rgb(self, view: int) -> NDArray[np.uint8]:
        """Return the picture of a view, uint8 (S, S, 3)."""
        shard, row = self._where[view]
        return self._rgb[shard][row]

    def ids(self, view: int) -> NDArray[np.uint8]:
        """Return the object ids of a view, uint8 (S, S)."""
        shard, row = self._where[view]
        return self._ids[shard][row]

    def mask(self, view: int, object_ids: list[int]) -> NDArray[np.bool_]:
        """Return where any of these objects is seen, bool (S, S)."""
        table = np.zeros(256, bool)
        table[object_ids] = True
        return table[self.ids(view)]

    def kinds_of_thing(self, view: int, fraction: float) -> dict[tuple[str, str], list[int]]:
        """Return object ids by (colour, category), of items that fill enough of the view."""
        groups: dict[tuple[str, str], list[int]] = defaultdict(list)
        pixels: dict[tuple[str, str], int] = defaultdict(int)
        for object_id, category, colour, count in self.records[view]['objects']:
            if colour and category not in SURFACES:
                groups[colour, category].append(object_id)
                pixels[colour, category] = max(pixels[colour, category], count)
        least = fraction * self.size**2
        return {key: ids for key, ids in groups.items() if pixels[key] >= least}

    @cached_property
    def supports(self) -> dict[tuple[str, str], list[int]]:
        """Views that may serve as support, by (colour, category)."""
        index: dict[tuple[str, str], list[int]] = defaultdict(list)
        for view in range(len(self.records)):
            for key in self.kinds_of_thing(view, SUPPORT_FRACTION):
                index[key].append(view)
        return dict(index)

    def support_example(
        self, key: tuple[str, str], query: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]] | None:
        """Draw an example of a (colour, category) from another scene than that of view ``query``.

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
    """Training samples of one step: B views, T texts and X further texts of each."""

    images: Tensor  #: uint8 (B, S, S, 3)
    texts: list[str]  #: B × T, row by row
    masks: Tensor  #: bool (B, T + 1, S, S): truth of the texts, then of the support image
    known: Tensor  #: bool (B, T + 1): false where a sample has no support image
    supports: Tensor  #: uint8 (B, s, s, 3)
    support_texts: list[str]  #: what the support images show
    ids: Tensor  #: uint8 (B, S, S), of objects
    more_texts: list[str]  #: B × X, for the alignment losses alone
    more_objects: Tensor  #: bool (B, X, 256): object ids that those are true of
    classes: Tensor  #: int64 (B, 256, 2): category and colour of each object id


def draw_texts(
    record: dict[str, Any], count: int, absent_share: float, rng: np.random.Generator
) -> list[list[Any]]:
    """Draw phrases of a view, true ones balanced over their kinds."""
    absent = int(rng.binomial(count, absent_share)) if record['absent'] else 0
    present = min(count - absent, len(record['present']))
    absent = min(count - present, len(record['absent']))
    weights = np.array([KIND_WEIGHTS[phrase[1]] for phrase in record['present']])
    kinds, sizes = np.unique([phrase[1] for phrase in record['present']], return_counts=True)
    weights /= [dict(zip(kinds, sizes, strict=True))[phrase[1]] for phrase in record['present']]
    true = rng.choice(len(weights), present, replace=False, p=weights / weights.sum())
    false = rng.choice(len(record['absent']), absent, replace=False) if absent else ()
    phrases = [record['present'][i] for i in true] + [record['absent'][i] for i in false]
    while len(phrases) < count:
        phrases.append(phrases[rng.integers(len(phrases))])
    return phrases


def make_batch(
    views: TabletopViews,
    rows: list[int],
    texts: int,
    more_texts: int,
    absent_share: float,
    support_size: int,
    rng: np.random.Generator,
) -> Batch:
    """Draw prompts for the views ``rows`` and gather their truth.

    Args:
        views: The data.
        rows: Indices of B views.
        texts: T, texts of a view that are decoded to masks.
        more_texts: X, texts of a view that only the alignment losses see; they cost little.
        absent_share: Share of the texts that is true of nothing in the view.
        support_size: Side of the prompt images, pixels.
        rng: Source of the draws.
    """
    size = views.size
    images = np.empty((len(rows), size, size, 3), np.uint8)
    masks = np.zeros((len(rows), texts + 1, size, size), bool)
    known = np.ones((len(rows), texts + 1), bool)
    supports = np.zeros((len(rows), support_size, support_size, 3), np.uint8)
    ids = np.empty((len(rows), size, size), np.uint8)
    more_objects = np.zeros((len(rows), more_texts, 256), bool)
    classes = np.full((len(rows), 256, 2), NO_CLASS, np.int64)
    words, support_texts, more_words = [], [], []
    for b, view in enumerate(rows):
        images[b] = views.rgb(view)
        phrases = draw_texts(views.records[view], texts, absent_share, rng)
        words += [phrase[0] for phrase in phrases]
        ids[b] = views.ids(view)
        for object_id, category, colour, _ in views.records[view]['objects']:
            classes[b, object_id, 0] = CATEGORY_CLASSES[category]
            classes[b, object_id, 1] = COLOUR_CLASSES.get(colour, NO_CLASS)
        more = draw_texts(views.records[view], more_texts, absent_share, rng)
        more_words += [phrase[0] for phrase in more]
        for p, phrase in enumerate(more):
            more_objects[b, p, phrase[2]] = True
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
        torch.from_numpy(ids),
        more_words,
        torch.from_numpy(more_objects),
        torch.from_numpy(classes),
    )


def object_share(ids: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the share of each cell of a (gh, gw) grid that each object covers.

    ``ids`` is uint8 (B, H, W); the result is float32 (B, gh·gw, 256), and sums to one over objects.
    """
    batch, height, width = ids.shape
    rows = torch.arange(height) * grid[0] // height
    columns = torch.arange(width) * grid[1] // width
    cells = rows[:, None] * grid[1] + columns
    index = (cells + torch.arange(batch)[:, None, None] * grid[0] * grid[1]) * 256 + ids.long()
    counts = torch.bincount(index.flatten(), minlength=batch * grid[0] * grid[1] * 256)
    counts = counts.view(batch, -1, 256).float()
    return counts / counts.sum(2, keepdim=True)


def token_classes(share: Tensor, classes: Tensor, least: float = 0.6) -> Tensor:
    """Return category and colour of tokens, int64 (B, N, 2), :data:`NO_CLASS` where mixed.

    ``share`` is of :func:`object_share`; one object must fill ``least`` of a token's cell.
    """
    most = share[..., 1:].max(2)
    found = torch.gather(classes, 1, (most.indices + 1).unsqueeze(2).expand(-1, -1, 2))
    return torch.where((most.values > least).unsqueeze(2), found, NO_CLASS)


def endless_rows(count: int, rng: np.random.Generator) -> Iterator[int]:
    """Yield shuffled indices for ever; each index once an epoch."""
    while True:
        yield from rng.permutation(count).tolist()
