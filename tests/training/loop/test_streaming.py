"""Activations read from end to end: every sample once a pass, resumed anywhere, from anywhere."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from tests.training.tiny_runs import (
    assert_resuming_changes_nothing,
    losses,
    stop_after,
    tiny_settings,
)
from training.cache_activations import cache
from training.loop import shards as shards_module
from training.loop.activations import CachedActivations
from training.loop.settings import SettingsError
from training.loop.shards import ActivationsError, read_shard
from training.loop.streaming import Shards, ShardStream
from training.train import RunError, train

pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture(scope='module')
def cached(tmp_path_factory) -> Path:
    """Thirty samples in eight shards, the last of which is smaller."""
    folder = tmp_path_factory.mktemp('activations')
    cache(tiny_settings(), folder, epochs=3, shard_size=4, batch=4)
    return folder


def places(stream: ShardStream, number: int, streams: int, skip: int, count: int) -> list:
    return [load.places[0] for load in islice(stream.samples(number, streams, skip), count)]


@pytest.fixture
def stream(cached) -> ShardStream:
    return ShardStream(Shards.at(str(cached)), seed=0, part=4, buffer=6)


class TestOrder:
    def test_a_pass_has_every_sample_once_whatever_the_streams(self, stream):
        everything = {(epoch, index) for epoch in range(3) for index in range(10)}
        assert set(places(stream, 0, 1, 0, 30)) == everything
        sizes = stream.shards.sizes()
        assert sizes == [4] * 7 + [2]
        order = np.random.default_rng([0, 0]).permutation(8)
        seen = []
        for number in range(3):
            mine = sum(sizes[shard] for shard in order[number::3])
            seen += places(stream, number, 3, 0, mine)
        assert sorted(seen) == sorted(everything)

    def test_passes_and_seeds_differ(self, stream):
        both = places(stream, 0, 1, 0, 60)
        assert both[:30] != both[30:]
        assert sorted(both[:30]) == sorted(both[30:])
        other = ShardStream(stream.shards, seed=1, part=4, buffer=6)
        assert places(other, 0, 1, 0, 30) != both[:30]

    def test_what_is_held_is_shuffled(self, stream):
        unshuffled = ShardStream(stream.shards, seed=0, part=4, buffer=1)
        assert places(unshuffled, 0, 1, 0, 30) != places(stream, 0, 1, 0, 30)

    @pytest.mark.parametrize('skip', [1, 5, 6, 13, 29, 30, 31, 47, 95])
    def test_it_goes_on_anywhere(self, stream, skip):
        assert places(stream, 0, 1, skip, 9) == places(stream, 0, 1, 0, skip + 9)[skip:]
        assert places(stream, 1, 3, skip, 9) == places(stream, 1, 3, 0, skip + 9)[skip:]

    def test_shards_before_are_not_read(self, stream, monkeypatch):
        read = []
        original = shards_module.read_shard

        def counted(path, *arguments):
            read.append(path)
            return original(path, *arguments)

        monkeypatch.setattr('training.loop.streaming.read_shard', counted)
        places(stream, 0, 1, 27, 1)
        # The buffer of six that it is in lies in two shards, of eight.
        assert len(read) <= 2


def test_what_comes_is_what_was_cached(cached, stream):
    stored = CachedActivations(cached)
    for load in islice(stream.samples(0, 1, 0), 12):
        wanted = stored.load(load.places[0])
        assert load.batch.keys == wanted.batch.keys
        assert load.batch.texts == wanted.batch.texts
        assert torch.equal(load.batch.masks, wanted.batch.masks)
        assert torch.equal(load.texts, wanted.texts)
        assert all(torch.equal(a, b) for a, b in zip(load.taps, wanted.taps, strict=True))


class TestTraining:
    def test_it_trains_without_towers(self, cached, tmp_path):
        train(tiny_settings(activations=str(cached), stream=True), tmp_path / 'run')
        assert len(losses(tmp_path / 'run')) == 6
        assert np.isfinite([*losses(tmp_path / 'run').values()]).all()

    @pytest.mark.parametrize('workers', [0, pytest.param(3, marks=pytest.mark.slow)])
    def test_resuming_changes_nothing(self, cached, tmp_path, monkeypatch, workers):
        settings = tiny_settings(activations=str(cached), stream=True, workers=workers)
        assert_resuming_changes_nothing(settings, tmp_path, monkeypatch)

    def test_another_number_of_loading_processes_is_refused(self, cached, tmp_path, monkeypatch):
        settings = tiny_settings(activations=str(cached), stream=True)
        with monkeypatch.context() as patch:
            stop_after(patch, 2)
            with pytest.raises(KeyboardInterrupt):
                train(settings, tmp_path / 'run')
        AcceleratorState._reset_state(True)
        other = settings.model_copy(update={'workers': 2})
        with pytest.raises(RunError, match='workers: 0 then, 2 now'):
            train(other, tmp_path / 'run', resume=True)

    def test_activations_of_another_run_are_refused(self, cached, tmp_path):
        settings = tiny_settings(activations=str(cached), stream=True, seed=4)
        with pytest.raises(ActivationsError, match=r'another run.*seed'):
            train(settings, tmp_path / 'run')

    def test_a_stream_of_nothing_is_a_mistake(self):
        with pytest.raises((SettingsError, ValueError), match='say where they are'):
            tiny_settings(stream=True)


class _Server(http.server.ThreadingHTTPServer):
    """Fails as often as it is told, and counts what it is asked for."""

    refuse = 0
    cut = 0
    stall = 0
    asked = 0

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.over = threading.Event()


class _Handler(http.server.SimpleHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.server.asked += 1
        if self.server.refuse:
            self.server.refuse -= 1
            self.send_error(503)
            return
        if self.path.endswith('.tar') and (self.server.cut or self.server.stall):
            stalls = bool(self.server.stall)
            self.server.cut -= not stalls
            self.server.stall -= stalls
            content = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header('Content-Length', str(len(content)))
            self.end_headers()
            # The connection breaks, or nothing more comes, in the middle of the second sample.
            self.wfile.write(content[: len(content) // 3])
            if stalls:
                self.server.over.wait()
            return
        super().do_GET()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(cached) -> Iterator[_Server]:
    running = _Server(
        ('127.0.0.1', 0), lambda *arguments: _Handler(*arguments, directory=str(cached))
    )
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield running
    running.over.set()
    running.shutdown()
    running.server_close()
    thread.join()


class TestWebServer:
    @pytest.fixture(autouse=True)
    def _in_a_hurry(self, monkeypatch):
        monkeypatch.setattr(shards_module, 'PAUSES', (0.01, 0.01))
        monkeypatch.setattr(shards_module, 'SILENCE', 0.5)

    def address(self, server: _Server) -> str:
        return f'http://127.0.0.1:{server.server_address[1]}'

    def read(self, place: str) -> list:
        samples = list(read_shard(f'{place}/activations-000000.tar', 4))
        return [{key: sample[key] for key in sample if key != '__url__'} for sample in samples]

    def test_shards_are_read_as_they_come(self, server, stream):
        remote = ShardStream(Shards.at(self.address(server)), seed=0, part=4, buffer=6)
        assert places(remote, 0, 1, 11, 25) == places(stream, 0, 1, 11, 25)

    @pytest.mark.parametrize('fault', ['refuse', 'cut', 'stall'])
    @pytest.mark.timeout(60)
    def test_a_network_that_fails_is_asked_again(self, server, cached, fault):
        setattr(server, fault, 2)
        assert self.read(self.address(server)) == self.read(str(cached))
        assert server.asked == 3

    @pytest.mark.parametrize(
        ('fault', 'said'),
        [
            ('refuse', '0 of 4 samples came .*503'),
            ('cut', '1 of 4 samples came'),
            ('stall', r'0 of 4 samples came \(timed out\)'),
        ],
    )
    @pytest.mark.timeout(60)
    def test_a_network_that_keeps_failing_is_given_up(self, server, fault, said):
        setattr(server, fault, 99)
        with pytest.raises(ActivationsError, match=said) as raised:
            self.read(self.address(server))
        assert 'Check the address and the server, then go on with --resume' in str(raised.value)
        assert 'damaged' not in str(raised.value)
        assert server.asked == 3

    def test_what_is_not_there_is_named(self, server):
        with pytest.raises(
            ActivationsError, match=r'activations-000099\.tar cannot be read: 0 of 4 .*404.*server'
        ):
            list(read_shard(f'{self.address(server)}/activations-000099.tar', 4))

    def test_a_description_that_does_not_come_is_named(self, server):
        with pytest.raises(
            ActivationsError, match=r'nothing/activations\.json cannot be read: .*404.*--resume'
        ):
            Shards.at(f'{self.address(server)}/nothing')
        server.refuse = 2
        assert Shards.at(self.address(server)).samples == 10
        server.refuse = 3
        with pytest.raises(ActivationsError, match=r'activations\.json cannot be read: .*503'):
            Shards.at(self.address(server))

    def test_a_shard_with_too_many_samples_is_damaged(self, server):
        with pytest.raises(ActivationsError, match='damaged or cannot be read: 4 of 3 samples'):
            list(read_shard(f'{self.address(server)}/activations-000000.tar', 3))


class TestShards:
    def test_a_damaged_one_is_named(self, cached, tmp_path):
        for path in cached.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        broken = tmp_path / 'activations-000003.tar'
        broken.write_bytes(broken.read_bytes()[:7000])
        damaged = ShardStream(Shards.at(str(tmp_path)), seed=0, part=4)
        with pytest.raises(ActivationsError, match=r'activations-000003\.tar'):
            places(damaged, 0, 1, 0, 30)

    def test_one_that_is_too_short_is_named(self, cached, tmp_path):
        for path in cached.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        short = (tmp_path / 'activations-000007.tar').read_bytes()
        (tmp_path / 'activations-000003.tar').write_bytes(short)
        damaged = ShardStream(Shards.at(str(tmp_path)), seed=0, part=4)
        with pytest.raises(ActivationsError, match=r'2 of 4 samples'):
            places(damaged, 0, 1, 0, 30)

    def test_too_few_for_the_loading_processes(self, stream):
        with pytest.raises(ActivationsError, match='8 shards cannot feed 9 loading processes'):
            next(stream.samples(0, 9, 0))
