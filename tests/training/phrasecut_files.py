"""A small PhraseCut in the publisher's layout: image sizes, tasks, and pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

#: (image id, width, height, split)
IMAGES = [
    (11, 64, 48, 'train'),
    (12, 40, 60, 'train'),
    (13, 50, 50, 'train'),
    (61530, 30, 30, 'train'),
    (21, 70, 50, 'val'),
    (22, 32, 32, 'miniv'),
]
#: (image id, phrase, polygons of each instance)
TASKS: list[tuple[int, str, list[list[list[list[float]]]]]] = [
    (11, 'red car', [[[[4.3, 3.7], [30.2, 5.1], [28.6, 40.4], [6.9, 35.8]]]]),
    (11, 'wheel', [[[[5, 30.5], [9.5, 30.5], [9.1, 34]]], [[[20, 30.3], [24, 30.2], [22.3, 36]]]]),
    (12, 'red car', [[[[2.2, 2.2], [37.7, 3.3], [36.6, 30.1], [3.4, 29.2]]]]),
    (12, 'walking dogs', [[[[5.1, 40.2], [30.3, 41.1], [28.2, 55.5]]]]),
    (12, 'car', [[[[2.2, 2.2], [37.7, 3.3], [36.6, 30.1], [3.4, 29.2]]]]),
    (13, 'blue mug', [[[[10.4, 10.4], [40.6, 10.2], [40.1, 40.8], [10.7, 40.3]]]]),
    (13, 'red car', [[[[1.1, 41.1], [48.2, 42.2], [47.3, 48.4]]]]),
    (61530, 'red car', [[[[3.3, 3.3], [20.2, 3.1], [12.2, 20.6]]]]),
    (21, 'blue mug', [[[[8.4, 8.4], [60.6, 9.2], [55.1, 40.8]]]]),
    (22, 'red car', [[[[8.4, 8.4], [28.6, 9.2], [25.1, 30.8]]]]),
]  # fmt: skip
#: What name_att_rel_count.json has of them, most frequent first.
COUNTS = {
    'cat': [['car', 5], ['mug', 2], ['dogs', 1], ['wheel', 1]],
    'att': [['red', 4], ['blue', 2], ['walking', 1]],
    'rel': [],
}


def box(polygons: list[list[list[float]]]) -> list[float]:
    points = np.concatenate([np.array(polygon) for polygon in polygons])
    low, high = points.min(0), points.max(0)
    return [*low.tolist(), *(high - low).tolist()]


def task(number: int, image: int, phrase: str, instances: list[Any]) -> dict[str, Any]:
    ids = [1000 * image + number + i for i in range(len(instances))]
    *attributes, name = phrase.split()
    return {
        'task_id': '__'.join(map(str, [image, *ids])),
        'image_id': image,
        'ann_ids': ids,
        'instance_boxes': [box(polygons) for polygons in instances],
        'Polygons': instances,
        'phrase': phrase,
        'phrase_structure': {
            'name': name,
            'attributes': attributes,
            'relation_ids': [],
            'relation_descriptions': [],
            'type': 'attribute' if attributes else 'name',
        },
    }


def write_phrasecut(root: Path) -> Path:
    """Write the files and return the folder VGPhraseCut_v0."""
    folder = root / 'VGPhraseCut_v0'
    (folder / 'images').mkdir(parents=True)
    info = [
        {
            'image_id': image,
            'coco_id': None,
            'flickr_id': None,
            'width': width,
            'height': height,
            'url': f'https://example.org/{image}.jpg',
            'split': split,
        }
        for image, width, height, split in IMAGES
    ]
    (folder / 'image_data_split3000.json').write_text(json.dumps(info))
    split_of = {image: split for image, _, _, split in IMAGES}
    for split in ('train', 'val', 'test', 'miniv'):
        tasks = [
            task(number, image, phrase, instances)
            for number, (image, phrase, instances) in enumerate(TASKS)
            if split_of[image] == split
        ]
        (folder / f'refer_{split}.json').write_text(json.dumps(tasks))
    rng = np.random.default_rng(0)
    for image, width, height, _ in IMAGES:
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / 'images' / f'{image}.jpg')
    return folder
