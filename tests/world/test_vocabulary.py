from __future__ import annotations

import pytest

from tabletop_world.catalogue.categories import CATEGORIES, COLOURS, PATTERNS
from tabletop_world.language.affordances import AFFORDANCES
from tabletop_world.language.phrases import grammar_words
from tabletop_world.language.vocabulary import (
    CATEGORY_NAMES,
    COLOUR_WORDS,
    HYPERNYMS,
    PATTERN_WORDS,
    SURFACES,
    UNSEEN_WORDS,
    all_names,
    names_of,
    pluralise,
)

KNOWN = {*CATEGORIES, *SURFACES}


def test_every_category_has_five_names_or_more() -> None:
    assert set(CATEGORY_NAMES) == KNOWN
    for category in CATEGORIES:
        singulars = [name.singular for name in names_of(category)]
        assert len(set(singulars)) == len(singulars) >= 5, category
    for surface in SURFACES:
        assert len(names_of(surface)) >= 4


def test_names_cover_their_own_category_and_only_known_ones() -> None:
    for category, names in CATEGORY_NAMES.items():
        assert all(category in name.categories for name in names)
    for name in all_names():
        assert name.categories <= KNOWN
        assert name.doubtful <= KNOWN
        assert not name.categories & name.doubtful, name.singular


def test_one_wording_means_one_thing() -> None:
    meaning: dict[str, object] = {}
    for name in all_names():
        for text in {name.singular, name.plural} - {''}:
            said = (name.categories, name.doubtful)
            assert meaning.setdefault(text, said) == said, text
    for affordance in AFFORDANCES:
        for text in affordance.phrases:
            assert meaning.setdefault(text, affordance.key) == affordance.key, text


def test_an_unknown_category_is_named_in_the_error() -> None:
    with pytest.raises(KeyError, match='zeppelin'):
        names_of('zeppelin')


@pytest.mark.parametrize(
    ('noun', 'plural'),
    [
        ('mug', 'mugs'),
        ('glass', 'glasses'),
        ('kitchen knife', 'kitchen knives'),
        ('box', 'boxes'),
        ('roll of tape', 'rolls of tape'),
        ('plant in a pot', 'plants in a pot'),
        ('office supply', 'office supplies'),
        ('toy', 'toys'),
        ('book shelf', 'book shelves'),
    ],
)
def test_plurals(noun: str, plural: str) -> None:
    assert pluralise(noun) == plural


def test_every_colour_and_pattern_of_the_catalogue_can_be_said() -> None:
    assert set(COLOUR_WORDS) == set(COLOURS)
    assert set(PATTERN_WORDS) == set(PATTERNS) - {'plain'}


def test_there_are_twenty_five_affordances_with_ten_wordings_each() -> None:
    assert len(AFFORDANCES) >= 25
    for affordance in AFFORDANCES:
        assert len(set(affordance.phrases)) >= 10, affordance.key
        assert affordance.categories <= KNOWN
        assert affordance.doubtful <= KNOWN
        assert not affordance.categories & affordance.doubtful


@pytest.mark.parametrize(
    'text',
    [
        'something to drink from',
        'something to cut with',
        'something to sit on',
        'something to grasp',
        'something to eat',
        'something to write with',
        'something to read',
        'something to pour from',
        'something to put flowers in',
        'something to tell the time',
        'something that gives light',
        'something to throw away rubbish in',
    ],
)
def test_the_wordings_that_users_are_told_of_exist(text: str) -> None:
    assert any(text == affordance.phrases[0] for affordance in AFFORDANCES)


def test_every_item_is_either_graspable_or_furniture_or_doubtful() -> None:
    grasp = AFFORDANCES[0]
    assert grasp.key == 'grasp'
    furniture = {'chair', 'stool', 'table', 'shelf', 'cabinet'}
    assert grasp.categories | grasp.doubtful | furniture == set(CATEGORIES)
    assert not furniture & (grasp.categories | grasp.doubtful)


def test_unseen_words_are_many_and_stand_for_known_categories() -> None:
    assert len(UNSEEN_WORDS) >= 44
    for word, categories in UNSEEN_WORDS.items():
        assert word == word.lower()
        assert ' ' not in word
        assert categories
        assert set(categories) <= KNOWN


def _stem(word: str) -> str:
    for ending in ('ing', 'ed', 'es', 's', 'y', 'er'):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def test_unseen_words_and_their_stems_are_not_in_the_grammar() -> None:
    grammar = grammar_words()
    assert not grammar & set(UNSEEN_WORDS)
    # 'teaspoon' and 'footstool' contain grammar words; a shared stem would give a word away.
    stems = {_stem(word) for word in grammar}
    assert not [word for word in UNSEEN_WORDS if _stem(word) in stems]


def test_families_are_marked() -> None:
    assert all(name.hypernym for name in HYPERNYMS)
    fruit = next(name for name in HYPERNYMS if name.singular == 'fruit')
    assert fruit.categories == {'apple', 'orange', 'lemon', 'banana'}
