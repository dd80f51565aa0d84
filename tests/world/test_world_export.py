from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hand_made import frame_of, thing

from tabletop_world.export import instance_polygons, run_lengths, write_coco, write_phrasecut
from tabletop_world.language.phrases import Phrase
from tabletop_world.language.truth import phrase_mask
from tabletop_world.render.renderer import Renderer
from tabletop_world.scenes.random_scenes import generate_scene
from tabletop_world.scenes.scene import Frame


@pytest.fixture(scope='module')
def frames() -> list[Frame]:
    with Renderer(width=192, height=160) as renderer:
        return [renderer.render(generate_scene(seed, 'test'), depth=False) for seed in range(4)]


def fill(polygons: list[list[list[int]]], height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    for polygon in polygons:
        cv2.fillPoly(mask, [np.array(polygon, np.int32)], 1)
    return mask.astype(bool)


def decode(segmentation: dict[str, Any]) -> np.ndarray:
    height, width = segmentation['size']
    values = np.arange(len(segmentation['counts'])) % 2 == 1
    return np.repeat(values, segmentation['counts']).reshape(height, width, order='F')


def test_polygons_give_back_parts_of_every_size() -> None:
    mask = np.zeros((40, 50), bool)
    mask[3:20, 5:30] = True
    mask[30, 40] = True
    mask[35, 10:12] = True
    polygons = instance_polygons(mask)
    assert len(polygons) == 3
    assert all(len(polygon) >= 3 for polygon in polygons)
    assert np.array_equal(fill(polygons, 40, 50), mask)


def test_polygons_have_no_holes() -> None:
    mask = np.zeros((40, 50), bool)
    mask[5:25, 5:25] = True
    mask[10:20, 10:20] = False
    assert fill(instance_polygons(mask), 40, 50).sum() == 400


@pytest.mark.parametrize('first', [False, True])
def test_run_lengths_are_exact(first: bool) -> None:
    mask = np.random.default_rng(0).random((13, 17)) > 0.6
    mask[0, 0] = first
    segmentation = run_lengths(mask)
    assert sum(segmentation['counts']) == mask.size
    assert np.array_equal(decode(segmentation), mask)
    empty = run_lengths(np.zeros((3, 4), bool))
    assert empty == {'size': [3, 4], 'counts': [12]}


def test_phrasecut_can_be_read_back(tmp_path: Path, frames: list[Frame]) -> None:
    def stream() -> Iterator[Frame]:
        yield from frames

    count = write_phrasecut(tmp_path, 'test', stream(), seed=5)
    tasks = json.loads((tmp_path / 'refer_test.json').read_text())
    images = {
        e['image_id']: e for e in json.loads((tmp_path / 'image_data_split.json').read_text())
    }
    assert len(tasks) == count > 60
    assert len({task['task_id'] for task in tasks}) == count
    assert len(images) == 4
    scores = []
    for task in tasks:
        frame = frames[task['image_id'] - 1]
        entry = images[task['image_id']]
        assert (entry['width'], entry['height'], entry['split']) == (192, 160, 'test')
        object_ids = frozenset(ann_id % 256 for ann_id in task['ann_ids'])
        truth = phrase_mask(Phrase(task['phrase'], 'name', object_ids), frame)
        mask = np.zeros_like(truth)
        assert len(task['Polygons']) == len(task['instance_boxes']) == len(task['ann_ids'])
        for polygons, (x, y, w, h), object_id in zip(
            task['Polygons'], task['instance_boxes'], sorted(object_ids), strict=True
        ):
            instance = fill(polygons, 160, 192)
            mask |= instance
            rows, columns = np.nonzero(frame.instances == object_id)
            assert (x, y) == (columns.min(), rows.min())
            assert (x + w - 1, y + h - 1) == (columns.max(), rows.max())
        scores.append((mask & truth).sum() / (mask | truth).sum())
        structure = task['phrase_structure']
        assert set(structure) == {
            'name', 'attributes', 'relation_ids', 'relation_descriptions', 'type',
        }  # fmt: skip
        assert structure['type'] in ('name', 'attribute', 'relation')
        assert len(structure['relation_ids']) == len(structure['relation_descriptions'])
    assert np.mean(scores) > 0.96
    assert min(scores) > 0.5
    for image_id, frame in enumerate(frames, start=1):
        picture = cv2.imread(str(tmp_path / 'images' / f'{image_id}.jpg'))[..., ::-1]
        assert picture.shape == frame.rgb.shape
        assert np.abs(picture.astype(int) - frame.rgb).mean() < 4


def test_phrasecut_structure_of_a_relation(tmp_path: Path) -> None:
    frame = frame_of(
        thing(10, 'book', (10, 60, 60, 90), colour='green', material='paper'),
        thing(11, 'mug', (20, 40, 40, 62), colour='white', support=10),
    )
    write_phrasecut(tmp_path, 'val', [frame] * 60)
    tasks = {t['phrase']: t for t in json.loads((tmp_path / 'refer_val.json').read_text())}
    on_a_book = [
        task
        for task in tasks.values()
        if ['on', 'book'] in task['phrase_structure']['relation_descriptions']
    ]
    assert on_a_book
    for task in on_a_book:
        assert task['phrase_structure']['type'] == 'relation'
        assert task['ann_ids'] == [task['image_id'] * 256 + 11]
    coloured = tasks['the white mug']['phrase_structure']
    assert coloured['attributes'] == ['white']
    assert coloured['type'] == 'attribute'


def test_splits_share_a_folder_without_sharing_ids(tmp_path: Path, frames: list[Frame]) -> None:
    write_phrasecut(tmp_path, 'train', frames[:2], max_phrases=3)
    write_phrasecut(tmp_path, 'val', frames[2:], max_phrases=3)
    index = json.loads((tmp_path / 'image_data_split.json').read_text())
    assert [(e['image_id'], e['split']) for e in index] == [
        (1, 'train'), (2, 'train'), (3, 'val'), (4, 'val'),
    ]  # fmt: skip
    tasks = json.loads((tmp_path / 'refer_val.json').read_text())
    assert len(tasks) == 6
    assert {task['image_id'] for task in tasks} == {3, 4}
    with pytest.raises(FileExistsError, match=r'refer_val\.json'):
        write_phrasecut(tmp_path, 'val', frames)


def test_a_broken_stream_leaves_no_half_written_file(tmp_path: Path, frames: list[Frame]) -> None:
    def stream() -> Iterator[Frame]:
        yield frames[0]
        raise RuntimeError('the renderer failed')

    with pytest.raises(RuntimeError, match='renderer'):
        write_phrasecut(tmp_path, 'train', stream())
    with pytest.raises(RuntimeError, match='renderer'):
        write_coco(tmp_path, 'train', stream())
    assert not list(tmp_path.rglob('*.json*'))


def test_coco_can_be_read_back_exactly(tmp_path: Path, frames: list[Frame]) -> None:
    count = write_coco(tmp_path, 'test', iter(frames))
    data = json.loads((tmp_path / 'annotations' / 'instances_test.json').read_text())
    assert len(data['annotations']) == count
    names = {c['id']: c['name'] for c in data['categories']}
    assert len(set(names.values())) == len(names)
    assert {'mug', 'tabletop', 'wall'} <= set(names.values())
    seen: dict[int, np.ndarray] = {i: np.zeros((160, 192), np.uint8) for i in range(1, 5)}
    for annotation in data['annotations']:
        frame = frames[annotation['image_id'] - 1]
        object_id = annotation['id'] % 256
        mask = decode(annotation['segmentation'])
        assert np.array_equal(mask, frame.instances == object_id)
        assert annotation['area'] == mask.sum()
        x, y, w, h = annotation['bbox']
        assert mask[y : y + h, x : x + w].sum() == mask.sum()
        thing_shown = frame.scene.object(object_id)
        assert names[annotation['category_id']] == thing_shown.category
        assert annotation['attributes']['colour'] == thing_shown.colour
        seen[annotation['image_id']][mask] = object_id
    for image in data['images']:
        assert np.array_equal(seen[image['id']], frames[image['id'] - 1].instances)
        assert (tmp_path / 'test' / image['file_name']).is_file()
    with pytest.raises(FileExistsError, match='instances_test'):
        write_coco(tmp_path, 'test', frames)
