"""The tabletop world in the fashion of PhraseCut: truth, negatives, support images, settings."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from tabletop_world.catalogue.categories import CATEGORIES, COLOURS
from tabletop_world.render.renderer import Renderer
from tabletop_world.scenes.random_scenes import generate_scene
from training.datasets.samples import DataError, Sample, sample_rng
from training.datasets.sources import SourceError, check_source, open_source
from training.datasets.tabletop_phrases import (
    TabletopPhrases,
    TabletopSettings,
    bare,
    tabletop_plus,
)


@pytest.fixture(scope='module')
def plus(rendered) -> TabletopPhrases:
    return TabletopPhrases(tabletop_plus(rendered))


def drawn(data: TabletopPhrases, epoch: int = 0) -> list[Sample]:
    return [data.draw(index, sample_rng(0, epoch, index)) for index in range(len(data))]


def scene_of(key: str) -> tuple[int, int]:
    """Seed and camera that a key names."""
    seed, camera = re.match(r'\w+ scene (\d+) camera (\d+)', key).groups()
    return int(seed), int(camera)


def record_of(folder: Path, key: str) -> dict:
    records = json.loads((folder / 'train/views_0000.json').read_text())
    (record,) = [r for r in records if (r['seed'], r['camera']) == scene_of(key)]
    return record


def test_masks_are_those_of_the_rendered_scene(rendered):
    data = TabletopPhrases(TabletopSettings(folder=rendered, views=4))
    seen = set()
    with Renderer(96, 96) as renderer:
        frames = {}
        for sample in drawn(data):
            place = scene_of(sample.key)
            if place not in frames:
                scene = generate_scene(place[0], 'train')
                frames[place] = renderer.render(scene, place[1], depth=False)
            frame = frames[place]
            np.testing.assert_array_equal(sample.image, frame.rgb)
            number = int(sample.key.rsplit(' ', 1)[1])
            text, _, ids = record_of(rendered, sample.key)['present'][number]
            assert sample.phrase == bare(text)
            np.testing.assert_array_equal(sample.mask, np.isin(frame.instances, ids))
            assert sample.mask.any()
            assert not sample.negative
            assert sample.support is None
            seen.add(place)
    assert len(seen) == 4


def test_a_fifth_are_negatives_and_truly_absent(plus, rendered):
    samples = [sample for epoch in range(3) for sample in drawn(plus, epoch)]
    negatives = [sample for sample in samples if sample.negative]
    assert len(negatives) / len(samples) == pytest.approx(0.2, abs=0.04)
    names = {name.replace('_', ' '): name for name in CATEGORIES}
    checked = 0
    for sample in negatives:
        assert not sample.mask.any()
        record = record_of(rendered, sample.key)
        assert sample.phrase not in {bare(text) for text, _, _ in record['present']}
        shown = {(colour, category) for _, category, colour, pixels in record['objects'] if pixels}
        colour, _, rest = sample.phrase.partition(' ')
        if sample.phrase in names:
            assert names[sample.phrase] not in {category for _, category in shown}
            checked += 1
        elif colour in COLOURS and rest in names:
            assert (colour, names[rest]) not in shown
            checked += 1
    assert checked >= 10


def test_supports_show_the_phrase_in_another_scene(plus, rendered):
    samples = drawn(plus)
    shown = [sample for sample in samples if sample.support is not None]
    assert len(shown) > 50
    assert any(sample.negative for sample in shown)
    for sample in shown:
        support = sample.support
        assert scene_of(support.key)[0] != scene_of(sample.key)[0]
        assert support.mask.mean() >= 0.01
        record = record_of(rendered, support.key)
        ids = [ids for text, _, ids in record['present'] if bare(text) == sample.phrase]
        stored = plus.views.ids(next(i for i, r in enumerate(plus.views.records) if r == record))
        assert any(np.array_equal(support.mask, np.isin(stored, one)) for one in ids)
    # A phrase without another scene has its text alone.
    for sample in samples:
        if sample.support is None:
            places = plus.by_phrase.get(sample.phrase, [])
            seeds = {plus.views.records[view]['seed'] for view, _ in places}
            assert seeds <= {scene_of(sample.key)[0]}


def test_draws_repeat_and_epochs_differ(plus, rendered):
    again = TabletopPhrases(tabletop_plus(rendered))
    for one, other in zip(drawn(plus), drawn(again), strict=True):
        assert (one.key, one.phrase, one.negative) == (other.key, other.phrase, other.negative)
        np.testing.assert_array_equal(one.mask, other.mask)
        assert (one.support is None) == (other.support is None)
        if one.support is not None:
            assert one.support.key == other.support.key
            np.testing.assert_array_equal(one.support.mask, other.support.mask)
    phrases = [[sample.phrase for sample in drawn(plus, epoch)] for epoch in (0, 1)]
    assert phrases[0] != phrases[1]


def test_settings_choose_samples(rendered):
    def opened(**changes) -> TabletopPhrases:
        return TabletopPhrases(TabletopSettings(folder=rendered, **changes))

    everything = opened()
    few = opened(views=5, phrases=2)
    assert len(few) == 10
    assert few.key(0) == everything.key(0)
    assert len({scene_of(few.key(index)) for index in range(10)}) == 5
    coloured = opened(kinds=('colour',))
    kinds = {
        coloured.views.records[view]['present'][number][1] for view, number in coloured._samples
    }
    assert kinds == {'colour'}
    large = opened(min_size=0.1)
    assert 0 < len(large) < len(everything)
    assert all(sample.mask.mean() > 0.1 for sample in drawn(large))
    shared = opened(visual=True, only_visual=True)
    assert 0 < len(shared) < len(everything)
    assert all(sample.support is not None for sample in drawn(shared))
    assert len(opened(split='val')) > 0


def test_phrases_lose_their_article_only():
    assert bare('the mug on the book') == 'mug on the book'
    assert bare('a thing I can eat') == 'thing I can eat'
    assert bare('an orange') == bare('orange') == 'orange'
    assert bare('anvil') == 'anvil'


def test_it_opens_by_name(rendered):
    plus = open_source({'dataset': 'tabletop+', 'folder': str(rendered), 'phrases': 1})
    assert plus.settings.negatives == 0.2
    assert plus.settings.visual
    plain = open_source({'dataset': 'tabletop', 'folder': str(rendered), 'phrases': 1})
    assert plain.settings.negatives == 0
    assert len(plain) == len(plus)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'split': 'training'}, "split: Input should be 'train', 'val'"),
        ({'kinds': ['smell']}, r"no kinds \['smell'\]; there are name, colour"),
        ({'negatives': 1.5}, 'negatives: Input should be less than or equal to 1'),
        ({'q_neg': 0.2}, 'q_neg: Extra inputs'),
        ({'views': 0}, 'views: Input should be greater than 0'),
    ],
)
def test_wrong_settings_are_named(changes, message):
    with pytest.raises(SourceError, match=message):
        check_source({'dataset': 'tabletop+', 'folder': 'x', **changes})


def test_missing_and_damaged_files_are_named(rendered, tmp_path):
    def opened(**changes) -> TabletopPhrases:
        return TabletopPhrases(TabletopSettings(folder=tmp_path, **changes))

    with pytest.raises(DataError, match=r'training\.bundled\.render_scenes'):
        opened()
    shutil.copytree(rendered / 'train', tmp_path / 'train')
    with pytest.raises(DataError, match='holds 24 views, and 25 are wanted'):
        opened(views=25)
    with pytest.raises(DataError, match='leave none over'):
        opened(min_size=0.99)
    pixels = (tmp_path / 'train/ids_0000.npy').read_bytes()
    (tmp_path / 'train/ids_0000.npy').write_bytes(pixels[:1000])
    with pytest.raises(DataError, match='train cannot be read'):
        opened()
    (tmp_path / 'train/ids_0000.npy').write_bytes(pixels)
    path = tmp_path / 'train/views_0000.json'
    records = json.loads(path.read_text())
    del records[3]['objects']
    records[5]['absent'] = []
    path.write_text(json.dumps(records))
    with pytest.raises(DataError, match=r"view 3 of .*train is malformed .*'objects'"):
        opened()


def test_broken_records_are_skipped_and_counted_where_wanted(rendered, tmp_path):
    shutil.copytree(rendered / 'train', tmp_path / 'train')
    path = tmp_path / 'train/views_0000.json'
    records = json.loads(path.read_text())
    records[3]['present'][0] = ['no kind']
    records[5]['absent'] = []
    path.write_text(json.dumps(records))
    settings = TabletopSettings(folder=tmp_path, negatives=1.0, bad_records='skip')
    data = TabletopPhrases(settings)
    assert data.problems.counts == {'malformed record': 1}
    broken = [i for i in range(len(data)) if data._samples[i][0] == 5]
    assert data.draw(broken[0], np.random.default_rng(0)).negative
    assert data.problems.counts['no false phrase'] >= 1
    assert 'camera 1' in data.problems.summary()
    assert len(list(data.each(indices=broken))) == 0
