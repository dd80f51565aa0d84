"""Users without a home, a name or a cache, and disks that are full."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import small_videos

from clipseg_model.errors import ClipsegError
from clipseg_model.files.user_folders import cache_folder, expanded
from clipseg_model.runtime.exports.files import exports_folder
from clipseg_model.weights import store

ROOT = Path(__file__).parents[3]
START = 'from clipseg_model.cli.app import app; app()'

LIMITED = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
import torch, open_clip  # They may write what they please.
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
"""

#: Where an export is written to matters here, and not what is in it.
EXPORTED = """
from clipseg_model.runtime import exported
from clipseg_model.cli.app import app
exported.write_onnx = lambda model, folder: {{}}
app(['export', {checkpoint!r}], standalone_mode=False)
"""

LISTED = """
from clipseg_model.cli.app import app
app(['models'], standalone_mode=False)
"""


def _run(
    *words: object, before: str = '', wrapper: tuple[str, ...] = (), **variables: str
) -> subprocess.CompletedProcess[str]:
    kept = {key: os.environ[key] for key in ('PATH', 'LD_LIBRARY_PATH') if key in os.environ}
    ours = {'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', 'COLUMNS': '200'}
    command = [*wrapper, sys.executable, '-c', f'{before}\n{START}', *map(str, words)]
    return subprocess.run(
        command, env={**kept, **ours, **variables}, capture_output=True, text=True, timeout=240
    )


@pytest.fixture
def nobody() -> tuple[str, ...]:
    """Runs a command as a user that no list knows, and who may do what we may."""
    wrapper = ('unshare', '--user', '--map-user=54321', '--map-group=54321')
    if shutil.which('unshare') is None:
        pytest.skip('the command unshare is not installed')
    if subprocess.run([*wrapper, 'true'], capture_output=True).returncode:
        pytest.skip('this kernel, or what contains us, allows no namespaces of users')
    return wrapper


class TestWithoutHome:
    def test_models(self, nobody: tuple[str, ...], tmp_path: Path) -> None:
        done = _run('models', wrapper=nobody, TMPDIR=str(tmp_path))
        assert done.returncode == 0, done.stderr
        assert 'tabletop' in done.stdout
        assert os.listdir(tmp_path) == []

    @pytest.mark.slow
    def test_segment_and_export(
        self, nobody: tuple[str, ...], checkpoint: Path, photo: Path, tmp_path: Path
    ) -> None:
        pytest.importorskip('onnxruntime')
        (tmp_path / 'tmp').mkdir()
        words = ('segment', photo, '-p', 'mug', '-m', checkpoint)
        before = EXPORTED.format(checkpoint=str(checkpoint))
        done = _run(*words, before=before, wrapper=nobody, TMPDIR=str(tmp_path / 'tmp'))
        assert done.returncode == 0, done.stderr
        assert Path('out/photo.json').is_file()
        made = tmp_path / 'tmp' / 'clipseg-54321' / 'clipseg' / 'exports'
        assert 'manifest.json' in {path.name for path in made.glob('tiny-*/onnx/*')}

    def test_a_name_for_who_asks(self, nobody: tuple[str, ...], tmp_path: Path) -> None:
        """As torch.compile and torch.onnx do."""
        code = 'import clipseg_model, getpass; print(getpass.getuser()); raise SystemExit\n'
        assert _run(before=code, wrapper=nobody).stdout == 'user-54321\n'
        code = 'import torch._inductor.runtime.runtime_utils as u; print(u.cache_dir())\n'
        done = _run('models', before='import clipseg_model\n' + code, wrapper=nobody)
        assert done.returncode == 0, done.stderr
        assert 'torchinductor_user-54321' in done.stdout

    def test_names_of_users_are_kept(self) -> None:
        code = 'import clipseg_model, os; print(os.environ.get("LOGNAME")); raise SystemExit\n'
        assert _run(before=code).stdout == 'None\n'
        assert _run(before=code, LOGNAME='ann').stdout == 'ann\n'


class TestFolders:
    def test_the_cache(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv('HOME', '/somewhere/ann')
        monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
        assert cache_folder('NONE', 'exports') == Path('/somewhere/ann/.cache/clipseg/exports')
        monkeypatch.setenv('XDG_CACHE_HOME', '/caches')
        assert cache_folder('NONE') == Path('/caches/clipseg')
        monkeypatch.setenv('NONE', '~/models')
        assert cache_folder('NONE', 'exports') == Path('/somewhere/ann/models')

    def test_both_are_found_the_same_way(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, segmenter: object
    ) -> None:
        monkeypatch.delenv('CLIPSEG_MODELS')
        monkeypatch.delenv('CLIPSEG_EXPORTS', raising=False)
        monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
        assert store.models_folder() == tmp_path / 'clipseg'
        found = exports_folder(segmenter.card, 'a' * 64)  # type: ignore[attr-defined]
        assert found == tmp_path / 'clipseg' / 'exports' / f'tiny-{"a" * 16}'

    def test_somebody_elses(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """What lies in a cache is loaded, and anybody may put a folder into /tmp."""
        monkeypatch.setattr(Path, 'expanduser', _no_home)
        monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
        monkeypatch.setenv('TMPDIR', str(tmp_path))
        mine = tmp_path / f'clipseg-{os.getuid()}'
        assert cache_folder('NONE') == mine / 'clipseg'
        mine.mkdir()
        assert cache_folder('NONE') == mine / 'clipseg'
        theirs = tmp_path / f'clipseg-{os.getuid() + 1}'
        theirs.mkdir()
        monkeypatch.setattr(os, 'getuid', lambda: int(theirs.name[8:]))
        with pytest.raises(ClipsegError, match='belongs to somebody else: set NONE or XDG_CACHE'):
            cache_folder('NONE')

    @pytest.mark.parametrize('name', ['~nobody-at-all/a.png', '~nobody-at-all', 'a~b', '.', '/'])
    def test_names_with_a_tilde(self, name: str) -> None:
        assert expanded(name) == Path(name)


def _no_home(path: Path) -> Path:
    raise RuntimeError('Could not determine home directory.')


def test_a_home_that_may_not_be_written(checkpoint: Path, photo: Path, tmp_path: Path) -> None:
    """As in a container under another user, whose home is /."""
    home = tmp_path / 'home'
    home.write_text('no folder can be made in here')
    words = ('segment', photo, '-p', 'mug', '-m', checkpoint)
    done = _run(*words, before=LISTED, HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert 'tabletop' in done.stdout
    pytest.importorskip('onnxruntime')
    done = _run(*words, '--runtime', 'onnxruntime', HOME=str(home))
    assert done.returncode == 1
    assert 'Traceback' not in done.stderr
    assert 'CLIPSEG_EXPORTS names another folder' in ' '.join(done.stderr.split())


class TestFullDisks:
    """A limit on the size of files stands in for a disk that is full: writes fail half-way."""

    def test_pictures(self, checkpoint: Path, photo: Path) -> None:
        words = ('segment', photo, '-p', 'mug', '-m', checkpoint)
        done = _run(*words, before=LIMITED.format(size=10))
        assert done.returncode == 1
        said = ' '.join(done.stderr.split())
        assert 'photo_mug_mask.png cannot be written: File too large. Make room there' in said
        assert 'Traceback' not in said
        assert os.listdir('out') == [], 'no half of a file'

    @pytest.mark.parametrize(
        'size', [(120, 90), pytest.param((121, 91), marks=pytest.mark.slow)], ids=str
    )
    def test_overlays_of_videos(self, checkpoint: Path, work: Path, size: tuple[int, int]) -> None:
        small_videos.write_at(work / 'v.mp4', range(0, 4000, 100), size)
        words = ('segment', 'v.mp4', '-p', 'mug', '-m', checkpoint)
        done = _run(*words, before=LIMITED.format(size=40_000))
        assert done.returncode == 1, done.stderr
        said = ' '.join(done.stderr.split())
        assert 'v_overlay.mp4 is incomplete' in said
        assert '1 of 1 inputs failed' in said

    @pytest.mark.slow
    def test_lines_of_videos(self, checkpoint: Path, work: Path) -> None:
        small_videos.write(work / 'v.mp4', 'mp4v', 40, (16, 16))
        words = ('segment', 'v.mp4', '-p', 'mug', '-m', checkpoint)
        done = _run(*words, before=LIMITED.format(size=7000))
        assert done.returncode == 1, done.stderr
        said = ' '.join(done.stderr.split())
        assert 'v.jsonl cannot be written: File too large. Make room there' in said
        assert 'Traceback' not in said

    def test_masks_of_frames(self, checkpoint: Path, work: Path) -> None:
        small_videos.write(work / 'v.mp4', 'mp4v', 2)
        words = ('segment', 'v.mp4', '-p', 'mug', '-m', checkpoint, '--frame-masks')
        done = _run(*words, before=LIMITED.format(size=10))
        assert done.returncode == 1, done.stderr
        assert '000000_mug.png cannot be written: File too large' in ' '.join(done.stderr.split())
        assert os.listdir('out/v_masks') == []
