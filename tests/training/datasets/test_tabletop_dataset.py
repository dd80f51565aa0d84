"""The rendered data set: truth, sampling, support images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tabletop_world.catalogue.categories import HELD_OUT_PAIRS
from training.bundled.render_scenes import render_shard
from training.datasets.tabletop import (
    CATEGORY_CLASSES,
    COLOUR_CLASSES,
    NO_CLASS,
    TabletopViews,
    draw_texts,
    endless_rows,
    make_batch,
    object_share,
    token_classes,
)


@pytest.fixture(scope='module')
def views(rendered) -> TabletopViews:
    return TabletopViews(rendered / 'train')


def test_records_fit_their_pictures(views):
    for view, record in enumerate(views.records):
        counts = np.bincount(views.ids(view).ravel(), minlength=256)
        assert views.rgb(view).shape == (96, 96, 3)
        for object_id, _, _, pixels in record['objects']:
            assert counts[object_id] == pixels
        for text, _, ids in record['present']:
            assert views.mask(view, ids).any(), text


def test_rendering_is_deterministic_and_skips_what_is_done(rendered, tmp_path):
    render_shard(tmp_path, 'val', 0, 3, 96)
    for name in ('rgb_0000.npy', 'ids_0000.npy', 'views_0000.json'):
        assert (tmp_path / name).read_bytes() == (rendered / 'val' / name).read_bytes()
    (tmp_path / 'rgb_0000.npy').unlink()
    render_shard(tmp_path, 'val', 0, 3, 96)
    assert not (tmp_path / 'rgb_0000.npy').exists()


def test_held_out_pairs_are_only_where_they_belong(rendered):
    def pairs(split: str) -> set[tuple[str, str]]:
        records = TabletopViews(rendered / split).records
        return {(colour, category) for r in records for _, category, colour, _ in r['objects']}

    for split in ('train', 'val', 'test'):
        assert not pairs(split) & HELD_OUT_PAIRS
    assert pairs('unseen_pairs') & HELD_OUT_PAIRS


def test_batches_hold_the_truth_of_their_prompts(views):
    rng = np.random.default_rng(0)
    rows = [0, 5, 9]
    batch = make_batch(views, rows, 6, 9, 0.45, 64, rng)
    assert batch.images.shape == (3, 96, 96, 3)
    assert batch.masks.shape == (3, 7, 96, 96)
    assert batch.supports.shape == (3, 64, 64, 3)
    assert len(batch.texts) == 18
    for b, view in enumerate(rows):
        phrases = {text: ids for text, _, ids in views.records[view]['present']}
        phrases |= {text: [] for text, _, _ in views.records[view]['absent']}
        for p in range(6):
            expected = views.mask(view, phrases[batch.texts[6 * b + p]])
            assert (batch.masks[b, p].numpy() == expected).all()
        assert batch.masks[b, 6].any() == batch.known[b, 6]
        assert (batch.ids[b].numpy() == views.ids(view)).all()
        for p in range(9):
            named = phrases[batch.more_texts[9 * b + p]]
            assert batch.more_objects[b, p].nonzero().flatten().tolist() == sorted(named)
        for object_id, category, colour, _ in views.records[view]['objects']:
            expected = [CATEGORY_CLASSES[category], COLOUR_CLASSES.get(colour, NO_CLASS)]
            assert batch.classes[b, object_id].tolist() == expected


def test_share_of_absent_prompts(views):
    rng = np.random.default_rng(0)
    drawn = [
        bool(phrase[2]) for _ in range(300) for phrase in draw_texts(views.records[3], 6, 0.45, rng)
    ]
    assert 1 - np.mean(drawn) == pytest.approx(0.45, abs=0.05)


def test_support_comes_from_another_scene_and_shows_the_same_kind(views):
    rng = np.random.default_rng(0)
    found = 0
    for view in range(len(views)):
        for key in views.kinds_of_thing(view, 0.002):
            example = views.support_example(key, view, rng)
            if example is None:
                continue
            found += 1
            image, mask = example
            assert image.shape[:2] == mask.shape
            assert mask.mean() > 0.01
            sources = [v for v in range(len(views)) if (np.asarray(views.rgb(v)) == image).all()]
            seeds = {views.records[v]['seed'] for v in sources}
            assert views.records[view]['seed'] not in seeds
            assert any(key in views.kinds_of_thing(v, 0.01) for v in sources)
    assert found


def test_rows_cover_the_data_each_epoch():
    rows = endless_rows(10, np.random.default_rng(0))
    assert sorted(next(rows) for _ in range(10)) == list(range(10))
    assert sorted(next(rows) for _ in range(10)) == list(range(10))


def test_share_of_objects_in_tokens(views):
    ids = torch.from_numpy(np.array(views.ids(0)))[None]
    share = object_share(ids, (6, 6))
    assert share.sum(2).numpy() == pytest.approx(np.ones((1, 36)))
    cell = ids[0, 16:32, 32:48].numpy()
    expected = np.bincount(cell.ravel(), minlength=256) / cell.size
    assert share[0, 1 * 6 + 2].numpy() == pytest.approx(expected)


def test_classes_of_tokens_are_those_of_their_objects():
    share = torch.zeros(1, 3, 256)
    share[0, 0, 7], share[0, 0, 9] = 0.7, 0.3
    share[0, 1, 7], share[0, 1, 9] = 0.5, 0.5
    share[0, 2, 0] = 1.0
    classes = torch.full((1, 256, 2), NO_CLASS)
    classes[0, 7] = torch.tensor([4, 2])
    classes[0, 9] = torch.tensor([5, NO_CLASS])
    assert token_classes(share, classes)[0].tolist() == [[4, 2], [NO_CLASS] * 2, [NO_CLASS] * 2]


def test_a_folder_without_views_says_how_to_make_them(tmp_path):
    with pytest.raises(FileNotFoundError, match='render_scenes'):
        TabletopViews(tmp_path)
