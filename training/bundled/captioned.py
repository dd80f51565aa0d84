r"""Make masks for photographs that have captions and no masks, by a model that is there already.

    python -m training.bundled.captioned everyday photos/with_captioned.json \
        --annotations photos/instances.json --images photos/images \
        --captions photos/captions.json --captioned photos/captioned

What people say of a photograph tells which things are there, which is most of what a small set of
masks lacks; where they are, the model finds, at two sizes and mirrored. Written are all
photographs of ``--annotations``, and those of ``--captioned`` as one source more, labelled by the
vocabulary of ``--source``: a thing that is said and found has a mask, one that is neither said nor
found is absent (so is any of ``SAID_IF_THERE`` that nobody says), and any other is marked
``iscrowd``, which training takes for unknown.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_rle
from torch.nn import functional
from tqdm import tqdm

from clipseg_model import Prompt, Segmenter
from clipseg_model.calibration import top_scores
from clipseg_model.errors import ClipsegError
from clipseg_model.files.atomic_files import write_atomically
from clipseg_model.registry import load_model
from clipseg_model.runtime.base import has_bf16
from training.bundled.cached import OTHER_WORDS
from training.datasets.photographs import PhotographFile, held_out
from training.datasets.samples import DataError, read_pixels

SOURCE = 'captioned'
PEOPLE = (
    *('man', 'men', 'woman', 'women', 'boy', 'girl', 'guy', 'lady', 'child', 'children', 'kid'),
    *('baby', 'player', 'skier', 'surfer', 'rider', 'snowboarder', 'skateboarder', 'batter'),
    *('someone', 'somebody', 'crowd', 'couple', 'toddler', 'chef', 'pitcher', 'catcher'),
)
"""Other words for a person in captions."""
SAID_IF_THERE = {
    'airplane', 'bus', 'train', 'boat', 'motorcycle', 'elephant', 'bear', 'zebra', 'giraffe',
    'horse', 'sheep', 'cow', 'cat', 'dog', 'toilet', 'bed', 'pizza', 'hot dog', 'donut', 'sandwich',
    'broccoli', 'surfboard', 'skis', 'snowboard', 'skateboard', 'kite', 'frisbee', 'tennis racket',
    'baseball bat', 'umbrella', 'fire hydrant', 'stop sign', 'parking meter', 'teddy bear',
    'toothbrush', 'hair drier', 'toaster', 'microwave', 'refrigerator', 'oven', 'scissors',
}  # fmt: skip
"""Names that people hardly leave out of five captions: unsaid, they are absent."""
FOUND = 0.5
"""Score from which a thing that is said is taken as found."""
NOT_FOUND = 0.2
"""Score below which a thing that nobody says is taken as absent."""
ON = 0.4
"""Probability from which a pixel belongs to a mask."""
SIZES = (352, 480)
"""Input sizes of the model, whose answers are averaged with those on the mirrored picture."""
ABSENCE_SIZE = 256
"""Input size at which all names are asked."""


def words_for(names: Iterable[str]) -> dict[str, re.Pattern[str]]:
    """Return for each name a pattern of the words that say it in a caption."""
    patterns = {}
    for name in names:
        words = [name, *OTHER_WORDS.get(name, ()), *(PEOPLE if name == 'person' else ())]
        forms = '|'.join(re.escape(word) + '(?:e?s)?' for word in words)
        patterns[name] = re.compile(rf'\b(?:{forms})\b', re.IGNORECASE)
    return patterns


class Finder:
    """A model that looks for things at several sizes.

    Args:
        model: Name or file of a model.
        names: What it may be asked for.
    """

    def __init__(self, model: str, names: Sequence[str]) -> None:
        network, card = load_model(model)
        self.overview, *self.segmenters = (
            Segmenter(network, replace(card, input_size=size), 'cpu')
            for size in (ABSENCE_SIZE, *SIZES)
        )
        self.names = list(names)

    @torch.inference_mode()
    @torch.autocast('cpu', torch.bfloat16, enabled=has_bf16())
    def scores(self, image: NDArray[np.uint8]) -> dict[str, float]:
        """Return for each name how sure the model is that it is there, 0…1."""
        segmenter = self.overview
        features = segmenter.runtime.encode_image(segmenter.preprocessor.pixels(image))
        prompts = [Prompt(text=name) for name in self.names]
        logits = segmenter.decode_prompts(features, prompts, segmenter.settings)
        return dict(zip(self.names, top_scores(logits), strict=True))

    @torch.inference_mode()
    @torch.autocast('cpu', torch.bfloat16, enabled=has_bf16())
    def find(
        self, image: NDArray[np.uint8], names: Sequence[str]
    ) -> list[tuple[float, NDArray[np.float32]]]:
        """Return of each name its score and its probability (H, W), averaged over the looks."""
        prompts = [Prompt(text=name) for name in names]
        scores = np.zeros(len(names))
        probability = np.zeros((len(names), *image.shape[:2]), np.float32)
        looks = 2 * len(self.segmenters)
        for segmenter in self.segmenters:
            pixels = segmenter.preprocessor.pixels(image)
            for mirrored in (False, True):
                features = segmenter.runtime.encode_image(pixels[..., ::-1] if mirrored else pixels)
                logits = segmenter.decode_prompts(features, prompts, segmenter.settings)
                scores += np.array(top_scores(logits)) / looks
                logits = torch.from_numpy(logits[..., ::-1].copy() if mirrored else logits)
                large = functional.interpolate(
                    logits[None], image.shape[:2], mode='bilinear', align_corners=False
                )
                probability += large[0].sigmoid().numpy() / looks
        return list(zip(scores.tolist(), probability, strict=True))


def entries_of(
    image: NDArray[np.uint8], captions: Sequence[str], finder: Finder, patterns: Mapping[str, Any]
) -> list[tuple[str, NDArray[np.bool_] | None]]:
    """Return the names that are there, with their masks, or None of those that are unknown."""
    text = ' '.join(captions)
    said = [name for name, pattern in patterns.items() if pattern.search(text)]
    entries: list[tuple[str, NDArray[np.bool_] | None]] = []
    found = finder.find(image, said) if said else []
    for name, (score, probability) in zip(said, found, strict=True):
        mask = probability >= ON
        entries.append((name, mask if score >= FOUND and mask.any() else None))
    entries += [
        (name, None)
        for name, score in finder.scores(image).items()
        if name not in said and name not in SAID_IF_THERE and score >= NOT_FOUND
    ]
    return entries


def label(
    file: PhotographFile, source: str, captions: Path, captioned: Path, model: str
) -> dict[str, Any]:
    """Make the file of all photographs, as JSON types.

    Raises:
        DataError: The source has no vocabulary, or there are no captioned photographs.
    """
    if source not in file.vocabulary:
        raise DataError(f'{file.path} has no source {source!r}: {", ".join(file.vocabulary)}')
    data: dict[str, Any] = json.loads(file.path.read_text(encoding='utf-8'))
    numbers = {name: number for number, name in file.names.items()}
    names = file.vocabulary[source]
    known = {record['file_name'] for record in data['images']} | set(held_out()['coco'])
    records = [
        record
        for record in json.loads(captions.read_text(encoding='utf-8'))
        if Path(record['file_name']).name not in known
        and (captioned / Path(record['file_name']).name).is_file()
    ]
    if not records:
        raise DataError(f'{captions} says nothing of the pictures in {captioned}')
    finder, patterns = Finder(model, names), words_for(names)
    image_id = max(file.records) + 1
    entry_id = max(entry['id'] for entry in data['annotations']) + 1
    for record in tqdm(records, unit='photo', mininterval=10):
        path = captioned / Path(record['file_name']).name
        image = read_pixels(path, 'its caption')
        height, width = image.shape[:2]
        data['images'].append(
            {
                'id': image_id,
                'file_name': os.path.relpath(path, file.images),
                'width': width,
                'height': height,
                'source': SOURCE,
                'split': 'train',
                'licence': record.get('licence'),
            }
        )
        for name, mask in entries_of(image, record['captions'], finder, patterns):
            area = np.zeros((height, width), bool) if mask is None else mask
            rle = coco_rle.encode(np.asfortranarray(area.astype(np.uint8)))
            rle['counts'] = rle['counts'].decode('ascii')
            data['annotations'].append(
                {
                    'id': entry_id,
                    'image_id': image_id,
                    'category_id': numbers[name],
                    'segmentation': rle,
                    'area': int(area.sum()),
                    'iscrowd': int(mask is None),
                }
            )
            entry_id += 1
        image_id += 1
    data['info'] = {**data.get('info', {}), 'vocabulary': {**file.vocabulary, SOURCE: list(names)}}
    return data


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('model', help='name or file of the model that finds things')
    parser.add_argument('output', type=Path, help='file to write')
    parser.add_argument('--annotations', type=Path, required=True, help="file in COCO's format")
    parser.add_argument('--images', type=Path, required=True, help='folder of its pictures')
    parser.add_argument('--captions', type=Path, required=True, help='JSON list with captions')
    parser.add_argument('--captioned', type=Path, required=True, help='folder of its pictures')
    parser.add_argument('--source', default='coco', help='source whose vocabulary is labelled')
    args = parser.parse_args()
    try:
        file = PhotographFile(args.annotations, args.images)
        data = label(file, args.source, args.captions, args.captioned, args.model)
    except ClipsegError as error:
        raise SystemExit(f'{error}') from error
    write_atomically(args.output, json.dumps(data))
    added = [e for e in data['annotations'] if e['image_id'] not in file.records]
    print(f'{args.output}: {sum(not e["iscrowd"] for e in added)} masks of captioned photographs')


if __name__ == '__main__':
    main()
