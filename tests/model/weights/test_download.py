"""`clipseg download` against a hub on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_hub import COMMIT, WEIGHTS, FakeHub, cached_snapshot
from huggingface_hub import constants
from typer.testing import CliRunner

from clipseg_model import registry
from clipseg_model.cli.app import app
from clipseg_model.errors import DownloadError
from clipseg_model.weights import download as downloads
from clipseg_model.weights import store
from clipseg_model.weights.download import download

RD64 = store.SOURCES['clipseg-rd64']
CHANGED = WEIGHTS[:-1] + b'x'


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def fetched(hub: FakeHub) -> list[str]:
    return [path for path, _ in hub.requests if '/resolve/' in path]


def ranges(hub: FakeHub) -> list[str | None]:
    return [asked for path, asked in hub.requests if path.endswith('model.safetensors')]


class TestDownload:
    def test_what_is_needed_comes_and_nothing_else(self, hub: FakeHub) -> None:
        paths = download(RD64)
        assert [path.name for path in paths] == [
            'config.json',
            'preprocessor_config.json',
            'model.safetensors',
        ]
        assert paths[-1].read_bytes() == WEIGHTS
        assert names(RD64.folder) == {path.name for path in paths} | {'download.json'}

    def test_what_came_is_recorded(self, hub: FakeHub) -> None:
        download(RD64)
        record = json.loads((RD64.folder / 'download.json').read_text())
        assert record['repository'] == 'CIDAS/clipseg-rd64'
        assert record['commit'] == COMMIT
        for name in ('config.json', 'preprocessor_config.json', 'model.safetensors'):
            assert record['sha256'][name] == hashlib.sha256(hub.files[name]).hexdigest()

    def test_weights_that_were_pickled_where_there_are_no_others(self, hub: FakeHub) -> None:
        del hub.files['model.safetensors']
        assert download(RD64)[-1].name == 'pytorch_model.bin'

    def test_it_is_not_fetched_twice(self, hub: FakeHub) -> None:
        download(RD64)
        hub.requests.clear()
        download(RD64)
        assert not fetched(hub)

    @pytest.mark.parametrize('content', [CHANGED, WEIGHTS[:100]], ids=['changed', 'cut'])
    def test_a_file_that_was_changed_here_is_fetched_again(
        self, hub: FakeHub, content: bytes
    ) -> None:
        path = download(RD64)[-1]
        path.write_bytes(content)
        download(RD64)
        assert path.read_bytes() == WEIGHTS

    def test_all_files_are_of_one_commit(self, hub: FakeHub) -> None:
        download(RD64)
        assert len(fetched(hub)) == 3
        assert all(f'/resolve/{COMMIT}/' in path for path in fetched(hub))

    def test_the_token_of_this_machine_is_sent(
        self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv('HF_TOKEN', 'hf_secret')
        download(RD64)
        assert set(hub.tokens) == {'Bearer hf_secret'}

    def test_what_is_in_the_users_cache_is_copied(self, hub: FakeHub) -> None:
        snapshot = cached_snapshot()
        (snapshot / 'model.safetensors').write_bytes(WEIGHTS)
        assert download(RD64)[-1].read_bytes() == WEIGHTS
        assert not ranges(hub)

    def test_a_damaged_copy_in_the_users_cache_is_not_taken(self, hub: FakeHub) -> None:
        snapshot = cached_snapshot()
        (snapshot / 'model.safetensors').write_bytes(CHANGED)
        assert download(RD64)[-1].read_bytes() == WEIGHTS
        assert ranges(hub) == [None]


class TestResume:
    def test_it_goes_on_where_it_broke_off(
        self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(constants, 'DOWNLOAD_CHUNK_SIZE', 1000)
        hub.stop_after, hub.stops = 4000, 2
        assert download(RD64)[-1].read_bytes() == WEIGHTS
        assert ranges(hub) == [None, 'bytes=4000-', 'bytes=8000-']

    def test_it_gives_up_and_the_next_command_fetches_what_lacks(self, hub: FakeHub) -> None:
        hub.stops = 100
        hub.files['config.json'], hub.stop_after = b'', 0
        with pytest.raises(DownloadError, match=r'cannot be reached.*closed connection'):
            download(RD64)
        assert names(RD64.folder) == {'config.json', '.incoming'}
        assert not registry.get_card('clipseg-rd64').present
        hub.stops = 0
        hub.requests.clear()
        assert download(RD64)[-1].read_bytes() == WEIGHTS
        assert not [path for path in fetched(hub) if path.endswith('/config.json')]
        assert '.incoming' not in names(RD64.folder)


class TestSeveralAtOnce:
    """Processes of their own, as two terminals or two containers on one folder."""

    @staticmethod
    def start(hub: FakeHub, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, '-c', 'from clipseg_model.cli.app import app; app()', *arguments],
            env={**os.environ, 'HF_HUB_OFFLINE': '0', 'HF_ENDPOINT': constants.ENDPOINT},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def test_what_is_verified_and_recorded_is_what_is_there(self, hub: FakeHub) -> None:
        hub.files['model.safetensors'] = os.urandom(1_000_000)
        hub.pause, hub.corrupt = 0.15, 1
        RD64.folder.mkdir(parents=True)
        (RD64.folder / 'model.safetensors').write_bytes(b'older')
        running = [self.start(hub, 'download', 'clipseg-rd64') for _ in range(3)]
        for process in running:
            _, words = process.communicate(timeout=120)
            assert process.returncode == 0, words
        assert len(ranges(hub)) <= 2, 'one fetches it, anew after the damage, and the others wait'
        record = json.loads((RD64.folder / 'download.json').read_text())
        assert set(record['sha256']) == names(RD64.folder) - {'download.json'}
        for name, digest in record['sha256'].items():
            assert (RD64.folder / name).read_bytes() == hub.files[name]
            assert hashlib.sha256(hub.files[name]).hexdigest() == digest

    def test_an_older_record_goes_before_its_files(self, hub: FakeHub) -> None:
        download(RD64)
        hub.files['model.safetensors'] = CHANGED
        hub.corrupt = 100
        with pytest.raises(DownloadError):
            download(RD64)
        assert 'download.json' not in names(RD64.folder)


class TestPatience:
    @pytest.mark.parametrize('busy', [1, 3])
    def test_a_hub_that_is_busy_is_asked_again(self, hub: FakeHub, busy: int) -> None:
        hub.busy = busy
        assert download(RD64)[-1].read_bytes() == WEIGHTS

    @pytest.mark.parametrize('after', [2, 3, 4, 5])
    def test_at_any_time(self, hub: FakeHub, after: int) -> None:
        answer = hub._answer

        def count(request: Any, with_content: bool) -> None:
            hub.busy = int(len(hub.tokens) == after)
            answer(request, with_content)

        hub._answer = count  # type: ignore[method-assign]
        assert download(RD64)[-1].read_bytes() == WEIGHTS
        assert hub.busy == 0
        assert len(hub.tokens) > after


class TestParts:
    PARTS = ('model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors')

    def test_all_parts_that_an_index_names(self, hub: FakeHub) -> None:
        del hub.files['model.safetensors']
        hub.files |= dict.fromkeys(self.PARTS, WEIGHTS)
        hub.files |= {'model.safetensors.index.json': b'{}', 'model-card-1-of-2.txt': b'no'}
        paths = [path.name for path in download(RD64)]
        assert paths[2:] == [*self.PARTS, 'model.safetensors.index.json']
        assert store.find_downloaded(RD64) == RD64.folder / 'model.safetensors.index.json'

    def test_16_bits_where_there_is_nothing_else(self, hub: FakeHub) -> None:
        hub.files['model.fp16.safetensors'] = hub.files.pop('model.safetensors')
        assert download(RD64)[-1].name == 'model.fp16.safetensors'


class TestDamage:
    @pytest.mark.parametrize('name', ['model.safetensors', 'config.json'])
    def test_a_content_that_was_not_published(self, hub: FakeHub, name: str) -> None:
        hub.corrupt = 100
        source = replace(RD64, files=() if name.startswith('model') else (name,))
        kind = 'sha256' if name.startswith('model') else 'git'
        with pytest.raises(DownloadError, match=rf'{name} of .* did not arrive.*its {kind} digest'):
            download(source)
        assert names(RD64.folder) == {'.incoming'}
        assert name not in {path.name for path in RD64.folder.rglob('*')}

    def test_damage_on_the_way_is_mended_once(self, hub: FakeHub) -> None:
        hub.corrupt = 1
        assert download(replace(RD64, files=()))[-1].read_bytes() == WEIGHTS

    def test_a_digest_that_is_known_beforehand(self, hub: FakeHub) -> None:
        digest = hashlib.sha256(WEIGHTS).hexdigest()
        download(replace(RD64, sha256={'model.safetensors': digest}))
        hub.requests.clear()
        for name in ('config.json', 'model.safetensors'):
            with pytest.raises(DownloadError, match=r' and not 00.*not kept.*--revision'):
                download(replace(RD64, sha256={name: '0' * 64}))
            assert name not in names(RD64.folder)
        assert not ranges(hub), 'the index tells already'

    def test_what_is_built_in(self) -> None:
        pinned = {name: set(source.sha256) for name, source in store.SOURCES.items()}
        assert pinned == {
            'clipseg-rd64-refined': {
                'model.safetensors',
                'config.json',
                'preprocessor_config.json',
            },
            'clipseg-rd64': set(),
            'clipseg-rd16': set(),
            'clip-vit-b-16': {'open_clip_model.safetensors'},
            'clip-vit-b-32': {'open_clip_model.safetensors'},
            'clip-vit-l-14-336': set(),
        }
        digests = [digest for source in store.SOURCES.values() for digest in source.sha256.values()]
        assert all(re.fullmatch('[0-9a-f]{64}', digest) for digest in digests)
        assert len(set(digests)) == len(digests)

    @pytest.mark.parametrize(
        ('status', 'code', 'remedy'),
        [
            (401, '', r'answered 401 .*not public: check the name, or log in'),
            (403, 'GatedRepo', 'consent to its terms'),
            (403, '', r'answered 403 Forbidden: the token .*HF_TOKEN'),
            (404, 'RepoNotFound', 'check the name'),
            (404, 'RevisionNotFound', "no revision 'main'"),
            (429, '', 'wait a while'),
            (503, '', r'answered 503 Service Unavailable: try again later'),
        ],
    )
    def test_refusals(self, hub: FakeHub, status: int, code: str, remedy: str) -> None:
        hub.status, hub.error_code = status, code
        with pytest.raises(DownloadError, match=remedy):
            download(RD64)

    def test_a_revision_that_is_not_there(self, hub: FakeHub) -> None:
        with pytest.raises(DownloadError, match=r"no revision 'v9': check it"):
            download(RD64, 'v9')

    def test_a_repository_of_something_else(self, hub: FakeHub) -> None:
        del hub.files['preprocessor_config.json']
        with pytest.raises(DownloadError, match=r'lacks preprocessor_config\.json; it has'):
            download(RD64)
        hub.files = {'README.md': b'read me'}
        with pytest.raises(DownloadError, match=r'json, weights \(model\.safetensors or the like'):
            download(RD64)

    @pytest.mark.parametrize('index', [{}, [], b'<html>', {'id': 'a/b'}])
    def test_answers_that_are_no_hubs(self, hub: FakeHub, index: object) -> None:
        hub.index = index
        with pytest.raises(DownloadError, match='answered in an unknown form'):
            download(RD64)

    @pytest.mark.parametrize('endpoint', ['http://127.0.0.1:9', 'file:///etc'])
    def test_no_network(self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
        monkeypatch.setattr(constants, 'ENDPOINT', endpoint)
        with pytest.raises(DownloadError, match=r'cannot be reached.*HTTPS_PROXY'):
            download(RD64)

    def test_offline_mode(self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
        with pytest.raises(DownloadError, match='HF_HUB_OFFLINE is set'):
            download(RD64)
        assert not hub.requests
        snapshot = cached_snapshot()
        for name in ('config.json', 'preprocessor_config.json', 'pytorch_model.bin'):
            (snapshot / name).write_text('{}')
        with pytest.raises(DownloadError, match=rf'{snapshot / "pytorch_model.bin"} is used'):
            download(RD64)

    def test_a_full_disk(self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
        usage = downloads.shutil.disk_usage('/')
        with monkeypatch.context() as patch:
            patch.setattr(downloads.shutil, 'disk_usage', lambda _: usage._replace(free=100))
            with pytest.raises(DownloadError, match=r'make room, or .*CLIPSEG_MODELS'):
                download(RD64)

        def refuse(*_: object, **__: object) -> None:
            raise OSError(28, 'No space left on device')

        monkeypatch.setattr(downloads, 'hf_hub_download', refuse)
        with pytest.raises(DownloadError, match=r'could not be written.*No space.*CLIPSEG_MODELS'):
            download(RD64)

    def test_a_folder_that_cannot_be_made(
        self, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / 'file').write_text('')
        monkeypatch.setenv('CLIPSEG_MODELS', str(tmp_path / 'file'))
        with pytest.raises(DownloadError, match='could not be written'):
            download(RD64)


class TestCommand:
    def test_it_fetches_and_says_where_and_under_which_terms(self, hub: FakeHub) -> None:
        result = CliRunner().invoke(app, ['download', 'clipseg-rd64'])
        assert result.exit_code == 0, result.output
        text = ''.join(result.stdout.split())
        assert str(RD64.folder / 'model.safetensors') in text
        assert 'notMIT(https://huggingface.co/CIDAS/clipseg-rd64)' in text
        assert registry.get_card('clipseg-rd64').present

    def test_any_repository_of_the_hub(self, hub: FakeHub) -> None:
        hub.repository = 'somebody/clipseg-garden'
        result = CliRunner().invoke(app, ['download', 'somebody/clipseg-garden'])
        assert result.exit_code == 0, result.output
        folder = store.models_folder() / 'somebody--clipseg-garden'
        assert 'model.safetensors' in names(folder)

    def test_variables_of_the_environment_count(self, hub: FakeHub, tmp_path: Path) -> None:
        command = ['download', 'clipseg-rd64']
        ours = {'HF_HUB_OFFLINE': '0', 'HF_ENDPOINT': constants.ENDPOINT, 'HF_HOME': str(tmp_path)}
        done = subprocess.run(
            [sys.executable, '-c', 'from clipseg_model.cli.app import app; app()', *command],
            env={**os.environ, **ours},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert (RD64.folder / 'model.safetensors').read_bytes() == WEIGHTS

    def test_no_other_command_uses_a_network(
        self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise AssertionError('a connection was opened')

        monkeypatch.setattr('socket.socket.connect', refuse)
        for command in (['models'], ['convert', 'CIDAS/clipseg-rd64', 'new.safetensors']):
            result = CliRunner().invoke(app, command)
            assert not isinstance(result.exception, AssertionError)
        assert 'clipseg download' in result.output

    def test_errors_are_one_message(self, hub: FakeHub) -> None:
        hub.corrupt = 100
        result = CliRunner().invoke(app, ['download', 'clipseg-rd64'])
        assert result.exit_code == 1
        assert 'did not arrive as it was published' in ' '.join(result.stderr.split())
        result = CliRunner().invoke(app, ['download', 'clipseg-rd65'])
        assert result.exit_code == 1
        assert "'clipseg-rd65' cannot be downloaded" in ' '.join(result.stderr.split())

    def test_one_that_fails_does_not_keep_the_others(self, hub: FakeHub) -> None:
        result = CliRunner().invoke(app, ['download', 'clipseg-rd65', 'a/b', 'clipseg-rd64'])
        assert result.exit_code == 1
        words = ' '.join(result.stderr.split())
        assert "'clipseg-rd65' cannot be downloaded" in words
        assert 'https://huggingface.co/a/b answered 404' in words
        assert (RD64.folder / 'model.safetensors').read_bytes() == WEIGHTS
