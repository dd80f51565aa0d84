from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from clipseg_model.errors import ColourError
from clipseg_model.outputs.palette import PALETTE, check_used, colour_of, palette_with, read_colours

MUG, BOWL = (255, 136, 0), (0, 68, 255)


# What docs/nodes.md says: the least distances by CIEDE2000.
FIRST_20, FIRST_32, FROM_THE_NEXT_THREE, ANY_TWO, FROM_NO_PROMPT = 21, 17, 25, 6.8, 28


def test_colours_are_as_far_apart_as_the_docs_say() -> None:
    assert PALETTE.shape == (256, 3)
    assert colour_of(0) == colour_of(255) == (0, 0, 0)
    assert not PALETTE.flags.writeable
    lab = rgb2lab(PALETTE[:255][None] / 255.0)[0]
    distances = deltaE_ciede2000(lab[:, None], lab[None])
    np.fill_diagonal(distances, np.inf)
    assert distances[0].min() >= FROM_NO_PROMPT
    ids = distances[1:, 1:]
    assert ids[:20, :20].min() >= FIRST_20
    assert ids[:32, :32].min() >= FIRST_32
    assert ids.min() >= ANY_TWO
    for step in (1, 2, 3):
        assert np.diagonal(ids, step).min() >= FROM_THE_NEXT_THREE


def test_distances_of_the_docs(repository: Path) -> None:
    page = (repository / 'docs' / 'nodes.md').read_text()
    row = [FIRST_20, FIRST_32, FROM_THE_NEXT_THREE, ANY_TWO, FROM_NO_PROMPT]
    assert '| ' + ' | '.join(map(str, row)) + ' |' in page


def test_colours_are_the_same_in_another_process() -> None:
    code = 'from clipseg_model.outputs.palette import PALETTE; print(PALETTE.tobytes().hex())'
    found = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == PALETTE.tobytes().hex()


@pytest.mark.parametrize(
    'value',
    [
        'mug=#ff8800; 3=#0044ff',
        ['mug=#ff8800', '3=#0044ff'],
        ' Mug = #FF8800 ;;\n3=#0044FF;',
        ['MUG=#ff8800;3=#0044ff', '', ' '],
        'mug=#ff8800; 3=#0044ff; mug=#ff8800',
    ],
)
def test_reading(value: str | list[str]) -> None:
    assert read_colours(value) == (('mug', MUG), (3, BOWL))


def test_names_are_read_whole() -> None:
    value = ['the  RED mug=#ff8800', 'a=b=#ff8800', '3 mugs=#ff8800', 'GRÖSSE=#ff8800']
    names = [name for name, _ in read_colours(value)]
    assert names == ['the red mug', 'a=b', '3 mugs', 'größe'.casefold()]


@pytest.mark.parametrize('value', ['', ' ', ';', [], [''], ['', '\n']])
def test_blank_is_none(value: str | list[str]) -> None:
    assert read_colours(value) == ()


@pytest.mark.parametrize(
    ('value', 'words'),
    [
        ('mug', ["'mug'", 'NAME_OR_ID=#RRGGBB', 'mug=#ff8800']),
        ('mug=', ["'mug='", 'NAME_OR_ID', 'comment']),
        ('=#ff8800', ["'=#ff8800'", 'NAME_OR_ID']),
        ('#ff8800', ["'#ff8800'", 'NAME_OR_ID']),
        ('mug=orange', ["'mug=orange'", '#RRGGBB']),
        ('mug=ff8800', ["'mug=ff8800'"]),
        ('mug=#f80', ["'mug=#f80'"]),
        ('mug=#ff88000', ["'mug=#ff88000'"]),
        ('mug=#ff88zz', ["'mug=#ff88zz'"]),
        ('9' * 5000 + '=#ff8800', ['999', '254']),
        ('mug:#ff8800', ["'mug:#ff8800'"]),
        ('bowl=#0044ff; mug=#ff880', ["'mug=#ff880'"]),
        (['bowl=#0044ff', 'mug #ff8800'], ["'mug #ff8800'"]),
        ('0=#ff8800', ["'0=#ff8800'", '1 … 254', 'name']),
        ('255=#ff8800', ["'255=#ff8800'", '1 … 254']),
        ('-1=#ff8800', ["'-1=#ff8800'", '1 … 254']),
        ('mug=#ff8800; MUG=#0044ff', ["'MUG=#0044ff'", "second colour of 'mug'"]),
        ('3=#ff8800; 03=#0044ff', ["'03=#0044ff'", 'second colour of 3']),
    ],
)
def test_what_is_written_otherwise_is_refused(value: str | list[str], words: list[str]) -> None:
    with pytest.raises(ColourError) as caught:
        read_colours(value)
    for word in words:
        assert word in str(caught.value)


def test_a_name_goes_before_an_id_and_that_before_the_palette() -> None:
    colours = read_colours('2=#111111; Mug=#ff8800; 3=#0044ff; cup=#222222')
    palette = palette_with(colours, [(2, 'mug'), (3, 'bowl'), (4, 'chair')])
    expected = PALETTE.copy()
    expected[2], expected[3] = MUG, BOWL
    np.testing.assert_array_equal(palette, expected)
    assert palette.dtype == np.uint8
    moved = palette_with(colours, [(7, 'MUG')])
    assert [colour_of(n, moved) for n in (2, 3, 7)] == [(0x11, 0x11, 0x11), BOWL, MUG]
    # An id has its colour whether or not a prompt has it now.
    assert colour_of(3, palette_with(colours, [])) == BOWL


def test_a_number_is_an_id_even_where_a_prompt_is_called_so() -> None:
    palette = palette_with(read_colours('12=#ff8800'), [(1, '12')])
    assert colour_of(1, palette) == colour_of(1)
    assert colour_of(12, palette) == MUG


def test_a_palette_is_made_once_and_nobody_can_change_it() -> None:
    colours = read_colours('mug=#ff8800')
    first = palette_with(colours, [(1, 'mug'), (2, 'bowl')])
    assert palette_with(read_colours(['mug=#FF8800']), [(1, 'mug'), (2, 'bowl')]) is first
    assert palette_with(colours, [(2, 'mug')]) is not first
    assert palette_with((), [(1, 'mug')]) is PALETTE
    with pytest.raises(ValueError, match='read-only'):
        first[1] = 0


def test_colours_of_no_prompt() -> None:
    named = [(1, 'The mug'), (2, 'bowl')]
    check_used(read_colours('the mug=#ff8800; 2=#0044ff'), named)
    check_used((), [])
    text = "'cup', 3, and no prompt is called that; the prompts are The mug (id 1), bowl (id 2)"
    with pytest.raises(ColourError, match=re.escape(text)):
        check_used(read_colours('bowl=#ff8800; cup=#0044ff; 3=#0044ff'), named)
