"""Removal of training phrases that name what a test holds out.

CLIPSeg trains on PhraseCut without the phrases that name a held-out Pascal class or a hyponym of
one, or an affordance. The words come from ``removed_words.json``, which
``python -m training.datasets.wordnet_removal`` makes from WordNet's own files, so that training
does not need WordNet.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

REMOVED_WORDS = Path(__file__).with_name('removed_words.json')


@dataclass(frozen=True)
class Removal:
    """Words for which a phrase is removed.

    Attributes:
        words: Words, in every form that WordNet reduces to a removed noun.
        compounds: Texts of several words, found anywhere in a phrase, as in CLIPSeg's code.
    """

    words: frozenset[str]
    compounds: tuple[str, ...]

    def removes(self, phrase: str) -> bool:
        """Return whether a phrase is removed."""
        if not self.words.isdisjoint(phrase.split(' ')):
            return True
        return any(compound in phrase for compound in self.compounds)


@cache
def read_removal(name: str) -> Removal:
    """Return a removal by name.

    Args:
        name: ``pascal5i/FOLD`` with 0 … 3, ``zero-shot/UNSEEN`` with 2, 4 … 10, or
            ``affordances``.

    Raises:
        ValueError: There is none of that name.
    """
    data = json.loads(REMOVED_WORDS.read_text(encoding='utf-8'))
    if name == 'affordances':
        return Removal(frozenset(data['affordances']), ())
    if name not in data['removals']:
        known = ', '.join([*data['removals'], 'affordances'])
        raise ValueError(f'there is no removal {name!r}; there are {known}')
    parts = [data['synsets'][synset] for synset in data['removals'][name]]
    words = frozenset(word for part in parts for word in part['words'])
    return Removal(words, tuple(sorted({text for part in parts for text in part['compounds']})))
