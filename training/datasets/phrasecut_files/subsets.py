"""The subsets of PhraseCut's evaluation, by its publisher's rules (``utils/subset.py``).

Not among them are those that need the publisher's lists of words: kinds of attributes (``a_color``
…), stuff and things (``t_…``), and COCO's names (``c_coco``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.datasets.phrasecut_files.records import REMEDY
from training.datasets.samples import DataError, read_json

#: Counts of category names and attributes, most frequent first.
COUNTS_FILE = 'name_att_rel_count.json'
#: Ends of the ranges of rank: c20, c21-100, c101-500, c500+ and c20, c100, c500; and so of a.
CATEGORY_RANKS = (20, 100, 500)
ATTRIBUTE_RANKS = (20, 100, 200)
#: Shares of the picture below which a region is small, and above which it is large.
SMALL, LARGE = 0.02, 0.2


@dataclass(frozen=True)
class Structure:
    """How the publisher made a phrase."""

    name: str  #: of the category
    attributes: tuple[str, ...]
    relations: int  #: how many relations the phrase describes
    instances: int  #: how many boxes it refers to
    kind: str  #: what tells it apart: name, attribute, relation, or verbose; empty if not said


@dataclass(frozen=True)
class Ranks:
    """Place of each category and attribute by frequency, from 0."""

    categories: Mapping[str, int]
    attributes: Mapping[str, int]

    @classmethod
    def read(cls, folder: Path) -> Ranks:
        """Read ``name_att_rel_count.json`` of ``VGPhraseCut_v0``; DataError if it is not usable."""
        path = folder / COUNTS_FILE
        counts = read_json(path, REMEDY)
        try:
            return cls(_ranked(counts['cat']), _ranked(counts['att']))
        except (KeyError, TypeError, IndexError) as error:
            raise DataError(
                f'{path} has no lists "cat" and "att" of names with counts: {error!r}'
            ) from error

    def subsets(self, structure: Structure, share: float) -> list[str]:
        """Return the subsets of a phrase whose region fills this share of its picture, 0…1."""
        attributes = [
            self.attributes.get(name, ATTRIBUTE_RANKS[-1]) for name in structure.attributes
        ]
        # As in the publisher's code, phrases without attribute count among those of rare ones.
        rarest = min(attributes, default=ATTRIBUTE_RANKS[-1])
        rank = self.categories.get(structure.name, CATEGORY_RANKS[-1])
        found = [
            'all',
            *_of_rank('c', rank, CATEGORY_RANKS),
            *_of_rank('a', rarest, ATTRIBUTE_RANKS),
        ]
        number, relations = len(structure.attributes), structure.relations
        conditions = {
            'p_att': number > 0,
            'p_attm': number > 1,
            'p_rel': relations > 0,
            'p_relm': relations > 1,
            'p_att_rel': number > 0 and relations > 0,
            'p_name': structure.kind == 'name',
            'p_att+': structure.kind == 'attribute',
            'p_rel+': structure.kind == 'relation',
            'p_verbose': structure.kind == 'verbose',
            'i_single': structure.instances == 1,
            'i_multi': 1 < structure.instances < 5,
            'i_many': structure.instances >= 5,
            's_small': share < SMALL,
            's_mid': SMALL <= share <= LARGE,
            's_large': share > LARGE,
        }
        return [*found, *(name for name, holds in conditions.items() if holds)]


def _ranked(counts: Any) -> dict[str, int]:
    ranks: dict[str, int] = {}
    for rank, (name, _) in enumerate(counts):
        ranks.setdefault(str(name), rank)
    return ranks


def _of_rank(letter: str, rank: int, ends: tuple[int, int, int]) -> list[str]:
    first, second, third = ends
    ranges = {
        f'{letter}{first}': rank < first,
        f'{letter}{first + 1}-{second}': first <= rank < second,
        f'{letter}{second + 1}-{third}': second <= rank < third,
        f'{letter}{third}+': rank >= third,
        f'{letter}{second}': rank < second,
        f'{letter}{third}': rank < third,
    }
    return [name for name, holds in ranges.items() if holds]
