"""Prompts as people write them: the text of ``~/prompt`` and of the parameter ``prompt``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from clipseg_model.errors import FileError, PromptError
from clipseg_model.files.small_files import parse_yaml, shorten
from clipseg_model.prompts import MAX_TEXT_CHARS, Prompt, parse_prompts

# As clipseg_model.prompts takes it: a colon between digits belongs to the phrase.
_NAME_COLON = re.compile(r'(?<!\d):|:(?!\d)')

Texts = str | tuple[str, ...]
"""A text of prompts, or several."""


def check_texts(value: Any) -> Texts:
    """Return a value of the parameter ``prompt`` as texts; raises a PromptError if it is none."""
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise PromptError(f'{shorten(value)} is neither a text nor a list of texts')


def read_prompts(value: str | Sequence[str]) -> list[Prompt]:
    """Read prompts from ``mug; grass: short green grass``, or a list of such texts; none if blank.

    Raises:
        PromptError: As :func:`clipseg_model.prompts.parse_prompts`.
    """
    return parse_prompts(value if isinstance(value, str) else '\n'.join(value))


def write_prompts(prompts: Iterable[Prompt]) -> str:
    """Return the text that :func:`read_prompts` reads as these prompts (those with words).

    It is written as :func:`survive_yaml` does.
    """
    parts = []
    for prompt in prompts:
        if prompt.text is not None:
            named = prompt.name is not None and prompt.name != prompt.text
            written = f'{prompt.name}: {prompt.text}' if named else prompt.text
            parts.append(f'!{written}' if prompt.negative else written)
    return survive_yaml('; '.join(parts))


def survive_yaml(text: str) -> str:
    """Return a text of the same prompts that YAML reads as itself, where there is one.

    Tools read values of parameters as YAML, ``ros2 param load`` those of a dump too: a text that
    begins with ``!`` loses its first word, and ``name: phrase`` is a mapping. ``;`` at the start
    and colons without a blank are no YAML. What YAML reads as a number or a bool stays, and so
    does a text that is too long, which :func:`read_prompts` refuses.
    """
    if len(text) > MAX_TEXT_CHARS:
        return text
    read = _read_scalar(text)
    if not text.strip() or read == text.strip() or isinstance(read, (bool, int, float)):
        return text
    parts = (_with_close_colon(part.strip()) for part in re.split(r'[;\r\n]', text))
    plain = '; '.join(part for part in parts if part)
    for candidate in (plain, f';{plain}'):
        if _read_scalar(candidate) == candidate:
            return candidate
    return text


def survive_yaml_texts(value: Any) -> Any:
    """Return a value of the parameter ``prompt`` as :func:`survive_yaml` returns a text."""
    return survive_yaml(value) if isinstance(value, str) else value


def _with_close_colon(part: str) -> str:
    """Return a prompt whose colon between name and phrase, if any, has no blank behind it."""
    colon = _NAME_COLON.search(part)
    if colon is None:
        return part
    name, phrase = part[: colon.start()].rstrip(), part[colon.end() :].lstrip()
    # A colon between digits is part of a phrase.
    between = ' :' if name[-1:].isdecimal() and phrase[:1].isdecimal() else ':'
    return f'{name}{between}{phrase}'


def _read_scalar(text: str) -> Any:
    """Return the one scalar that a text is to YAML; None where it is anything else."""
    try:
        return parse_yaml(text, 'the text', max_depth=0)
    except FileError:
        return None


def check_written(name: str, phrase: str) -> tuple[str | None, str | None]:
    """Return a name and a phrase, None for blank ones, that as text are read as they went in.

    Raises:
        PromptError: They hold something that separates prompts or names, or are too long.
    """
    for mark in (';', '\n', '\r'):
        if mark in name or mark in phrase:
            written = name if mark in name else phrase
            raise PromptError(f'{written[:60]!r} holds {mark!r}, which separates prompts')
    own, words = ' '.join(name.split()) or None, ' '.join(phrase.split()) or None
    # A picture has no words: any stand in for them.
    parsed = read_prompts(f'{own}: {words or "a"}' if own else words or 'a')
    wanted = (own, words or 'a', False)
    if [(p.name, p.text, p.negative) for p in parsed] != [wanted]:
        raise PromptError(
            f'prompt with name {name[:60]!r} and phrase {phrase[:60]!r}: a colon stands between '
            'name and phrase only, and "!" begins neither (the field negative rules out)'
        )
    return own, words
