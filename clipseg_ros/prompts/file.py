"""The prompt set as a YAML file, its pictures beside it as PNG.

    version: 1
    prompts:
    - {id: 1, name: grass, phrase: short green grass, threshold: 0.4, enabled: true}
    - {id: 2, name: example, weight: 0.0, image: prompts.6f….png, mask: prompts.91….png}

The file is the old one or the new one at every moment: pictures, named by their content, are
written first; then the file is replaced in one step; then unused pictures are removed.
"""

from __future__ import annotations

import hashlib
import re
import reprlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from clipseg_model.atomic_files import write_atomically
from clipseg_model.errors import ClipsegError, PromptError
from clipseg_model.images import read_image, read_mask
from clipseg_model.prompts import Prompt
from clipseg_ros.prompts.messages import weight_of
from clipseg_ros.prompts.set import ActivePrompt, PromptRequest
from clipseg_ros.prompts.text import check_written

VERSION = 1

MAX_BYTES = 1_000_000
"""Largest file that is read, four times as large as 254 prompts of 1,000 characters."""

_short = reprlib.Repr()  # A file of a kilobyte may stand for a billion words.
_short.maxlevel = 2

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


def save_prompts(path: Path, active: Sequence[ActivePrompt]) -> None:
    """Write the prompts to a file, in place of an older one; its folder is made if it is missing.

    Raises:
        PromptError: It cannot be written.
    """
    try:
        entries = [_entry(path, entry) for entry in active]
        text = yaml.safe_dump(
            {'version': VERSION, 'prompts': entries}, sort_keys=False, allow_unicode=True
        )
        write_atomically(path, text)
        kept = {entry[key] for entry in entries for key in ('image', 'mask') if key in entry}
        picture = re.compile(rf'{re.escape(path.stem)}\.[0-9a-f]{{32}}\.png')
        for old in path.parent.iterdir():
            if old.name not in kept and picture.fullmatch(old.name):
                old.unlink()
    except OSError as error:
        raise PromptError(f'the prompts cannot be saved to {path}: {error}') from error


def load_prompts(path: Path) -> list[PromptRequest]:
    """Read prompts from a file.

    Raises:
        PromptError: It is missing, is no file of prompts, or has a wrong field.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise PromptError(f'{path} has more than {MAX_BYTES} bytes: it is no file of prompts')
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f'the file of prompts {path} cannot be read: {error}') from error
    except (yaml.YAMLError, ValueError, LookupError, TypeError, RecursionError) as error:
        # A date without a month, say, is an error of another kind than those of the library.
        raise PromptError(f'{path} is not YAML: {error}') from error
    if not isinstance(content, dict) or not isinstance(content.get('prompts'), list):
        raise PromptError(f'{path} is no file of prompts: it needs `version` and a list `prompts`')
    if content.get('version') != VERSION:
        raise PromptError(
            f'{path} has version {content.get("version")!r}, and this node reads {VERSION}'
        )
    requests = []
    for number, entry in enumerate(content['prompts'], start=1):
        try:
            requests.append(_request(path, entry))
        except ClipsegError as error:
            raise PromptError(f'{path}, prompt {number}: {error}') from error
    return requests


def _entry(path: Path, active: ActivePrompt) -> dict[str, Any]:
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
        entry['image'] = _save_picture(path, prompt.image[..., ::-1])
    if prompt.mask is not None:
        entry['mask'] = _save_picture(path, prompt.mask.view(np.uint8) * np.uint8(255))
    return entry


def _request(path: Path, entry: object) -> PromptRequest:
    if not isinstance(entry, dict):
        raise PromptError(f'{_short.repr(entry)} is no mapping of fields')
    for key, value in entry.items():
        if key not in _FIELDS:
            raise PromptError(f'there is no field {key!r}; there are {", ".join(_FIELDS)}')
        # Not isinstance: a bool is an int too.
        if type(value) not in _FIELDS[key]:
            wanted = ' or '.join(kind.__name__ for kind in _FIELDS[key])
            raise PromptError(f'{key} is {_short.repr(value)}, and has to be {wanted}')
    name, phrase = check_written(entry.get('name', ''), entry.get('phrase', ''))
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
    if Path(name).name != name or name in ('', '.', '..') or len(name.encode()) > 255:
        raise PromptError(f'{key} is {name!r}: give the name of a file beside this one, no path')
    return read(path.parent / name)


def _save_picture(path: Path, pixels: NDArray[np.uint8]) -> str:
    """Write a picture unless it is there; return its name."""
    fine, encoded = cv2.imencode('.png', np.ascontiguousarray(pixels))
    if not fine:
        raise PromptError(f'a picture of shape {pixels.shape} cannot be written as PNG')
    data = encoded.tobytes()
    name = f'{path.stem}.{hashlib.blake2b(data, digest_size=16).hexdigest()}.png'
    target = path.with_name(name)
    if not target.is_file():
        write_atomically(target, data)
    return name
