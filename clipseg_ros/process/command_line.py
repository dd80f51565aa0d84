"""What YAML makes of the parameters on a command line, where it is not what was typed.

rcl reads values as YAML: ``!the vase`` is `vase` with a tag, ``grass: green grass`` is a mapping,
which it refuses without naming a remedy.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

_VALUE, _FILE = ('-p', '--param'), ('--params-file',)


def find_eaten(command_line: Sequence[str]) -> str:
    """Return which value loses its beginning, as YAML takes it for a tag; empty if none does.

    Parameters on the command line are looked through, and the files that it names.
    """
    for option, value in _ros_options(command_line):
        if option in _FILE:
            for tag, rest, line in _tagged(_text_of(Path(value))):
                return (
                    f'{value}, line {line}: {_eaten(tag, rest)}. Put the value between quotes: '
                    f'{json.dumps(f"{tag} {rest}", ensure_ascii=False)}'
                )
        else:
            name, _, text = value.partition(':=')
            for tag, rest, _ in _tagged(text):
                return f'{value}: {_eaten(tag, rest)}. {_remedy(name, text)}'
    return ''


def explain_unread(command_line: Sequence[str]) -> str:
    """Return which parameter on the command line rcl cannot read, and the remedy; empty if none."""
    for option, value in _ros_options(command_line):
        name, sign, text = value.partition(':=')
        if option in _FILE or not sign:
            continue
        if not text.strip():
            return f'{value} has no value: an empty one is written -p {name}:="\'\'"'
        try:
            read = yaml.safe_load(text)
        except yaml.YAMLError as error:
            problem = getattr(error, 'problem', None) or 'it is not YAML'
            return f'{value}: YAML cannot read this value ({problem}). {_remedy(name, text)}'
        if isinstance(read, dict):
            return (
                f'{value}: YAML takes this value for a mapping, for its colon with a blank. '
                f'{_remedy(name, text)}'
            )
    return ''


def _ros_options(command_line: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the options of ROS that have values of parameters, with these."""
    words, ros = iter(command_line), False
    for word in words:
        if word in ('--ros-args', '--'):
            ros = word == '--ros-args'
        elif ros and word in _VALUE + _FILE:
            value = next(words, None)
            if value is not None:
                yield word, value


def _tagged(text: str) -> Iterator[tuple[str, str, int]]:
    """Yield the tags of YAML that are none of its own, what is left, and the line, from 1."""
    try:
        for event in yaml.parse(text):
            tag = getattr(event, 'tag', None)
            # A lone ! is a tag too. Those of YAML itself, as in !!str, are meant.
            if isinstance(tag, str) and tag.startswith('!'):
                line = 0 if event.start_mark is None else event.start_mark.line
                yield tag, getattr(event, 'value', ''), line + 1
    except yaml.YAMLError:
        return  # rcl will say so.


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError):
        return ''  # rcl will say so.


def _eaten(tag: str, rest: str) -> str:
    return f'YAML takes {tag} for a tag and drops it, which leaves {rest!r}'


def _remedy(name: str, text: str) -> str:
    quoted = shlex.quote(json.dumps(text, ensure_ascii=False))
    return (
        f'Quote it twice, -p {name}:={quoted}; prompts may also begin with a semicolon and have '
        'colons without a blank (docs/prompts.md)'
    )
