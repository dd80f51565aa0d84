"""COCO's instance format: one's own file, COCO-20i, every kind of mask, and broken records."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as run_lengths
from pydantic import ValidationError
from test_phrasecut import crossing_number_mask

from training.datasets.coco import Coco, CocoSettings, coco_20i
from training.datasets.coco_masks import coco_mask, decompressed
from training.datasets.samples import BadRecord, DataError, sample_rng

SQUARE = [[4.0, 4.0, 14.0, 4.0, 14.0, 14.0, 4.0, 14.0]]


def annotation(number, image, category, segmentation=None, **changes):
    segmentation = segmentation or SQUARE
    return {
        'id': number,
        'image_id': image,
        'category_id': category,
        'segmentation': segmentation,
        'area': 100.0,
        'bbox': [4, 4, 10, 10],
        'iscrowd': 0,
        **changes,
    }


def write(root, annotations, categories=('cup', 'fire_truck', 'dog'), split='mini', pictures=4):
    """Writes a file as COCO's; pictures are 30 × 20, named as COCO's, the last without objects."""
    (root / 'annotations').mkdir(exist_ok=True)
    (root / 'images').mkdir(exist_ok=True)
    names = {number: f'{number:012d}.jpg' for number in range(1, pictures + 1)}
    for number, name in names.items():
        Image.new('RGB', (30, 20), (number, 0, 0)).save(root / 'images' / name)
    content = {
        'info': {},
        'licenses': [],
        'images': [
            {'id': number, 'file_name': name, 'height': 20, 'width': 30, 'license': 1}
            for number, name in names.items()
        ],
        # As in COCO, numbers have gaps.
        'categories': [
            {'id': 2 * number + 1, 'name': name, 'supercategory': 'thing'}
            for number, name in enumerate(categories)
        ],
        'annotations': annotations,
    }
    path = root / 'annotations' / f'instances_{split}.json'
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def mini(tmp_path):
    second = [[16.0, 4.0, 26.0, 4.0, 26.0, 14.0, 16.0, 14.0]]
    return write(
        tmp_path,
        [
            annotation(1, 1, 1),
            annotation(2, 1, 1, second),
            annotation(3, 1, 3, second),
            annotation(4, 2, 1),
            annotation(5, 2, 5, {'size': [20, 30], 'counts': [0, 40, 560]}, iscrowd=1),
            annotation(6, 3, 5),
        ],
    )


def opened(path, **changes) -> Coco:
    return Coco(CocoSettings(annotations=path, **changes))


class TestMasks:
    def test_polygons_cover_the_cells_of_pixels(self):
        expected = np.zeros((20, 30), bool)
        expected[4:14, 4:14] = True
        np.testing.assert_array_equal(coco_mask(SQUARE, 20, 30), expected)
        far = [20.0, 2.0, 29.0, 2.0, 29.0, 9.0]
        both = coco_mask([*SQUARE, far], 20, 30)
        # COCO's points count from a pixel's corner; its code draws on a fivefold grid.
        triangle = crossing_number_mask([(19.5, 1.5), (28.5, 1.5), (28.5, 8.5)], 20, 30)
        assert np.count_nonzero(both != (expected | triangle)) <= 6

    def test_run_lengths(self):
        runs = coco_mask({'size': [2, 3], 'counts': [1, 2, 3]}, 2, 3)
        assert runs.tolist() == [[False, True, False], [True, False, False]]
        truth = np.random.default_rng(0).random((20, 30)) < 0.4
        encoded = run_lengths.encode(np.asfortranarray(truth, np.uint8))
        encoded['counts'] = encoded['counts'].decode()
        np.testing.assert_array_equal(coco_mask(encoded, 20, 30), truth)

    @pytest.mark.parametrize(
        ('segmentation', 'message'),
        [
            ([[1, 2, 3, 4]], 'no polygon of three'),
            ([[1, 2, 3, 4, 5, 6, 7]], 'no polygon of three'),
            ({'size': [3, 2], 'counts': [6]}, r'are for \[3, 2\]'),
            ({'size': [2, 3], 'counts': [5]}, 'add up to 5'),
            ({'size': [2, 3], 'counts': [7, -1]}, 'or some are negative'),
            ({'size': [2, 3], 'counts': '5'}, 'add up to 5'),
            ({'size': [2, 3], 'counts': '5ü'}, 'no compressed text'),
            ({'size': [2, 3], 'counts': 'XXXX'}, 'no compressed text'),
            ([[1, 2, 3, 4, 5, float('inf')]], 'no numbers'),
            ([[1, 2, 3, 4, 5, 1e9]], 'beyond 100,000 pixels'),
        ],
    )
    def test_what_is_no_mask(self, segmentation, message):
        with pytest.raises(ValueError, match=message):
            coco_mask(segmentation, 2, 3)

    @pytest.mark.parametrize('seed', range(8))
    def test_compressed_run_lengths_are_those_of_the_mask(self, seed):
        rng = np.random.default_rng(seed)
        mask = rng.random(rng.integers(1, 90, 2)) < rng.choice([0.0, 0.001, 0.02, 0.5, 1.0])
        flat = mask.ravel(order='F').astype(np.int8)
        changes = np.flatnonzero(np.diff(flat, prepend=0, append=2))
        encoded = run_lengths.encode(np.asfortranarray(mask, np.uint8))['counts']
        assert decompressed(encoded).tolist() == np.diff(changes, prepend=0).tolist()


class TestReading:
    def test_a_class_is_the_union_of_its_instances(self, mini):
        data = opened(mini)
        assert [data.key(i) for i in range(len(data))] == [
            '000000000001.jpg#cup',
            '000000000001.jpg#fire truck',
            '000000000002.jpg#cup',
            '000000000003.jpg#dog',
        ]
        cups = data.draw(0, sample_rng(0, 0, 0))
        assert (cups.phrase, cups.class_id, cups.mask.sum(), cups.valid) == ('cup', 1, 200, None)
        assert cups.image.shape == (20, 30, 3)
        assert data.draw(1, sample_rng(0, 0, 0)).mask.sum() == 100

    def test_crowds_do_not_count(self, mini):
        content = json.loads(mini.read_text())
        content['annotations'].append(annotation(7, 2, 5))
        mini.write_text(json.dumps(content))
        sample = next(s for s in opened(mini).each() if s.key == '000000000002.jpg#dog')
        # The crowd is the first two columns; the dog, a square.
        assert sample.mask.sum() == 100
        assert not sample.valid[:, :2].any()
        assert sample.valid.sum() == 560

    def test_supports_show_the_class_in_another_picture(self, mini):
        data = opened(mini, visual=True)
        assert data.draw(0, sample_rng(0, 0, 0)).support.key == '000000000002.jpg'
        assert data.draw(1, sample_rng(0, 0, 0)).support is None

    def test_negatives_are_absent_from_the_picture(self, mini):
        data = opened(mini, negatives=1)
        drawn = [data.draw(0, sample_rng(0, i, 0)) for i in range(20)]
        assert {(s.phrase, s.negative, s.mask.any()) for s in drawn} == {('dog', True, False)}
        # The second picture has a crowd of dogs.
        drawn = [data.draw(2, sample_rng(0, i, 0)) for i in range(20)]
        assert {s.phrase for s in drawn} == {'fire truck'}

    def test_classes_and_least_area(self, mini):
        assert len(opened(mini, classes=['dog'])) == 1
        assert [opened(mini, min_area=0.2).key(0)] == ['000000000001.jpg#cup']
        with pytest.raises(ValueError, match='no class mug; it has cup, dog, fire_truck'):
            opened(mini, classes=['mug'])

    def test_crops(self, mini):
        sample = opened(mini, crop='random').draw(1, sample_rng(0, 0, 0))
        assert sample.image.shape == (20, 20, 3)
        assert sample.mask.any()


#: Of the small pictures here, in which all objects are at one place.
EVERYTHING = {'min_pixels': 0, 'overlaps': 'both'}


def painted(content: dict, picture: int) -> dict[int, np.ndarray]:
    """HSNet's masks: boxes with their outlines, each painted over those before it."""
    labels = np.zeros((20, 30), int)
    for entry in content['annotations']:
        if entry['image_id'] == picture and not entry['iscrowd']:
            left, top, right, bottom = (round(entry['segmentation'][0][i]) for i in (0, 1, 4, 5))
            labels[top : bottom + 1, left : right + 1] = entry['category_id']
    return {int(number): labels == number for number in np.unique(labels) if number}


class TestOverlapsAndSizes:
    @pytest.fixture
    def crossed(self, tmp_path):
        """Random boxes of three classes over each other, some of them crowds."""
        rng = np.random.default_rng(7)
        entries = []
        for number in range(60):
            left, top = rng.integers(0, 20), rng.integers(0, 12)
            right, bottom = left + rng.integers(3, 11), top + rng.integers(3, 9)
            points = [left, top, right, top, right, bottom, left, bottom]
            shape = [list(map(float, points))]
            crowd = int(rng.random() < 0.1)
            if crowd:
                runs = run_lengths.encode(np.asfortranarray(coco_mask(shape, 20, 30), np.uint8))
                shape = {'size': [20, 30], 'counts': runs['counts'].decode()}
            number_of_class = int(rng.choice([1, 3, 5]))
            picture = 1 + number % 12
            # What the file says of areas is not what decides.
            entries.append(
                annotation(
                    number + 1, picture, number_of_class, shape, iscrowd=crowd, area=float('nan')
                )
            )
        return write(tmp_path, entries, pictures=12)

    @pytest.mark.parametrize('least', [1, 20, 45, 70])
    def test_listed_are_classes_whose_painted_pixels_are_enough(self, crossed, least):
        content = json.loads(crossed.read_text())
        wanted = sorted(
            (picture, number)
            for picture in range(1, 13)
            for number, mask in painted(content, picture).items()
            if mask.sum() >= least
        )
        data = opened(crossed, overlaps='painted', min_pixels=least)
        assert data.items == wanted
        assert 4 < len(wanted) < 36
        for (picture, number), sample in zip(wanted, data.each(), strict=True):
            np.testing.assert_array_equal(sample.mask, painted(content, picture)[number])

    def test_pixels_that_several_instances_cover_count_once(self, crossed):
        every = opened(crossed)
        sizes = {key: int(s.mask.sum()) for key, s in zip(every.items, every.each(), strict=True)}
        for least in (20, 45, 70):
            wanted = [key for key, size in sizes.items() if size >= least]
            assert opened(crossed, min_pixels=least).items == wanted

    def test_supports_fill_as_many(self, crossed):
        data = opened(crossed, overlaps='painted', min_pixels=45, visual=True)
        names = {data.files[picture] for picture, _ in data.items}
        for index in range(len(data)):
            for seed in range(8):
                support = data.load(index, sample_rng(seed, 0, index)).support
                assert support is None or (support.mask.sum() >= 45 and support.key in names)

    def test_crowds_hide_nothing_and_run_lengths_are_painted(self, tmp_path):
        runs = run_lengths.encode(np.asfortranarray(coco_mask(SQUARE, 20, 30), np.uint8))
        square = {'size': [20, 30], 'counts': runs['counts'].decode()}
        whole = {'size': [20, 30], 'counts': [0, 600]}
        corner = [[4.9, 4.9, 8.9, 4.9, 8.9, 8.9, 4.9, 8.9]]
        listed = [annotation(1, 1, 1, square), annotation(2, 1, 3, corner)]
        listed.append(annotation(3, 1, 5, whole, iscrowd=1))
        data = opened(write(tmp_path, listed), overlaps='painted')
        masks = {sample.phrase: sample.mask for sample in data.each()}
        assert masks['fire truck'].sum() == 25  # 4 … 8 with its outline
        assert masks['cup'].sum() == 100 - 25

    @pytest.mark.parametrize('shape', [[[1.0, 2.0, 3.0]], [[1.0, 2, 3, 4, 5, float('nan')]]])
    def test_broken_polygons_are_found_before_training(self, mini, shape):
        content = json.loads(mini.read_text())
        content['annotations'][3]['segmentation'] = shape
        mini.write_text(json.dumps(content))
        for overlaps in ('painted', 'both'):
            with pytest.raises(BadRecord, match=r'annotation 4 of 000000000002\.jpg'):
                opened(mini, overlaps=overlaps, min_pixels=1)
            data = opened(mini, overlaps=overlaps, min_pixels=1, bad_records='skip')
            assert data.problems.counts == {'bad polygon': 1}

    def test_the_published_rule_is_that_of_coco_20i(self, tmp_path):
        settings = coco_20i(tmp_path, 2, 'train')
        assert (settings.min_pixels, settings.overlaps, settings.draw) == (
            2048,
            'painted',
            'classes',
        )


class TestCoco20i:
    @pytest.fixture
    def folder(self, tmp_path):
        names = [f'class_{i}' for i in range(80)]
        entries = [annotation(i + 1, 1 + i % 4, 2 * i + 1) for i in range(80)]
        write(tmp_path, entries, names, 'train2014')
        write(tmp_path, entries, names, 'val2014')
        return tmp_path

    def test_folds(self, folder):
        tested = []
        for fold in range(4):
            val = Coco(coco_20i(folder, fold, 'val', **EVERYTHING))
            train = Coco(coco_20i(folder, fold, 'train', **EVERYTHING))
            numbers = sorted({number for _, number in val.items})
            assert [(number - 1) // 2 for number in numbers] == list(range(fold, 80, 4))
            assert len({number for _, number in train.items}) == 60
            assert not {number for _, number in train.items} & set(numbers)
            tested += numbers
        assert len(set(tested)) == 80

    def test_episodes_are_uniform_over_classes(self, folder):
        data = Coco(coco_20i(folder, 1, 'val', **EVERYTHING))
        indices = data.episodes(2000, seed=1)
        counts = np.bincount([data.items[i][1] for i in indices])[3::8]
        assert counts.min() > 60
        assert indices == data.episodes(2000, seed=1) != data.episodes(2000, seed=2)

    def test_training_draws_classes_as_often_as_each_other(self, mini):
        # Two pictures show cups, one a fire truck, one a dog.
        data = opened(mini, draw='classes')
        names = [data.draw(0, sample_rng(0, 0, i)).key for i in range(600)]
        counts = Counter(name.rpartition('#')[2] for name in names)
        assert set(counts) == {'cup', 'fire truck', 'dog'}
        assert min(counts.values()) > 160
        cups = Counter(name for name in names if name.endswith('cup'))
        assert min(cups.values()) > 70
        assert data.draw(3, sample_rng(0, 0, 5)).key == names[5]
        # Evaluation asks for samples by number.
        assert [sample.key for sample in data.each()] == [data.key(i) for i in range(len(data))]

    def test_what_is_not_coco(self, folder, mini):
        with pytest.raises(ValueError, match='folds 0…3 and splits train and val'):
            coco_20i(folder, 4, 'val')
        with pytest.raises(DataError, match='has 3 classes'):
            opened(mini, coco20i=(0, 'val'))


class TestBadInput:
    @pytest.mark.parametrize(
        ('entry', 'left', 'kind', 'message'),
        [
            (annotation(9, 1, 77), 4, 'unknown class', 'category 77'),
            (annotation(9, 88, 1), 4, 'unknown image', 'image 88'),
            # Of a cup in the first picture nobody can tell where it is.
            (
                {'id': 9, 'image_id': 1, 'category_id': 1},
                3,
                'malformed record',
                "no 'segmentation'",
            ),
            (annotation(9, 1, 1) | {'segmentation': []}, 3, 'bad polygon', 'empty'),
        ],
    )
    def test_broken_annotations(self, mini, entry, left, kind, message):
        content = json.loads(mini.read_text())
        content['annotations'].append(entry)
        mini.write_text(json.dumps(content))
        with pytest.raises(BadRecord, match=rf'instances_mini\.json, annotation 6.*{message}'):
            opened(mini)
        data = opened(mini, bad_records='skip')
        assert data.problems.counts == {kind: 1}
        assert len(data) == left

    @pytest.mark.parametrize(
        ('segmentation', 'kind', 'message'),
        [
            ([[1, 2, 3]], 'bad polygon', 'no polygon of three'),
            ([5], 'bad polygon', 'no usable segmentation'),
            ([[1, 2, 3, 4, 5, float('nan')]], 'bad polygon', 'no numbers'),
            ([['1', '2', '3', '4', '5', '6']], 'bad polygon', 'no usable segmentation'),
            ({'size': [30, 20], 'counts': [600]}, 'bad polygon', r'are for \[30, 20\]'),
            ({'size': [20, 30], 'counts': 7}, 'bad polygon', 'no usable segmentation'),
            ({'size': [20, 30]}, 'bad polygon', 'no usable segmentation'),
            # Sound, and nothing of it is in the picture.
            ([[40, 4, 50, 4, 50, 14]], 'empty mask', "'cup' covers no pixel"),
            ([[4.1, 4.1, 4.2, 4.1, 4.2, 4.2]], 'empty mask', "'cup' covers no pixel"),
            ({'size': [20, 30], 'counts': [600]}, 'empty mask', "'cup' covers no pixel"),
        ],
    )
    def test_what_says_nothing_of_where_a_class_is(self, mini, segmentation, kind, message):
        content = json.loads(mini.read_text())
        content['annotations'][3]['segmentation'] = segmentation
        mini.write_text(json.dumps(content))
        with pytest.raises(BadRecord, match=rf'annotation 4( of 000000000002\.jpg|:).*{message}'):
            opened(mini)
        data = opened(mini, bad_records='skip', negatives=1)
        assert data.problems.counts == {kind: 1}
        assert [data.key(i)[11] for i in range(len(data))] == ['1', '1', '3']
        # The second picture is not known to lack a cup.
        assert 1 not in data.absent(2)

    def test_what_others_hide_is_no_fault(self, mini):
        content = json.loads(mini.read_text())
        content['annotations'] += [annotation(7, 3, 1), annotation(8, 3, 3)]
        mini.write_text(json.dumps(content))
        keys = [sample.key for sample in opened(mini, overlaps='painted').each()]
        assert keys[-1] == '000000000003.jpg#fire truck'
        assert len(keys) == 4

    @pytest.mark.parametrize('area', [None, 'large', float('nan'), -1.0])
    def test_areas_are_read_where_they_count(self, mini, area):
        content = json.loads(mini.read_text())
        content['annotations'][3]['area'] = area
        mini.write_text(json.dumps(content))
        assert len(opened(mini)) == 4
        with pytest.raises(BadRecord, match=r"annotation 3, has .* 'area'"):
            opened(mini, min_area=0.1)
        data = opened(mini, min_area=0.1, bad_records='skip')
        assert (data.problems.counts, len(data)) == ({'malformed record': 1}, 3)

    def test_missing_pictures_are_counted_once(self, mini):
        (mini.parent.parent / 'images' / '000000000001.jpg').unlink()
        with pytest.raises(BadRecord, match=r'000000000001\.jpg does not exist'):
            opened(mini)
        data = opened(mini, bad_records='skip')
        assert (data.problems.counts, len(data)) == ({'missing image': 1}, 2)

    def test_pictures_that_do_not_fit(self, mini):
        Image.new('RGB', (31, 20)).save(mini.parent.parent / 'images' / '000000000003.jpg')
        data = opened(mini, bad_records='skip')
        assert [sample.key[11] for sample in data.each()] == ['1', '1', '2']
        assert data.problems.counts == {'wrong image size': 1}

    def test_files_that_are_not_coco(self, tmp_path):
        path = tmp_path / 'x.json'
        path.write_text('[1, 2')
        with pytest.raises(DataError, match='no readable JSON'):
            opened(path)
        path.write_text('{"images": []}')
        with pytest.raises(DataError, match="has no list 'categories'"):
            opened(path)
        path = write(tmp_path, [])
        (tmp_path / 'images').rename(tmp_path / 'elsewhere')
        with pytest.raises(FileNotFoundError, match='images/mini'):
            opened(path)

    def test_nothing_to_read(self, tmp_path):
        with pytest.raises(DataError, match='has no sample'):
            opened(write(tmp_path, []))
        with pytest.raises(DataError, match="one class, 'cup': no negatives"):
            opened(write(tmp_path, [annotation(1, 1, 1)]), negatives=0.2)
        with pytest.raises(ValidationError, match='bad_records'):
            CocoSettings(annotations=tmp_path, bad_records='ignore')
