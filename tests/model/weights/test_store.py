"""Where downloaded weights are looked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_hub import FakeHub, cached_snapshot

from clipseg_model import registry
from clipseg_model.errors import CheckpointError
from clipseg_model.weights import store
from clipseg_model.weights.download import download

RD64 = store.SOURCES['clipseg-rd64']


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
