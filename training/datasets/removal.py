"""Removal of training phrases that name what a test holds out, as CLIPSeg does.

The words, held-out Pascal classes with their hyponyms and affordances, come from
``removed_words.json``, which ``python -m training.datasets.wordnet_removal`` makes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, cached_property
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
        # Over 1,000 compounds may be looked for in 345,000 phrases: only those that fit around a
        # space of a phrase are compared.
        space = phrase.find(' ')
        while space >= 0:
            for compound, before in self._around_space.get(phrase[space - 1 : space + 2], ()):
                if space >= before and phrase.startswith(compound, space - before):
                    return True
            space = phrase.find(' ', space + 1)
        return any(compound in phrase for compound in self._without_space)

    @cached_property
    def _without_space(self) -> list[str]:
        return [compound for compound in self.compounds if ' ' not in compound]

    @cached_property
    def _around_space(self) -> dict[str, list[tuple[str, int]]]:
        """Compounds and where their first space is, by it and the letters beside it."""
        found: dict[str, list[tuple[str, int]]] = {}
        for compound in self.compounds:
            space = compound.find(' ')
            if space >= 0:
                found.setdefault(compound[space - 1 : space + 2], []).append((compound, space))
        return found


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
