"""The prompt set as a YAML file, its pictures beside it as PNG.

    version: 1
    prompts:
    - {id: 1, name: grass, phrase: short green grass, threshold: 0.4, enabled: true}
    - {id: 2, name: example, weight: 0.0, image: prompts.6f….png, mask: prompts.91….png}

The file is the old one or the new one at every moment: pictures, named by their content, are
written first; then the file is replaced in one step; then the pictures are removed that the old one
named and the new one does not. A file that does not begin as above is not ours: it is neither
replaced nor told of, since a path may name anything. The mode of the file is kept, and its pictures
have the same.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from clipseg_model.errors import ClipsegError, FileError, ImageError, PromptError
from clipseg_model.files.atomic_files import write_atomically
from clipseg_model.files.small_files import read_small, read_yaml
from clipseg_model.images import read_image, read_mask
from clipseg_model.prompts import MAX_PROMPT_CHARS, MAX_PROMPTS, Prompt
from clipseg_ros.prompts.messages import weight_of
from clipseg_ros.prompts.set import ActivePrompt, PromptRequest
from clipseg_ros.prompts.text import check_written

VERSION = 1

MAX_BYTES = 1_000_000
"""Largest file that is read, four times as large as 254 prompts of 1,000 characters."""

_FIELDS: dict[str, tuple[type, ...]] = {
    'id': (int,),
    'name': (str,),
    'phrase': (str,),
    'threshold': (float, int),
    'presence_threshold': (float, int),
    'weight': (float, int),
    'enabled': (bool,),
    'negative': (bool,),
    'image': (str,),
    'mask': (str,),
}
_PICTURES = ('image', 'mask')
_SHARES = ('threshold', 'presence_threshold', 'weight')
_KINDS = {int: 'a whole number', float: 'a number', str: 'a text', bool: 'true or false'}


def save_prompts(path: Path, active: Sequence[ActivePrompt]) -> None:
    """Write the prompts to a file, in place of an older one; its folder is made if it is missing.

    Raises:
        PromptError: It cannot be written, or another file is there that is no file of prompts.
    """
    try:
        # A link stays a link, and what it leads to is the file.
        path = path.resolve()
        there = os.path.lexists(path)
        before = _pictures_of(_read_entries(path), path) if there else set()
        mode = stat.S_IMODE(path.stat().st_mode) if there else None
        text, pictures = encode_prompts(active, path.stem)
        for name, data in pictures.items():
            _save_picture(path.with_name(name), data, mode)
        write_atomically(path, text, mode)
        for name in before - set(pictures):
            path.with_name(name).unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: of links that lead in a circle.
        raise PromptError(f'the prompts cannot be saved to {path}: {error}') from error
    except FileError as error:
        raise PromptError(
            f'the prompts are not saved, since another file is there ({error}): move it away, or '
            'start the node with another prompt_file'
        ) from error


def encode_prompts(active: Sequence[ActivePrompt], stem: str) -> tuple[str, dict[str, bytes]]:
    """Return the text of a file of prompts, and the pictures beside it by their names.

    ``stem`` is the name of the file without its suffix; raises a PromptError for a picture that
    cannot be encoded.
    """
    pictures: dict[str, bytes] = {}

    def keep(pixels: NDArray[np.uint8]) -> str:
        fine, encoded = cv2.imencode('.png', np.ascontiguousarray(pixels))
        if not fine:
            raise PromptError(f'a picture of shape {pixels.shape} cannot be written as PNG')
        data = encoded.tobytes()
        name = f'{stem}.{hashlib.blake2b(data, digest_size=16).hexdigest()}.png'
        pictures[name] = data
        return name

    entries = [_entry(entry, keep) for entry in active]
    text = yaml.safe_dump(
        {'version': VERSION, 'prompts': entries}, sort_keys=False, allow_unicode=True
    )
    return text, pictures


def load_prompts(path: Path) -> list[PromptRequest]:
    """Read prompts from a file.

    Raises:
        PromptError: It is missing, is no file of prompts, or has a wrong field.
    """
    try:
        path = path.resolve()
        entries = _read_entries(path)
    except (FileError, OSError, RuntimeError) as error:
        raise PromptError(f'the file of prompts {path} cannot be read: {error}') from error
    if len(entries) > MAX_PROMPTS:
        raise PromptError(f'{path} has {len(entries)} prompts, and {MAX_PROMPTS} are possible')
    requests = []
    for number, entry in enumerate(entries, start=1):
        try:
            requests.append(_request(path, entry))
        except ClipsegError as error:
            raise PromptError(f'{path}, prompt {number}: {error}') from error
    return requests


def _read_entries(path: Path) -> list[Any]:
    """Return the prompts as they are in a file; raises a FileError unless it begins as ours do."""
    content = read_yaml(path, MAX_BYTES)
    ours = isinstance(content, dict) and set(content) == {'version', 'prompts'}
    if not ours or type(content['version']) is not int or not isinstance(content['prompts'], list):
        raise FileError(f'{path} is no file of prompts: it needs `version` and a list `prompts`')
    if content['version'] != VERSION:
        raise FileError(f'{path} is of another version of prompts, and this node reads {VERSION}')
    return content['prompts']


def _pictures_of(entries: Sequence[Any], path: Path) -> set[str]:
    """Return the names of the pictures of entries that were written beside a file by us."""
    ours = re.compile(rf'{re.escape(path.stem)}\.[0-9a-f]{{32}}\.png')
    names = (entry.get(key) for entry in entries if isinstance(entry, dict) for key in _PICTURES)
    return {name for name in names if isinstance(name, str) and ours.fullmatch(name)}


def _entry(active: ActivePrompt, keep: Callable[[NDArray[np.uint8]], str]) -> dict[str, Any]:
    prompt = active.prompt
    entry: dict[str, Any] = {'id': active.id, 'name': active.name}
    if prompt.text is not None:
        entry['phrase'] = prompt.text
    for key in ('threshold', 'presence_threshold'):
        if getattr(prompt, key) is not None:
            entry[key] = float(getattr(prompt, key))
    entry['enabled'] = active.enabled
    if prompt.negative:
        entry['negative'] = True
    if prompt.image is not None:
        entry['weight'] = weight_of(prompt)
        entry['image'] = keep(prompt.image[..., ::-1])
    if prompt.mask is not None:
        mask = prompt.mask.view(np.uint8) * np.uint8(255)
        entry['mask'] = keep(mask)
    return entry


def _request(path: Path, entry: object) -> PromptRequest:
    """Return what an entry asks for; messages tell of its fields, and not what is in them."""
    if not isinstance(entry, dict):
        raise PromptError('it is no mapping of fields')
    for number, (key, value) in enumerate(entry.items(), start=1):
        if key not in _FIELDS:
            raise PromptError(f'field {number} is none of {", ".join(_FIELDS)}')
        # Not isinstance: a bool is an int too.
        if type(value) not in _FIELDS[key]:
            raise PromptError(f'{key} has to be {_KINDS[_FIELDS[key][0]]}')
        if key in _SHARES and not 0 <= value <= 1:
            raise PromptError(f'{key} has to be in 0…1')
    try:
        name, phrase = check_written(entry.get('name', ''), entry.get('phrase', ''))
    except PromptError:
        raise PromptError(
            f'name or phrase is longer than {MAX_PROMPT_CHARS} characters, or holds what separates '
            'prompts: no ";", line break or control character, no colon but between digits, no '
            '"!" at the start (the field negative rules out)'
        ) from None
    prompt = Prompt(
        text=phrase,
        image=_picture(path, entry, 'image', read_image),
        mask=_picture(path, entry, 'mask', read_mask),
        name=None if name == phrase else name,
        threshold=entry.get('threshold'),
        weight=entry.get('weight', 0.5),
        presence_threshold=entry.get('presence_threshold'),
        negative=entry.get('negative', False),
    )
    return PromptRequest(prompt, entry.get('enabled', True), entry.get('id', 0))


def _picture(
    path: Path, entry: dict[str, Any], key: str, read: Callable[[Path], NDArray[Any]]
) -> NDArray[Any] | None:
    name = entry.get(key)
    if name is None:
        return None
    # The file may come from elsewhere: it may not make the node read files of other folders.
    target = path.parent / name
    plain = Path(name).name == name and name not in ('', '.', '..') and '\0' not in name
    if not plain or len(os.fsencode(name)) > 255 or target.is_symlink():
        raise PromptError(f'{key} has to be the name of a file beside this one, no path or link')
    try:
        return read(target)
    except ImageError as error:
        raise PromptError(f'{key}: {str(error).replace(str(target), "it")}') from None


def _save_picture(target: Path, data: bytes, mode: int | None) -> None:
    """Write a picture unless it is there."""
    if not os.path.lexists(target):
        write_atomically(target, data, mode)
    elif target.is_symlink() or read_small(target, len(data)) != data:
        raise FileError(f'{target} is not the picture that it is called after')
