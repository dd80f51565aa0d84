"""LVIS in the publisher's format: names, generalised prompts, known absences."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from pydantic import ValidationError
from test_coco import annotation

from training.datasets.lvis import PHRASES, Lvis, LvisSettings
from training.datasets.samples import BadRecord, DataError, sample_rng

NAMES = ['armchair', 'bus_(vehicle)', 'duck', 'horse', 'spoon', 'bottle']
ELSEWHERE = [[16.0, 4.0, 26.0, 4.0, 26.0, 14.0, 16.0, 14.0]]


@pytest.fixture
def lvis(tmp_path):
    images = []
    for number, split in ((1, 'train2017'), (2, 'val2017')):
        (tmp_path / split).mkdir()
        Image.new('RGB', (30, 20)).save(tmp_path / split / f'{number:012d}.jpg')
        images.append(
            {
                'id': number,
                'height': 20,
                'width': 30,
                'coco_url': f'http://images.cocodataset.org/{split}/{number:012d}.jpg',
                'neg_category_ids': [5, 2] if number == 1 else [],
                'not_exhaustive_category_ids': [],
            }
        )
    annotations = [
        annotation(1, 1, 1),
        annotation(2, 1, 4, ELSEWHERE),
        annotation(3, 2, 3),
        annotation(4, 2, 5, ELSEWHERE),
        annotation(5, 2, 2, ELSEWHERE),
    ]
    for record in annotations:
        del record['iscrowd']
    categories = [
        {'id': i + 1, 'name': name, 'synset': f'{name}.n.01', 'synonyms': [name], 'frequency': 'f'}
        for i, name in enumerate(NAMES)
    ]
    path = tmp_path / 'lvis_v1_val.json'
    content = {'images': images, 'annotations': annotations, 'categories': categories}
    path.write_text(json.dumps(content))
    return path


def opened(path, **changes) -> Lvis:
    return Lvis(LvisSettings(annotations=path, images=path.parent, **changes))


def test_names_and_places(lvis):
    data = opened(lvis)
    assert [data.key(i) for i in range(len(data))] == [
        'train2017/000000000001.jpg#armchair',
        'train2017/000000000001.jpg#horse',
        'val2017/000000000002.jpg#bus (vehicle)',
        'val2017/000000000002.jpg#duck',
        'val2017/000000000002.jpg#spoon',
    ]
    assert data.draw(1, sample_rng(0, 0, 0)).mask[8, 20]


def test_only_what_was_looked_for_is_absent(lvis):
    data = opened(lvis, negatives=1)
    drawn = {data.draw(0, sample_rng(0, i, 0)).phrase for i in range(20)}
    assert drawn == {'spoon', 'bus (vehicle)'}
    unknown = data.draw(3, sample_rng(0, 0, 0))
    assert (unknown.phrase, unknown.negative) == ('duck', False)
    with pytest.raises(ValidationError, match='what is absent from it is not known'):
        opened(lvis, negatives=0.2, phrases='affordances')


@pytest.mark.parametrize(
    ('kind', 'expected'),
    [
        ('affordances', {('1', 'sit on', 100), ('1', 'ride on', 100)}),
        (
            'attributes',
            {('2', 'can fly', 100), ('2', 'can be driven', 100), ('2', 'can swim', 100)},
        ),
        ('meronymy', {('1', 'has legs', 200), ('2', 'has wheels', 100), ('2', 'has legs', 100)}),
    ],
)
def test_generalised_prompts_are_true_of_all_that_they_list(lvis, kind, expected):
    data = opened(lvis, phrases=kind)
    found = {(s.key.split('.')[0][-1], s.phrase, int(s.mask.sum())) for s in data.each()}
    assert found == expected
    # This small file has few of the classes, which is said.
    assert data.problems.counts['unknown class'] > 5


def test_the_lists_of_the_supplement():
    sizes = {phrase: len(names) for part in PHRASES.values() for phrase, names in part.items()}
    assert sizes == {
        'sit on': 10,
        'drink from': 5,
        'ride on': 3,
        'can fly': 12,
        'can be driven': 6,
        'can swim': 7,
        'has wheels': 10,
        'has legs': 33,
    }
    assert all(
        len(set(names)) == len(names) for part in PHRASES.values() for names in part.values()
    )


def test_files_without_the_things(lvis):
    content = json.loads(lvis.read_text())
    content['categories'] = [{'id': 1, 'name': 'armchair'}]
    lvis.write_text(json.dumps(content))
    with pytest.raises(DataError, match="no class for 'drink from', none of"):
        opened(lvis, phrases='affordances')
    content['images'][0]['coco_url'] = 'nowhere'
    lvis.write_text(json.dumps(content))
    with pytest.raises(BadRecord, match="image 0, has the address 'nowhere'"):
        opened(lvis)
