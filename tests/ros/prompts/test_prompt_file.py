from __future__ import annotations

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
        ({'phrase': 'mug; bowl'}, "';'"),
        ({'name': 'a:b'}, 'colon'),
        ({'phrase': '!mug'}, '"!"'),
        ({'phrase': 7}, 'phrase is 7, and has to be str'),
        ({'enabled': 'yes'}, "enabled is 'yes'"),
        ({'id': True}, 'id is True'),
        ({'threshold': 2.0}, '2.0'),
        ({'presence_threshold': 2.0}, '2.0'),
        ({'treshold': 0.2}, "no field 'treshold'"),
        ({'image': '../secret.png'}, 'no path'),
        ({'image': '/etc/passwd'}, 'no path'),
        ({'image': '..'}, 'no path'),
        ({'image': 'missing.png'}, 'missing.png'),
        ({'mask': 'missing.png'}, 'missing.png'),
    ],
)
def test_wrong_fields(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(PromptError, match='prompt 1: ') as caught:
        load_prompts(written(tmp_path, **fields))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('', 'no file of prompts'),
        ('[1, 2]', 'no file of prompts'),
        ('version: 2\nprompts: []', 'version 2'),
        ('prompts: []', 'version None'),
        ('version: 1\nprompts: [mug]', 'no mapping'),
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
