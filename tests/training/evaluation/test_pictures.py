"""Pictures with names and masks, from each format."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from training.datasets.tabletop import SURFACES, TabletopViews
from training.evaluation.pictures import (
    coco_pictures,
    open_pictures,
    tabletop_pictures,
    yolo_pictures,
)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def yolo(tmp_path):
    """Two pictures with a cup and a dining table, and one without a label."""
    for name in ('a', 'b', 'c'):
        for kind in ('images', 'labels'):
            (tmp_path / kind / 'train').mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / 'images/train' / f'{name}.png'), np.full((50, 100, 3), 7))
    cup = '41 0.1 0.2 0.5 0.2 0.5 0.8 0.1 0.8'
    (tmp_path / 'labels/train/a.txt').write_text(f'{cup}\n60 0 0.9 1 0.9 1 1 0 1\n')
    (tmp_path / 'labels/train/b.txt').write_text(f'{cup}\n\n')
    return tmp_path


def test_tabletop_views(rendered):
    views = TabletopViews(rendered / 'val')
    pictures = list(tabletop_pictures(rendered / 'val', rng()))
    assert sorted(picture.key for picture in pictures) == sorted(
        f'view {view}' for view in range(len(views))
    )
    for picture in pictures:
        view = int(picture.key.split()[1])
        np.testing.assert_array_equal(picture.image, views.rgb(view))
        objects = [o for o in views.records[view]['objects'] if o[1] not in SURFACES and o[3]]
        assert picture.names == [o[1].replace('_', ' ') for o in objects]
        assert [mask.sum() for mask in picture.masks] == [o[3] for o in objects]


class TestCoco:
    def test_crowds_are_named_only_and_the_folder_is_found(self, tmp_path):
        (tmp_path / 'annotations').mkdir()
        path = tmp_path / 'annotations' / 'instances_mini.json'
        entry = {'image_id': 1, 'segmentation': [[1, 1, 4, 1, 4, 4]]}
        content = {
            'images': [{'id': 1, 'file_name': 'x.png'}],
            'categories': [{'id': 7, 'name': 'cup'}, {'id': 9, 'name': 'fire_truck'}],
            'annotations': [
                {**entry, 'category_id': 7, 'iscrowd': 0},
                {**entry, 'category_id': 9, 'iscrowd': 1},
            ],
        }
        path.write_text(json.dumps(content))
        with pytest.raises(FileNotFoundError, match='images/mini'):
            next(coco_pictures(path, rng()))
        (tmp_path / 'images').mkdir()
        cv2.imwrite(str(tmp_path / 'images' / 'x.png'), np.full((6, 8, 3), 9))
        (picture,) = coco_pictures(path, rng())
        assert (picture.names, picture.others) == (['cup'], ['fire truck'])
        assert picture.image.shape == (6, 8, 3)


class TestYolo:
    def test_polygons_and_cocos_names(self, yolo):
        pictures = {p.key: p for p in open_pictures(yolo, rng())}
        assert sorted(pictures) == ['images/train/a.png', 'images/train/b.png']
        assert pictures['images/train/a.png'].names == ['cup', 'dining table']
        mask = pictures['images/train/b.png'].masks[0]
        expected = np.zeros((50, 100), bool)
        expected[10:40, 10:50] = True
        assert (mask & expected).sum() / (mask | expected).sum() > 0.93

    def test_names_of_its_own(self, yolo):
        (yolo / 'classes.txt').write_text('\n'.join(f'thing_{i}' for i in range(61)))
        names = {name for picture in yolo_pictures(yolo, rng()) for name in picture.names}
        assert names == {'thing 41', 'thing 60'}

    @pytest.mark.parametrize('line', ['41 0.5 0.5 0.2 0.2', '80 0 0 1 0 1 1', '1 0 0 1 0 1 1 0'])
    def test_lines_that_are_no_polygons(self, yolo, line):
        (yolo / 'labels/train/b.txt').write_text(line)
        with pytest.raises(ValueError, match=r'b\.txt has a line that is no class below 80'):
            list(yolo_pictures(yolo, rng()))


def test_order_is_random_and_repeats_by_seed(rendered):
    def keys(seed: int) -> list[str]:
        return [p.key for p in open_pictures(rendered / 'val', np.random.default_rng(seed))]

    assert keys(1) == keys(1) != keys(2)
    assert sorted(keys(1)) == sorted(keys(2))


def test_what_is_no_data_set(tmp_path):
    with pytest.raises(FileNotFoundError, match='views_'):
        open_pictures(tmp_path, rng())
