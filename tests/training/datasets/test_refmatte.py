"""RefMatte and RW100 in the layout that public code reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.datasets.refmatte import RefMatte, RefMatteSettings
from training.datasets.samples import BadRecord, DataError, sample_rng


@pytest.fixture
def rw100(tmp_path):
    for part in ('image', 'mask'):
        (tmp_path / part).mkdir()
    Image.new('RGB', (12, 8)).save(tmp_path / 'image' / 'p_1.jpg')
    alpha = np.tile(np.linspace(0, 255, 12).astype(np.uint8), (8, 1))
    entries = {}
    for number in (0, 1):
        Image.fromarray(alpha[:, :: 1 - 2 * number]).save(tmp_path / 'mask' / f'p_1_{number}.png')
        entries[f'p_1_{number}'] = {
            'image_name': 'p_1',
            'class': 'dog',
            'expressions': [f'the dog {number}', f'a lively dog {number}'],
        }
    (tmp_path / 'refmatte_rw100_label.json').write_text(json.dumps(entries))
    (tmp_path / 'eval_index_expression.json').write_text(json.dumps({'p_1': 1}))
    return tmp_path


def settings(folder: Path, **changes) -> RefMatteSettings:
    return RefMatteSettings(
        labels=folder / 'refmatte_rw100_label.json',
        images=folder / 'image',
        mattes=folder / 'mask',
        **changes,
    )


def test_every_expression_with_its_matte(rw100):
    data = RefMatte(settings(rw100))
    samples = list(data.each())
    assert [sample.key for sample in samples] == ['p_1_0#0', 'p_1_0#1', 'p_1_1#0', 'p_1_1#1']
    assert samples[3].phrase == 'a lively dog 1'
    np.testing.assert_allclose(samples[0].alpha[0] * 255, np.linspace(0, 255, 12) // 1, atol=1e-4)
    np.testing.assert_array_equal(samples[0].alpha, samples[2].alpha[:, ::-1])
    np.testing.assert_array_equal(samples[0].mask, samples[0].alpha >= 0.5)
    assert [data.matte(i) for i in range(4)] == ['p_1_0', 'p_1_0', 'p_1_1', 'p_1_1']


def test_the_chosen_expression(rw100):
    chosen = settings(rw100, chosen=rw100 / 'eval_index_expression.json')
    assert [sample.key for sample in RefMatte(chosen).each()] == ['p_1_0#1', 'p_1_1#1']
    (rw100 / 'eval_index_expression.json').write_text('{"p_1": 7}')
    with pytest.raises(BadRecord, match=r"'p_1_0', has 2 expressions, and not 7"):
        RefMatte(chosen)


def test_keywords(rw100):
    with pytest.raises(ValueError, match=r"keyword_field; entries.*'class', 'expressions', 'image"):
        RefMatte(settings(rw100, prompt='keyword'))
    data = RefMatte(settings(rw100, prompt='keyword', keyword_field='class'))
    assert [sample.phrase for sample in data.each()] == ['dog', 'dog']


def test_bad_input(rw100):
    Image.new('L', (5, 5)).save(rw100 / 'mask' / 'p_1_0.png')
    with pytest.raises(BadRecord, match=r'p_1_0\.png is 5 × 5 pixels.*12 × 8'):
        RefMatte(settings(rw100)).draw(0, sample_rng(0, 0, 0))
    (rw100 / 'mask' / 'p_1_0.png').unlink()
    with pytest.raises(BadRecord, match="mask has no 'p_1_0'"):
        RefMatte(settings(rw100))
    data = RefMatte(settings(rw100, bad_records='skip'))
    assert (len(data), data.problems.counts) == (2, {'missing image': 1})
    path = rw100 / 'refmatte_rw100_label.json'
    path.write_text(json.dumps({'p_1_1': {'image_name': 'p_1', 'expressions': []}}))
    with pytest.raises(BadRecord, match='blank expressions, or none'):
        RefMatte(settings(rw100))
    path.write_text('[]')
    with pytest.raises(DataError, match='no object of entries'):
        RefMatte(settings(rw100))
    with pytest.raises(DataError, match=r'refmatte_rw100_label\.json does not exist'):
        RefMatte(settings(rw100 / 'x'))
