"""`clipseg download` against a hub on this machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fake_hub import COMMIT, FakeHub
from typer.testing import CliRunner

from clipseg_model import registry
from clipseg_model.cli.app import app
from clipseg_model.errors import CheckpointError, DownloadError
from clipseg_model.weights import download as downloads
from clipseg_model.weights import store
from clipseg_model.weights.download import download

RD64 = store.SOURCES['clipseg-rd64']
WEIGHTS = bytes(range(256)) * 40


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
    monkeypatch.setenv('HF_ENDPOINT', served.start())
    for proxy in ('http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY'):
        monkeypatch.delenv(proxy, raising=False)
    yield served
    served.stop()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def ranges(hub: FakeHub, name: str = 'model.safetensors') -> list[str | None]:
    return [asked for path, asked in hub.requests if path.endswith(name)]


class TestDownload:
    def test_what_is_needed_comes_and_nothing_else(self, hub: FakeHub) -> None:
        told: list[tuple[str, int, int]] = []
        paths = download(RD64, progress=lambda *step: told.append(step))
        assert [path.name for path in paths] == [
            'config.json',
            'preprocessor_config.json',
            'model.safetensors',
        ]
        assert paths[-1].read_bytes() == WEIGHTS
        assert names(RD64.folder) == {path.name for path in paths} | {'download.json'}
        assert told[-1] == ('model.safetensors', len(WEIGHTS), len(WEIGHTS))
        assert ('model.safetensors', 0, len(WEIGHTS)) in told

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
        assert not [path for path, _ in hub.requests if 'resolve' in path]

    def test_a_file_that_was_changed_here_is_fetched_again(self, hub: FakeHub) -> None:
        path = download(RD64)[-1]
        path.write_bytes(b'x' * len(WEIGHTS))
        download(RD64)
        assert path.read_bytes() == WEIGHTS

    def test_all_files_are_of_one_commit(self, hub: FakeHub) -> None:
        download(RD64)
        fetched = [path for path, _ in hub.requests if 'resolve' in path]
        assert len(fetched) == 3
        assert all(f'/resolve/{COMMIT}/' in path for path in fetched)


class TestResume:
    def test_it_goes_on_where_it_broke_off(self, hub: FakeHub) -> None:
        hub.stop_after = 6000
        with pytest.raises(DownloadError, match=r'after 6000 of 10240 bytes.*same command again'):
            download(RD64)
        assert 'model.safetensors' not in names(RD64.folder)
        assert (RD64.folder / 'model.safetensors.part').read_bytes() == WEIGHTS[:6000]
        assert not registry.get_card('clipseg-rd64').present
        path = download(RD64)[-1]
        assert path.read_bytes() == WEIGHTS
        assert ranges(hub) == [None, 'bytes=6000-']
        assert 'model.safetensors.part' not in names(RD64.folder)

    def test_a_server_without_ranges_sends_all_again(self, hub: FakeHub) -> None:
        hub.stop_after, hub.ranges = 6000, False
        with pytest.raises(DownloadError, match='broke off'):
            download(RD64)
        assert download(RD64)[-1].read_bytes() == WEIGHTS
        assert ranges(hub) == [None, 'bytes=6000-']

    def test_a_part_of_another_version_is_noticed(self, hub: FakeHub) -> None:
        RD64.folder.mkdir(parents=True)
        (RD64.folder / 'model.safetensors.part').write_bytes(b'x' * 100)
        with pytest.raises(DownloadError, match=r'not arrive as it was published.*deleted'):
            download(RD64)
        assert 'model.safetensors.part' not in names(RD64.folder)
        assert download(RD64)[-1].read_bytes() == WEIGHTS

    @pytest.mark.parametrize('size', [len(WEIGHTS), len(WEIGHTS) + 1])
    def test_a_part_that_is_complete_or_too_long(self, hub: FakeHub, size: int) -> None:
        RD64.folder.mkdir(parents=True)
        (RD64.folder / 'model.safetensors.part').write_bytes((WEIGHTS + b'x')[:size])
        assert download(RD64)[-1].read_bytes() == WEIGHTS
        assert ranges(hub) == ([] if size == len(WEIGHTS) else [None])


class TestDamage:
    @pytest.mark.parametrize('name', ['model.safetensors', 'config.json'])
    def test_a_content_that_was_not_published(self, hub: FakeHub, name: str) -> None:
        hub.files = {key: value for key, value in hub.files.items() if key != 'README.md'}
        hub.corrupt = True
        source = replace(RD64, files=() if name.startswith('model') else (name,))
        kind = 'sha256' if name.startswith('model') else 'git'
        with pytest.raises(DownloadError, match=rf'{name} did not arrive.*its {kind} digest'):
            download(source)
        assert not names(RD64.folder)

    def test_a_digest_that_is_known_beforehand(self, hub: FakeHub) -> None:
        digest = hashlib.sha256(WEIGHTS).hexdigest()
        download(replace(RD64, sha256={'model.safetensors': digest}))
        with pytest.raises(DownloadError, match=rf'{digest} and not 00.*deleted'):
            download(replace(RD64, sha256={'model.safetensors': '0' * 64}))
        assert 'model.safetensors' not in names(RD64.folder)

    @pytest.mark.parametrize(
        ('status', 'remedy'), [(401, 'check the name'), (404, 'revision'), (503, 'later')]
    )
    def test_refusals(self, hub: FakeHub, status: int, remedy: str) -> None:
        hub.status = status
        with pytest.raises(DownloadError, match=rf'answered {status} .*{remedy}'):
            download(RD64)

    def test_a_repository_of_something_else(self, hub: FakeHub) -> None:
        del hub.files['preprocessor_config.json']
        with pytest.raises(DownloadError, match=r'lacks preprocessor_config\.json; it has'):
            download(RD64)
        hub.files = {'README.md': b'read me'}
        with pytest.raises(DownloadError, match=r'model\.safetensors or pytorch_model\.bin'):
            download(RD64)

    @pytest.mark.parametrize('index', [{}, [], b'<html>', {'sha': '../..'}])
    def test_answers_that_are_no_hubs(self, hub: FakeHub, index: object) -> None:
        hub.index = index
        with pytest.raises(DownloadError, match='answered with'):
            download(RD64)

    def test_no_network(self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv('HF_ENDPOINT', 'http://127.0.0.1:9')
        with pytest.raises(DownloadError, match=r'cannot be reached.*HTTPS_PROXY'):
            download(RD64)
        monkeypatch.setenv('HF_ENDPOINT', 'file:///etc')
        with pytest.raises(DownloadError, match='no address on the web'):
            download(RD64)

    def test_a_full_disk(self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
        usage = downloads.shutil.disk_usage('/')
        monkeypatch.setattr(downloads.shutil, 'disk_usage', lambda _: usage._replace(free=100))
        with pytest.raises(DownloadError, match=r'make room, or .*CLIPSEG_MODELS'):
            download(RD64)

    def test_a_folder_that_cannot_be_made(
        self, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / 'file').write_text('')
        monkeypatch.setenv('CLIPSEG_MODELS', str(tmp_path / 'file'))
        with pytest.raises(DownloadError, match='cannot be used'):
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

    def test_errors_are_one_message(self, hub: FakeHub) -> None:
        hub.corrupt = True
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

    def test_the_cache_of_hugging_faces_own_tools(self, tmp_path: Path) -> None:
        from huggingface_hub import constants

        base = Path(constants.HF_HUB_CACHE) / 'models--CIDAS--clipseg-rd64'
        snapshot = base / 'snapshots' / COMMIT
        snapshot.mkdir(parents=True)
        (base / 'refs').mkdir()
        (base / 'refs' / 'main').write_text(COMMIT)
        for name in ('config.json', 'preprocessor_config.json'):
            (snapshot / name).write_text('{}')
        assert store.find_downloaded(RD64) is None
        (snapshot / 'pytorch_model.bin').write_bytes(b'x')
        assert store.find_downloaded(RD64) == snapshot / 'pytorch_model.bin'
        assert registry.get_card('clipseg-rd64').present
