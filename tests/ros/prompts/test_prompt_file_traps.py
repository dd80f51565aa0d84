"""Files of prompts that are traps: refused, in our words. Damaged ones are in tests/fuzz."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from clipseg_model.errors import ClipsegError
from clipseg_ros.prompts.file import load_prompts
from clipseg_ros.prompts.set import PromptSet
from tests.fuzz.mutations import guarded, lacked_memory

BOMB = '\n'.join(
    ['version: 1', 'a0: &a0 [x, x, x, x, x, x, x, x, x]']
    + [f'a{n}: &a{n} [{", ".join([f"*a{n - 1}"] * 9)}]' for n in range(1, 10)]
    + ['prompts: [*a9]']
)
"""A kilobyte that is a billion words once it is written out."""


def check(path: Path, seed: str) -> bool:
    """Read the prompts and set them as the node does; say whether they were taken."""
    found: BaseException | None = None
    try:
        with guarded():
            PromptSet().replace(load_prompts(path))
    except BaseException as error:
        found = error
    told = '' if found is None else ''.join(traceback.format_exception(found))[-3000:]
    assert found is None or isinstance(found, ClipsegError), f'{seed}: {told}'
    assert not lacked_memory(found), f'{seed}: {told}'
    assert len(str(found)) < 10_000, f'{seed}: a message that nobody reads'
    return found is None


@pytest.mark.parametrize(
    'text',
    [
        BOMB,
        '[' * 10_000,
        'version: 1\nprompts: [2001-99-99]',
        'version: 1\nprompts: [0o99, 1_: _, 0x]',
        'version: 1\nprompts:\n- ? [1, 2]\n  : 3',
        'version: 1\nprompts:\n- {? {a: 1} : 3}',
        'version: 1\nprompts: [!!python/object/apply:os.getcwd []]',
        'version: 1\nprompts: &a [*a]',
        'version: 1\nprompts: [{phrase: !!binary x, id: 1}]',
        'version: 1\nprompts: [{id: ' + '9' * 5000 + '}]',
        'version: 1\nprompts: [{phrase: mug, id: 99999999999999999999}]',
        'version: 1\nprompts: [{phrase: mug, threshold: .nan}, {phrase: cup, weight: -.inf}]',
        '\0',
        '',
    ],
)
def test_texts_that_are_traps(tmp_path: Path, text: str) -> None:
    path = tmp_path / 'prompts.yaml'
    path.write_text(text)
    assert not check(path, text[:60])
