"""Colours of labels: a fixed palette, and colours that users choose instead."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from clipseg_model.errors import ColourError
from clipseg_model.outputs.label_colours import LABEL_COLOURS

_LAST_ID = 254

Colours = tuple[tuple[int | str, tuple[int, int, int]], ...]
"""What :func:`read_colours` returns: (id or name as it is compared, RGB), each id and name once."""


def _palette() -> NDArray[np.uint8]:
    colours = np.zeros((256, 3), dtype=np.uint8)
    colours[1 : _LAST_ID + 1] = np.frombuffer(LABEL_COLOURS, np.uint8).reshape(-1, 3)
    colours.setflags(write=False)
    return colours


PALETTE: NDArray[np.uint8] = _palette()
"""RGB colour of every label, uint8 of shape (256, 3); 0 and 255, which no prompt has, are black."""


def colour_of(label: int, palette: NDArray[np.uint8] = PALETTE) -> tuple[int, int, int]:
    """Return the RGB colour of a label, 0…255 each."""
    red, green, blue = palette[label].tolist()
    return red, green, blue


def read_colours(value: str | Sequence[str]) -> Colours:
    """Read colours that labels shall have, as :func:`palette_with` takes them.

    Args:
        value: ``mug=#ff8800; 3=#00ff00``, or a list of such texts: the name of a prompt (letter
            case does not matter) or the id of a label, and RGB in hexadecimal digits. Blank is
            none.

    Raises:
        ColourError: An entry is written otherwise, has an id out of 1…254, or gives a second
            colour to a name or an id.
    """
    found: dict[int | str, tuple[int, int, int]] = {}
    for entry in re.split(r'[;\r\n]', value if isinstance(value, str) else '\n'.join(value)):
        if entry.strip():
            key, colour = _read_entry(entry.strip())
            if found.setdefault(key, colour) != colour:
                raise ColourError(
                    f'{entry.strip()[:60]!r} is the second colour of {key!r}: give one of them'
                )
    return tuple(found.items())


def _read_entry(entry: str) -> tuple[int | str, tuple[int, int, int]]:
    # Names may hold an equals sign; colours do not.
    subject, _, colour = (part.strip() for part in entry.rpartition('='))
    if not subject or not re.fullmatch('#[0-9a-fA-F]{6}', colour):
        raise ColourError(
            f'{entry[:60]!r} is not NAME_OR_ID=#RRGGBB, such as mug=#ff8800 or 3=#00ff00 (RGB in '
            'hexadecimal digits; no space before the #, which would begin a comment in YAML)'
        )
    red, green, blue = bytes.fromhex(colour[1:])
    if not re.fullmatch('[+-]?[0-9]+', subject):
        return _key_of(subject), (red, green, blue)
    # Python reads no number of thousands of digits.
    if len(subject) > 9 or not 1 <= int(subject) <= _LAST_ID:
        raise ColourError(
            f'{entry[:60]!r}: a number is the id of a label, 1 … {_LAST_ID}; write one of these, '
            'or the name of a prompt'
        )
    return int(subject), (red, green, blue)


def _key_of(name: str) -> str:
    return ' '.join(name.split()).casefold()


def palette_with(colours: Colours, named: Iterable[tuple[int, str]]) -> NDArray[np.uint8]:
    """Return the palette, RGB uint8 (256, 3), in which some labels have another colour; read-only.

    ``named`` are (label, name) of the prompts that labels stand for. A name goes before an id, and
    what names no label here is not used. The array is kept for calls with the same arguments.
    """
    return _palette_with(colours, tuple(named)) if colours else PALETTE


# One for each camera and set of prompts of a process, of 768 bytes each.
@lru_cache(maxsize=64)
def _palette_with(colours: Colours, named: tuple[tuple[int, str], ...]) -> NDArray[np.uint8]:
    palette, wanted = PALETTE.copy(), dict(colours)
    for key, colour in colours:
        if isinstance(key, int):
            palette[key] = colour
    for label, name in named:
        palette[label] = wanted.get(_key_of(name), palette[label])
    palette.setflags(write=False)
    return palette


def check_used(colours: Colours, named: Sequence[tuple[int, str]]) -> None:
    """Make sure that every colour is that of a label, given (label, name) of all prompts.

    Raises:
        ColourError: One names no prompt.
    """
    known = {key for label, name in named for key in (label, _key_of(name))}
    unused = [key for key, _ in colours if key not in known]
    if unused:
        prompts = ', '.join(f'{name} (id {label})' for label, name in named[:20])
        raise ColourError(
            f'a colour is given to {", ".join(repr(key) for key in unused)}, and no prompt is '
            f'called that; the prompts are {prompts}'
        )
