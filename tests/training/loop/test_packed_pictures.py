"""Pictures and records in shards: the batches are those of the data set, which is not needed."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset
from accelerate.state import AcceleratorState
from torch import Tensor

from tests.training.tiny_runs import (
    Shapes,
    assert_resuming_changes_nothing,
    losses,
    tiny_settings,
)
from training.datasets.samples import Sample
from training.datasets.sources import open_source
from training.loop.feeding import DrawnPictures
from training.loop.packed_pictures import pack, unpack
from training.loop.shards import ActivationsError
from training.loop.streaming import Shards, ShardStream
from training.pack_pictures import pack_pictures
from training.train import train

pytestmark = pytest.mark.usefixtures('one_thread')

DATA = {'dataset': 'tests.training.tiny_runs:Shapes', 'ignored': True}


@pytest.fixture(scope='module')
def packed(tmp_path_factory) -> Path:
    """Two epochs of ten samples in five shards."""
    folder = tmp_path_factory.mktemp('pictures')
    pack_pictures(tiny_settings(data=DATA), folder, epochs=2, shard_size=4)
    return folder


@pytest.fixture
def without_data(monkeypatch) -> None:
    """The files of the data set are not here."""

    def nothing(*arguments: Any) -> None:
        raise AssertionError('the data set is read')

    monkeypatch.setattr(Shapes, 'load', nothing)


def assert_same(one: Any, other: Any) -> None:
    for item in fields(one):
        first, second = getattr(one, item.name), getattr(other, item.name)
        if isinstance(first, Tensor):
            assert torch.equal(first, second), item.name
        else:
            assert first == second, item.name


@pytest.mark.parametrize('prompts', [{}, {'size': 96, 'template': 'plain', 'fit': 'pad'}])
def test_batches_are_those_of_the_data_set_whatever_becomes_of_them(packed, prompts):
    settings = tiny_settings(data=DATA, prompts={'size': 64, **prompts})
    drawn = DrawnPictures(open_source(settings.data), settings.prompts, settings.seed)
    shards = Shards.at(str(packed), settings.prompts)
    stream = ShardStream(shards, seed=0, part=1)
    loads = list(islice(stream.samples(0, 1, 0), 20))
    assert {load.places[0] for load in loads} == {(e, i) for e in range(2) for i in range(10)}
    for load in loads:
        assert_same(load.batch, drawn.load(load.places[0]).batch)
    assert any(load.batch.has_support.any() for load in loads)
    assert not all(load.batch.valid.all() for load in loads)


def test_mattes_are_kept_exactly(monkeypatch):
    alpha = np.random.default_rng(0).random((20, 30)).astype(np.float32)
    image = np.zeros((20, 30, 3), np.uint8)
    monkeypatch.setattr(
        Shapes, 'load', lambda *_: Sample('matte', 'a cat', image, alpha > 0.5, alpha=alpha)
    )
    settings = tiny_settings()
    drawn = DrawnPictures(open_source(settings.data), settings.prompts, 0)
    members = {'__key__': '0000-00000003', **pack(drawn, (0, 3))}
    assert_same(unpack(members, '', settings.prompts).batch, drawn.load((0, 3)).batch)


def test_they_are_webdatasets(packed):
    urls = [str(path) for path in sorted(packed.glob('*.tar'))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode('rgb8'))
    assert len({sample['__key__'] for sample in samples}) == 20
    assert samples[0]['image.png'].shape == (64, 64, 3)
    assert samples[0]['json']['phrase'] in ('red', 'green', 'blue')


@pytest.mark.usefixtures('without_data')
class TestTraining:
    def test_it_resumes_where_it_was(self, packed, tmp_path, monkeypatch):
        settings = tiny_settings(data=DATA, shards=str(packed), validation=None)
        assert_resuming_changes_nothing(settings, tmp_path, monkeypatch)

    def test_the_data_may_lie_elsewhere_but_must_be_the_same(self, packed, tmp_path):
        elsewhere = tiny_settings(
            data={**DATA, 'folder': '/old/place'}, shards=str(packed), validation=None, iterations=1
        )
        train(elsewhere, tmp_path / 'run')
        for changes in ({'seed': 3}, {'data': {**DATA, 'visual': False}}):
            settings = tiny_settings(**{'data': DATA, 'shards': str(packed), **changes})
            with pytest.raises(ActivationsError, match=r'another run.*pack them again'):
                train(settings, tmp_path / 'other')
        with pytest.raises(ValueError, match='activations or shards'):
            tiny_settings(shards=str(packed), activations=str(packed))

    @pytest.fixture
    def address(self, packed) -> Iterator[str]:
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(packed))
        server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f'http://127.0.0.1:{server.server_address[1]}'
        server.shutdown()
        server.server_close()
        thread.join()

    def test_from_a_web_server(self, address, packed, tmp_path):
        for name, place in (('remote', address), ('local', str(packed))):
            AcceleratorState._reset_state(True)
            changes = {'iterations': 2, 'validation': None}
            train(tiny_settings(data=DATA, shards=place, **changes), tmp_path / name)
        assert losses(tmp_path / 'remote') == losses(tmp_path / 'local')


def test_a_damaged_sample_is_named(packed):
    settings = tiny_settings()
    drawn = DrawnPictures(open_source(settings.data), settings.prompts, 0)
    members = {'__key__': '0000-00000003', **pack(drawn, (0, 3))}
    for broken in ({**members, 'image.png': b'PNG'}, {**members, 'json': b'{}'}):
        with pytest.raises(ActivationsError, match=r'one\.tar is damaged at sample 0000-00000003'):
            unpack(broken, 'one.tar', settings.prompts)
    with pytest.raises(ActivationsError, match=r'python -m training\.pack_pictures'):
        Shards.at(str(packed / 'nothing'), settings.prompts)
