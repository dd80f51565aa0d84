"""Settings of the papers' recipe: what is wrong with a file is said, with all of it at once."""

from __future__ import annotations

import pytest
import yaml

from tests.training.tiny_runs import tiny, tiny_settings, write
from training.datasets.sources import SOURCES, SourceError, check_source, without_places
from training.loop.learner import begin_model
from training.loop.settings import SettingsError, load_settings


def test_unknown_keys_and_values_out_of_range_are_all_named(tmp_path):
    changes = {'batchsize': 3, 'batch_size': 0, 'schedule': {'warmup': 10}}
    with pytest.raises(SettingsError) as error:
        load_settings(write(tmp_path / 'wrong.yaml', **changes))
    for part in ('wrong.yaml', 'batchsize', 'batch_size', 'not 0', 'schedule.warmup'):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'model': {'architecture': 'unet'}}, "architecture must be one of clipseg, .*not 'unet'"),
        ({'model': None}, 'give a model, or init_from'),
        ({'towers': None}, "say 'random'"),
        ({'epochs': 3}, 'iterations or epochs, not both'),
        ({'init_from': 'tabletop'}, 'come with init_from'),
        ({'image_tower': 'vit.safetensors'}, 'for the architecture vitseg'),
        ({'data': {'dataset': 'imagenet'}}, "must be one of phrasecut, .*not 'imagenet'"),
        ({'data': {'dataset': 'nowhere.to:Find'}}, "'nowhere.to:Find' cannot be imported"),
        ({'data': {'dataset': 'phrasecut'}}, 'folder: Field required'),
        (
            {'data': {'dataset': 'coco-20i', 'folder': 'x', 'fold': 4, 'split': 'train'}},
            'folds 0…3',
        ),
        ({'data': {'dataset': 'coco-20i', 'folder': 'x'}}, 'fold'),
        ({'data': {'dataset': 'phrasecut', 'folder': 'x', 'q_neg': 1}}, 'q_neg: Extra inputs'),
        ({'prompts': {'text_weight': [0.5, 0.1]}}, 'text_weight must be a range'),
        ({'schedule': {'final_rate': 1}}, 'final_rate 1.0 is above rate'),
        ({'schedule': {'kind': 'cyclic'}}, 'cycle_epochs'),
        ({'name': 'a/b'}, 'name'),
    ],
)
def test_what_does_not_fit_together_is_refused(changes, message, tmp_path):
    with pytest.raises(SettingsError, match=message):
        load_settings(write(tmp_path / 'wrong.yaml', **changes))


def test_values_are_set_from_the_command_line(tmp_path):
    path = write(tmp_path / 'tiny.yaml')
    settings = load_settings(path, ['batch_size=8', 'data.samples=3', 'clip_norm=null'])
    assert (settings.batch_size, settings.data['samples'], settings.clip_norm) == (8, 3, None)
    assert load_settings(path, ['mixed_precision=no']).mixed_precision == 'no'
    for change, message in (
        ('batch_size', 'KEY=VALUE'),
        ('name.x=1', "name is 'tiny' and has no keys"),
        ('batch_size=[', 'the value is not YAML'),
        ('batch=8', 'batch'),
    ):
        with pytest.raises(SettingsError, match=message):
            load_settings(path, [change])


def test_init_from_stands_in_for_towers(tmp_path):
    settings = load_settings(write(tmp_path / 'tiny.yaml'), init_from='tabletop')
    assert (settings.init_from, settings.towers) == ('tabletop', None)


@pytest.mark.parametrize('content', ['- a list', 'a: [', ''])
def test_files_that_hold_no_settings(content, tmp_path):
    (tmp_path / 'wrong.yaml').write_text(content)
    with pytest.raises(SettingsError, match=r'wrong\.yaml'):
        load_settings(tmp_path / 'wrong.yaml')
    with pytest.raises(SettingsError, match='cannot be read'):
        load_settings(tmp_path / 'missing.yaml')


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('layer', [3], "'layer' means nothing"),
        ('layers', [1, 30], 'cannot be built'),
        ('decoder', {'width': 3}, 'cannot be built'),
    ],
)
def test_keys_of_a_model_that_mean_nothing_are_refused(key, value, message):
    model = {**tiny()['model'], key: value}
    with pytest.raises(SettingsError, match=message):
        begin_model(tiny_settings(model=model))


def test_prompt_images_that_no_card_can_describe_are_refused():
    with pytest.raises(SettingsError, match='mean colour'):
        begin_model(tiny_settings(prompts={'size': 64, 'ground': [1, 2, 3]}))
    with pytest.raises(SettingsError, match='multiple of the patches'):
        begin_model(tiny_settings(prompts={'size': 65}))


def test_fine_tuning_follows_the_card_where_the_settings_are_silent():
    from clipseg_model import get_card
    from training.loop.learner import follow_card

    card = get_card('tabletop')
    plain = {**tiny(), 'model': None, 'towers': None, 'init_from': 'tabletop', 'prompts': {}}
    followed = follow_card(type(tiny_settings())(**plain))
    assert followed.prompts.size == card.input_size
    stated = follow_card(type(tiny_settings())(**{**plain, 'prompts': {'size': 96}}))
    assert stated.prompts.size == 96


def test_every_data_set_can_be_named():
    for name in SOURCES:
        with pytest.raises(SourceError, match=name.replace('+', r'\+')):
            check_source({'dataset': name, 'no such key': 1})


def test_settings_survive_being_written_down(tmp_path):
    settings = tiny_settings(schedule={'kind': 'cyclic', 'cycle_epochs': 2})
    path = tmp_path / 'again.yaml'
    path.write_text(yaml.safe_dump(settings.model_dump(mode='json')))
    assert load_settings(path) == settings


@pytest.mark.parametrize(
    'data',
    [
        {'dataset': 'pascal-5i', 'folder': '/gone/VOC2012', 'split': 'train', 'fold': 1},
        {'dataset': 'coco-20i', 'folder': '/gone/coco', 'split': 'train', 'fold': 1},
        {'dataset': 'coco-20i', 'folder': '/gone', 'images': '/gone/2014', 'fold': 1},
        {'dataset': 'coco', 'annotations': '/gone/all.json', 'images': '/gone/images'},
        {'dataset': 'lvis', 'annotations': '/gone/lvis.json', 'images': '/gone/coco'},
        {'dataset': 'phrasecut+', 'folder': '/gone/VGPhraseCut_v0'},
        {'dataset': 'tests.training.tiny_runs:Shapes', 'folder': '/gone', 'samples': 3},
    ],
)
def test_where_data_lie_is_told_apart_where_they_are_gone(data):
    found = without_places(data)
    assert found == {key: value for key, value in data.items() if '/gone' not in str(value)}
