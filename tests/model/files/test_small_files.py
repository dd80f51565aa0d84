"""The reader of small files: what is read, and what is refused without being read."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clipseg_model.errors import FileError
from clipseg_model.files.small_files import (
    MAX_DEPTH,
    parse_json,
    parse_yaml,
    read_json,
    read_small,
    read_text,
    read_yaml,
    shorten,
)
from tests.fuzz.mutations import guarded

SECRET = 'hunter2'


def nested(depth: int) -> str:
    return '[' * depth + ']' * depth


def test_what_is_meant_is_read(tmp_path: Path) -> None:
    value = {'a': [1, 2.5, None, True, {'b': 'ü]]]]["\\ '}], 'n': -(10**38)}
    path = tmp_path / 'a.json'
    path.write_text(json.dumps(value), encoding='utf-8')
    assert read_json(path) == value
    path.write_text('\ufeff{"a": "' + '[' * 1000 + '"}', encoding='utf-8')
    assert read_json(path) == {'a': '[' * 1000}
    path.write_text('a: [1, 0x1F, 1:30, 2.5, 2001-01-01]\nb: {c: ü}\n', encoding='utf-8')
    assert read_yaml(path)['a'][:4] == [1, 31, 90, 2.5]
    assert read_yaml(path)['b'] == {'c': 'ü'}
    link = tmp_path / 'link'
    link.symlink_to(path)
    assert read_text(link) == path.read_text(encoding='utf-8')
    assert parse_json(nested(MAX_DEPTH), 'it') is not None
    assert parse_yaml(nested(MAX_DEPTH), 'it') is not None
    assert parse_yaml('1:30', 'it', max_depth=0) == 90
    for more in ('[a]', 'a: b', '- a', 'a: [' + 'b,' * 400_000):
        with guarded(1), pytest.raises(FileError, match='0 levels'):
            parse_yaml(more, 'it', max_depth=0)


@pytest.mark.parametrize('read', [read_json, read_yaml])
class TestWhatIsNoFile:
    @pytest.mark.parametrize('device', ['/dev/zero', '/dev/urandom', '/dev/null', '/dev/stdin'])
    def test_devices(self, tmp_path: Path, read: Callable[[Path], Any], device: str) -> None:
        link = tmp_path / 'a'
        link.symlink_to(device)
        with guarded(2, 100 << 20), pytest.raises(FileError, match='no regular file'):
            read(link)

    def test_pipes_and_folders(self, tmp_path: Path, read: Callable[[Path], Any]) -> None:
        os.mkfifo(tmp_path / 'pipe')
        for path in (tmp_path / 'pipe', tmp_path):
            with guarded(2), pytest.raises(FileError, match='no regular file'):
                read(path)

    def test_names(self, tmp_path: Path, read: Callable[[Path], Any]) -> None:
        for name, words in (('none', 'no file'), ('x' * 300, 'too long'), ('a\0b', 'null')):
            with pytest.raises(FileError, match=words):
                read(tmp_path / name)

    def test_sizes(self, tmp_path: Path, read: Callable[[Path], Any]) -> None:
        path = tmp_path / 'a'
        with path.open('wb') as file:
            file.truncate(1 << 40)
        with guarded(2, 100 << 20), pytest.raises(FileError, match='more than 1000000 bytes'):
            read(path)
        path.write_bytes(b'1' * 10)
        assert read_small(path, 10) == b'1' * 10
        with pytest.raises(FileError, match='more than 9'):
            read_small(path, 9)

    def test_other_bytes(self, tmp_path: Path, read: Callable[[Path], Any]) -> None:
        path = tmp_path / 'a'
        path.write_bytes(b'[1, "\xff\xfe"]')
        with pytest.raises(FileError, match=r'UTF-8 \(at byte 5\)'):
            read(path)


BOMB = '\n'.join(
    ['a0: &a0 [x, x, x, x, x, x, x, x, x]']
    + [f'a{n}: &a{n} [{", ".join([f"*a{n - 1}"] * 9)}]' for n in range(1, 10)]
)


class TestTexts:
    @pytest.mark.parametrize(
        'text',
        [
            nested(MAX_DEPTH + 1),
            '[' * 900_000,
            '{"a":' * 100_000,
            '[[[{}' * 10_000,
            '9' * 900_000,
            '[-' + '1' * 41 + ']',
            '"' + '\\"' * 400_000,
            '"' + '\\"' * 400_000 + '\\',
            '[' * 40 + '"' * 100_001,
            '{"a": 1,}',
            '',
            f'{{"a": {SECRET}}}',
        ],
        ids=lambda text: text[:12],
    )
    def test_json(self, text: str) -> None:
        with guarded(5, 300 << 20), pytest.raises(FileError) as caught:
            parse_json(text, 'it')
        assert SECRET not in str(caught.value)
        assert len(str(caught.value)) < 200

    @pytest.mark.parametrize(
        'text',
        [
            BOMB,
            'a: &a [*a]',
            '[' * 900_000,
            '{' * 900_000,
            '- ' * 400_000,
            '? ' * 400_000,
            'a: ' + '9' * 900_000,
            'a: 0x' + 'f' * 900_000,
            'a: ' + '1:' * 300_000 + '1',
            'a: ' + '1:' * 300_000 + '1.5',
            'a: 2001-99-99',
            'a: !!binary x',
            'a: !!timestamp x',
            'a: !!int x',
            '? [1]\n: 2',
            f'a: !!python/object/apply:os.system [{SECRET}]',
            f'{SECRET}: [',
            f'a: *{SECRET}',
            f'a: !{SECRET} 1',
            '\0',
        ],
        ids=lambda text: ascii(text[:12]),
    )
    @pytest.mark.parametrize('library', ['C', 'Python'])
    def test_yaml(self, text: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
        if library == 'Python':
            if len(text) > 100_000:
                text = text[:100_000]
            monkeypatch.delattr('yaml.CSafeLoader')
        with guarded(10, 300 << 20), pytest.raises(FileError) as caught:
            parse_yaml(text, 'it')
        assert SECRET not in str(caught.value)
        assert len(str(caught.value)) < 200

    def test_a_megabyte_is_read_soon(self) -> None:
        text = json.dumps([{'a': [number, 'x' * 20]} for number in range(20_000)])
        began = time.monotonic()
        assert len(parse_json(text, 'it')) == 20_000
        assert len(parse_yaml(text, 'it')) == 20_000
        assert time.monotonic() - began < 20


def test_values_are_shown_short() -> None:
    many: list[Any] = []
    many.append(many)
    assert shorten('the mug') == "'the mug'"
    for value in ('x' * 10**6, 10**30_000, [['x' * 99] * 99] * 99, dict.fromkeys(range(99), many)):
        assert len(shorten(value)) <= 200
