"""The one reader of small files: settings, manifests, cards, prompts and records.

Such a file may come from anywhere, and a path may name anything. So only regular files are opened,
only so many bytes are read, and what a text stands for is looked at before it is built: how deep it
nests, how long its numbers are, and whether it repeats itself by aliases. Messages tell where a
file is wrong, and nothing of what it holds.
"""

from __future__ import annotations

import json
import os
import re
import reprlib
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clipseg_model.errors import FileError

MAX_BYTES = 1_000_000
"""Largest small file, unless its reader says otherwise."""

MAX_DEPTH = 32
"""Deepest nesting of lists and mappings in a text."""

MAX_DIGITS = 40
"""Longest whole number in a text, in characters."""

# A string, which ends with the text at the latest, so that nothing is looked at twice; or one.
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[\[\]{}]', re.S)

_short = reprlib.Repr()
_short.maxlevel = 2
_short.maxstring = _short.maxother = _short.maxlong = 60


def shorten(value: object) -> str:
    """Return a value as a message may show it: its ``repr``, of 200 characters at most."""
    try:
        return _short.repr(value)[:200]
    except ValueError:  # Python refuses to write down a number of thousands of digits.
        return f'<{type(value).__name__}>'


def read_small(path: str | Path, limit: int = MAX_BYTES) -> bytes:
    """Read a regular file of at most ``limit`` bytes.

    Raises:
        FileError: It is missing, cannot be read, is no regular file (a folder, a pipe, a device),
            or is larger.
    """
    path = Path(path)
    try:
        # Asked before it is opened: opening a pipe waits for its writer, and some devices act.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise FileError(f'{path} is no regular file, but a folder, a pipe or a device')
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), 'rb') as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise FileError(f'{path} is no regular file, but a folder, a pipe or a device')
            # Not by its size, which another program may change, and /proc does not tell.
            data = file.read(limit + 1)
    except FileNotFoundError as error:
        raise FileError(f'There is no file {path}') from error
    except (OSError, ValueError) as error:  # A name may hold a zero.
        reason = getattr(error, 'strerror', None) or error
        raise FileError(f'{path} cannot be read: {reason}') from error
    if len(data) > limit:
        raise FileError(f'{path} has more than {limit} bytes, and no such file has')
    return data


def read_text(path: str | Path, limit: int = MAX_BYTES) -> str:
    """Read a text of UTF-8 as :func:`read_small` does, which raises the same and for other bytes.

    Raises:
        FileError: See :func:`read_small`; or it is not UTF-8.
    """
    try:
        return read_small(path, limit).decode('utf-8-sig')
    except UnicodeDecodeError as error:
        raise FileError(f'{path} is no text of UTF-8 (at byte {error.start})') from None


def read_json(path: str | Path, limit: int = MAX_BYTES) -> Any:
    """Read a JSON file; raises :class:`FileError` as :func:`read_text` and :func:`parse_json`."""
    return parse_json(read_text(path, limit), str(path))


def read_yaml(path: str | Path, limit: int = MAX_BYTES) -> Any:
    """Read a YAML file; raises :class:`FileError` as :func:`read_text` and :func:`parse_yaml`."""
    return parse_yaml(read_text(path, limit), str(path))


def parse_json(text: str, what: str) -> Any:
    """Return what a JSON text holds; ``what`` is how messages call the text.

    Raises:
        FileError: It is not JSON, or nests deeper or has longer numbers than any that is meant.
    """
    _check_brackets(text, what)
    try:
        return json.loads(text, parse_int=_integer)
    except json.JSONDecodeError as error:
        raise FileError(
            f'{what} is not readable as JSON: line {error.lineno}, column {error.colno}: '
            f'{error.msg}'
        ) from None
    except _TooLong as error:
        raise FileError(f'{what} is not usable: it holds {error}') from None


def parse_yaml(text: str, what: str, max_depth: int = MAX_DEPTH) -> Any:
    """Return what a YAML text holds, of plain types.

    Args:
        text: The text.
        what: How messages call it.
        max_depth: Deepest nesting of lists and mappings. With 0, the text is one scalar, and of
            another one nothing is read but the beginning.

    Raises:
        FileError: It is not YAML, has aliases or several documents, or nests deeper or has longer
            numbers than any that is meant.
    """
    # Not at the top: of what imports this module, little reads YAML.
    import yaml

    loader: Any = type('Loader', (getattr(yaml, 'CSafeLoader', yaml.SafeLoader),), {})
    # Both kinds may be written in parts of 60, each of which multiplies a number without an end.
    for kind, build in (('int', loader.construct_yaml_int), ('float', loader.construct_yaml_float)):
        loader.add_constructor(f'tag:yaml.org,2002:{kind}', _limited(build))
    depth = documents = 0
    try:
        for event in yaml.parse(text, Loader=loader):
            if isinstance(event, yaml.AliasEvent):
                raise FileError(f'{what} has aliases (*), which are not read: write it out')
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                _check_depth(depth, what, max_depth)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            documents += isinstance(event, yaml.DocumentStartEvent)
            if documents > 1:
                raise FileError(f'{what} holds several documents (---): make it one')
        return yaml.load(text, Loader=loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f': line {mark.line + 1}, column {mark.column + 1}' if mark else ''
        raise FileError(f'{what} is not YAML{place}') from None
    except _TooLong as error:
        raise FileError(f'{what} is not usable: it holds {error}') from None
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:
        # A date without a month, say, is an error of another kind than those of the library.
        raise FileError(f'{what} is not YAML ({type(error).__name__})') from None


class _TooLong(Exception):
    """A number of more digits than any that is meant."""


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise _TooLong(f'a number of {len(text)} digits')
    return int(text)


def _limited(build: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return a constructor of YAML numbers that refuses long ones."""

    def construct(loader: Any, node: Any) -> Any:
        if len(node.value) > MAX_DIGITS:
            raise _TooLong(f'a number of {len(node.value)} characters')
        return build(loader, node)

    return construct


def _check_brackets(text: str, what: str) -> None:
    """Refuse a JSON text that nests too deep, before a parser calls itself for each level."""
    if text.count('[') + text.count('{') <= MAX_DEPTH:
        return
    depth = 0
    for found in _STRING_OR_BRACKET.finditer(text):
        depth += {'[': 1, '{': 1, ']': -1, '}': -1}.get(found[0], 0)
        _check_depth(depth, what)


def _check_depth(depth: int, what: str, most: int = MAX_DEPTH) -> None:
    if depth > most:
        raise FileError(f'{what} nests more than {most} levels deep, and no such file does')


def is_file_beside(folder: Path, name: object) -> bool:
    """Return whether a name, such as a manifest gives, is that of a file right in a folder."""
    text = str(name)
    return Path(text).name == name and os.path.isfile(folder / text)
