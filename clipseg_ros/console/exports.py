"""The prompts of the page as other programs take them: a file, a command, a script."""

from __future__ import annotations

import io
import shlex
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from clipseg_ros.console.back_ends.base import ConsoleError
from clipseg_ros.console.cards import LEAST_PRESENCE, Card, filled
from clipseg_ros.prompts.file import encode_prompts
from clipseg_ros.prompts.set import ActivePrompt

FILE = 'prompts.yaml'


def prompt_file(cards: Sequence[Card]) -> tuple[bytes, str, str]:
    """Return the file that a node loads: its content, its name, and what was left out of it.

    With pictures it is a ZIP archive of the file and the pictures beside it.

    Raises:
        ConsoleError: There is no prompt.
        PromptError: A prompt cannot be written.
    """
    written, left_out = _written(cards)
    text, pictures = encode_prompts(written, Path(FILE).stem)
    if not pictures:
        return text.encode(), FILE, left_out
    # In memory: what is uploaded never reaches this machine's disk.
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, 'w', zipfile.ZIP_DEFLATED) as packed:
        packed.writestr(FILE, text)
        for name, data in pictures.items():
            # PNG is compressed already.
            packed.writestr(name, data, zipfile.ZIP_STORED)
    return archive.getvalue(), 'prompts.zip', left_out


def as_yaml(cards: Sequence[Card]) -> tuple[str, str]:
    """Return the text of the file, and what was left out; raises as :func:`prompt_file`."""
    written, left_out = _written(cards)
    text, pictures = encode_prompts(written, Path(FILE).stem)
    if not pictures:
        return text, left_out
    more = 'the pictures that it names come with "Prompt file"'
    return text, f'{left_out}; {more}' if left_out else more


def as_command(cards: Sequence[Card], node: str) -> tuple[str, str]:
    """Return the call of ``ros2`` that sets the prompts of a node; pictures are left out."""
    _need(cards)
    prompts = []
    left_out = [card.name for card in cards if card.pictured]
    for card in cards:
        if not card.phrase:
            continue
        fields: dict[str, Any] = {'phrase': card.phrase}
        if card.name != card.phrase:
            fields['name'] = card.name
        if card.threshold is not None:
            fields['threshold'] = card.threshold
        if card.presence is not None:
            fields['presence_threshold'] = max(card.presence, LEAST_PRESENCE)
        if not card.enabled:
            fields['enabled'] = False
        if card.negative:
            fields['negative'] = True
        prompts.append(fields)
    text = yaml.safe_dump(
        {'prompts': prompts}, default_flow_style=True, sort_keys=False, width=10**9,
        allow_unicode=True,
    ).strip()  # fmt: skip
    service = f'{node}/set_prompts'
    command = f'ros2 service call {service} clipseg_ros/srv/SetPrompts {shlex.quote(text)}'
    said = f'a command has no pictures: those of {", ".join(left_out)} are left out'
    return command, said if left_out else ''


def as_python(
    cards: Sequence[Card],
    model: str,
    threshold: float | None = None,
    presence: float | None = None,
) -> tuple[str, str]:
    """Return a script that looks for the prompts in a picture.

    ``threshold`` and ``presence`` are for prompts without their own; the model's where None.
    """
    _need(cards)
    lines = ['from clipseg_model import Prompt, create_model']
    on = [card for card in filled(cards, threshold, presence) if card.enabled]
    if any(card.pictured for card in on):
        lines = [
            'from pathlib import Path',
            '',
            'from clipseg_model import create_model',
            'from clipseg_model.images import read_image',
            'from clipseg_ros.prompts.file import load_prompts',
            '',
            f'requests = load_prompts(Path({FILE!r}))',
            'prompts = [request.prompt for request in requests if request.enabled]',
            *_filling('threshold', threshold),
            *_filling('presence_threshold', presence),
        ]
        if threshold is not None or presence is not None:
            lines.insert(0, 'from dataclasses import replace')
        said = 'it reads prompts.yaml with the pictures beside it: save "Prompt file" for it'
    else:
        lines += ['from clipseg_model.images import read_image', '', 'prompts = [']
        lines += [f'    Prompt({_arguments(card)}),' for card in on]
        lines.append(']')
        said = ''
    lines += [
        f'segmenter = create_model({model!r})',
        "found = segmenter.segment(read_image('picture.jpg'), prompts)",
        'for result in found.results:',
        '    print(result.prompt.label, result.score, result.presence, result.mask.sum())',
    ]
    return '\n'.join(lines) + '\n', said


def _filling(field: str, value: float | None) -> list[str]:
    """Return lines of a script that give a threshold to prompts of a file without one."""
    if value is None:
        return []
    return [
        'prompts = [',
        f'    prompt if prompt.{field} is not None else replace(prompt, {field}={value:g})',
        '    for prompt in prompts',
        ']',
    ]


def _arguments(card: Card) -> str:
    words = [repr(card.phrase)]
    if card.name != card.phrase:
        words.append(f'name={card.name!r}')
    if card.threshold is not None:
        words.append(f'threshold={card.threshold:g}')
    if card.presence is not None:
        words.append(f'presence_threshold={card.presence:g}')
    if card.negative:
        words.append('negative=True')
    return ', '.join(words)


def _need(cards: Sequence[Card]) -> None:
    if not cards:
        raise ConsoleError('there is no prompt to save: type one first')


def _written(cards: Sequence[Card]) -> tuple[list[ActivePrompt], str]:
    """Return the prompts of a file, and what is left out: pictures that only the node has."""
    _need(cards)
    written, missing = [], []
    for number, card in enumerate(cards, start=1):
        if card.pictured and card.example is None:
            missing.append(card.name)
            if not card.phrase:
                continue
        request = replace(card, pictured=card.example is not None).request()
        written.append(ActivePrompt(card.id or number, request.prompt, card.enabled))
    if not missing:
        return written, ''
    names = ', '.join(missing)
    return written, (
        f'the pictures of {names} came to the node from elsewhere, and are left out: '
        '~/save_prompts of the node saves them'
    )
