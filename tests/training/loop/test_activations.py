"""Training from cached activations: the same run, without towers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import webdataset

from tests.training.tiny_runs import stop_after, tiny_settings
from training.cache_activations import cache
from training.datasets.sources import open_source
from training.loop.activations import CachedActivations
from training.loop.feeding import DrawnPictures
from training.loop.learner import Learner, begin_model
from training.loop.settings import Settings
from training.loop.shards import ActivationsError, read_shard, to_load, writing
from training.train import train

pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture(scope='module')
def cached(tmp_path_factory) -> Path:
    """Activations of three epochs of ten samples."""
    folder = tmp_path_factory.mktemp('activations')
    cache(tiny_settings(), folder, epochs=3, shard_size=8, batch=4)
    return folder


def losses(folder: Path) -> list[float]:
    lines = map(json.loads, (folder / 'log.jsonl').read_text().splitlines())
    return [line['loss'] for line in lines if 'loss' in line]


def test_the_loss_is_the_same_as_with_towers(cached, tmp_path, monkeypatch):
    train(tiny_settings(), tmp_path / 'live')
    original = Learner.features

    def without_towers(self, load):
        # Validation reads pictures; training must not.
        assert load.taps is not None or not torch.is_grad_enabled()
        return original(self, load)

    monkeypatch.setattr(Learner, 'features', without_towers)
    train(tiny_settings(activations=str(cached)), tmp_path / 'cached')
    assert len(losses(tmp_path / 'live')) == 6
    np.testing.assert_allclose(losses(tmp_path / 'cached'), losses(tmp_path / 'live'), rtol=1e-3)


def test_what_is_read_is_what_was_drawn(cached):
    settings = tiny_settings()
    drawn = DrawnPictures(open_source(settings.data), settings.prompts, settings.seed)
    torch.manual_seed(settings.seed)
    learner = Learner(begin_model(settings)[0]).eval()
    stored = CachedActivations(cached)
    for place in ((0, 0), (1, 7), (2, 9)):
        live, read = drawn.load(place), stored.load(place)
        assert read.batch.keys == live.batch.keys
        assert read.batch.texts == live.batch.texts
        assert torch.equal(read.batch.masks, live.batch.masks)
        assert torch.equal(read.batch.valid, live.batch.valid)
        assert torch.equal(read.batch.text_weights, live.batch.text_weights)
        with torch.no_grad():
            for tap, wanted in zip(read.taps, learner.features(live).taps, strict=True):
                assert tap.dtype == torch.float16
                torch.testing.assert_close(tap.float(), wanted, rtol=1e-3, atol=1e-3)
            torch.testing.assert_close(learner.conditions(read), learner.conditions(live))
    # Epochs are different draws, and come again when there are no more.
    assert not torch.equal(stored.load((0, 3)).batch.masks, stored.load((1, 3)).batch.masks)
    assert torch.equal(stored.load((0, 3)).batch.masks, stored.load((3, 3)).batch.masks)


def test_shards_are_webdatasets(cached):
    urls = [str(path) for path in sorted(cached.glob('*.tar'))]
    assert len(urls) == 4
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert len(samples) == 30
    keys = [sample['__key__'] for sample in samples]
    # Each once, and neighbours of the data set are not neighbours here.
    assert len(set(keys)) == 30
    assert keys != sorted(keys)
    (first,) = (sample for sample in samples if sample['__key__'] == '0000-00000000')
    assert first['taps.npy'].dtype == np.float16
    assert first['taps.npy'].shape == (2, 17, 32)
    assert first['prompts.npy'].shape == (2, 24)
    assert first['json']['key'] == 'shape 0'


def test_a_matte_and_pixels_that_do_not_count_are_kept(tmp_path):
    settings = tiny_settings()
    drawn = DrawnPictures(open_source(settings.data), settings.prompts, settings.seed)
    load = drawn.load((0, 0))
    load.batch.masks[:] = torch.linspace(0, 1, 64)
    load.batch.valid[..., :9] = False
    with writing(tmp_path / 'one.tar') as writer:
        taps, prompts = np.ones((2, 17, 32), np.float16), np.zeros((2, 24), np.float32)
        writer.add(taps, prompts, load, (4, 4), [1, 3])
    (sample,) = read_shard(str(tmp_path / 'one.tar'), 1)
    read = to_load(sample, 'one.tar')
    torch.testing.assert_close(read.batch.masks, load.batch.masks, atol=0.5 / 255 + 1e-6, rtol=0)
    assert (read.batch.masks.min(), read.batch.masks.max()) == (0, 1)
    assert torch.equal(read.batch.valid, load.batch.valid)
    assert all(bool(tap.all()) for tap in read.taps)


def test_members_that_are_none_of_a_sample_are_not_unpickled(tmp_path):
    settings = tiny_settings()
    load = DrawnPictures(open_source(settings.data), settings.prompts, 0).load((0, 0))
    with writing(tmp_path / 'one.tar') as writer:
        taps, prompts = np.ones((2, 17, 32), np.float16), np.zeros((2, 24), np.float32)
        writer.add(taps, prompts, load, (4, 4), [1, 3])
    (sample,) = read_shard(str(tmp_path / 'one.tar'), 1)
    to_load({**sample, 'pyd': b'no pickle'}, 'one.tar')


@pytest.mark.parametrize(
    ('changes', 'named'),
    [
        ({'seed': 1}, 'seed'),
        ({'prompts': {'size': 64, 'template': 'plain'}}, 'prompts'),
        ({'data': {'dataset': 'tests.training.tiny_runs:Shapes', 'visual': False}}, 'data'),
    ],
)
def test_activations_of_another_run_are_refused(cached, tmp_path, changes, named):
    with pytest.raises(ActivationsError, match=f'another run.*{named}'):
        train(tiny_settings(activations=str(cached), **changes), tmp_path / 'run')


def test_activations_of_data_that_moved_are_gone_on_with(cached, tmp_path, monkeypatch):
    data = {'dataset': 'tests.training.tiny_runs:Shapes'}
    then, now = ({**data, 'folder': f'/{when}/place'} for when in ('old', 'new'))
    settings = tiny_settings(activations=str(cached), data=then, validation=None)
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            train(settings, tmp_path / 'run')
    moved = settings.model_copy(update={'data': now})
    train(moved, tmp_path / 'run', resume=True, moved=True)
    assert len(losses(tmp_path / 'run')) == 6
    # A cache of before, which says where its data lay.
    path = cached / 'activations.json'
    text = path.read_text()
    path.write_text(json.dumps({**json.loads(text), 'data': {**then, 'visual': True}}))
    moved = moved.model_copy(update={'data': {**now, 'visual': True}})
    try:
        train(moved, tmp_path / 'other')
        cache(moved, cached, epochs=3, shard_size=8, batch=4)
    finally:
        path.write_text(text)


def test_another_decoder_may_read_them(cached, tmp_path):
    settings = tiny_settings(activations=str(cached))
    decoder = {'dim': 8, 'feedforward': 16, 'head': 'refined', 'num_heads': 2}
    settings = Settings(
        **{**settings.model_dump(), 'model': {**settings.model, 'decoder': decoder}}
    )
    train(settings, tmp_path / 'run')
    assert np.isfinite(losses(tmp_path / 'run')).all()


def test_it_goes_on_where_it_was_interrupted(tmp_path, monkeypatch):
    from training import cache_activations as module

    settings = tiny_settings()
    cache(settings, tmp_path / 'whole', epochs=1, shard_size=4)
    calls = []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments)

    original = module._write
    with monkeypatch.context() as patch:
        patch.setattr(module, '_write', interrupted)
        with pytest.raises(KeyboardInterrupt):
            cache(settings, tmp_path / 'parts', epochs=1, shard_size=4)
    assert [path.name for path in (tmp_path / 'parts').glob('*.tar')] == ['activations-000000.tar']
    assert not list((tmp_path / 'parts').glob('.*.part'))
    with pytest.raises(ActivationsError, match='4 of 10 samples'):
        CachedActivations(tmp_path / 'parts')
    kept = (tmp_path / 'parts/activations-000000.tar').stat().st_mtime_ns
    cache(settings, tmp_path / 'parts', epochs=1, shard_size=4, part=(0, 2))
    cache(settings, tmp_path / 'parts', epochs=1, shard_size=4, part=(1, 2))
    assert (tmp_path / 'parts/activations-000000.tar').stat().st_mtime_ns == kept
    for shard in (tmp_path / 'whole').glob('*.tar'):
        assert shard.read_bytes() == (tmp_path / 'parts' / shard.name).read_bytes()
    with pytest.raises(ActivationsError, match='seed'):
        cache(tiny_settings(seed=5), tmp_path / 'parts', epochs=1, shard_size=4)


def test_a_damaged_shard_is_named(tmp_path):
    settings = tiny_settings()
    cache(settings, tmp_path, epochs=1, shard_size=16)
    (shard,) = tmp_path.glob('*.tar')
    shard.write_bytes(shard.read_bytes()[:9000])
    cached = CachedActivations(tmp_path)
    # The one that lies last.
    last = max(cached._places, key=lambda name: cached._places[name][1])
    with pytest.raises(ActivationsError, match=r'activations-000000\.tar is damaged at sample'):
        cached.load((0, int(last.partition('-')[2])))
    with pytest.raises(ActivationsError, match=r'python -m training\.cache_activations'):
        CachedActivations(tmp_path / 'nothing')


def with_model(settings: Settings, **model) -> Settings:
    return Settings(**{**settings.model_dump(), 'model': {**settings.model, **model}})


CLSCLIP = {
    'architecture': 'clsclip',
    'backbone': tiny_settings().model['backbone'],
    'blocks': [4, 5],
    'guidance': 'cls',
    'learned_tokens': 0,
    'decoder': {'dim': 8, 'num_layers': 1, 'num_heads': 2, 'feedforward': 16, 'head': 'plain'},
}


@pytest.mark.parametrize(
    'model',
    [{'layers': [1, 3]}, {'layers': [3]}, CLSCLIP],
    ids=['its own layers', 'one of them', 'before the prompt of clsclip'],
)
def test_more_layers_than_a_model_reads_serve_it_all_the_same(model, tmp_path):
    cache(tiny_settings(), tmp_path / 'cache', epochs=1, layers=(3, 1, 2))
    changes = {'iterations': 2, 'validation': None}
    settings = with_model(tiny_settings(**changes), **model)
    if 'architecture' in model:
        settings = tiny_settings(**changes, model=model)
    train(settings, tmp_path / 'live')
    stored = settings.model_copy(update={'activations': str(tmp_path / 'cache')})
    train(stored, tmp_path / 'cached')
    assert len(losses(tmp_path / 'live')) == 2
    np.testing.assert_allclose(losses(tmp_path / 'cached'), losses(tmp_path / 'live'), rtol=1e-3)


def test_layers_that_were_not_cached_are_refused(cached, tmp_path):
    settings = with_model(tiny_settings(activations=str(cached)), layers=[1, 2])
    with pytest.raises(ActivationsError, match=r'layers: \[1, 3\] there, \[1, 2\] here'):
        train(settings, tmp_path / 'run')
    with pytest.raises(ActivationsError, match=r'layers \[3, 12\] are not all in 0…11'):
        cache(tiny_settings(), tmp_path / 'cache', epochs=1, layers=(3, 12))
    assert not (tmp_path / 'cache').exists()


def test_runs_of_several_seeds_read_the_same_draws(tmp_path):
    """The towers have weights of their own here, so that no seed makes them."""
    from clipseg_model.weights.checkpoints import save_checkpoint

    torch.manual_seed(7)
    model, _ = begin_model(tiny_settings())
    save_checkpoint(tmp_path / 'towers.safetensors', model, {'name': 'towers', 'input_size': 64})
    changes = {
        'towers': str(tmp_path / 'towers.safetensors'),
        'draw_seed': 4,
        'validation': None,
        'iterations': 2,
    }
    for part, seed in ((0, 4), (1, 5)):
        # Any of the runs may go on with the cache.
        whole = tiny_settings(**changes, seed=seed)
        cache(whole, tmp_path / 'cache', epochs=1, shard_size=5, part=(part, 2))
    for seed in (1, 2):
        train(tiny_settings(**changes, seed=seed), tmp_path / f'live-{seed}')
        settings = tiny_settings(**changes, seed=seed, activations=str(tmp_path / 'cache'))
        train(settings, tmp_path / f'cached-{seed}')
        np.testing.assert_allclose(
            losses(tmp_path / f'cached-{seed}'), losses(tmp_path / f'live-{seed}'), rtol=1e-3
        )
    assert losses(tmp_path / 'live-1') != losses(tmp_path / 'live-2')


def test_how_much_disk_it_takes_is_said_before(tmp_path, capsys, monkeypatch):
    cache(tiny_settings(), tmp_path / 'cached', epochs=2, shard_size=5)
    said = capsys.readouterr().out
    found = re.search(r'20 samples of ([\d.]+) MB take', said)
    assert found is not None, said
    size = sum(path.stat().st_size for path in (tmp_path / 'cached').glob('*.tar')) / 20
    # Rounded to 0.01 MB, and rounded up by headers.
    assert abs(float(found[1]) * 1e6 - size) < 15_000
    # What is there takes nothing more.
    cache(tiny_settings(), tmp_path / 'cached', epochs=2, shard_size=5)
    assert 'samples of' not in capsys.readouterr().out
    full = SimpleNamespace(total=10**9, used=10**9, free=1000)
    monkeypatch.setattr('shutil.disk_usage', lambda path: full)
    with pytest.raises(ActivationsError, match=r'10 samples of .* GB free: make room.*--epochs'):
        cache(tiny_settings(), tmp_path / 'full', epochs=1)
    assert not list((tmp_path / 'full').glob('*.tar'))


def test_eight_bits_take_half_the_disk_and_change_the_loss_little(cached, tmp_path):
    cache(tiny_settings(), tmp_path / 'cached', epochs=3, shard_size=8, batch=4, bits=8)
    exact, rounded = CachedActivations(cached), CachedActivations(tmp_path / 'cached')
    for place in ((0, 0), (2, 9)):
        for one, other in zip(exact.load(place).taps, rounded.load(place).taps, strict=True):
            largest = one.float().abs().amax(-1, keepdim=True)
            assert ((one.float() - other).abs() <= largest / 254 + 1e-3).all()
    train(tiny_settings(activations=str(cached)), tmp_path / 'exact')
    train(tiny_settings(activations=str(tmp_path / 'cached')), tmp_path / 'rounded')
    np.testing.assert_allclose(losses(tmp_path / 'rounded'), losses(tmp_path / 'exact'), rtol=1e-2)
    assert losses(tmp_path / 'rounded') != losses(tmp_path / 'exact')
    with pytest.raises(ActivationsError, match='its bits differ'):
        cache(tiny_settings(), tmp_path / 'cached', epochs=3, shard_size=8, batch=4)
