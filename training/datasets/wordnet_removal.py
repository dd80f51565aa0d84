"""Make ``training/datasets/removed_words.json`` from WordNet's database files, once.

    python -m training.datasets.wordnet_removal --wordnet /usr/share/wordnet

For each held-out Pascal class that is the class's synset with all its hyponyms, however deep: the
words of one piece in every form that reduces to one of them, and the compounds. The synsets, the
short list for people, and the words of the affordances are those of CLIPSeg's published code. The
reduction is WordNet's morphy as NLTK has it, which that code used: the shortest noun in WordNet
that a form comes from.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from training.datasets.removal import REMOVED_WORDS

#: The 20 classes of Pascal VOC in their order.
PASCAL_SYNSETS = [
    'aeroplane.n.01', 'bicycle.n.01', 'bird.n.01', 'vessel.n.02', 'bottle.n.01', 'bus.n.01',
    'car.n.01', 'cat.n.01', 'chair.n.01', 'cattle.n.01', 'table.n.02', 'dog.n.01', 'horse.n.01',
    'motorcycle.n.01', 'person.n.01', 'pot_plant.n.01', 'sheep.n.01', 'sofa.n.01', 'train.n.01',
    'television.n.03',
]  # fmt: skip
#: Pairs of classes that the zero-shot splits hold out, one pair more each.
ZERO_SHOT_PAIRS = (
    ('cattle.n.01', 'motorcycle.n.01'),
    ('aeroplane.n.01', 'sofa.n.01'),
    ('cat.n.01', 'television.n.03'),
    ('train.n.01', 'bottle.n.01'),
    ('chair.n.01', 'pot_plant.n.01'),
)
#: Instead of the many kinds of person in WordNet, most of which no picture shows.
PERSON = ('person', 'human', 'man', 'woman', 'toddler', 'baby', 'body', 'child', 'infant')
AFFORDANCES = [
    'drink', 'drinks', 'drinking', 'sit', 'sits', 'sitting', 'ride', 'rides', 'riding', 'fly',
    'flies', 'flying', 'drive', 'drives', 'driving', 'driven', 'swim', 'swims', 'swimming',
    'wheels', 'wheel', 'legs', 'leg', 'ear', 'ears',
]  # fmt: skip
#: Endings of plurals and what they stand for (morphy(7WN)).
ENDINGS = (
    ('s', ''),
    ('ses', 's'),
    ('ves', 'f'),
    ('xes', 'x'),
    ('zes', 'z'),
    ('ches', 'ch'),
    ('shes', 'sh'),
    ('men', 'man'),
    ('ies', 'y'),
)


class Nouns:
    """WordNet's nouns (the formats: wndb(5WN)); FileNotFoundError where a file is missing."""

    def __init__(self, folder: Path) -> None:
        for name in ('index.noun', 'data.noun', 'noun.exc'):
            if not (folder / name).is_file():
                raise FileNotFoundError(
                    f'{folder / name} does not exist: install WordNet (Debian: wordnet-base) or '
                    'name its folder with --wordnet'
                )
        self.senses: dict[str, list[str]] = {}
        for line in (folder / 'index.noun').read_text().splitlines():
            if not line.startswith(' '):
                lemma, _, synsets, pointers, *rest = line.split()
                self.senses[lemma] = rest[int(pointers) + 2 :][: int(synsets)]
        self.lemmas: dict[str, list[str]] = {}
        self.hyponyms: dict[str, list[str]] = {}
        for line in (folder / 'data.noun').read_text().splitlines():
            if not line.startswith(' '):
                self._read_synset(line.split('|')[0].split())
        self.exceptions: dict[str, list[str]] = {}
        for line in (folder / 'noun.exc').read_text().splitlines():
            form, *bases = line.split()
            self.exceptions.setdefault(form, []).extend(bases)

    def _read_synset(self, fields: list[str]) -> None:
        offset, words = fields[0], int(fields[3], 16)
        self.lemmas[offset] = fields[4 : 4 + 2 * words : 2]
        start = 5 + 2 * words
        pointers = [fields[i : i + 4] for i in range(start, start + 4 * int(fields[start - 1]), 4)]
        self.hyponyms[offset] = [target for symbol, target, *_ in pointers if symbol == '~']

    def synset(self, name: str) -> str:
        """Return the offset of a synset by its name: lemma, ``n``, number of the sense."""
        lemma, _, sense = name.rsplit('.', 2)
        return self.senses[lemma][int(sense) - 1]

    def below(self, name: str) -> set[str]:
        """Return the lemmas of a synset and of all its hyponyms, as plain lower-case text."""
        seen: set[str] = set()
        waiting = [self.synset(name)]
        while waiting:
            offset = waiting.pop()
            if offset not in seen:
                seen.add(offset)
                waiting += self.hyponyms[offset]
        lemmas = (lemma for offset in seen for lemma in self.lemmas[offset])
        return {lemma.replace('_', ' ').lower() for lemma in lemmas}

    def base(self, form: str) -> str:
        """Return the shortest noun that a form comes from, or the form itself."""
        if form in self.exceptions:
            found = [form, *self.exceptions[form]]
        else:
            derived = self._without_endings([form])
            found = [form, *derived]
            while derived and not self._nouns(found):
                found = derived = self._without_endings(derived)
        return min(self._nouns(found), key=len, default=form)

    def forms(self, lemmas: set[str]) -> set[str]:
        """Return every form that reduces to one of these lemmas of one word."""
        candidates = set(lemmas)
        for _ in range(2):
            candidates |= {
                word[: len(word) - len(base)] + ending
                for word in candidates
                for ending, base in ENDINGS
                if word.endswith(base)
            }
        candidates |= {form for form, bases in self.exceptions.items() if lemmas & set(bases)}
        return {form for form in candidates if self.base(form) in lemmas}

    def _without_endings(self, forms: list[str]) -> list[str]:
        return [
            form.removesuffix(ending) + base
            for form in forms
            for ending, base in ENDINGS
            if form.endswith(ending)
        ]

    def _nouns(self, forms: list[str]) -> list[str]:
        return [form for form in forms if form in self.senses]


def removed_words(nouns: Nouns) -> dict[str, object]:
    """Return the content of the file."""
    synsets = {}
    for name in sorted({*PASCAL_SYNSETS, *(name for pair in ZERO_SHOT_PAIRS for name in pair)}):
        lemmas = set(PERSON) if name == 'person.n.01' else nouns.below(name)
        single = {lemma for lemma in lemmas if ' ' not in lemma}
        synsets[name] = {
            'words': sorted(nouns.forms(single)),
            'compounds': sorted(lemmas - single),
        }
    removals = {f'pascal5i/{i}': PASCAL_SYNSETS[5 * i : 5 * i + 5] for i in range(4)}
    for pairs in range(1, len(ZERO_SHOT_PAIRS) + 1):
        held_out = [name for pair in ZERO_SHOT_PAIRS[:pairs] for name in pair]
        removals[f'zero-shot/{2 * pairs}'] = held_out
    return {
        'source': 'WordNet 3.0 by training/datasets/wordnet_removal.py; lists of CLIPSeg where it '
        'has its own (person, affordances)',
        'removals': removals,
        'affordances': AFFORDANCES,
        'synsets': synsets,
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--wordnet', type=Path, default=Path('/usr/share/wordnet'), help="folder of WordNet's files"
    )
    parser.add_argument('--output', type=Path, default=REMOVED_WORDS)
    args = parser.parse_args()
    content = removed_words(Nouns(args.wordnet))
    args.output.write_text(json.dumps(content, indent=1, ensure_ascii=False) + '\n')
    print(f'{args.output}: {args.output.stat().st_size / 1000:.0f} kB')


if __name__ == '__main__':
    main()
