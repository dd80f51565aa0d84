"""The index of PhraseCut's files: what it holds, when it is made again, and who shares it."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from phrasecut_files import TASKS, write_phrasecut

from training.datasets.phrasecut import PhraseCut, PhraseCutSettings, phrasecut_plus
from training.datasets.phrasecut_files import index as index_module
from training.datasets.phrasecut_files.arrays import Groups
from training.datasets.phrasecut_files.index import open_index
from training.datasets.polygons import polygon_mask, shows_pixel
from training.datasets.samples import sample_rng


@pytest.fixture
def folder(tmp_path):
    return write_phrasecut(tmp_path)


def test_it_holds_what_the_file_does(folder):
    index = open_index(folder, 'train')
    records = json.loads((folder / 'refer_train.json').read_text())
    assert len(index) == len(records) == 8
    assert list(index.keys) == [record['task_id'] for record in records]
    assert [index.phrases[n] for n in index.phrase] == [record['phrase'] for record in records]
    assert list(index.phrases) == sorted({record['phrase'] for record in records})
    for number, record in enumerate(records):
        flat = [polygon for instance in record['Polygons'] for polygon in instance]
        assert [points.tolist() for points in index.polygons(number)] == flat
        assert index.counts[number, 1] == len(record['instance_boxes'])
    assert index.attributes[0] == 'red'
    assert index.names[0] == 'car'
    assert not index.corners.flags.owndata


def test_it_is_made_once_and_again_when_a_file_changes(folder, monkeypatch):
    made = []
    build = index_module._build
    monkeypatch.setattr(index_module, '_build', lambda *given: made.append(1) or build(*given))
    PhraseCut(PhraseCutSettings(folder=folder))
    PhraseCut(PhraseCutSettings(folder=folder, negatives=0.5))
    assert len(made) == 1
    records = json.loads((folder / 'refer_train.json').read_text())
    (folder / 'refer_train.json').write_text(json.dumps(records[:2]))
    assert len(PhraseCut(PhraseCutSettings(folder=folder))) == 2
    assert len(made) == 2
    os.utime(folder / 'image_data_split3000.json', ns=(1, 1))
    open_index(folder, 'train')
    assert len(made) == 3
    (folder / 'index/refer_train/stamp.json').write_text('{')
    open_index(folder, 'train')
    assert len(made) == 4


def test_a_large_file_shows_how_far_it_is_read(folder, monkeypatch, capsys):
    open_index(folder, 'train')
    assert capsys.readouterr().err == ''
    monkeypatch.setattr(index_module, 'SHOWN', 1000)
    os.utime(folder / 'refer_train.json', ns=(1, 1))
    open_index(folder, 'train')
    shown = capsys.readouterr().err
    assert 'Reading refer_train.json, once' in shown
    assert '100%' in shown
    # Whoever opens it afterwards waits for nothing.
    open_index(folder, 'train')
    assert capsys.readouterr().err == ''


def test_one_process_makes_it_and_others_wait(folder, monkeypatch):
    made = []
    build = index_module._build
    monkeypatch.setattr(index_module, '_build', lambda *given: made.append(1) or build(*given))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: open_index(folder, 'train').images.tolist(), range(16)))
    assert len(made) == 1
    assert all(images == found[0] for images in found)


def test_a_folder_that_cannot_be_written_has_its_index_in_the_cache(folder, tmp_path, monkeypatch):
    monkeypatch.setenv('CLIPSEG_INDEX', str(tmp_path / 'cache'))
    monkeypatch.setattr(index_module.os, 'access', lambda *_: False)
    assert len(open_index(folder, 'train')) == 8
    assert not (folder / 'index').exists()
    assert len(list((tmp_path / 'cache').glob('refer_train-*/stamp.json'))) == 1


def test_joined_splits_share_their_phrases(folder):
    data = PhraseCut(phrasecut_plus(folder, 'train_val_miniv', crop='none', negatives=0))
    wanted = [phrase for image, phrase, _ in TASKS if image != 61530]
    assert list(data.phrases) == wanted
    assert data.phrases[2:4] == wanted[2:4]
    assert data.key(len(data) - 1) == '22__22009'
    mug = wanted.index('blue mug')
    keys = {data.draw(mug, sample_rng(0, i, 0)).support.key for i in range(40)}
    assert keys == {'13__13005', '21__21008'}
    assert data.draw(8, sample_rng(0, 0, 0)).mask.shape == (32, 32)


def test_a_row_is_a_sound_witness_of_a_polygon():
    rng = np.random.default_rng(0)
    empty = 0
    for _ in range(3000):
        points = rng.normal(
            rng.uniform(-4, 24, 2), rng.choice([0.2, 1, 6]), (rng.integers(1, 9), 2)
        )
        if rng.random() < 0.3:
            points = points.round()
        shown = bool(polygon_mask([points], 20, 24).any())
        assert shows_pixel([points], 20, 24) == shown
        empty += not shown
    assert 300 < empty < 2700


def test_groups_are_those_of_a_dictionary():
    numbers = np.random.default_rng(0).integers(0, 40, 500)
    groups = Groups.of(numbers)
    expected: dict[int, list[int]] = {}
    for sample, number in enumerate(numbers.tolist()):
        expected.setdefault(number, []).append(sample)
    assert groups.values.tolist() == sorted(expected)
    found = {int(v): groups.members(i).tolist() for i, v in enumerate(groups.values)}
    assert found == expected
    assert groups.sizes().tolist() == [len(expected[number]) for number in sorted(expected)]
