"""What YAML makes of the parameters on a command line, where it is not what was typed.

rcl reads values as YAML: ``!the vase`` is `vase` with a tag, ``the mug #2`` is `the mug` with a
comment, and ``grass: green grass`` is a mapping, which it refuses without naming a remedy.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from clipseg_model.errors import FileError
from clipseg_model.files.small_files import parse_yaml, read_text

# rcl reads with libyaml. PyYAML's own parser, where that is not in it, differs in rare cases.
_LOADER: Any = getattr(yaml, 'CLoader', yaml.Loader)
_RESOLVER = yaml.resolver.Resolver()
_VALUE, _FILE = ('-p', '--param'), ('--params-file',)


class _Loss(NamedTuple):
    what: str
    """What YAML does to a value."""
    whole: str
    """The value as it was typed."""
    line: int
    """Where, from 1."""


def find_eaten(command_line: Sequence[str]) -> str:
    """Return which value loses a part of its text, as YAML takes that for something else.

    Parameters on the command line are looked through, and the files that it names: there, comments
    and folded lines are what they are meant to be.

    Returns:
        Empty where nothing is lost.
    """
    for option, value in _ros_options(command_line):
        if option in _FILE:
            for loss in _marks(_text_of(Path(value)), in_file=True):
                return (
                    f'{value}, line {loss.line}: {loss.what}. Put the value between quotes: '
                    f'{json.dumps(loss.whole, ensure_ascii=False)}'
                )
        else:
            name, _, text = value.partition(':=')
            for loss in (*_marks(text), *_cuts(text)):
                return f'{value}: {loss.what}. {_remedy(name, text)}'
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
            read = parse_yaml(text, 'it')
        except FileError as error:
            return f'{value}: YAML cannot read this value ({error}). {_remedy(name, text)}'
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


def _events(text: str) -> Iterator[Any]:
    try:
        yield from yaml.parse(text, Loader=_LOADER)
    except yaml.YAMLError:
        return  # rcl will say so.


def _marks(text: str, in_file: bool = False) -> Iterator[_Loss]:
    """Yield the tags that are none of YAML's own, and the anchors.

    In a file, an anchor counts before a text alone, and where nothing refers to it: others change
    no value, and rcl refuses references.
    """
    events = list(_events(text))
    referred = {event.anchor for event in events if isinstance(event, yaml.AliasEvent)}
    for event in events:
        rest = getattr(event, 'value', '')
        tag, anchor = getattr(event, 'tag', None), getattr(event, 'anchor', None)
        # A lone ! is a tag too. Those of YAML itself, as in !!str, are meant.
        if isinstance(tag, str) and tag.startswith('!'):
            yield _loss('a tag', tag, rest, event)
        elif anchor is None or isinstance(event, yaml.AliasEvent):
            continue
        elif not in_file or (anchor not in referred and _is_text(event)):
            yield _loss('an anchor', f'&{anchor}', rest, event)


def _cuts(text: str) -> Iterator[_Loss]:
    """Yield the unquoted texts of a value that YAML ends at a comment.

    A value that is nothing but text is not to lose its line breaks either, which separate prompts.
    """
    if text.lstrip().startswith('#'):
        yield _Loss('YAML takes all of it for a comment', text, 1)
    depth = 0
    for event in _events(text):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if not _is_text(event) or event.style:
            continue
        comment = text[event.end_mark.index :].lstrip()
        if comment.startswith('#'):
            yield _loss('a comment', comment.splitlines()[0], event.value, event)
        elif not depth and event.tag is None and event.value != text.strip():
            yield _Loss(f'YAML makes {event.value!r} of it', text, 1)


def _is_text(event: Any) -> bool:
    """Whether YAML reads an event as text, not as a number, true, false or a list."""
    if not isinstance(event, yaml.ScalarEvent):
        return False
    kind = _RESOLVER.resolve(yaml.ScalarNode, event.value, event.implicit)
    return kind == _RESOLVER.DEFAULT_SCALAR_TAG


def _text_of(path: Path) -> str:
    try:
        return read_text(path)
    except FileError:
        return ''  # rcl will say so; and a pipe can be read but once.


def _loss(kind: str, part: str, rest: str, event: Any) -> _Loss:
    what = f'YAML takes {part} for {kind} and drops it, which leaves {rest!r}'
    return _Loss(what, f'{part} {rest}', event.start_mark.line + 1)


def _remedy(name: str, text: str) -> str:
    quoted = shlex.quote(json.dumps(text, ensure_ascii=False))
    return (
        f'Quote it twice, -p {name}:={quoted}; prompts may also begin with a semicolon and have '
        'colons without a blank (docs/prompts.md)'
    )
