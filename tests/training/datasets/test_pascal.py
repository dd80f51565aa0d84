"""Pascal VOC 2012 and SBD in their publishers' layout."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from scipy.io import savemat

from training.datasets.pascal import (
    UNSEEN_ORDER,
    VOC_NAMES,
    Labels,
    Pascal5i,
    PascalSettings,
    PascalZeroShot,
)
from training.datasets.samples import BadRecord, DataError, sample_rng
from training.datasets.wordnet_removal import PASCAL_SYNSETS, ZERO_SHOT_PAIRS

HEIGHT, WIDTH = 60, 90


def labels(*classes: int, small: int | None = None) -> np.ndarray:
    """Classes in 40-pixel wide bands (2,400 pixels each), with a rim that does not count."""
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    for band, number in enumerate(classes):
        values[:, 40 * band : 40 * band + 40] = number
        values[0, 40 * band : 40 * band + 40] = 255
    if small is not None:
        values[20:30, 82:88] = small
    return values


def write_voc(root, train, val):
    folder = root / 'VOCdevkit' / 'VOC2012'
    for part in ('JPEGImages', 'SegmentationClass', 'ImageSets/Segmentation'):
        (folder / part).mkdir(parents=True)
    for split, scenes in (('train', train), ('val', val)):
        (folder / 'ImageSets/Segmentation' / f'{split}.txt').write_text('\n'.join(scenes) + '\n')
        for number, (name, values) in enumerate(scenes.items()):
            image = Image.fromarray(values)
            # As VOC's: numbers with a palette, so that they look coloured.
            image = image.convert('P')
            image.putpalette([i % 256 for i in range(768)])
            image.putdata(values.ravel().tolist())
            image.save(folder / 'SegmentationClass' / f'{name}.png')
            Image.new('RGB', (WIDTH, HEIGHT), (number, 9, 9)).save(
                folder / 'JPEGImages' / f'{name}.jpg'
            )
    return folder


def write_sbd(root, voc, scenes):
    folder = root / 'benchmark_RELEASE' / 'dataset'
    (folder / 'cls').mkdir(parents=True)
    (folder / 'train.txt').write_text('\n'.join(scenes) + '\n')
    for name, values in scenes.items():
        content = {'GTcls': {'Segmentation': values, 'CategoriesPresent': np.unique(values)}}
        savemat(folder / 'cls' / f'{name}.mat', content)
        image = voc / 'JPEGImages' / f'{name}.jpg'
        if not image.exists():
            Image.new('RGB', (WIDTH, HEIGHT)).save(image)
    return folder


@pytest.fixture
def voc(tmp_path):
    return write_voc(
        tmp_path,
        {'2007_01': labels(1, 7), '2007_02': labels(7), '2007_03': labels(20)},
        {
            '2007_11': labels(1, small=2),
            '2007_12': labels(1, 2),
            '2007_13': labels(7),
            '2007_14': labels(0, small=1),
        },
    )


@pytest.fixture
def sbd(tmp_path, voc):
    return write_sbd(
        tmp_path,
        voc,
        {'2008_01': labels(6, 13), '2007_01': labels(3), '2007_11': labels(7)},
    )


def opened(voc, split='val', fold=0, **changes) -> Pascal5i:
    return Pascal5i(PascalSettings(folder=voc, split=split, fold=fold, **changes))


class TestLabels:
    def test_palettes_and_matlab_files_are_numbers(self, voc, sbd):
        source = Labels(voc, sbd)
        np.testing.assert_array_equal(source.labels('2007_12'), labels(1, 2))
        np.testing.assert_array_equal(source.labels('2008_01'), labels(6, 13))
        # VOC's own are finer than SBD's.
        np.testing.assert_array_equal(source.labels('2007_01'), labels(1, 7))

    def test_training_has_nothing_of_the_test(self, voc, sbd):
        names = Labels(voc, sbd).listed('train')
        assert names == ['2007_01', '2007_02', '2007_03', '2008_01']

    def test_converted_labels(self, voc, tmp_path):
        (voc / 'SegmentationClassAug').mkdir()
        Image.fromarray(labels(6)).save(voc / 'SegmentationClassAug' / '2008_09.png')
        Image.fromarray(labels(3)).save(voc / 'SegmentationClassAug' / '2007_11.png')
        source = Labels(voc)
        assert source.listed('train')[-1] == '2008_09'
        np.testing.assert_array_equal(source.labels('2008_09'), labels(6))

    def test_broken_labels(self, voc, sbd):
        source = Labels(voc, sbd)
        with pytest.raises(BadRecord, match=r'2009_99\.mat does not exist'):
            source.labels('2009_99')
        (sbd / 'cls' / '2008_01.mat').write_bytes(b'MATLAB?')
        with pytest.raises(BadRecord, match=r'no GTcls\.Segmentation'):
            source.labels('2008_01')
        Image.fromarray(labels(33)).save(voc / 'SegmentationClass' / '2007_02.png')
        with pytest.raises(BadRecord, match=r'classes \[33\]'):
            source.labels('2007_02')
        Image.new('RGB', (WIDTH, HEIGHT)).save(voc / 'SegmentationClass' / '2007_02.png')
        with pytest.raises(BadRecord, match='was it saved in colour'):
            source.labels('2007_02')
        Image.new('RGB', (5, 6)).save(voc / 'JPEGImages' / '2007_12.jpg')
        with pytest.raises(BadRecord, match=r'2007_12\.jpg is 5 × 6 pixels'):
            source.both('2007_12')


class TestPascal5i:
    def test_the_fold_of_the_test(self, voc):
        data = opened(voc)
        # The aeroplane of 2007_14 is too small; the bicycle of 2007_11 comes with a large one.
        assert [data.key(i) for i in range(len(data))] == [
            '2007_11#aeroplane',
            '2007_11#bicycle',
            '2007_12#aeroplane',
            '2007_12#bicycle',
        ]
        assert [opened(voc, fold=1).key(0)] == ['2007_13#car']

    def test_masks_and_rims(self, voc):
        sample = opened(voc).draw(3, sample_rng(0, 0, 0))
        np.testing.assert_array_equal(sample.mask, labels(1, 2) == 2)
        np.testing.assert_array_equal(sample.valid, labels(1, 2) != 255)
        assert (sample.phrase, sample.class_id) == ('bicycle', 2)

    def test_training_has_the_other_classes(self, voc, sbd):
        keys = {s.key for s in opened(voc, 'train', 0, sbd=sbd).each()}
        assert keys == {
            '2007_01#car', '2007_02#car', '2007_03#tvmonitor', '2008_01#bus', '2008_01#horse'
        }  # fmt: skip
        keys = {s.key for s in opened(voc, 'train', 1, sbd=sbd).each()}
        assert keys == {'2007_01#aeroplane', '2007_03#tvmonitor', '2008_01#horse'}
        with pytest.raises(ValidationError, match='training needs sbd'):
            opened(voc, 'train')

    def test_supports_are_large_and_of_another_picture(self, voc):
        data = opened(voc, visual=True)
        assert data.draw(0, sample_rng(0, 0, 0)).support.key == '2007_12'
        # The bicycle of 2007_11 is too small to be an example.
        assert data.draw(3, sample_rng(0, 0, 0)).support is None

    def test_protocol_asks_each_picture_once(self, voc):
        data = opened(voc)
        drawn = [data.protocol(seed) for seed in range(30)]
        assert all([data.items[i][0] for i in indices] == [0, 1] for indices in drawn)
        assert {tuple(indices) for indices in drawn} == {(0, 2), (0, 3), (1, 2), (1, 3)}
        assert data.protocol(3) == data.protocol(3)

    def test_names_in_words(self, voc):
        (voc / 'ImageSets/Segmentation/val.txt').write_text('2007_03\n')
        assert opened(voc, fold=3).key(0) == '2007_03#tvmonitor'
        assert opened(voc, fold=3, names='words').key(0) == '2007_03#tv monitor'

    def test_what_is_not_voc(self, voc, tmp_path):
        with pytest.raises(DataError, match='name the folder VOCdevkit/VOC2012'):
            opened(tmp_path)
        with pytest.raises(ValidationError, match='fold'):
            opened(voc, fold=4)
        (voc / 'SegmentationClass' / '2007_13.png').unlink()
        with pytest.raises(BadRecord, match=r'2007_13\.png does not exist'):
            opened(voc)
        assert opened(voc, bad_records='skip').problems.counts == {'missing image': 1}


class TestZeroShot:
    def test_scenes(self, voc):
        data = PascalZeroShot(voc, 4)
        scenes = list(data.each())
        assert [scene.key for scene in scenes] == ['2007_11', '2007_12', '2007_13', '2007_14']
        np.testing.assert_array_equal(scenes[1].labels, labels(1, 2))
        assert data.names[0] == 'background'
        assert (data.names[1], data.names[16]) == ('airplane', 'pottedplant')
        assert [scene.key for scene in data.each(range(0, 4, 2))] == ['2007_11', '2007_13']

    def test_splits(self, voc):
        assert [VOC_NAMES[n] for n in PascalZeroShot(voc, 4).unseen] == [
            'aeroplane', 'cow', 'motorbike', 'sofa'
        ]  # fmt: skip
        assert len(PascalZeroShot(voc, 10).seen) == 11
        assert set(PascalZeroShot(voc, 2).seen) | {10, 14} == set(range(21))
        with pytest.raises(ValueError, match='2, 4, 6, 8 or 10 classes, not 5'):
            PascalZeroShot(voc, 5)

    def test_training_removes_what_the_test_holds_out(self):
        removed = [PASCAL_SYNSETS.index(name) + 1 for pair in ZERO_SHOT_PAIRS for name in pair]
        assert [set(removed[i : i + 2]) for i in range(0, 10, 2)] == [
            set(UNSEEN_ORDER[i : i + 2]) for i in range(0, 10, 2)
        ]

    def test_broken_scenes(self, voc):
        (voc / 'JPEGImages' / '2007_12.jpg').unlink()
        with pytest.raises(BadRecord, match=r'2007_12\.jpg does not exist'):
            list(PascalZeroShot(voc, 2).each())
        data = PascalZeroShot(voc, 2, 'skip')
        assert len(list(data.each())) == 3
        assert data.problems.counts == {'missing image': 1}
