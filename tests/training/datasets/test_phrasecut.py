"""PhraseCut and PhraseCut+ from files in the publisher's layout."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from open_clip.tokenizer import SimpleTokenizer
from phrasecut_files import TASKS, write_phrasecut
from PIL import Image
from pydantic import ValidationError

from clipseg_model.prompting.templates import TEMPLATES
from training.datasets import phrasecut
from training.datasets.phrasecut import PhraseCut, PhraseCutSettings, phrasecut_plus, square_crop
from training.datasets.samples import BadRecord, DataError, sample_rng


@pytest.fixture
def folder(tmp_path):
    return write_phrasecut(tmp_path)


def opened(folder, **changes) -> PhraseCut:
    return PhraseCut(PhraseCutSettings(folder=folder, **changes))


def edit(folder, number: int, name: str = 'refer_train.json', **changes) -> None:
    records = json.loads((folder / name).read_text())
    for key, value in changes.items():
        records[number].pop(key) if value is None else records[number].update({key: value})
    (folder / name).write_text(json.dumps(records))


def crossing_number_mask(polygon, height: int, width: int) -> np.ndarray:
    """Even-odd rule by counting the edges that a ray to the right crosses."""
    y, x = np.mgrid[:height, :width].astype(float)
    inside = np.zeros((height, width), bool)
    for (x0, y0), (x1, y1) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        if y0 != y1:
            crossed = ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
            inside ^= crossed
    return inside


class TestReading:
    def test_phrases_keys_and_the_pictures_left_out(self, folder):
        data = opened(folder)
        assert [sample.phrase for sample in data.each()] == [
            phrase for image, phrase, _ in TASKS if image in (11, 12, 13)
        ]
        assert data.key(0) == '11__11000'
        assert not data.problems.counts
        everything = opened(folder, known_bad_sizes=True)
        assert everything.key(len(everything) - 1) == '61530__61530007'

    def test_masks_agree_with_a_crossing_number_pixel_by_pixel(self, folder):
        data = opened(folder, crop='none')
        sizes = {11: (48, 64), 12: (60, 40), 13: (50, 50)}
        tasks = [entry for entry in TASKS if entry[0] in sizes]
        for sample, (image, _, instances) in zip(data.each(), tasks, strict=True):
            expected = np.zeros(sizes[image], bool)
            for polygons in instances:
                for polygon in polygons:
                    expected |= crossing_number_mask(polygon, *sizes[image])
            np.testing.assert_array_equal(sample.mask, expected)
            assert expected.any()

    def test_splits_can_be_joined(self, folder):
        assert len(opened(folder, split='val_miniv')) == 2
        with pytest.raises(ValidationError, match='validation'):
            PhraseCutSettings(folder=folder, split='validation')

    def test_no_sample_is_an_error(self, folder):
        with pytest.raises(DataError, match='has no sample'):
            opened(folder, split='test')

    def test_min_size_is_of_the_boxes(self, folder):
        sizes = {'red car', 'walking dogs', 'car', 'blue mug'}
        data = opened(folder, min_size=0.1)
        assert {sample.phrase for sample in data.each()} == sizes

    def test_only_visual(self, folder):
        data = opened(folder, visual=True, only_visual=True)
        assert {sample.phrase for sample in data.each()} == {'red car'}
        with pytest.raises(ValidationError, match='only_visual needs visual'):
            PhraseCutSettings(folder=folder, only_visual=True)

    def test_removal(self, folder):
        without_cars = opened(folder, remove='pascal5i/1')
        assert set(without_cars.phrases) == {
            'wheel',
            'walking dogs',
            'blue mug',
        }
        without_dogs = opened(folder, remove='pascal5i/2')
        assert 'walking dogs' not in without_dogs.phrases
        assert 'wheel' not in opened(folder, remove='affordances').phrases

    def test_unknown_settings(self, folder):
        with pytest.raises(ValidationError, match='negative_prob'):
            PhraseCutSettings(folder=folder, negative_prob=0.2)
        with pytest.raises(ValidationError, match='less than or equal to 1'):
            PhraseCutSettings(folder=folder, negatives=1.5)


class TestDrawing:
    def test_the_same_generator_draws_the_same(self, folder):
        data = PhraseCut(phrasecut_plus(folder))
        first, again, other = (data.draw(0, sample_rng(3, epoch, 0)) for epoch in (1, 1, 2))
        np.testing.assert_array_equal(first.image, again.image)
        assert first.phrase == again.phrase
        assert first.support.key == again.support.key
        assert not np.array_equal(first.image, other.image)

    def test_a_fifth_are_negatives_of_other_phrases(self, folder):
        data = PhraseCut(phrasecut_plus(folder))
        drawn = [data.draw(0, sample_rng(0, epoch, 0)) for epoch in range(1000)]
        negatives = [sample for sample in drawn if sample.negative]
        assert len(negatives) / 1000 == pytest.approx(0.2, abs=0.04)
        assert all(not sample.mask.any() for sample in negatives)
        phrases = Counter(sample.phrase for sample in negatives)
        # "wheel" is true of the picture, and the published code draws it all the same.
        assert set(phrases) == {'wheel', 'car', 'blue mug', 'walking dogs'}
        assert min(phrases.values()) > 25

    def test_strict_negatives_are_not_true_of_the_picture(self, folder):
        data = PhraseCut(phrasecut_plus(folder, negatives=1, strict_negatives=True))
        drawn = {data.draw(0, sample_rng(0, epoch, 0)).phrase for epoch in range(100)}
        # Neither "wheel", nor "car" where there is a "red car".
        assert drawn == {'blue mug', 'walking dogs'}

    def test_no_negative_is_left(self, folder, monkeypatch):
        monkeypatch.setattr(phrasecut, 'NEGATIVE_TRIES', 50)
        only = [{**json.loads((folder / 'refer_train.json').read_text())[0]}]
        (folder / 'refer_train.json').write_text(json.dumps(only))
        data = PhraseCut(phrasecut_plus(folder, negatives=1))
        with pytest.raises(DataError, match='no false phrase'):
            data.draw(0, sample_rng(0, 0, 0))

    def test_supports_share_the_phrase(self, folder):
        data = PhraseCut(phrasecut_plus(folder, negatives=0))
        keys = Counter(data.draw(0, sample_rng(0, i, 0)).support.key for i in range(300))
        # The picture itself is among them, as in the published code.
        assert set(keys) == {'11__11000', '12__12002', '13__13006'}
        assert min(keys.values()) > 70
        other = PhraseCut(phrasecut_plus(folder, negatives=0, support_is_another=True))
        keys = Counter(other.draw(0, sample_rng(0, i, 0)).support.key for i in range(100))
        assert set(keys) == {'12__12002', '13__13006'}

    def test_unique_phrases_and_plain_phrasecut_have_text_only(self, folder):
        data = PhraseCut(phrasecut_plus(folder, negatives=0))
        mug = data.phrases.index('blue mug')
        assert data.draw(mug, sample_rng(0, 0, 0)).support is None
        assert opened(folder).draw(0, sample_rng(0, 0, 0)).support is None

    def test_the_support_of_a_negative_shows_the_false_phrase(self, folder):
        data = PhraseCut(phrasecut_plus(folder, negatives=1))
        mug = data.phrases.index('blue mug')
        drawn = [data.draw(mug, sample_rng(0, i, 0)) for i in range(100)]
        cars = [sample for sample in drawn if sample.phrase == 'red car']
        assert cars
        assert {sample.support.key for sample in cars} <= {'11__11000', '12__12002', '13__13006'}
        assert all(sample.support is None for sample in drawn if sample.phrase != 'red car')
        assert all(sample.support.mask.any() for sample in cars)

    def test_whole_pictures_for_evaluation(self, folder):
        data = opened(folder, crop='none')
        for sample in data.each():
            assert sample.image.shape[:2] == sample.mask.shape

    def test_crops_are_squares_of_picture_and_mask_alike(self, folder):
        data = opened(folder)
        whole = next(opened(folder, crop='none').each())
        sides = set()
        for epoch in range(20):
            sample = data.draw(0, sample_rng(0, epoch, 0))
            assert sample.image.shape == (48, 48, 3)
            (left,) = (
                column
                for column in range(17)
                if np.array_equal(whole.image[:, column : column + 48], sample.image)
            )
            np.testing.assert_array_equal(whole.mask[:, left : left + 48], sample.mask)
            sides.add(left)
        assert len(sides) > 5


class TestSquareCrop:
    def test_the_object_is_partly_visible(self):
        mask = np.zeros((100, 400), bool)
        mask[10:90, 240:] = True
        for seed in range(50):
            part = square_crop(mask, np.random.default_rng(seed))
            assert mask[part].shape == (100, 100)
            assert mask[part].sum() > 0.05 * mask.size

    def test_the_best_is_taken_of_objects_that_are_small(self, monkeypatch):
        mask = np.zeros((100, 400), bool)
        mask[50, 200] = True
        shown = [mask[square_crop(mask, np.random.default_rng(seed))].sum() for seed in range(50)]
        assert all(shown)
        monkeypatch.setattr(phrasecut, 'CROP_TRIES', 1)
        shown = [mask[square_crop(mask, np.random.default_rng(seed))].sum() for seed in range(50)]
        assert 5 < sum(shown) < 40

    def test_nothing_to_show(self):
        rows, columns = square_crop(np.zeros((20, 30), bool), np.random.default_rng(0))
        assert (rows.stop - rows.start, columns.stop - columns.start) == (20, 20)


class TestBadInput:
    def test_missing_files(self, folder):
        (folder / 'refer_val.json').unlink()
        with pytest.raises(DataError, match=r'refer_val\.json does not exist.*download_dataset'):
            opened(folder, split='val')
        (folder / 'image_data_split3000.json').unlink()
        with pytest.raises(DataError, match='image_data_split3000'):
            opened(folder)

    def test_json_that_was_cut_off(self, folder):
        path = folder / 'refer_train.json'
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(DataError, match=r'refer_train\.json is no readable JSON'):
            opened(folder)

    @pytest.mark.parametrize('name', ['image_data_split.json', 'image_data_split3000.json'])
    def test_the_list_of_pictures_has_two_names(self, folder, name):
        (folder / 'image_data_split3000.json').rename(folder / name)
        assert len(opened(folder)) == 7

    def test_a_missing_picture(self, folder):
        (folder / 'images' / '12.jpg').unlink()
        with pytest.raises(BadRecord, match=r'12\.jpg does not exist.*record 2, task 12__12002'):
            opened(folder)
        data = opened(folder, bad_records='skip')
        assert data.problems.counts == {'missing image': 3}
        assert all(data.key(i).startswith(('11__', '13__')) for i in range(len(data)))
        assert 'missing image: 3, for example' in data.problems.summary()

    @pytest.mark.parametrize(
        ('change', 'message'),
        [
            ({'Polygons': None}, "has no 'Polygons'"),
            ({'phrase': 7}, "has int '7' as 'phrase'"),
            ({'phrase': ' '}, 'blank phrase'),
            ({'image_id': 999}, 'image 999, which image_data does not list'),
            ({'Polygons': [[[[1, 2], [3]]]]}, 'no list of x, y'),
            ({'Polygons': [5]}, "'5' where the polygons of an instance"),
            ({'Polygons': [[5]]}, "'5' as a polygon"),
            ({'Polygons': [None]}, "'None' where the polygons"),
            ({'Polygons': [{'0': 1}]}, 'where the polygons'),
            ({'Polygons': [[[[1, 2, 3]]]]}, 'as a polygon'),
            # One level too little, one too many, flat, and texts.
            ({'Polygons': [[[5, 5], [9, 5], [9, 9]]]}, r"'\[5, 5\]' as a polygon"),
            ({'Polygons': [[[[[5, 5], [9, 5], [9, 9]]]]]}, 'as a polygon'),
            ({'Polygons': [[[5, 5, 9, 5, 9, 9]]]}, 'as a polygon'),
            ({'Polygons': [[[['5', '5'], ['9', '5'], ['9', '9']]]]}, 'as a polygon'),
            ({'Polygons': [[[[5, 5], [float('nan'), 5], [9, 9]]]]}, 'corners that are no numbers'),
            ({'Polygons': [[[[5, 5], [float('inf'), 5], [9, 9]]]]}, 'corners that are no numbers'),
            ({'Polygons': []}, 'has no polygon, which cover no pixel'),
            ({'Polygons': [[]]}, 'has no polygon'),
            ({'Polygons': [[[]]]}, 'has no polygon'),
            ({'Polygons': [[[[70, 5], [90, 5], [90, 9]]]]}, r'with x in 70 … 90.* of 64 × 48'),
            ({'Polygons': [[[[5, -9], [9, -9], [9, -2]]]]}, 'cover no pixel'),
            ({'Polygons': [[[[5.2, 5.2], [5.8, 5.2], [5.5, 5.8]]]]}, 'cover no pixel'),
            ({'phrase': 'very ' * 80 + 'red wheel'}, 'a phrase of 90 tokens with its caption'),
            ({'phrase': '🚗' * 75}, 'tokens with its caption, and the text tower takes 77'),
            ({'instance_boxes': [[1, 2]]}, 'no usable boxes'),
            ({'instance_boxes': []}, r'no usable boxes: \[\] fill no part'),
            ({'instance_boxes': [[1, 2, float('nan'), 3]]}, 'fill no part of the picture'),
            ({'instance_boxes': [[1, 2, -5, 3]]}, 'fill no part of the picture'),
            ({'instance_boxes': [[1, 2, -5, -3]]}, 'fill no part of the picture'),
            ({'instance_boxes': [[1, 2, float('inf'), 3]]}, 'fill no part of the picture'),
            ({'instance_boxes': [{}]}, 'no usable boxes'),
            # Half of a character: valid JSON, and no text.
            ({'phrase': 'red \ud83d'}, r"'red \\ud83d' as 'phrase', with half of a character"),
            ({'task_id': 'a\udc00'}, r"as 'task_id', with half of a character"),
        ],
    )
    def test_broken_records(self, folder, change, message):
        edit(folder, 1, **change)
        named = '' if 'task_id' in change else '.*task 11__11001'
        with pytest.raises(BadRecord, match=rf'refer_train\.json, record 1{named}.*{message}'):
            opened(folder)
        data = opened(folder, bad_records='skip')
        assert sum(data.problems.counts.values()) == 1
        assert 'wheel' not in data.phrases
        assert len(data) == 6

    def test_names_with_half_of_a_character_lose_it(self, folder):
        edit(folder, 1, phrase_structure={'name': 'whe\ud83d', 'attributes': ['\udc00']})
        structure = opened(folder).structure(1)
        assert (structure.name, structure.attributes) == ('whe?', ('?',))

    @pytest.mark.parametrize(
        ('polygon', 'fault'),
        [
            ([[2, 2], [20, 20], [20, 2], [2, 20]], 'crosses itself'),
            ([[2, 2], [20, 20]], '2 different corners'),
            ([], '0 different corners'),
            ([[2, 2], [10, 10], [20, 20]], 'no area'),
        ],
    )
    def test_polygons_that_enclose_nothing(self, folder, polygon, fault):
        edit(folder, 1, Polygons=[[polygon, [[5, 5], [9, 5], [9, 9]]]])
        assert len(opened(folder)) == 7
        assert opened(folder, crop='none').load(1, sample_rng(0, 0, 1)).mask[6, 8]
        with pytest.raises(BadRecord, match=rf'task 11__11001.* {fault}'):
            opened(folder, check_polygons=True)
        data = opened(folder, check_polygons=True, bad_records='skip')
        assert data.problems.counts == {'bad polygon': 1}

    def test_pictures_of_another_size_or_damaged(self, folder):
        Image.fromarray(np.zeros((48, 63, 3), np.uint8)).save(folder / 'images' / '11.jpg')
        with pytest.raises(BadRecord, match=r'11\.jpg is 63 × 48 pixels.*task 11__11000.*64 × 48'):
            opened(folder).draw(0, sample_rng(0, 0, 0))
        (folder / 'images' / '11.jpg').write_bytes(b'no picture')
        with pytest.raises(BadRecord, match=r'11\.jpg, which task 11__11000 needs, cannot be read'):
            opened(folder).draw(0, sample_rng(0, 0, 0))
        data = opened(folder, bad_records='skip')
        assert not data.draw(0, sample_rng(0, 0, 0)).key.startswith('11__')
        assert data.problems.counts['unreadable image'] >= 1
        assert [sample.key[:2] for sample in data.each()] == ['12', '12', '12', '13', '13']

    def test_long_phrases_that_fit_are_kept(self, folder):
        fits = ('very ' * 66).strip()
        edit(folder, 1, phrase=fits)
        assert opened(folder).phrases[1] == fits
        longest = max(TEMPLATES['shuffle+'], key=lambda text: len(text.split()))
        tokens = SimpleTokenizer(context_length=200)([longest.format(fits)])
        assert int((tokens != 0).sum()) <= 77
        edit(folder, 1, phrase=f'very very very very {fits}')
        with pytest.raises(BadRecord, match=r'task 11__11001.* tokens'):
            opened(folder)

    def test_what_only_pillow_fills_is_kept_for_pillow(self, folder):
        edit(folder, 1, Polygons=[[[[5.2, 5.2], [5.8, 5.2], [5.5, 5.8]]]])
        data = opened(folder, rasteriser='pillow', crop='none')
        assert data.load(1, sample_rng(0, 0, 0)).mask.sum() == 1

    def test_when_all_are_broken(self, folder):
        for path in (folder / 'images').iterdir():
            path.write_bytes(b'')
        with pytest.raises(DataError, match='100 records in a row are broken'):
            opened(folder, bad_records='skip').draw(0, sample_rng(0, 0, 0))

    def test_supports_that_are_broken_are_drawn_again(self, folder):
        (folder / 'images' / '12.jpg').write_bytes(b'')
        data = PhraseCut(phrasecut_plus(folder, negatives=0, bad_records='skip'))
        keys = {data.draw(0, sample_rng(0, i, 0)).support.key for i in range(30)}
        assert keys == {'11__11000', '13__13006'}
        assert data.problems.counts['unreadable image'] > 0
