"""Pictures whose objects have names and masks.

They come from the rendered tabletop splits of :mod:`training.bundled.render_scenes`, COCO's
instance annotations, or YOLO's polygon text.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from clipseg_model.images import IMAGE_SUFFIXES, read_image
from training.datasets.coco import coco_folder, plain_name
from training.datasets.coco_masks import coco_mask
from training.datasets.tabletop import SURFACES, TabletopViews


@dataclass
class Picture:
    """A picture and what is in it.

    Attributes:
        key: Identifies it in its data set.
        image: uint8 RGB (H, W, 3).
        names: Name of each object.
        masks: Mask of each object, bool (H, W).
        others: Further names that are true of the picture, without a mask.
    """

    key: str
    image: NDArray[np.uint8]
    names: list[str]
    masks: list[NDArray[np.bool_]]
    others: list[str]


def open_pictures(path: Path, rng: np.random.Generator) -> Iterator[Picture]:
    """Read a data set of any of the three formats, in random order.

    Args:
        path: A folder with ``views_*.json`` (tabletop), a JSON file of COCO's, or a folder with
            ``images`` and ``labels`` (YOLO).
        rng: Source of the order.

    Raises:
        FileNotFoundError: The path is none of these.
    """
    if path.is_dir() and any(path.glob('views_*.json')):
        return tabletop_pictures(path, rng)
    if path.is_file() and path.suffix == '.json':
        return coco_pictures(path, rng)
    if (path / 'images').is_dir() and (path / 'labels').is_dir():
        return yolo_pictures(path, rng)
    raise FileNotFoundError(
        f'{path} is no data set that can be read here: give a folder of rendered tabletop views '
        "(views_*.json), a JSON file of COCO instances, or a YOLO folder with 'images' and 'labels'"
    )


def tabletop_pictures(folder: Path, rng: np.random.Generator) -> Iterator[Picture]:
    """Yield rendered views; objects are the items, and surfaces are not named."""
    views = TabletopViews(folder)
    for view in rng.permutation(len(views)).tolist():
        record = views.records[view]
        seen = [o for o in record['objects'] if o[1] not in SURFACES and o[3] > 0]
        yield Picture(
            f'view {view}',
            np.array(views.rgb(view)),
            [category.replace('_', ' ') for _, category, _, _ in seen],
            [views.mask(view, [object_id]) for object_id, *_ in seen],
            [],
        )


def coco_pictures(annotations: Path, rng: np.random.Generator) -> Iterator[Picture]:
    """Yield the annotated pictures of a COCO instance file.

    Pictures of ``annotations/instances_SPLIT.json`` are looked for in ``SPLIT/`` beside that
    folder, in ``images/SPLIT/``, and in ``images/``. Crowds are named and have no mask.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: A segmentation is neither polygons nor run lengths.
    """
    data = json.loads(annotations.read_text(encoding='utf-8'))
    names = {category['id']: category['name'] for category in data['categories']}
    of_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for entry in data['annotations']:
        of_image[entry['image_id']].append(entry)
    folder = coco_folder(annotations)
    for index in rng.permutation(len(data['images'])):
        record = data['images'][index]
        entries = of_image[record['id']]
        objects = [entry for entry in entries if not entry.get('iscrowd')]
        image = read_image(folder / record['file_name'])
        yield Picture(
            record['file_name'],
            image,
            [plain_name(names[entry['category_id']]) for entry in objects],
            [coco_mask(entry['segmentation'], *image.shape[:2]) for entry in objects],
            [plain_name(names[entry['category_id']]) for entry in entries if entry.get('iscrowd')],
        )


def yolo_pictures(folder: Path, rng: np.random.Generator) -> Iterator[Picture]:
    """Yield the pictures of a YOLO segmentation folder.

    ``labels/…/NAME.txt`` belongs to ``images/…/NAME.jpg``; a line is a class number and x y pairs
    relative to width and height. The names of the classes are those of ``classes.txt``, one
    a line, in that folder, else COCO's 80.

    Raises:
        ValueError: A line is not a polygon, or has no name.
    """
    listed = folder / 'classes.txt'
    names = listed.read_text(encoding='utf-8').splitlines() if listed.is_file() else _coco_names()
    found = sorted((folder / 'images').rglob('*'))
    paths = [path for path in found if path.suffix.lower() in IMAGE_SUFFIXES]
    for index in rng.permutation(len(paths)):
        path = paths[index]
        label = folder / 'labels' / path.relative_to(folder / 'images').with_suffix('.txt')
        if not label.is_file():
            continue
        image = read_image(path)
        lines = [line.split() for line in label.read_text().splitlines() if line.strip()]
        for line in lines:
            if len(line) < 7 or len(line) % 2 == 0 or int(line[0]) >= len(names):
                raise ValueError(
                    f'{label} has a line that is no class below {len(names)} with three points or '
                    f'more (x y each): {" ".join(line)[:60]!r}; masks are needed, not boxes'
                )
        size = (image.shape[1], image.shape[0])
        polygons = [np.reshape(np.array(line[1:], float), (-1, 2)) * size for line in lines]
        yield Picture(
            str(path.relative_to(folder)),
            image,
            [plain_name(names[int(line[0])]) for line in lines],
            [_filled([points], *image.shape[:2]) for points in polygons],
            [],
        )


def _filled(polygons: list[NDArray[Any]], height: int, width: int) -> NDArray[np.bool_]:
    """Return the inside of polygons, whose points are in pixels from the corner of the picture."""
    canvas = np.zeros((height, width), np.uint8)
    # A pixel's centre is half a pixel from its corner, and OpenCV counts from centres.
    points = [np.round(polygon - 0.5).astype(np.int32) for polygon in polygons]
    return np.asarray(cv2.fillPoly(canvas, points, 1)).astype(bool)


def _coco_names() -> list[str]:
    # torchvision's list has COCO's 91 numbers, of which 80 are used.
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

    categories = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta['categories']
    return [name for name in categories if name not in ('__background__', 'N/A')]
