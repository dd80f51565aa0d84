"""Photographs without masks, labelled by their captions and by a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.training.bundled.own_photographs import run, write_photographs
from training.bundled import captioned
from training.datasets.photographs import PhotographFile

SAID = ['Two red boxes stand here', 'boxes on grey']


class Looker:
    """Sees the left half of a red box in every picture, and perhaps a blue ball."""

    def __init__(self, model: str, names: list[str], scores: dict[str, float]) -> None:
        assert names == ['blue ball', 'red box']
        self._scores = scores

    def find(self, image: np.ndarray, names: list[str]) -> list[tuple[float, np.ndarray]]:
        left = np.zeros(image.shape[:2], np.float32)
        left[:, : image.shape[1] // 2] = 0.9
        return [(self._scores[name], left) for name in names]

    def scores(self, image: np.ndarray) -> dict[str, float]:
        return self._scores


@pytest.mark.parametrize(
    ('scores', 'masks', 'unknown'),
    [
        ({'red box': 0.9, 'blue ball': 0.05}, ['red box'], set()),
        ({'red box': 0.3, 'blue ball': 0.05}, [], {'red box'}),
        ({'red box': 0.9, 'blue ball': 0.9}, ['red box'], {'blue ball'}),
    ],
)
def test_what_is_said_and_found_has_a_mask_and_what_is_neither_is_absent(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scores: dict[str, float],
    masks: list[str],
    unknown: set[str],
) -> None:
    photos, more = tmp_path / 'photos', tmp_path / 'more'
    photos.mkdir()
    more.mkdir()
    annotations = write_photographs(photos)
    Image.new('RGB', (60, 40), (128, 128, 128)).save(more / 'new.png')
    records: list[dict[str, Any]] = [
        {'file_name': 'more/new.png', 'captions': SAID, 'licence': 4},
        {'file_name': '0.png', 'captions': SAID},  # has masks already
        {'file_name': 'more/gone.png', 'captions': SAID},
    ]
    (tmp_path / 'captions.json').write_text(json.dumps(records))
    monkeypatch.setattr(captioned, 'Finder', lambda model, names: Looker(model, names, scores))
    where = ['--annotations', annotations, '--images', photos, '--source', '']
    where += ['--captions', tmp_path / 'captions.json', '--captioned', more]
    run(captioned, monkeypatch, 'teacher', tmp_path / 'all.json', *where)

    file = PhotographFile(tmp_path / 'all.json', photos)
    assert len(file.numbers('')) == 4
    (number,) = file.numbers('captioned', 'train')
    photo = file.read(number)
    assert photo.image.shape == (40, 60, 3)
    assert list(photo.masks) == masks
    assert photo.unknown == unknown
    assert set(photo.vocabulary) == {'blue ball', 'red box'}
    for mask in photo.masks.values():
        assert mask[:, :30].all()
        assert not mask[:, 30:].any()


def test_captions_of_no_picture_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotations = write_photographs(tmp_path)
    (tmp_path / 'captions.json').write_text('[]')
    where = ['--annotations', annotations, '--images', tmp_path, '--captioned', tmp_path]
    where += ['--captions', tmp_path / 'captions.json']
    with pytest.raises(SystemExit, match='says nothing of the pictures'):
        run(captioned, monkeypatch, 'teacher', tmp_path / 'all.json', *where, '--source', '')
    with pytest.raises(SystemExit, match="no source 'coco'"):
        run(captioned, monkeypatch, 'teacher', tmp_path / 'all.json', *where)
    assert not (tmp_path / 'all.json').exists()


def test_other_words_say_a_name_and_parts_of_words_do_not() -> None:
    patterns = captioned.words_for(['person', 'couch', 'cat', 'bus'])
    said = {
        text: [name for name, pattern in patterns.items() if pattern.search(text)]
        for text in ('Two men on a sofa', 'cattle by buses', 'a catcher', 'cats')
    }
    assert said == {
        'Two men on a sofa': ['person', 'couch'],
        'cattle by buses': ['bus'],
        'a catcher': ['person'],
        'cats': ['cat'],
    }


def test_a_finder_answers_at_the_size_of_the_picture(start: Path, one_thread: None) -> None:
    finder = captioned.Finder(str(start), ['red box', 'blue ball'])
    picture = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    assert set(finder.scores(picture)) == {'red box', 'blue ball'}
    ((score, probability),) = finder.find(picture, ['blue ball'])
    mirrored = finder.find(picture[:, ::-1], ['blue ball'])[0][1]
    assert 0 < score < 1
    assert probability.shape == (40, 60)
    # Looking at the mirrored picture, too, makes the answer the same for both.
    np.testing.assert_allclose(mirrored[:, ::-1], probability, atol=2e-2)
