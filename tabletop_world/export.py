"""Writes frames as datasets in published formats: PhraseCut and COCO instances.

PhraseCut (Wu et al., CVPR 2020) stores masks as polygons without holes, so a mask read back equals
the raster truth up to holes and single-pixel gaps: IoU averages about 0.99, and is lowest for
rings and handles. COCO masks are written as uncompressed run lengths and are exact.

Both writers take any iterable of frames, keep one frame at a time, and write each JSON file under
a temporary name that is renamed when it is complete.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np
from numpy.typing import NDArray

from tabletop_world.catalogue.categories import CATEGORIES
from tabletop_world.language.phrases import Phrase, describe
from tabletop_world.language.queries import SceneView, view_of
from tabletop_world.language.vocabulary import SURFACES
from tabletop_world.scenes.scene import Frame, SceneObject

Polygon = list[list[int]]

_JPEG_QUALITY = 95
# PhraseCut and COCO ids are unique over a dataset, object ids (1…254) only in a scene.
_IDS_PER_IMAGE = 256


def instance_polygons(mask: NDArray[np.bool_]) -> list[Polygon]:
    """Returns the outlines of a mask.

    Args:
        mask: Boolean mask of shape (height, width).

    Returns:
        One polygon for each connected part, each a list of at least three [x, y] pixel positions
        that belong to the part; holes are not represented. Filled with their boundary included
        (``cv2.fillPoly``, or Pillow's ``polygon`` with an outline) they give the mask back.
    """
    contours, _ = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    polygons: list[Polygon] = []
    for contour in contours:
        points = [[int(x), int(y)] for x, y in contour.reshape(-1, 2)]
        # Parts of one or two pixels: repeat a point, readers want three.
        polygons.append(points + [points[-1]] * max(0, 3 - len(points)))
    return polygons


def run_lengths(mask: NDArray[np.bool_]) -> dict[str, list[int]]:
    """Returns a mask as COCO's uncompressed run-length encoding.

    Args:
        mask: Boolean mask of shape (height, width).

    Returns:
        ``size`` [height, width] and ``counts``, the lengths of alternating runs of background and
        foreground in column-major order, beginning with background (possibly 0).
    """
    flat = np.asarray(mask, dtype=np.bool_).ravel(order='F')
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate(([0], edges, [flat.size]))).tolist()
    if flat.size and flat[0]:
        counts = [0, *counts]
    return {'size': [int(mask.shape[0]), int(mask.shape[1])], 'counts': counts}


def write_phrasecut(
    out_dir: str | os.PathLike[str],
    split: str,
    frames: Iterable[Frame],
    *,
    seed: int = 0,
    min_fraction: float = 0.003,
    max_phrases: int | None = None,
) -> int:
    """Writes one split of a dataset in the format of VGPhraseCut_v0.

    ``refer_{split}.json`` lists the phrases with their instances (boxes as [x, y, width, height],
    polygons of [x, y] points); ``image_data_split.json`` lists the images of all splits written so
    far; pictures go to ``images/{image_id}.jpg``. The phrases are those of
    :func:`tabletop_world.language.phrases.describe`.

    Args:
        out_dir: Folder of the dataset; made if missing. Splits of one dataset share it.
        split: Name of the split in the file names.
        frames: The frames, read once.
        seed: Seed of the wording; image ``i`` is worded from (seed, i).
        min_fraction: Least visible share of a picture for a phrase to be written, 0…1.
        max_phrases: At most so many phrases for each picture; None for all.

    Returns:
        The number of phrases written.

    Raises:
        FileExistsError: If this split was written there before.
        OSError: If a file cannot be written.
    """
    root = Path(out_dir)
    (root / 'images').mkdir(parents=True, exist_ok=True)
    target = root / f'refer_{split}.json'
    if target.exists():
        raise FileExistsError(f'{target} exists already; remove it or choose another folder')
    index_path = root / 'image_data_split.json'
    index: list[dict[str, Any]] = []
    if index_path.exists():
        index = json.loads(index_path.read_text(encoding='utf-8'))
    image_id = max((entry['image_id'] for entry in index), default=0)
    written = 0
    with _json_list(target) as append:
        for frame in frames:
            image_id += 1
            view = view_of(frame)
            rng = np.random.default_rng([seed, image_id])
            phrases = describe(frame, rng, min_fraction=min_fraction)[:max_phrases]
            outlines = _Outlines(frame)
            for number, phrase in enumerate(phrases):
                append(_task(image_id, number, phrase, view, outlines))
            written += len(phrases)
            _write_picture(root / 'images' / f'{image_id}.jpg', frame.rgb)
            index.append(
                {
                    'image_id': image_id,
                    'coco_id': None,
                    'flickr_id': None,
                    'url': '',
                    'width': view.frame_width,
                    'height': view.frame_height,
                    'split': split,
                }
            )
    _write_json(index_path, index)
    return written


class _Outlines:
    """Polygons by object id, computed when first asked for."""

    def __init__(self, frame: Frame) -> None:
        self._instances = frame.instances
        self._known: dict[int, list[Polygon]] = {}

    def of(self, object_id: int) -> list[Polygon]:
        """Returns the polygons of an object."""
        if object_id not in self._known:
            self._known[object_id] = instance_polygons(self._instances == object_id)
        return self._known[object_id]


def _task(
    image_id: int, number: int, phrase: Phrase, view: SceneView, outlines: _Outlines
) -> dict[str, Any]:
    """Returns one phrase-region pair as PhraseCut writes it."""
    ids = sorted(phrase.object_ids)
    ann_ids = [image_id * _IDS_PER_IMAGE + object_id for object_id in ids]
    structure = phrase.structure
    relations = [] if structure is None else [list(pair) for pair in structure.relations]
    attributes = [] if structure is None else list(structure.attributes)
    kind = 'relation' if relations else 'attribute' if attributes else 'name'
    return {
        'task_id': f'{image_id}__{number}__' + '_'.join(map(str, ann_ids)),
        'image_id': image_id,
        'ann_ids': ann_ids,
        'instance_boxes': [_box(view, object_id) for object_id in ids],
        'Polygons': [outlines.of(object_id) for object_id in ids],
        'phrase': phrase.text,
        'phrase_structure': {
            'name': phrase.text if structure is None else structure.name,
            'attributes': attributes,
            'relation_ids': list(range(len(relations))),
            'relation_descriptions': relations,
            'type': kind,
        },
    }


def write_coco(out_dir: str | os.PathLike[str], split: str, frames: Iterable[Frame]) -> int:
    """Writes one split of a dataset as COCO instances.

    Pictures go to ``{split}/{image_id:012d}.jpg``, annotations to
    ``annotations/instances_{split}.json``. Every visible object is an annotation, surfaces of the
    room included (supercategory ``surface``). Masks are uncompressed run lengths, which
    ``pycocotools`` reads; ``attributes`` holds what the renderer knows of the object.

    Args:
        out_dir: Folder of the dataset; made if missing.
        split: Name of the split in the file names.
        frames: The frames, read once.

    Returns:
        The number of annotations written.

    Raises:
        FileExistsError: If this split was written there before.
        OSError: If a file cannot be written.
    """
    root = Path(out_dir)
    pictures, annotations = root / split, root / 'annotations'
    pictures.mkdir(parents=True, exist_ok=True)
    annotations.mkdir(parents=True, exist_ok=True)
    target = annotations / f'instances_{split}.json'
    if target.exists():
        raise FileExistsError(f'{target} exists already; remove it or choose another folder')
    categories: list[dict[str, Any]] = [
        {
            'id': number,
            'name': name,
            'supercategory': 'surface' if name in SURFACES else 'item',
        }
        for number, name in enumerate([*CATEGORIES, *SURFACES], start=1)
    ]
    numbers = {entry['name']: entry['id'] for entry in categories}
    images: list[dict[str, Any]] = []
    written = 0
    with _replacing(target) as stream:
        stream.write('{"annotations": [')
        for image_id, frame in enumerate(frames, start=1):
            view = view_of(frame)
            name = f'{image_id:012d}.jpg'
            _write_picture(pictures / name, frame.rgb)
            images.append(
                {
                    'id': image_id,
                    'file_name': name,
                    'width': view.frame_width,
                    'height': view.frame_height,
                }
            )
            for object_id in view.pixels:
                thing = view.objects[object_id]
                entry = _annotation(image_id, thing, numbers[thing.category], view, frame)
                stream.write((',\n' if written else '\n') + json.dumps(entry))
                written += 1
        rest = {
            'info': {'description': f'tabletop world, {split}'},
            'licenses': [],
            'images': images,
            'categories': categories,
        }
        stream.write('\n], ' + json.dumps(rest)[1:])
    return written


def _annotation(
    image_id: int, thing: SceneObject, category_id: int, view: SceneView, frame: Frame
) -> dict[str, Any]:
    """Returns one object as COCO writes it."""
    return {
        'id': image_id * _IDS_PER_IMAGE + thing.id,
        'image_id': image_id,
        'category_id': category_id,
        'bbox': _box(view, thing.id),
        'area': view.pixels[thing.id],
        'iscrowd': 0,
        'segmentation': run_lengths(frame.instances == thing.id),
        'attributes': {
            'colour': thing.colour,
            'pattern': thing.pattern,
            'material': thing.material,
            'size': thing.size,
            'states': sorted(thing.states),
        },
    }


def _box(view: SceneView, object_id: int) -> list[int]:
    """Returns a visible box as [x, y, width, height] in pixels."""
    x0, y0, x1, y1 = view.boxes[object_id]
    return [x0, y0, x1 - x0, y1 - y0]


def _write_picture(path: Path, rgb: NDArray[np.uint8]) -> None:
    done, data = cv2.imencode(
        '.jpg', np.ascontiguousarray(rgb[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    )
    if not done:
        raise OSError(f'cannot encode {path} from an array of shape {rgb.shape}, {rgb.dtype}')
    path.write_bytes(data.tobytes())


@contextmanager
def _replacing(path: Path) -> Iterator[TextIO]:
    """Opens a temporary file that takes the place of ``path`` if all goes well."""
    temporary = path.with_name(path.name + '.part')
    try:
        with temporary.open('w', encoding='utf-8') as stream:
            yield stream
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _json_list(path: Path) -> Iterator[Any]:
    """Writes a JSON list entry by entry."""
    with _replacing(path) as stream:
        stream.write('[')
        first = True

        def append(entry: dict[str, Any]) -> None:
            nonlocal first
            stream.write(('\n' if first else ',\n') + json.dumps(entry))
            first = False

        yield append
        stream.write('\n]\n')


def _write_json(path: Path, value: Any) -> None:
    with _replacing(path) as stream:
        json.dump(value, stream)
