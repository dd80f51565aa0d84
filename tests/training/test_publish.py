"""Export: thresholds of a validation split, the card that keeps them, a folder for the hub."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
import yaml
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image

from clipseg_model import create_model
from clipseg_model.weights.checkpoints import load_card, load_checkpoint
from tests.training.tiny_runs import Shapes, ShapesSettings, tiny_settings
from training import export
from training.calibrate import calibrate, presence_level
from training.evaluation import data_command
from training.evaluation.modes import Evaluation, EvaluationError, evaluate
from training.metrics.pixels import BINS, PixelStatistics
from training.train import train

DATA = {'dataset': 'tests.training.tiny_runs:Shapes', 'samples': 6, 'visual': False}


pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture(scope='module')
def run(tmp_path_factory) -> Path:
    """A run of training, at its end."""
    folder = tmp_path_factory.mktemp('runs') / 'shapes'
    train(tiny_settings(), folder)
    AcceleratorState._reset_state(True)
    return folder


def test_training_says_what_its_threshold_was_chosen_on(run):
    card = load_card(run / 'model.safetensors')
    assert card.details['calibrated_on'] == 'tests.training.tiny_runs:Shapes, squares of 64 px'


def test_the_threshold_is_the_best_of_the_split_in_native_mode(run, tmp_path):
    export.main([str(run), str(tmp_path / 'out.safetensors'), '--calibrate', yaml.safe_dump(DATA)])
    card = load_card(tmp_path / 'out.safetensors')
    model, _ = load_checkpoint(run / 'model.safetensors')
    source = Shapes(ShapesSettings(samples=6, visual=False))
    found = evaluate(model, card, source, Evaluation('native'), Accelerator(cpu=True))
    best, threshold = found.best('iou_fg')
    assert card.threshold == threshold
    assert card.name == 'out'
    assert card.details['calibration']['iou_fg'] == round(best, 4)
    assert card.details['calibration']['mode'] == 'native'
    # What it was trained with is still there.
    assert card.details['iterations'] == 6
    assert create_model(tmp_path / 'out.safetensors', device='cpu').card.threshold == threshold


def test_without_a_value_the_runs_own_validation_data_serve(run, tmp_path):
    export.main([str(run), str(tmp_path / 'out.safetensors'), '--calibrate'])
    record = load_card(tmp_path / 'out.safetensors').details['calibration']
    assert record['samples'] == 4
    assert record['data']['samples'] == '4'


def pictures(folder, colours=('red', 'green')):
    """Write six pictures, each with one of the phrases."""
    rng = np.random.default_rng(2)
    for number in range(6):
        colour = colours[number % 2]
        for part in ('images', f'masks/{colour}'):
            (folder / part).mkdir(parents=True, exist_ok=True)
        picture = rng.integers(0, 255, (40, 50, 3), np.uint8)
        Image.fromarray(picture).save(folder / f'images/{number}.png')
        mask = np.zeros((40, 50), np.uint8)
        mask[5:25, 5:30] = 255
        Image.fromarray(mask).save(folder / f'masks/{colour}/{number}.png')


def test_presence_keeps_the_wanted_share_of_absent_prompts_empty(run, tmp_path):
    pictures(tmp_path / 'data')
    model, card = load_checkpoint(run / 'model.safetensors')
    data = {'dataset': 'folder', 'folder': str(tmp_path / 'data')}
    found = calibrate(model, card, data, Accelerator(cpu=True), empty=0.5)
    segmenter = create_model(run / 'model.safetensors', device='cpu')
    scores = []
    for number in range(6):
        absent = ('green', 'red')[number % 2]
        picture = np.array(Image.open(tmp_path / f'data/images/{number}.png'))
        scores.append(segmenter.segment(picture, [absent]).results[0].score)
    assert (np.array(scores) < found.presence_threshold).mean() >= 0.5
    # A step lower and too few of them would be left out.
    assert (np.array(scores) < found.presence_threshold - 1 / 200).mean() < 0.5
    record = found.details['calibration']
    assert record['absent_prompts'] == 6
    assert 0.5 <= record['absent_kept_empty'] <= 1
    assert found.details['calibrated_on'].startswith('folder ')


def test_the_threshold_is_chosen_on_absent_things_too(run, tmp_path):
    pictures(tmp_path / 'data')
    model, card = load_checkpoint(run / 'model.safetensors')
    data = {'dataset': 'folder', 'folder': str(tmp_path / 'data')}
    found = calibrate(model, card, data, Accelerator(cpu=True))
    segmenter = create_model(run / 'model.safetensors', device='cpu')
    statistics = PixelStatistics()
    for number in range(6):
        picture = np.array(Image.open(tmp_path / f'data/images/{number}.png'))
        colour, absent = ('red', 'green')[:: 1 if number % 2 == 0 else -1]
        truth = np.zeros((40, 50), bool)
        truth[5:25, 5:30] = True
        for phrase, mask in ((colour, truth), (absent, np.zeros_like(truth))):
            (result,) = segmenter.segment(picture, [phrase]).results
            statistics.add(result.probability, mask)
    curve = statistics.iou_foreground()[1:BINS]
    assert found.threshold == (1 + curve.argmax()) / BINS
    record = found.details['calibration']
    assert record['iou_fg'] == pytest.approx(curve.max(), abs=1e-4)
    assert (record['samples'], record['absent_samples']) == (12, 6)


def test_a_data_set_that_cannot_tell_what_is_absent_names_the_remedy(run, tmp_path):
    pictures(tmp_path / 'data', colours=('red', 'red'))
    data = yaml.safe_dump({'dataset': 'folder', 'folder': str(tmp_path / 'data')})
    words = ['--calibrate', data, '--empty', '0.9']
    with pytest.raises(SystemExit, match=r'it has one class.*two phrases or more'):
        export.main([str(run), str(tmp_path / 'out'), *words])


def test_presence_by_hand():
    scores = np.zeros(201, np.int64)
    scores[[10, 20, 30, 40]] = 1
    assert presence_level(scores, 0.5) == 21 / 200
    assert presence_level(scores, 0.75) == 31 / 200
    assert presence_level(scores, 0.8) == 41 / 200
    with pytest.raises(EvaluationError, match='no prompt is absent'):
        presence_level(np.zeros(201, np.int64), 0.5)


@pytest.fixture(scope='module')
def folder(run, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('hub')
    export.main([str(run), str(root / 'shapes'), '--calibrate', '--licence', 'Apache-2.0'])
    evaluation = root / 'native.json'
    threshold = load_card(root / 'shapes').threshold
    data_command.main(
        [
            *(str(root / 'shapes'), '--mode', 'native', '--data', yaml.safe_dump(DATA)),
            *('--threshold', str(threshold), '--output', str(evaluation), '--device', 'cpu'),
        ]
    )
    export.main([str(root / 'shapes'), str(root / 'published'), '--evaluation', str(evaluation)])
    return root / 'published'


class TestFolder:
    def test_transformers_gives_the_same_logits(self, folder, run):
        theirs = transformers.CLIPSegForImageSegmentation.from_pretrained(folder).eval()
        processor = transformers.CLIPSegProcessor.from_pretrained(folder)
        assert json.loads((folder / 'config.json').read_text())['extract_layers'] == [1, 3]
        picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
        inputs = processor(
            text=['red', 'a green thing'], images=[Image.fromarray(picture)] * 2, padding=True,
            return_tensors='pt',
        )  # fmt: skip
        with torch.no_grad():
            logits = theirs(**inputs, interpolate_pos_encoding=True).logits
        ours = create_model(run / 'model.safetensors', device='cpu')
        found = ours.segment(picture, ['red', 'a green thing']).results
        for wanted, result in zip(logits, found, strict=True):
            np.testing.assert_allclose(result.logits, wanted.numpy(), atol=2e-3)

    def test_the_card_is_read_back_with_its_thresholds(self, folder):
        card = load_card(folder)
        assert card.details['calibrated_on']
        assert card.details['evaluations'][0]['mode'] == 'native'
        assert card.licence == 'Apache-2.0'
        assert create_model(folder, device='cpu').card.threshold == card.threshold

    def test_the_readme_has_what_the_hub_reads(self, folder):
        text = (folder / 'README.md').read_text()
        head = yaml.safe_load(text.split('---\n')[1])
        assert head['license'] == 'apache-2.0'
        assert head['library_name'] == 'transformers'
        assert head['pipeline_tag'] == 'image-segmentation'
        (entry,) = head['model-index']
        metrics = {item['type']: item['value'] for item in entry['results'][0]['metrics']}
        measured = load_card(folder).details['evaluations'][0]
        assert metrics['iou_fg'] == measured['at_threshold']['iou_fg']
        assert f'above {load_card(folder).threshold:g}' in text
        assert 'native mode' in text

    def test_its_example_runs(self, folder, tmp_path, monkeypatch):
        (code,) = re.findall(r'```python\n(.*?)```', (folder / 'README.md').read_text(), re.DOTALL)
        monkeypatch.chdir(folder.parent)
        picture = np.random.default_rng(1).integers(0, 255, (48, 80, 3), np.uint8)
        Image.fromarray(picture).save(folder.parent / 'photo.jpg')
        names: dict = {}
        exec(compile(code, 'README.md', 'exec'), names)
        assert names['masks'].shape == (2, 48, 80)

    def test_a_folder_that_is_there_is_not_touched(self, run, tmp_path):
        (tmp_path / 'mine').mkdir()
        with pytest.raises(SystemExit, match='is there already'):
            export.main([str(run), str(tmp_path / 'mine')])
        assert not list((tmp_path / 'mine').iterdir())


def test_an_architecture_that_transformers_lacks_gets_a_folder_too(tmp_path):
    model = {**tiny_settings().model, 'architecture': 'clip-deconv', 'layers': [3]}
    model['decoder'] = {'dim': 8, 'hidden': 8}
    train(tiny_settings(model=model, iterations=1, validation=None), tmp_path / 'run')
    export.main([str(tmp_path / 'run'), str(tmp_path / 'hub')])
    text = (tmp_path / 'hub/README.md').read_text()
    assert yaml.safe_load(text.split('---\n')[1])['library_name'] == 'clipseg_ros'
    assert 'transformers has no architecture `clip-deconv`' in text
    assert not (tmp_path / 'hub/config.json').exists()
    picture = np.zeros((40, 60, 3), np.uint8)
    segmenter = create_model(tmp_path / 'hub/model.safetensors', device='cpu')
    assert segmenter.segment(picture, ['red']).labels().shape == (40, 60)


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--empty', '0.9'], 'give both'),
        (['--calibrate', '--empty', '1.5'], 'within 0…1'),
        (['--calibrate', '--empty', '0.9'], 'no setting negatives'),
        (['--evaluation', 'nothing.json'], 'cannot be read'),
        (['--half'], 'for a .safetensors file'),
    ],
)
def test_mistakes_are_named(run, tmp_path, words, message):
    with pytest.raises(SystemExit, match=message):
        export.main([str(run), str(tmp_path / 'out'), *words])
    assert not (tmp_path / 'out').exists()


def test_an_evaluation_at_other_thresholds_is_refused(run, tmp_path):
    result = {'mode': 'native', 'pixels': '', 'data': {}, 'at': {'0.99': {}}}
    (tmp_path / 'other.json').write_text(json.dumps(result))
    with pytest.raises(SystemExit, match=r'measure again with --threshold'):
        export.main([str(run), str(tmp_path / 'out'), '--evaluation', str(tmp_path / 'other.json')])
    (tmp_path / 'old.json').write_text('{"model": "tabletop"}')
    with pytest.raises(SystemExit, match='in which mode'):
        export.main([str(run), str(tmp_path / 'out'), '--evaluation', str(tmp_path / 'old.json')])


def test_a_run_that_is_not_finished_is_named(tmp_path):
    with pytest.raises(SystemExit, match='--resume'):
        export.main([str(tmp_path), str(tmp_path / 'out')])


def test_numbers_of_the_card_are_kept_at_half_precision(run, tmp_path):
    export.main([str(run), str(tmp_path / 'half.safetensors'), '--half', '--description', 'Small.'])
    card = load_card(tmp_path / 'half.safetensors')
    whole = load_card(run / 'model.safetensors')
    assert card.description == 'Small.'
    assert replace(card, name='x', description='x', weights=None) == replace(
        whole, name='x', description='x', weights=None
    )
    assert (tmp_path / 'half.safetensors').stat().st_size < (
        0.6 * (run / 'model.safetensors').stat().st_size
    )
