"""A folder of one's own pictures and masks."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from training.datasets.folder import FolderData, FolderSettings
from training.datasets.samples import BadRecord, DataError, sample_rng


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'images').mkdir()
    for number, name in enumerate(('a.jpg', 'b.png', 'c.jpeg')):
        Image.new('RGB', (30, 20), (number, 0, 0)).save(tmp_path / 'images' / name)
    mask = np.zeros((20, 30), np.uint8)
    mask[:10] = 255
    for phrase, names in {'red mug': 'ab', 'spoon': 'a', 'blue bowl': 'c'}.items():
        (tmp_path / 'masks' / phrase).mkdir(parents=True)
        for name in names:
            Image.fromarray(mask).save(tmp_path / 'masks' / phrase / f'{name}.png')
    (tmp_path / 'masks' / 'notes.txt').write_text('read me')
    return tmp_path


def opened(folder, **changes) -> FolderData:
    return FolderData(FolderSettings(folder=folder, **changes))


def test_phrases_and_masks(folder):
    data = opened(folder)
    keys = ['a.jpg#red mug', 'a.jpg#spoon', 'b.png#red mug', 'c.jpeg#blue bowl']
    assert [sample.key for sample in data.each()] == keys
    sample = data.draw(0, sample_rng(0, 0, 0))
    assert sample.phrase == 'red mug'
    assert sample.mask[:10].all()
    assert not sample.mask[10:].any()


def test_supports_and_negatives(folder):
    data = opened(folder, visual=True, negatives=1)
    drawn = data.draw(0, sample_rng(0, 0, 0))
    assert (drawn.phrase, drawn.negative, drawn.mask.any()) == ('blue bowl', True, False)
    assert drawn.support.key == 'c.jpeg'
    assert opened(folder, visual=True).draw(0, sample_rng(0, 0, 0)).support.key == 'b.png'
    unknown = opened(folder, negatives=1, unlabelled='unknown').draw(0, sample_rng(0, 0, 0))
    assert (unknown.phrase, unknown.negative) == ('red mug', False)


def test_an_empty_mask_says_that_the_phrase_is_absent(folder):
    Image.new('L', (30, 20)).save(folder / 'masks' / 'spoon' / 'b.png')
    sample = next(s for s in opened(folder, visual=True).each() if s.key == 'b.png#spoon')
    assert not sample.mask.any()
    assert sample.support.key == 'a.jpg'


def test_some_of_the_pictures(folder):
    assert [opened(folder, only=['b']).key(0)] == ['b.png#red mug']
    with pytest.raises(DataError, match='has no sample'):
        opened(folder, only=['z'])


def test_masks_without_their_picture(folder):
    (folder / 'images' / 'b.png').unlink()
    with pytest.raises(BadRecord, match=r'red mug/b\.png has no picture'):
        opened(folder)
    data = opened(folder, bad_records='skip')
    assert (data.problems.counts, len(data)) == ({'missing image': 1}, 3)


def test_masks_of_another_size(folder):
    Image.new('L', (20, 30)).save(folder / 'masks' / 'spoon' / 'a.png')
    with pytest.raises(BadRecord, match=r'spoon/a\.png is 20 × 30 pixels.*30 × 20'):
        opened(folder).draw(1, sample_rng(0, 0, 0))


def test_folders_that_are_not_understood(folder, tmp_path):
    with pytest.raises(DataError, match='images does not exist: put pictures in'):
        opened(tmp_path / 'nowhere')
    Image.new('RGB', (3, 3)).save(folder / 'images' / 'a.png')
    with pytest.raises(DataError, match='two pictures named a: rename one'):
        opened(folder)
