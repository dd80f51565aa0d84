#!/usr/bin/env python3
"""Write the colours of labels, clipseg_model/outputs/label_colours.py, from a search.

    python scripts/make_label_colours.py [--check]

The search is that of Glasbey and others (Color Research and Application 32, 2007): every colour is
the one of a grid in RGB that is farthest from all before it, here by CIEDE2000. A prefix of the
list is then as far apart as the search finds, whatever its length: ids are given from 1 on. What
is nearly black (no prompt) or grey (most of what cameras see) is left out, and no colour is near
those just before it, since a robot's prompts have ids that follow one another.

On the first 20 and 32 ids, this list is farther apart than those that glasbey 0.4 made with the
same bounds and without (21.2 and 17.2 by CIEDE2000; at most 20.3 and 13.9).
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from skimage.color import deltaE_ciede2000, rgb2lab

TARGET = Path(__file__).resolve().parents[1] / 'clipseg_model' / 'outputs' / 'label_colours.py'

COUNT = 254
STEPS = 32
"""Values of each channel in the grid."""

FIRST = (255, 49, 82)
DARKEST, GREYEST = 35.0, 20.0
"""The least lightness and the least chroma, of CIELAB."""

RECENT, FROM_RECENT = 3, 25.0
"""How many colours before a colour are the recent ones, and the least distance from them."""

PER_LINE = 13

MODULE = '''\
"""The colour of every label. Written by scripts/make_label_colours.py; do not edit."""

from __future__ import annotations

LABEL_COLOURS = bytes.fromhex("""
{lines}
""")
"""RGB of the ids 1 … {count}, 3 bytes each."""
'''


def find_colours() -> NDArray[np.uint8]:
    """Return the colours, RGB uint8 (COUNT, 3)."""
    values = np.linspace(0, 255, STEPS).round().astype(np.uint8)
    grid = np.array(list(itertools.product(values, repeat=3)))
    lab = rgb2lab(grid[None] / 255.0)[0]
    used = (lab[:, 0] >= DARKEST) & (np.hypot(lab[:, 1], lab[:, 2]) >= GREYEST)
    grid, lab = grid[used], lab[used]
    nearest = deltaE_ciede2000(lab, np.zeros_like(lab))
    recent: list[NDArray[np.float64]] = []
    found: list[int] = []
    choice = int((grid == FIRST).all(axis=1).argmax())
    while len(found) < COUNT:
        found.append(choice)
        distances = deltaE_ciede2000(lab, lab[choice][None])
        nearest = np.minimum(nearest, distances)
        recent = [*recent, distances][-RECENT:]
        far = np.min(recent, axis=0) >= FROM_RECENT
        choice = int(np.where(far, nearest, -1.0).argmax())
    return grid[found]


def main() -> int:
    """Write the module, or say whether it is what would be written."""
    parser = argparse.ArgumentParser(description='Write the colours of labels.')
    parser.add_argument('--check', action='store_true', help='write nothing; fail if it differs')
    only_check = parser.parse_args().check
    colours = [colour.tobytes().hex() for colour in find_colours()]
    rows = (colours[start : start + PER_LINE] for start in range(0, COUNT, PER_LINE))
    lines = '\n'.join(map(' '.join, rows))
    text = MODULE.format(lines=lines, count=COUNT)
    if only_check:
        return int(TARGET.read_text(encoding='utf-8') != text)
    TARGET.write_text(text, encoding='utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(main())
