"""The measure of visual prompts."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from clipseg_model.modeling.bundled.small_clip import SmallClip
from clipseg_model.modeling.clipseg import CLIPSeg
from clipseg_model.prompting.visual_prompt import METHODS, visual_prompt
from clipseg_model.registry import create_model
from clipseg_model.weights.checkpoints import save_checkpoint
from training.evaluation import visual_prompts
from training.evaluation.pictures import Picture
from training.evaluation.visual_prompts import (
    ORIGINAL,
    Example,
    compare_methods,
    contact_sheet,
    examples,
    rows_of,
)

RED, GREEN, BLUE = np.eye(3)


@pytest.fixture
def checkpoint(frozen, tmp_path):
    """A model with random weights that knows the words of the grammar."""
    from safetensors.torch import load_file

    path, sizes = frozen
    torch.manual_seed(0)
    towers = SmallClip(**sizes, width=32, num_blocks=2, grid=4, embed_dim=16, text_width=32)
    towers.load_state_dict(load_file(path), strict=False)
    model = CLIPSeg(towers, [0, 1], dim=16, num_heads=4, feedforward=32)
    save_checkpoint(tmp_path / 'random.safetensors', model, {'name': 'random', 'input_size': 64})
    return tmp_path / 'random.safetensors'


class Colours:
    """Stands in for a model: embeds images by their mean colour, and names of colours."""

    visual_method = ''

    def embed(self, prompts):
        vectors = []
        for prompt in prompts:
            if isinstance(prompt, str):
                vectors.append({'red': RED, 'green': GREEN, 'blue': BLUE}[prompt])
            elif prompt.mask is None:
                vectors.append(prompt.image.reshape(-1, 3).mean(0))
            else:
                made = visual_prompt(prompt.image, prompt.mask, 32, self.visual_method)
                vectors.append(made.reshape(-1, 3).mean(0))
        return np.array(vectors, np.float32)


def red_square_on_blue() -> Example:
    image = np.zeros((32, 32, 3), np.uint8)
    image[..., 2] = 200
    mask = np.zeros((32, 32), bool)
    mask[8:24, 8:24] = True
    image[mask] = (200, 0, 0)
    return Example(image, mask, 'red', ['blue', 'green', 'red'])


def test_delta_p_is_the_rise_of_the_names_probability():
    """A quarter is red: cosines are 3, 0 and 1 to the root of 10; without background 0, 0, 1."""
    methods = ['background_0', 'attention_cls']
    outcomes = compare_methods(Colours(), [red_square_on_blue()] * 2, methods, scale=2.0)
    figures = rows_of(outcomes)
    cosines = np.array([3, 0, 1]) / np.sqrt(10)
    before = np.exp(2 * cosines[2]) / np.exp(2 * cosines).sum()
    after = np.exp(2) / (np.exp(2) + 2)
    assert list(figures) == [ORIGINAL, *methods]
    assert figures[ORIGINAL]['p'] == pytest.approx(before)
    assert figures['background_0']['p'] == pytest.approx(after)
    assert figures['background_0']['delta_p'] == pytest.approx(100 * (after - before))
    assert figures['background_0']['standard_error'] == pytest.approx(0, abs=1e-9)
    assert (figures[ORIGINAL]['top_1'], figures['background_0']['top_1']) == (0, 1)
    # This stand-in has no attention to restrict, so nothing rises.
    assert figures['attention_cls']['delta_p'] == pytest.approx(0)


def test_standard_error_is_over_objects():
    outcomes = {
        ORIGINAL: visual_prompts.Outcome([0.2, 0.4, 0.6], [False, False, True]),
        'crop': visual_prompts.Outcome([0.3, 0.6, 0.9], [True, True, True]),
    }
    row = rows_of(outcomes)['crop']
    assert row['delta_p'] == pytest.approx(20)
    assert row['standard_error'] == pytest.approx(10 / np.sqrt(3))
    assert row['top_1'] == 1


def limits(per_picture: int) -> dict[str, float]:
    return {'min_area': 0.05, 'min_names': 3, 'per_picture': per_picture}


def test_which_objects_are_measured():
    def picture(names: list[str], areas: list[int], others: tuple[str, ...] = ()) -> Picture:
        masks = []
        for area in areas:
            mask = np.zeros(100, bool)
            mask[:area] = True
            masks.append(mask.reshape(10, 10))
        return Picture('x', np.zeros((10, 10, 3), np.uint8), names, masks, list(others))

    pictures = [
        picture(['cup', 'mug', 'cup', 'bowl'], [5, 4, 9, 0]),
        picture(['cup', 'mug', 'mug'], [50, 50, 50]),
        picture(['cup', 'mug'], [50, 1], ('crowd',)),
    ]
    found = list(examples(pictures, np.random.default_rng(0), **limits(5)))
    assert sorted((e.name, int(e.mask.sum()), tuple(e.names)) for e in found) == [
        ('cup', 5, ('bowl', 'cup', 'mug')),
        ('cup', 9, ('bowl', 'cup', 'mug')),
        ('cup', 50, ('crowd', 'cup', 'mug')),
    ]
    drawn = [
        int(next(examples(pictures, np.random.default_rng(seed), **limits(1))).mask.sum())
        for seed in range(20)
    ]
    assert set(drawn) == {5, 9}
    assert len(list(examples(pictures, np.random.default_rng(0), **limits(1)))) == 2


def run(monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, 'argv', ['visual_prompts', *map(str, arguments)])
    visual_prompts.main()


def test_on_rendered_views(rendered, checkpoint, tmp_path, monkeypatch, capsys):
    output = tmp_path / 'report' / 'figures.json'
    data = rendered / 'val'
    options = ('--objects', 3, '--template', 'the {}', '--scale', 20, '--output', output)
    run(monkeypatch, checkpoint, '--data', data, '--device', 'cpu', *options)
    report = json.loads(output.read_text())
    assert report['objects'] == 3
    assert (report['template'], report['scale']) == ('the {}', 20)
    assert list(report['methods']) == [ORIGINAL, *METHODS]
    assert report['methods'][ORIGINAL]['delta_p'] == 0
    deltas = {row['delta_p'] for row in report['methods'].values()}
    assert len(deltas) > len(METHODS) - 3
    for row in report['methods'].values():
        assert 0 < row['p'] < 1
        base = report['methods'][ORIGINAL]['p']
        assert row['delta_p'] == pytest.approx(100 * (row['p'] - base), abs=1e-3)
    printed = capsys.readouterr().out
    assert all(name[:6] in printed for name in METHODS)


def test_measuring_uses_the_segmenters_own_prompts(checkpoint):
    segmenter = create_model(checkpoint, 'cpu')
    example = Example(*red_square_on_blue_named())
    outcomes = compare_methods(segmenter, [example], ['attention_all', 'crop'], 5.0)
    assert len({outcome.probability[0] for outcome in outcomes.values()}) == 3


def red_square_on_blue_named():
    example = red_square_on_blue()
    return example.image, example.mask, 'mug', ['book', 'bowl', 'mug']


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], 'give --data to measure, --sheet to draw'),
        (['--min-area', '0.99'], 'has no object over 0.99 of its picture'),
        (['--methods', 'glow'], 'invalid choice'),
    ],
)
def test_what_cannot_be_measured(rendered, checkpoint, monkeypatch, capsys, arguments, message):
    data = ['--data', rendered / 'val', '--device', 'cpu'] if arguments else []
    with pytest.raises(SystemExit):
        run(monkeypatch, checkpoint, *data, *arguments)
    assert message in capsys.readouterr().err


class TestSheet:
    def test_shows_every_method(self):
        example = red_square_on_blue()
        sheet = contact_sheet(example.image, example.mask, 64, 4)
        columns = visual_prompts.SHEET_COLUMNS
        down, across = visual_prompts.TILE + visual_prompts.CAPTION, visual_prompts.TILE
        assert sheet.shape == (-(-(len(METHODS) + 1) // columns) * down, columns * across, 3)
        tiles = [
            sheet[y : y + across, x : x + across]
            for y in range(0, sheet.shape[0], down)
            for x in range(0, sheet.shape[1], across)
        ]
        for tile in tiles[: len(METHODS) + 1]:
            assert (tile[8:-8, 8:-8] != 255).any()
        # Attention: the object as it is, hatched elsewhere.
        masked = tiles[1 + list(METHODS).index('attention_all')]
        assert np.abs(masked[80:96, 80:96].astype(int) - (200, 0, 0)).max() <= 2
        assert (masked[10:30, 10:30] == 255).all(axis=2).any()

    def test_is_written_without_a_model(self, monkeypatch, tmp_path):
        path = tmp_path / 'images' / 'sheet.png'
        run(monkeypatch, '--sheet', path)
        first = np.array(Image.open(path))
        assert first.shape[1] == visual_prompts.SHEET_COLUMNS * visual_prompts.TILE
        assert first.std() > 30
