"""Removal of training phrases that name what a test holds out, as CLIPSeg does.

The words, held-out Pascal classes with their hyponyms and affordances, come from
``removed_words.json``, which ``python -m training.datasets.wordnet_removal`` makes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

REMOVED_WORDS = Path(__file__).with_name('removed_words.json')


@dataclass(frozen=True)
class Removal:
    """Words for which a phrase is removed."""

    words: frozenset[str]  #: in every form that WordNet reduces to a removed noun
    compounds: tuple[str, ...]  #: found anywhere in a phrase, as in CLIPSeg's code

    def removes(self, phrase: str) -> bool:
        """Return whether a phrase is removed."""
        if not self.words.isdisjoint(phrase.split(' ')):
            return True
        return any(compound in phrase for compound in self.compounds)


@cache
def read_removal(name: str) -> Removal:
    """Return ``pascal5i/FOLD``, ``zero-shot/UNSEEN`` or ``affordances``; ValueError for others."""
    data = json.loads(REMOVED_WORDS.read_text(encoding='utf-8'))
    if name == 'affordances':
        return Removal(frozenset(data['affordances']), ())
    if name not in data['removals']:
        known = ', '.join([*data['removals'], 'affordances'])
        raise ValueError(f'there is no removal {name!r}; there are {known}')
    parts = [data['synsets'][synset] for synset in data['removals'][name]]
    words = frozenset(word for part in parts for word in part['words'])
    return Removal(words, tuple(sorted({text for part in parts for text in part['compounds']})))
