"""`clipseg download` against a hub on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fake_hub import COMMIT, FakeHub
from huggingface_hub import constants
from typer.testing import CliRunner

from clipseg_model import registry
from clipseg_model.cli.app import app
from clipseg_model.errors import CheckpointError, DownloadError
from clipseg_model.weights import download as downloads
from clipseg_model.weights import store
from clipseg_model.weights.download import download

RD64 = store.SOURCES['clipseg-rd64']
WEIGHTS = bytes(range(256)) * 40
CHANGED = WEIGHTS[:-1] + b'x'


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    served = FakeHub(
        {
            'config.json': b'{"model_type": "clipseg"}',
            'preprocessor_config.json': b'{"size": 352}',
            'model.safetensors': WEIGHTS,
            'pytorch_model.bin': b'a pickle that nobody needs' * 100,
            'README.md': b'read me',
        }
    )
    # huggingface_hub reads HF_ENDPOINT and HF_HUB_OFFLINE when it is imported.
    address = served.start()
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
    monkeypatch.setattr(constants, 'ENDPOINT', address)
    monkeypatch.setattr(constants, 'HUGGINGFACE_CO_URL_TEMPLATE', template)
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
    monkeypatch.setattr(time, 'sleep', lambda seconds: None)
    for proxy in ('http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY'):
        monkeypatch.delenv(proxy, raising=False)
    yield served
    served.stop()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def fetched(hub: FakeHub) -> list[str]:
    return [path for path, _ in hub.requests if '/resolve/' in path]


def ranges(hub: FakeHub) -> list[str | None]:
    return [asked for path, asked in hub.requests if path.endswith('model.safetensors')]


def cached_snapshot() -> Path:
    """An empty snapshot of RD64 in the cache of Hugging Face's own tools."""
    base = Path(constants.HF_HUB_CACHE) / 'models--CIDAS--clipseg-rd64'
    snapshot = base / 'snapshots' / COMMIT
    snapshot.mkdir(parents=True)
    (base / 'refs').mkdir()
    (base / 'refs' / 'main').write_text(COMMIT)
    return snapshot


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
        with pytest.raises(DownloadError, match=rf'{digest} and not 00.*deleted'):
            download(replace(RD64, sha256={'model.safetensors': '0' * 64}))
        assert 'model.safetensors' not in names(RD64.folder)

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
        with pytest.raises(DownloadError, match=r'model\.safetensors or pytorch_model\.bin'):
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


class TestStore:
    def test_the_folder(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv('CLIPSEG_MODELS')
        monkeypatch.setenv('XDG_CACHE_HOME', '/somewhere')
        assert RD64.folder == Path('/somewhere/clipseg/CIDAS--clipseg-rd64')
        monkeypatch.delenv('XDG_CACHE_HOME')
        assert store.models_folder() == Path.home() / '.cache' / 'clipseg'

    def test_names(self) -> None:
        assert store.source_of('clipseg-rd64') == store.source_of('CIDAS/clipseg-rd64') == RD64
        other = store.source_of('somebody/clipseg-garden')
        assert other is not None
        assert other.url == 'https://huggingface.co/somebody/clipseg-garden'
        for name in ('clipseg', 'a/b/c', '../b', '/a/b', '~/b', ''):
            assert store.source_of(name) is None

    def test_a_download_without_its_settings_is_none(self, hub: FakeHub) -> None:
        download(RD64)
        assert store.find_downloaded(RD64) == RD64.folder / 'model.safetensors'
        (RD64.folder / 'config.json').unlink()
        assert store.find_downloaded(RD64) is None
        with pytest.raises(CheckpointError, match=r'clipseg download clipseg-rd64'):
            store.required(RD64)

    def test_the_cache_of_hugging_faces_own_tools(self) -> None:
        snapshot = cached_snapshot()
        for name in ('config.json', 'preprocessor_config.json'):
            (snapshot / name).write_text('{}')
        assert store.find_downloaded(RD64) is None
        (snapshot / 'pytorch_model.bin').write_bytes(b'x')
        assert store.find_downloaded(RD64) == snapshot / 'pytorch_model.bin'
        assert registry.get_card('clipseg-rd64').present
