"""Any legal name of a file or folder, as an input and as an output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from clipseg_command import clipseg, segment, squeezed
from copied_exports import copying

from clipseg_model.cli.file_runner import find_files
from clipseg_model.images import read_image
from clipseg_model.runtime.exports.files import ONNX

ROOT = Path(__file__).parents[3]

NAMES = [
    'seg #1?',
    'a%20b',
    'frame%03d',
    'this&that;[x] {y}',
    'it\'s "quoted"',
    'pipe:1',
    'C:\\b',
    'line\nbreak',
    '茶碗☕é',
    '-x',
    '~',
    '~nobody-at-all',
    'x' * 200,
    '茶' * 66,
    os.fsdecode(b'not \xff utf-8'),
]
PROMPT = 'the red mug on the wooden table by the window; ' + '杯' * 40 + ': cup'


def _named(function: object) -> str:
    return ascii(str(function))[:30]


@pytest.mark.parametrize('name', NAMES, ids=_named)
class TestNames:
    def test_of_pictures_and_folders(self, checkpoint: Path, photo: Path, name: str) -> None:
        folder = Path(name)
        folder.mkdir()
        photo.rename(folder / f'{name}.png')
        out = Path('results') / name
        command = ('segment', '-p', PROMPT, '-m', checkpoint, '--device', 'cpu')
        result = clipseg(*command, f'--output={out}', '--', folder)
        assert result.exit_code == 0, result.output
        (record,) = out.glob('*.json')
        told = json.loads(record.read_text())
        assert Path(told['input']).suffix == '.png'
        for entry in told['prompts']:
            assert read_image(out / entry['mask']).shape == (90, 120, 3)
        assert len(list(out.iterdir())) == 4
        assert sorted(Path().iterdir()) == sorted([folder, Path('results')])

    def test_of_videos(self, checkpoint: Path, video: Path, name: str) -> None:
        Path('in').mkdir()
        source = Path('in', name + video.suffix)
        video.rename(source)
        os.chdir('in')  # Where a name stands alone, it may look like an option or an address.
        command = ('segment', '-p', PROMPT, '-m', checkpoint, '--device', 'cpu', '--frame-masks')
        result = clipseg(*command, '-o', '../out', '--', source.name)
        assert result.exit_code == 0, result.output
        os.chdir('..')
        assert os.listdir('in') == [source.name]
        made = sorted(path.suffix for path in Path('out').iterdir())
        assert made == ['', '.jsonl', '.mp4']
        (lines,) = Path('out').glob('*.jsonl')
        assert len(lines.read_text().splitlines()) == 4

    def test_of_checkpoints(self, checkpoint: Path, work: Path, photo: Path, name: str) -> None:
        if not name.isprintable() and '\n' not in name:
            pytest.skip('safetensors itself opens names of UTF-8 alone')
        source = f'{name}.safetensors'
        checkpoint.rename(source)
        result = clipseg('convert', '--half', '--', source, f'half {source}')
        assert result.exit_code == 0, result.output
        result = clipseg('segment', photo, '-p', 'mug', f'--model={source}', '--device', 'cpu')
        assert result.exit_code == 0, result.output


@pytest.mark.slow
def test_names_of_exports(checkpoint: Path, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('onnxruntime')
    made: list[Path] = []
    for name in ('-a b#?%20&é', '茶' * 66, '~nobody-at-all'):
        result = clipseg('export', '--device', 'cpu', '--', checkpoint, name)
        assert result.exit_code == 0, result.output
        made.append(Path(name, ONNX))
        monkeypatch.setattr('clipseg_model.runtime.exporting.write_onnx', copying(made[0]))
        result = segment(
            checkpoint, photo, '-p', 'mug', '--runtime', 'onnxruntime', f'--exports={name}'
        )
        assert result.exit_code == 0, result.output
    assert len(made) == 3


def test_names_that_begin_alike_get_numbers(checkpoint: Path, photo: Path) -> None:
    """Where names are shortened, nothing is overwritten."""
    for last in 'ab':
        Path('x' * 240 + last + '.png').write_bytes(photo.read_bytes())
    photo.unlink()
    assert segment(checkpoint, '.', '-p', PROMPT).exit_code == 0
    records = [json.loads(path.read_text()) for path in Path('out').glob('*.json')]
    assert sorted(record['input'][-5:] for record in records) == ['a.png', 'b.png']
    assert len(os.listdir('out')) == 8


@pytest.mark.parametrize(
    'name', ['x' * 300, 'a/' * 3000, 'photo.png/inside', '~nobody-at-all/a.png']
)
def test_names_that_no_file_can_have(checkpoint: Path, photo: Path, name: str) -> None:
    result = segment(checkpoint, name, photo, '-p', 'mug')
    assert result.exit_code == 1
    assert '1 of 2 inputs failed' in squeezed(result.stderr)
    result = segment(checkpoint, photo, '-p', 'mug', '--prompt-image', name)
    assert result.exit_code == 1
    result = clipseg('segment', photo, '-p', 'mug', '-m', name)
    assert result.exit_code == 1
    if name != '~nobody-at-all/a.png':
        assert segment(checkpoint, photo, '-p', 'mug', '-o', f'{name}/out').exit_code == 1


def test_a_folder_that_may_not_be_read(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, 'Permission denied', str(path))

    monkeypatch.setattr(os, 'listdir', refuse)
    files, problems = find_files([photo.parent, photo])
    assert files == [photo]
    assert problems == [(photo.parent, 'it cannot be looked at: Permission denied')]


def test_a_terminal_without_the_letters(
    checkpoint: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that the terminal cannot show is no reason to fail."""
    photo.rename('茶碗.png')
    words = ['segment', '茶碗.png', 'none-茶.png', '-p', '杯: cup', '-m', str(checkpoint)]
    done = subprocess.run(
        [sys.executable, '-m', 'clipseg_ros.cli', *words],
        env={
            **os.environ,
            'PYTHONPATH': str(ROOT),
            'PYTHONIOENCODING': 'ascii',
            'OMP_NUM_THREADS': '1',
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    assert '\\u8336\\u7897.png' in done.stdout
    assert 'none-\\u8336.png: there is no such file' in done.stderr
    assert Path('out/茶碗.json').is_file()
