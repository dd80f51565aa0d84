from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from clipseg_model.errors import PromptError
from clipseg_model.prompts import Prompt
from clipseg_ros.prompts import file as prompt_file
from clipseg_ros.prompts.file import load_prompts, save_prompts
from clipseg_ros.prompts.set import ActivePrompt, PromptRequest, PromptSet
from tests.fuzz.mutations import guarded

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (12, 17, 3)).astype(np.uint8)
MASK = RNG.random((12, 17)) > 0.5
ENTRIES = (
    ActivePrompt(1, Prompt('the mug')),
    ActivePrompt(4, Prompt('short green grass', name='grass', threshold=0.3), enabled=False),
    ActivePrompt(5, Prompt('Tisch', negative=True, presence_threshold=0.25)),
    ActivePrompt(9, Prompt(image=IMAGE, mask=MASK, name='example', weight=0.0)),
    ActivePrompt(254, Prompt('rote Tasse ☕', image=IMAGE, name='mixed', weight=0.7)),
)


def pictures(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix == '.png'}


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    path = tmp_path / 'new' / 'prompts.yaml'
    save_prompts(path, ENTRIES)
    active = PromptSet().replace(load_prompts(path))
    assert active == ENTRIES
    assert active[3].prompt.mask is not None
    np.testing.assert_array_equal(active[3].prompt.mask, MASK)


def test_the_file_is_for_people(tmp_path: Path) -> None:
    path = tmp_path / 'prompts.yaml'
    save_prompts(path, ENTRIES)
    content = yaml.safe_load(path.read_text())
    assert content['version'] == 1
    first = {'id': 1, 'name': 'the mug', 'phrase': 'the mug', 'enabled': True}
    assert content['prompts'][0] == first
    assert '☕' in path.read_text()
    assert len(pictures(tmp_path)) == 2, 'one picture for both prompts, and a mask'


def test_a_file_by_hand(tmp_path: Path) -> None:
    path = tmp_path / 'mine.yaml'
    path.write_text('version: 1\nprompts:\n- phrase: mug\n- {name: seat, phrase: a chair}\n')
    assert load_prompts(path) == [
        PromptRequest(Prompt('mug')),
        PromptRequest(Prompt('a chair', name='seat')),
    ]


def test_pictures_that_are_no_longer_used_go_and_others_stay(tmp_path: Path) -> None:
    path = tmp_path / 'prompts.yaml'
    other = tmp_path / 'prompts.png'
    other.write_bytes(b'mine')
    save_prompts(tmp_path / 'others.yaml', ENTRIES[3:])
    save_prompts(path, ENTRIES)
    before = pictures(tmp_path)
    save_prompts(path, ENTRIES[:3])
    gone = before - pictures(tmp_path)
    assert len(gone) == 2
    assert all(name.startswith('prompts.') for name in gone)
    assert other.exists()
    assert len(load_prompts(tmp_path / 'others.yaml')) == 2


def test_a_failure_while_saving_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / 'prompts.yaml'
    save_prompts(path, ENTRIES)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def fail(source: Path, target: Path) -> None:
        assert source.read_bytes(), 'it fails at the last step'
        raise OSError('disk full')

    monkeypatch.setattr(Path, 'replace', fail)
    for entries in (ENTRIES[:1], [ActivePrompt(1, Prompt(image=255 - IMAGE, name='another'))]):
        with pytest.raises(PromptError, match=r'cannot be saved to .*prompts.yaml: disk full'):
            save_prompts(path, entries)
    monkeypatch.undo()
    after = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert after == before, 'the old file stands, and nothing half written is left'
    assert [request.id for request in load_prompts(path)] == [1, 4, 5, 9, 254]


def written(tmp_path: Path, **fields: Any) -> Path:
    path = tmp_path / 'prompts.yaml'
    path.write_text(yaml.safe_dump({'version': 1, 'prompts': [{'phrase': 'mug', **fields}]}))
    return path


@pytest.mark.parametrize(
    ('fields', 'words'),
    [
        ({'phrase': ''}, 'needs a text, an image'),
        ({'phrase': 'hunter2; bowl'}, '";"'),
        ({'phrase': 'hunter2' * 500}, 'longer than 1000 characters'),
        ({'name': 'hunter2:b'}, 'colon'),
        ({'phrase': '!hunter2'}, '"!"'),
        ({'phrase': 7}, 'phrase has to be a text'),
        ({'enabled': 'hunter2'}, 'enabled has to be true or false'),
        ({'id': True}, 'id has to be a whole number'),
        ({'threshold': 2.0}, 'threshold has to be in 0…1'),
        ({'threshold': 'hunter2'}, 'threshold has to be a number'),
        ({'presence_threshold': 2.0}, 'presence_threshold has to be in 0…1'),
        ({'weight': float('nan')}, 'weight has to be in 0…1'),
        ({'hunter2': 0.2}, 'field 1 is none of id, name'),
        ({'image': '../hunter2.png'}, 'no path'),
        ({'image': '/etc/passwd'}, 'no path'),
        ({'image': '..'}, 'no path'),
        ({'image': 'a\0b'}, 'no path'),
        ({'image': 'hunter2.png'}, 'image: There is no image file it'),
        ({'mask': 'hunter2.png'}, 'mask: There is no image file it'),
    ],
)
def test_wrong_fields(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(PromptError, match='prompt 1: ') as caught:
        load_prompts(written(tmp_path, **fields))
    assert words in str(caught.value)
    assert 'hunter2' not in str(caught.value), 'what the file holds is not told'


SECRETS = {
    'key': 'password: hunter2\n',
    'value': 'version: hunter2\nprompts: [hunter2]\n',
    'more keys': 'version: 1\nprompts: []\npassword: hunter2\n',
    'text': 'hunter2',
    'no yaml': 'hunter2: [\n',
    'tag': '!hunter2 1',
    'alias': '*hunter2',
    'bytes': b'hunter2\xff',
    'json': '{"token": "hunter2"}',
    'shell': 'export TOKEN=hunter2\n{[',
    'nothing': '',
}


@pytest.mark.parametrize('kind', SECRETS)
def test_files_that_are_not_ours(tmp_path: Path, kind: str) -> None:
    """They are not told of, not replaced, and their mode and what lies beside them stay."""
    path, beside = tmp_path / 'prompts.yaml', tmp_path / f'prompts.{"0" * 32}.png'
    content = SECRETS[kind]
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(0o640)
    beside.write_bytes(b'mine')
    before = path.read_bytes()
    for act in (lambda: load_prompts(path), lambda: save_prompts(path, ENTRIES)):
        with pytest.raises(PromptError) as caught:
            act()
        assert 'hunter2' not in str(caught.value)
    assert path.read_bytes() == before
    assert path.stat().st_mode & 0o777 == 0o640
    assert sorted(tmp_path.iterdir()) == sorted([path, beside])
    assert beside.read_bytes() == b'mine'


@pytest.mark.parametrize('mode', [0o600, 0o640])
def test_the_mode_is_kept_and_that_of_the_pictures_is_the_same(tmp_path: Path, mode: int) -> None:
    path = tmp_path / 'prompts.yaml'
    save_prompts(path, ENTRIES[:1])
    path.chmod(mode)
    save_prompts(path, ENTRIES)
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {mode}
    assert len(list(tmp_path.iterdir())) == 3


def test_pictures_that_nobody_named_stay(tmp_path: Path) -> None:
    path, other = tmp_path / 'prompts.yaml', tmp_path / f'prompts.{"0" * 32}.png'
    other.write_bytes(b'mine')
    save_prompts(path, ENTRIES)
    save_prompts(path, ENTRIES[:1])
    assert sorted(tmp_path.iterdir()) == sorted([path, other])


def test_links(tmp_path: Path) -> None:
    """A link to a file of prompts stays one; a picture is no link to somewhere else."""
    path, link = tmp_path / 'a' / 'prompts.yaml', tmp_path / 'link.yaml'
    save_prompts(path, ENTRIES[:1])
    link.symlink_to(path)
    save_prompts(link, ENTRIES)
    assert link.is_symlink()
    assert len(load_prompts(link)) == len(load_prompts(path)) == len(ENTRIES)
    picture = next(path.parent.glob('*.png'))
    picture.rename(tmp_path / 'elsewhere.png')
    picture.symlink_to(tmp_path / 'elsewhere.png')
    with pytest.raises(PromptError, match='no path or link'):
        load_prompts(path)
    with pytest.raises(PromptError, match='is not the picture that it is called after'):
        save_prompts(path, ENTRIES)
    circle = tmp_path / 'circle'
    circle.symlink_to(circle)
    for act in (lambda: load_prompts(circle), lambda: save_prompts(circle, ENTRIES)):
        with pytest.raises(PromptError):
            act()


@pytest.mark.parametrize('target', ['/dev/zero', '/dev/urandom', '/dev/null', 'pipe', '/etc'])
def test_what_is_no_file(tmp_path: Path, target: str) -> None:
    path = tmp_path / 'prompts.yaml'
    if target == 'pipe':
        os.mkfifo(path)
    else:
        path.symlink_to(target)
    for act in (lambda: load_prompts(path), lambda: save_prompts(path, ENTRIES)):
        with guarded(3, 100 << 20), pytest.raises(PromptError, match='no regular file'):
            act()
    assert path.is_symlink() or path.is_fifo()


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('', 'no file of prompts'),
        ('[1, 2]', 'no file of prompts'),
        ('version: 2\nprompts: []', 'another version'),
        ('version: true\nprompts: []', 'no file of prompts'),
        ('prompts: []', 'no file of prompts'),
        ('version: 1\nprompts: [mug]', 'no mapping'),
        ('version: 1\nprompts: [' + 'mug,' * 300 + ']', '300 prompts, and 254'),
        ('a: [', 'not YAML'),
        ('!!python/object/apply:os.system ["touch pwned"]', 'not YAML'),
        ('#' * (prompt_file.MAX_BYTES + 1), 'more than'),
    ],
)
def test_wrong_files(
    tmp_path: Path, text: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'prompts.yaml'
    path.write_text(text)
    with pytest.raises(PromptError, match=words):
        load_prompts(path)
    assert not (tmp_path / 'pwned').exists()


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r'none.yaml cannot be read'):
        load_prompts(tmp_path / 'none.yaml')


def test_a_damaged_picture(tmp_path: Path) -> None:
    path = tmp_path / 'prompts.yaml'
    save_prompts(path, ENTRIES[3:4])
    for name in pictures(tmp_path):
        (tmp_path / name).write_bytes(b'no PNG')
    with pytest.raises(PromptError, match=r'prompt 1: .*cannot be read'):
        load_prompts(path)
