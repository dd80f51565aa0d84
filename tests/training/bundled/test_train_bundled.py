"""From photographs of one's own to a model: cache, train, resume, export, evaluate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from clipseg_model import create_model
from tests.training.bundled.own_photographs import run, write_photographs
from training import evaluate, export, train_bundled
from training.bundled import cache_features
from training.bundled.cached import Cache
from training.bundled.crops import crop, paste
from training.datasets.photographs import PhotographFile
from training.datasets.samples import DataError
from training.evaluation.photographs import measure


def settings(folder: Path, start: Path, annotations: Path, iterations: int, **changes: Any) -> Path:
    path = folder / 'own.yaml'
    values = {
        'name': 'own', 'start': str(start), 'cache': str(folder / 'cache'),
        'annotations': str(annotations), 'corpus': str(folder / 'corpus.pt'),
        'sources': {'photos': 1.0}, 'iterations': iterations, 'batch': 2, 'texts': 2,
        'warmup': 1, 'decay': 1, 'save_every': 2, 'window': 8, 'whole': 1, 'distil': 2,
        **changes,
    }  # fmt: skip
    path.write_text(yaml.safe_dump(values))
    return path


def test_own_photographs_make_a_model(
    tmp_path: Path, start: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    photos = tmp_path / 'photos'
    photos.mkdir()
    annotations = write_photographs(photos)
    where = ['--annotations', annotations, '--images', photos]
    for what in ('photos', 'supports'):
        run(cache_features, monkeypatch, start, tmp_path / 'cache', what, *where)
    torch.save(
        {'texts': ['red box', 'blue ball'], 'vectors': torch.eye(32)[:2].half()},
        tmp_path / 'corpus.pt',
    )
    output = tmp_path / 'run'
    config = settings(tmp_path, start, annotations, 2)
    run(train_bundled, monkeypatch, config, '--output', output)
    with pytest.raises(SystemExit, match='--resume'):
        run(train_bundled, monkeypatch, config, '--output', output)
    config = settings(tmp_path, start, annotations, 4, bf16=True)
    run(train_bundled, monkeypatch, config, '--output', output, '--resume')
    state = torch.load(output / 'state.pt', weights_only=True)
    assert state['iteration'] == 4

    report, card_report = tmp_path / 'report.json', tmp_path / 'calibration.json'
    plain, made = tmp_path / 'plain.safetensors', tmp_path / 'own.safetensors'
    export.main([str(output), str(plain), '--input-size', '96'])
    asked = ['photos', plain, *where, '--absent', 1]
    run(evaluate, monkeypatch, *asked, '--calibrate', 0.9, '--output', card_report)
    run(evaluate, monkeypatch, *asked, '--output', report, '--sheet', tmp_path / 'sheet.png')
    figures = json.loads(report.read_text())
    assert figures['photographs'] == 4
    assert figures['sheet'] == ['0.png', '1.png', '2.png', '3.png']
    assert figures['names']['prompts'] == figures['absent']['prompts'] == 4
    assert figures['image_prompts']['prompts'] == 4
    assert set(figures['by_name']) == {'red box', 'blue ball'}
    export.main(
        [str(output), str(made), '--input-size', '96', '--evaluation', str(card_report),
         '--evaluation', str(report)]
    )  # fmt: skip
    segmenter = create_model(made)
    calibration = json.loads(card_report.read_text())['calibration']
    assert segmenter.card.threshold == calibration['threshold']
    assert segmenter.card.details['measured']
    assert all('command' not in record for record in segmenter.card.details['runs'])
    image = np.asarray(Image.open(photos / '0.png'))
    assert segmenter.segment(image, ['red box']).results[0].probability.shape == (96, 128)


def test_a_cache_of_other_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'key.txt').write_text('other')
    with pytest.raises(DataError, match='other weights'):
        Cache(tmp_path, 'mine')
    with pytest.raises(DataError, match='no complete cache'):
        Cache(tmp_path / 'missing', 'mine')


def test_files_that_teach_nothing_are_refused(tmp_path: Path) -> None:
    path = write_photographs(tmp_path, annotations=[])
    with pytest.raises(DataError, match='no masks'):
        PhotographFile(path, tmp_path)
    path = write_photographs(tmp_path, info={'vocabulary': {'': []}})
    with pytest.raises(DataError, match='labels exhaustively'):
        PhotographFile(path, tmp_path)
    path.write_text('{}')
    with pytest.raises(DataError, match="COCO's lists"):
        PhotographFile(path, tmp_path)


def test_what_is_pasted_covers_what_was_there(tmp_path: Path) -> None:
    file = PhotographFile(write_photographs(tmp_path), tmp_path)
    rng = np.random.default_rng(1)
    for _ in range(8):
        photo = crop(file.read(0), 96, rng, (0.8, 1.0))
        before = photo.image.copy()
        assert paste(photo, file.read(1), rng)
        ball = photo.masks['blue ball']
        assert (photo.image != before).any(-1)[ball].mean() > 0.9
        assert photo.image[ball][:, 2].mean() > 150
        if 'red box' in photo.masks:
            assert not (photo.masks['red box'] & ball).any()
        else:
            assert 'red box' in photo.unknown


def test_names_to_leave_out_are_neither_there_nor_absent(tmp_path: Path) -> None:
    photo = PhotographFile(write_photographs(tmp_path), tmp_path).read(0, ['red box'])
    assert photo.masks == {}
    assert photo.vocabulary == ['blue ball']


def test_a_name_that_the_text_tower_cannot_read_is_refused(
    tmp_path: Path, start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_photographs(tmp_path)
    path.write_text(path.read_text().replace('blue ball', '\u7403'))
    config = settings(tmp_path, start, path, 2)
    with pytest.raises(SystemExit, match=r'the name .\u7403. of the source .* rename the category'):
        run(train_bundled, monkeypatch, config, '--output', tmp_path / 'run')


def test_a_sheet_shows_photographs_of_the_licences_asked_for(tmp_path: Path, start: Path) -> None:
    path = write_photographs(tmp_path)
    data = json.loads(path.read_text())
    for image in data['images']:
        image['licence'] = image['id']
    path.write_text(json.dumps(data))
    file = PhotographFile(path, tmp_path)
    sheet: list[Any] = []
    measure(create_model(start), file, file.numbers(''), 0, sheet=sheet, licences=['1', '3'])
    assert [photo.name for photo, _ in sheet] == ['1.png', '3.png']
