"""The words that held-out classes remove, and WordNet's files as their source."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from training.datasets.removal import REMOVED_WORDS, Removal, read_removal
from training.datasets.wordnet_removal import Nouns, main, removed_words

DEBIAN = Path('/usr/share/wordnet')

INDEX = """\
  1 A line of the licence.
dog n 1 1 ~ 1 1 00000100
hound n 1 0 1 0 00000200
hunting_dog n 1 0 1 0 00000200
wolf n 1 0 1 0 00000300
puppy n 1 0 1 0 00000400
pup n 2 0 2 0 00000900 00000400
"""
DATA = """\
  1 A line of the licence.
00000100 05 n 01 dog 0 002 ~ 00000200 n 0000 ~ 00000400 n 0000 | barks
00000200 05 n 02 hound 0 hunting_dog 0 002 @ 00000100 n 0000 ~ 00000300 n 0000 | hunts
00000300 05 n 02 wolf 0 Canis_Lupus 0 001 @ 00000200 n 0000 | howls | loudly
00000400 05 n 02 puppy 0 pup 1 001 @ 00000100 n 0000 | young
00000900 05 n 01 pup 0 000 | of a seal
"""


@pytest.fixture
def wordnet(tmp_path):
    """A WordNet of five synsets in the format of wndb(5WN)."""
    (tmp_path / 'index.noun').write_text(INDEX)
    (tmp_path / 'data.noun').write_text(DATA)
    (tmp_path / 'noun.exc').write_text('wolves wolf\n')
    return tmp_path


class TestNouns:
    def test_all_hyponyms(self, wordnet):
        assert Nouns(wordnet).below('dog.n.01') == {
            'dog', 'hound', 'hunting dog', 'wolf', 'canis lupus', 'puppy', 'pup'
        }  # fmt: skip
        assert Nouns(wordnet).below('pup.n.02') == {'puppy', 'pup'}
        assert Nouns(wordnet).below('pup.n.01') == {'pup'}

    def test_forms_are_reduced_by_endings_and_exceptions(self, wordnet):
        nouns = Nouns(wordnet)
        bases = {'dogs': 'dog', 'puppies': 'puppy', 'wolves': 'wolf', 'cats': 'cats', 'dog': 'dog'}
        assert {form: nouns.base(form) for form in bases} == bases
        assert {'dog', 'dogs'} <= nouns.forms({'dog'})
        assert {'wolf', 'wolves', 'puppies'} <= nouns.forms({'wolf', 'puppy'})
        assert 'hounds' not in nouns.forms({'dog'})

    def test_missing_files(self, wordnet):
        (wordnet / 'noun.exc').unlink()
        with pytest.raises(FileNotFoundError, match='wordnet-base'):
            Nouns(wordnet)


class TestRemoval:
    @pytest.mark.parametrize(
        ('name', 'phrase', 'removed'),
        [
            ('pascal5i/0', 'small airplane', True),
            ('pascal5i/0', 'sail boats', True),
            ('pascal5i/0', 'brown dog', False),
            ('pascal5i/1', 'double decker buses', True),
            ('pascal5i/1', 'red minivan', True),
            ('pascal5i/2', 'walking dogs', True),
            ('pascal5i/2', 'women', True),
            ('pascal5i/2', 'german shepherd dog', True),
            ('pascal5i/2', 'a cocker spaniel', True),
            ('pascal5i/3', 'sofas', True),
            ('pascal5i/3', 'pot plant', True),
            ('zero-shot/2', 'cows', True),
            ('zero-shot/2', 'sofa', False),
            ('zero-shot/4', 'sofa', True),
            ('affordances', 'man sitting', True),
            ('affordances', 'wheels', True),
            ('affordances', 'sofa', False),
        ],
    )
    def test_phrases(self, name, phrase, removed):
        assert read_removal(name).removes(phrase) is removed

    @pytest.mark.parametrize('name', ['pascal5i/0', 'pascal5i/3', 'zero-shot/10'])
    def test_compounds_are_found_anywhere(self, name):
        removal = read_removal(name)
        rng = np.random.default_rng(0)
        removed = 0
        for _ in range(3000):
            compound = removal.compounds[rng.integers(len(removal.compounds))]
            # Whole, within longer words, or cut off.
            before, after = rng.choice(['', 'x', 'old ', ' ']), rng.choice(['', 's', ' z'])
            phrase = f'{before}{compound}{after}'
            cut = rng.integers(0, 3, 2)
            phrase = phrase[cut[0] : len(phrase) - cut[1]]
            known = not removal.words.isdisjoint(phrase.split(' '))
            expected = known or any(one in phrase for one in removal.compounds)
            assert removal.removes(phrase) == expected, phrase
            removed += expected and not known
        assert 100 < removed < 2900
        assert Removal(frozenset(), ('post', 'a b')).removes('lampposts')

    def test_unknown_name(self):
        with pytest.raises(ValueError, match=r"'zero-shot/3'; there are pascal5i/0.*affordances"):
            read_removal('zero-shot/3')

    def test_folds_hold_out_every_class_once(self):
        removals = json.loads(REMOVED_WORDS.read_text())['removals']
        folds = [name for i in range(4) for name in removals[f'pascal5i/{i}']]
        assert len(set(folds)) == 20
        assert len(removals['zero-shot/10']) == 10
        assert set(removals['zero-shot/8']) < set(removals['zero-shot/10'])


@pytest.mark.skipif(not (DEBIAN / 'data.noun').is_file(), reason='wordnet-base is not installed')
class TestDebiansWordNet:
    def test_the_committed_file_is_what_the_script_makes(self, tmp_path, monkeypatch):
        output = tmp_path / 'removed.json'
        arguments = ['wordnet_removal', '--wordnet', str(DEBIAN), '--output', str(output)]
        monkeypatch.setattr('sys.argv', arguments)
        main()
        assert output.read_bytes() == REMOVED_WORDS.read_bytes()

    def test_what_is_removed_reduces_to_a_hyponym(self):
        nouns = Nouns(DEBIAN)
        content = removed_words(nouns)
        dogs = nouns.below('dog.n.01')
        words = content['synsets']['dog.n.01']['words']
        assert len(words) > 100
        assert all(nouns.base(word) in dogs for word in words)
