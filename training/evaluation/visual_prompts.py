"""Measure how each visual prompt raises the probability of the name of its object.

    python -m training.evaluation.visual_prompts tabletop --data runs/tabletop/val --objects 200
    python -m training.evaluation.visual_prompts tabletop \
        --data coco/annotations/instances_val2017.json
    python -m training.evaluation.visual_prompts --sheet docs/images/visual_prompts.png

This is ΔP(object) of CLIPSeg, section 4 and Table 2. Let c_k be the text embeddings of the K
different names of all objects in a picture, each in the caption of ``--template``, and v the
embedding of an image. Then P(k | v) = softmax_k(s · cos(v, c_k)) with CLIP's scale s (100 in
OpenAI's weights), and an object of the name n is measured by

    ΔP = P(n | v of the picture combined with the object's mask) - P(n | v of the picture alone).

The table shows the mean over objects in percentage points with its standard error, the mean of the
probability itself, and how often the object's name is the most probable, which does not depend on
s. As in the paper's published code, pictures with less than three different names are left out:
with one name every probability is 1. So are objects smaller than ``--min-area``. Pictures come in
random order, with ``--per-picture`` objects of each, until there are ``--objects``; every method
has the same objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional
from tqdm import tqdm

from clipseg_model import Prompt, Segmenter
from clipseg_model.modeling.masked_attention import tokens_inside
from clipseg_model.prompting.visual_prompt import METHODS, visual_prompt
from tabletop_world.render.renderer import Renderer
from tabletop_world.scenes.random_scenes import generate_scene
from training.console import print_table, write_figures
from training.datasets.tabletop import SURFACES
from training.evaluation import scripts
from training.evaluation.pictures import Picture, open_pictures

#: Name of the row of unchanged pictures.
ORIGINAL = 'original'
#: Side of a picture on the contact sheet, and height of what is written under it, pixels.
TILE, CAPTION = 176, 20
SHEET_COLUMNS = 4
SHEET_SEED = 3


@dataclass
class Example:
    """An object to measure: its picture and mask, its name, and the names in its picture."""

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    name: str
    names: list[str]


@dataclass
class Outcome:
    """Probability of the object's own name, and whether it was the most probable, by object."""

    probability: list[float] = field(default_factory=list)
    first: list[bool] = field(default_factory=list)


def examples(
    pictures: Iterable[Picture],
    rng: np.random.Generator,
    min_area: float,
    min_names: int,
    per_picture: int,
) -> Iterator[Example]:
    """Draw the objects to measure.

    Args:
        pictures: Where to look for them.
        rng: Source of the draw.
        min_area: Smallest share of its picture, 0…1, that an object fills.
        min_names: Fewest different names of a picture.
        per_picture: Most objects of one.
    """
    for picture in pictures:
        names = sorted({*picture.names, *picture.others})
        if len(names) < min_names:
            continue
        large = [i for i, m in enumerate(picture.masks) if m.any() and m.mean() >= min_area]
        for index in rng.permutation(large)[:per_picture]:
            yield Example(picture.image, picture.masks[index], picture.names[index], names)


def compare_methods(
    segmenter: Segmenter, chosen: Iterable[Example], methods: list[str], scale: float
) -> dict[str, Outcome]:
    """Measure every method on the same objects.

    Args:
        segmenter: The model; its template is used, its visual method is left changed.
        chosen: The objects.
        methods: Keys of :data:`METHODS`.
        scale: Factor of the cosine similarities before the softmax.

    Returns:
        Outcomes by method, :data:`ORIGINAL` first.
    """
    outcomes = {name: Outcome() for name in (ORIGINAL, *methods)}
    for example in tqdm(chosen, unit='object', mininterval=10):
        texts = functional.normalize(torch.from_numpy(segmenter.embed(example.names)), dim=1)
        target = example.names.index(example.name)
        whole, masked = Prompt(image=example.image), Prompt(image=example.image, mask=example.mask)
        for name, outcome in outcomes.items():
            prompt = whole if name == ORIGINAL else masked
            if name != ORIGINAL:
                segmenter.visual_method = name
            image = functional.normalize(torch.from_numpy(segmenter.embed([prompt])), dim=1)
            chances = torch.softmax(scale * image @ texts.T, dim=1)[0]
            outcome.probability.append(float(chances[target]))
            outcome.first.append(int(chances.argmax()) == target)
    return outcomes


def rows_of(outcomes: dict[str, Outcome]) -> dict[str, dict[str, float]]:
    """Return the figures of each method: probabilities in 0…1, differences in points."""
    base = np.array(outcomes[ORIGINAL].probability)
    figures = {}
    for name, outcome in outcomes.items():
        gain = 100 * (np.array(outcome.probability) - base)
        error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else float('nan')
        figures[name] = {
            'delta_p': float(gain.mean()),
            'standard_error': float(error),
            'p': float(np.mean(outcome.probability)),
            'top_1': float(np.mean(outcome.first)),
        }
    return figures


def contact_sheet(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], size: int, grid: int
) -> NDArray[np.uint8]:
    """Draw the prompt image of every method.

    Methods of attention leave the pixels as they are; the tokens that they mask are hatched.

    Args:
        image: uint8 (H, W, 3).
        mask: bool (H, W).
        size: Side of the prompt images, pixels.
        grid: Tokens along a side of a prompt image.

    Returns:
        uint8 (height, width, 3).
    """
    tiles = [_tile(visual_prompt(image, None, size), ORIGINAL)]
    for name, method in METHODS.items():
        prompt = visual_prompt(image, mask, size, name)
        if method.attention:
            inside = tokens_inside(torch.from_numpy(mask)[None], (grid, grid)).view(grid, grid)
            shown = np.kron(inside.numpy(), np.ones((size // grid, size // grid), bool))
            hatched = np.indices(shown.shape).sum(axis=0) % 8 < 4
            prompt = np.where((shown | hatched)[..., None], prompt, np.uint8(255))
        tiles.append(_tile(prompt, name))
    blank = np.full_like(tiles[0], 255)
    tiles += [blank] * (-len(tiles) % SHEET_COLUMNS)
    lines = [tiles[i : i + SHEET_COLUMNS] for i in range(0, len(tiles), SHEET_COLUMNS)]
    return np.vstack([np.hstack(line) for line in lines])


def _tile(prompt: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
    framed = np.full((TILE + CAPTION, TILE, 3), 255, np.uint8)
    side = TILE - 6
    framed[3 : 3 + side, 3 : 3 + side] = cv2.resize(
        prompt, (side, side), interpolation=cv2.INTER_AREA
    )
    cv2.putText(
        framed, name, (4, TILE + 10), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA
    )
    return framed


def sheet_view() -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Render the view of the contact sheet; return it and the mask of its largest item."""
    scene = generate_scene(SHEET_SEED, 'val')
    with Renderer(640, 480) as renderer:
        frame = renderer.render(scene, 0, depth=False)
    counts = frame.pixel_counts()
    items = [o.id for o in scene.objects if o.category not in SURFACES]
    largest = max(items, key=lambda object_id: counts.get(object_id, 0))
    return frame.rgb, frame.instances == largest


def print_rows(title: str, figures: dict[str, dict[str, float]]) -> None:
    """Print the figures of each method."""
    rows = []
    for name, row in figures.items():
        gain = (f'{row["delta_p"]:+.2f}', f'{row["standard_error"]:.2f}')
        summary = 'the picture as it is' if name == ORIGINAL else METHODS[name].summary
        gains = ('–', '–') if name == ORIGINAL else gain
        rows.append((name, *gains, f'{row["p"]:.3f}', f'{row["top_1"]:.3f}', summary))
    columns = ('method', 'ΔP(object), points', '± s.e.', 'P(object)', 'top-1', 'what it does')
    print_table(title, columns, rows)


def main() -> None:
    """Run the command line."""
    parser = scripts.new_parser(__doc__, nargs='?', default='tabletop')
    parser.add_argument('--data', type=Path, help='tabletop split, COCO JSON, or YOLO folder')
    parser.add_argument('--objects', type=int, default=1600, help="objects drawn (the paper's)")
    parser.add_argument('--min-area', type=float, default=0.01, help='share of the picture')
    parser.add_argument('--per-picture', type=int, default=1, help='objects of a picture, at most')
    parser.add_argument('--min-names', type=int, default=3, help='different names of a picture')
    parser.add_argument('--methods', nargs='+', default=list(METHODS), choices=list(METHODS))
    parser.add_argument('--template', default='fixed', help='caption of the names')
    parser.add_argument('--scale', type=float, default=100.0, help='of the cosine similarities')
    parser.add_argument('--seed', type=int, default=0, help='seed of the objects drawn')
    parser.add_argument('--sheet', type=Path, help='PNG that shows every method on one view')
    scripts.add_device(parser)
    args = parser.parse_args()
    if args.data is None and args.sheet is None:
        parser.error('give --data to measure, --sheet to draw the methods, or both')
    if args.sheet is not None:
        args.sheet.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(contact_sheet(*sheet_view(), 352, 22)).save(args.sheet, optimize=True)
    if args.data is None:
        return
    segmenter = scripts.load_segmenter(args)
    segmenter.template = args.template
    rng = np.random.default_rng(args.seed)
    drawn = examples(
        open_pictures(args.data, rng), rng, args.min_area, args.min_names, args.per_picture
    )
    chosen = islice(drawn, args.objects)
    outcomes = compare_methods(segmenter, chosen, args.methods, args.scale)
    objects = len(outcomes[ORIGINAL].probability)
    if not objects:
        parser.error(
            f'{args.data} has no object over {args.min_area:g} of its picture in a picture of '
            f'{args.min_names} names: lower --min-area or --min-names'
        )
    figures = rows_of(outcomes)
    print_rows(f'{args.model}, {objects} objects of {args.data}', figures)
    options = ('model', 'per_picture', 'min_area', 'min_names', 'template', 'scale', 'seed')
    report = {name: getattr(args, name) for name in options}
    report |= {'data': str(args.data), 'objects': objects, 'methods': figures}
    write_figures(args.output, report)


if __name__ == '__main__':
    main()
