"""Each file of ``training/configs`` that the papers' recipe runs: valid, and it trains."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from phrasecut_files import write_phrasecut
from PIL import Image

from clipseg_model import create_model
from clipseg_model.modeling.base import ARCHITECTURES
from clipseg_model.weights.checkpoints import load_card
from clipseg_model.weights.untrained import UNTRAINED
from tests.training.tiny_runs import TINY_BACKBONE, stop_after
from training.evaluation import data_command
from training.loop.settings import Settings, load_settings
from training.train import train

FOLDER = Path(__file__).parents[2] / 'training' / 'configs'
CONFIGS = sorted(path for path in FOLDER.glob('*.yaml') if not path.stem.startswith('tabletop'))
#: Runs in the default suite; the others take longer together than it may.
QUICK = ('clipseg_highlight',)
#: With it, one for each architecture, each data set and each kind of start: continuous integration
#: runs them. The rest differ from these in numbers.
KINDS = ('clip_deconv', 'clipseg_coco_n', 'clipseg_lvis', 'clsclip_vpt', 'own', 'vitseg_pc')
PIXELS = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


pytestmark = pytest.mark.usefixtures('one_thread')


def make_data(config: dict, root: Path) -> list[str]:
    """Writes a small data set in the publisher's format; returns what to --set."""
    name = config['data']['dataset']
    if name.startswith('phrasecut'):
        folder = write_phrasecut(root)
    elif name == 'coco-20i':
        folder = write_coco(root)
    elif name == 'pascal-5i':
        folder = write_voc(root)
    elif name == 'lvis':
        write_coco(root)
        files = [f'{root}/annotations/instances_{split}2014.json' for split in ('train', 'val')]
        changes = [f'data.annotations={files[0]}', f'validation.data.annotations={files[1]}']
        # A file of LVIS with the names of files, as LVIS 0.5 has them.
        return [*changes, f'data.images={root}/val2014', f'validation.data.images={root}/val2014']
    else:
        write_folder(root / 'val')
        write_folder(root / 'train')
        return [f'data.folder={root}/train', f'validation.data.folder={root}/val']
    return [f'data.folder={folder}', f'validation.data.folder={folder}']


def write_coco(root: Path) -> Path:
    (root / 'annotations').mkdir()
    categories = [{'id': number, 'name': f'thing {number}'} for number in range(1, 81)]
    for split in ('train2014', 'val2014'):
        (root / split).mkdir()
        images, annotations = [], []
        for number in range(1, 9):
            name = f'{number:012d}.jpg'
            Image.fromarray(np.tile(PIXELS, (2, 2, 1))).save(root / split / name)
            images.append({'id': number, 'file_name': name, 'height': 96, 'width': 128})
            annotations.append(
                {
                    'id': number,
                    'image_id': number,
                    'category_id': 1 + number % 4,
                    'segmentation': [[8, 8, 72, 8, 72, 72, 8, 72]],
                    'area': 4096,
                    'bbox': [8, 8, 64, 64],
                    'iscrowd': 0,
                }
            )
        content = {'images': images, 'annotations': annotations, 'categories': categories}
        (root / f'annotations/instances_{split}.json').write_text(json.dumps(content))
    return root


def write_voc(root: Path) -> Path:
    folder = root / 'VOC2012'
    # SBD's labels as others converted them; here there are none beyond VOC's own.
    for part in (
        'JPEGImages',
        'SegmentationClass',
        'SegmentationClassAug',
        'ImageSets/Segmentation',
    ):
        (folder / part).mkdir(parents=True)
    for split, classes in (('train', range(6, 21)), ('val', range(1, 6))):
        names = [f'{split}_{number}' for number in classes]
        (folder / f'ImageSets/Segmentation/{split}.txt').write_text('\n'.join(names) + '\n')
        for name, number in zip(names, classes, strict=True):
            Image.fromarray(np.tile(PIXELS, (2, 2, 1))).save(folder / f'JPEGImages/{name}.jpg')
            labels = np.zeros((96, 128), np.uint8)
            labels[8:80, 8:80] = number
            Image.fromarray(labels).save(folder / f'SegmentationClass/{name}.png')
    return folder


def write_folder(root: Path) -> None:
    (root / 'images').mkdir(parents=True)
    for number in range(4):
        Image.fromarray(PIXELS).save(root / f'images/{number}.jpg')
        mask = np.zeros((48, 64), np.uint8)
        mask[10:30, 10 * number : 10 * number + 20] = 255
        for phrase in ('red mug', 'spoon')[: 1 + number % 2]:
            (root / 'masks' / phrase).mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(root / f'masks/{phrase}/{number}.png')


def small_towers(model: dict) -> dict:
    """Overrides that make towers small, with as many blocks as those of the architecture."""
    vision = dict(TINY_BACKBONE['vision_cfg'])
    if 'ViT-L' in model['backbone']['architecture']:
        vision['layers'] = 24
    return {**TINY_BACKBONE, 'vision_cfg': vision}


def tiny(path: Path, root: Path) -> tuple[Settings, int]:
    """The settings of a file, but small; and the iterations that it means."""
    config = yaml.safe_load(path.read_text())
    changes = make_data(config, root)
    if 'init_from' in config:
        changes += ['init_from=tabletop', 'prompts={size: 64}']
    else:
        overrides = json.dumps(small_towers(config['model']))
        changes += ['towers=random', f'model.backbone.overrides={overrides}', 'prompts.size=64']
    if config.get('model', {}).get('architecture') == 'vitseg':
        small = '{depth: 10, embed_dim: 32, num_heads: 2, img_size: 64}'
        changes += ['image_tower=null', f'model.image_tower.overrides={small}']
    if 'sbd' in config['data']:
        changes += ['data.sbd=null']
    changes += ['epochs=null', 'iterations=20', 'batch_size=4', 'validation.every=10']
    changes += ['mixed_precision=bf16', 'workers=0', 'save_every=10', 'log_every=5']
    return load_settings(path, changes), 20


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_it_is_valid_and_builds_the_model_that_it_names(path):
    from training.loop.learner import begin_model

    settings = load_settings(path)
    assert settings.name == path.stem
    assert settings.validation is not None
    config = settings.model
    if config is None:
        assert settings.init_from == 'clipseg-rd64-refined'
        return
    config = {**config, 'backbone': {**config['backbone'], 'overrides': small_towers(config)}}
    prompts = settings.prompts.model_copy(update={'size': 64})
    changes = {'model': config, 'towers': 'random', 'image_tower': None, 'prompts': prompts}
    model, _ = begin_model(settings.model_copy(update=changes))
    assert model.config()['decoder'] == config['decoder']
    logits = model(torch.zeros(1, 3, 64, 64), model.embed_texts(['a mug', 'something'])[None])
    assert logits.shape == (1, 2, 64, 64)
    logits.sum().backward()


def test_there_is_one_for_every_architecture():
    settings = {path.stem: load_settings(path) for path in CONFIGS}
    chosen = [settings[name] for name in (*QUICK, *KINDS)]
    for some in (settings.values(), chosen):
        assert {one.model['architecture'] for one in some if one.model} == ARCHITECTURES.keys()
    kinds = [
        {(one.data['dataset'], one.init_from) for one in s} for s in (settings.values(), chosen)
    ]
    assert kinds[0] == kinds[1]


def test_the_recipe_is_that_of_the_supplement():
    settings = load_settings(FOLDER / 'clipseg_pc_plus.yaml')
    assert settings.batch_size == 64
    assert settings.length(300_000) == 20_000
    assert settings.cycle(300_000) == 20_000
    assert (settings.schedule.rate, settings.schedule.final_rate) == (1e-3, 1e-4)
    assert settings.prompts.size == 352
    assert settings.prompts.text_weight == (0, 0.5)
    assert settings.mixed_precision == 'fp16'
    assert settings.model['layers'] == [3, 7, 9]
    refined = load_settings(FOLDER / 'clipseg_pc_plus_refined.yaml')
    assert refined.length(300_000) == 50_000


def test_clsclip_cycles_and_takes_its_fold_from_the_command_line():
    settings = load_settings(FOLDER / 'clsclip.yaml', ['data.fold=1', 'batch_size=512'])
    assert settings.data['fold'] == 1
    # 200 epochs of 5,120 samples are 2,000 steps of 512, a cycle of 20 epochs 200 of them.
    assert settings.length(5120) == 2000
    assert settings.cycle(5120) == 200


@pytest.mark.parametrize(
    ('name', 'blocks', 'guidance', 'tokens'),
    [
        ('clsclip', [2, 3, 4], 'cls', 0),
        ('clsclip_channel', [12], 'channel', 0),
        ('clsclip_spatial', [12], 'spatial', 0),
        ('clsclip_vpt', [12], 'channel', 50),
        ('clsclip_layers_0_1_2', [0, 1, 2], 'cls', 0),
        ('clsclip_layers_2_5_8', [2, 5, 8], 'cls', 0),
        ('clsclip_layers_9_10_11', [9, 10, 11], 'cls', 0),
    ],
)
def test_the_explorations_of_clsclip_differ_in_what_is_explored_alone(
    name, blocks, guidance, tokens
):
    settings, plain = (load_settings(FOLDER / f'{stem}.yaml') for stem in (name, 'clsclip'))
    changed = {'blocks': blocks, 'guidance': guidance, 'learned_tokens': tokens}
    assert settings.model == {**plain.model, **changed}
    assert settings.model_dump(exclude={'name', 'model'}) == plain.model_dump(
        exclude={'name', 'model'}
    )
    if not name.startswith('clsclip_layers'):
        card = UNTRAINED[name.replace('_', '-')]
        assert {key: card.config[key] for key in changed} == changed


def full_size(path: Path, root: Path) -> Settings:
    """The settings of a file as they are but for their length and data: ViT-B/16, random."""
    config = yaml.safe_load(path.read_text())
    changes = make_data(config, root)
    if 'init_from' not in config:
        changes += ['towers=random', 'image_tower=null']
    if 'sbd' in config['data']:
        changes += ['data.sbd=null']
    # 24 blocks fit with one picture at a time.
    batch = 1 if 'vit_l' in path.stem else 2
    changes += ['epochs=null', 'iterations=2', f'batch_size={batch}', 'validation.every=2']
    changes += ['validation.samples=2', 'mixed_precision=bf16', 'workers=0', 'save_every=1']
    init_from = 'tabletop' if 'init_from' in config else None
    return load_settings(path, [*changes, 'log_every=1'], init_from=init_from)


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_it_runs_at_full_size(path, tmp_path, monkeypatch):
    """Starts, saves, resumes, and is evaluated, at the size of its towers and pictures."""
    settings = full_size(path, tmp_path)
    run = tmp_path / 'run'
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            train(settings, run)
    assert torch.load(run / 'last.pt', weights_only=True)['step'] == 1
    AcceleratorState._reset_state(True)
    out = train(settings, run, resume=True)
    lines = [json.loads(line) for line in (run / 'log.jsonl').read_text().splitlines()]
    assert np.isfinite([line['loss'] for line in lines if 'loss' in line]).all()
    if settings.init_from is None:
        assert load_card(out).config['backbone']['overrides'] == {}
        assert load_card(out).input_size == settings.prompts.size
    AcceleratorState._reset_state(True)
    result = tmp_path / 'paper.json'
    data = json.dumps(settings.validation.data)
    data_command.main(
        [
            *(str(out), '--mode', 'paper', '--data', data, '--samples', '2', '--batch', '2'),
            *('--output', str(result), '--device', 'cpu', '--size', str(settings.prompts.size)),
        ]
    )
    found = json.loads(result.read_text())
    assert found['pixels'] == f'{settings.prompts.size} × {settings.prompts.size}'
    assert found['samples'] >= 1
    assert 0 <= found['best']['iou_fg']['value'] <= 1


@pytest.mark.parametrize(
    'path',
    [
        pytest.param(
            path,
            marks=[
                *([] if path.stem in QUICK else [pytest.mark.slow]),
                *([pytest.mark.ci] if path.stem in KINDS else []),
            ],
            id=path.stem,
        )
        for path in CONFIGS
    ],
)
def test_it_trains_saves_resumes_and_evaluates(path, tmp_path, monkeypatch):
    settings, iterations = tiny(path, tmp_path)
    run = tmp_path / 'run'
    with monkeypatch.context() as patch:
        stop_after(patch, 10)
        with pytest.raises(KeyboardInterrupt):
            train(settings, run)
    assert torch.load(run / 'last.pt', weights_only=True)['step'] == 10
    out = train(settings, run, resume=True)
    lines = [json.loads(line) for line in (run / 'log.jsonl').read_text().splitlines()]
    losses = [line['loss'] for line in lines if 'loss' in line]
    assert np.isfinite(losses).all()
    measured = [line['validation'] for line in lines if 'validation' in line]
    assert [line['iteration'] for line in lines if 'validation' in line] == [10, iterations]
    assert all(0 <= row['iou_fg'] <= 1 and 0 <= row['ap'] <= 1 for row in measured)
    segmenter = create_model(out, device='cpu')
    result = segmenter.segment(PIXELS, ['red car', 'thing'])
    assert result.labels().shape == PIXELS.shape[:2]
    # What is evaluated runs with the settings of training.
    assert segmenter.card.input_size == 64
    assert segmenter.card.threshold in {row['threshold'] for row in measured}
