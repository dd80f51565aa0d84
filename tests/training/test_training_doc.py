"""``docs/training.md``: a newcomer's commands run, one after the other, on a reduced copy."""

from __future__ import annotations

import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipseg_model.weights.checkpoints import load_card
from training.datasets.sources import SOURCES

#: What is made here beforehand, or needs a network, which other tests stand in for.
ELSEWHERE = ('make env && source .venv/bin/activate', 'clipseg download clipseg-rd64-refined')
#: The same training, on the bundled model and small.
REDUCED = (
    '--init-from tabletop --set iterations=4 --set batch_size=2 --set validation.every=2 '
    '--set save_every=2 --set prompts.size=64 --set workers=0'
)


@pytest.fixture
def guide(repository: Path) -> str:
    text = (repository / 'docs/training.md').read_text()
    return text.split('## Train on your own data')[1].split('\n## ')[0]


def make_pictures(folder: Path, names: list[str]) -> None:
    """Noise with a red and a grey square each, laid out as the guide says."""
    rng = np.random.default_rng(0)
    for name in names:
        picture = rng.integers(0, 90, (60, 80, 3)).astype(np.uint8)
        for phrase, left, colour in (('red mug', 5, (230, 30, 30)), ('spoon', 45, (200, 200, 200))):
            mask = np.zeros((60, 80), np.uint8)
            mask[15:45, left : left + 30] = 255
            picture[mask > 0] = colour
            place = folder / 'masks' / phrase
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(place / f'{name}.png')
        (folder / 'images').mkdir(exist_ok=True)
        Image.fromarray(picture).save(folder / 'images' / f'{name}.jpg')


def commands(guide: str) -> list[str]:
    blocks = re.findall(r'^ *```bash\n(.*?)^ *```', guide, re.DOTALL | re.MULTILINE)
    lines = '\n'.join(blocks).replace('\\\n', ' ').splitlines()
    return [' '.join(line.split()) for line in lines if line.strip()]


def test_the_guide_names_every_step(guide):
    listed = commands(guide)
    assert [command for command in ELSEWHERE if command not in listed] == []
    assert sum('training.train' in command for command in listed) == 2
    assert 'my_data/train/masks/red mug/kitchen1.png' in guide


def test_files_and_data_sets_that_the_page_names_are_there(repository):
    text = (repository / 'docs/training.md').read_text()
    for name in re.findall(r'training/configs/\w+\.yaml', text):
        assert (repository / name).is_file(), name
    table = text.split("## The rows of the papers' tables")[1].split('\n## ')[0]
    listed = set(re.findall(r'`(cl\w+|vitseg\w*)`', table))
    there = {path.stem for path in (repository / 'training/configs').glob('*.yaml')}
    assert listed == there - {'tabletop', 'tabletop_finish', 'own'}
    for name in re.findall(r'\{dataset: ([\w+-]+)', text):
        assert name in SOURCES


def test_modules_and_functions_that_any_page_names_exist(repository):
    ours = r'(?<![\w./-])(?:clipseg_model|training|tabletop_world|metrics)(?:\.[A-Za-z_]\w*)+'
    pages = [*repository.glob('*.md'), *(repository / 'docs').glob('*.md')]
    named = {name for page in pages for name in re.findall(ours, page.read_text())}
    named = {name for name in named if not name.endswith('.md')}
    assert len(named) > 30
    for name in sorted(named):
        pkgutil.resolve_name(f'training.{name}' if name.startswith('metrics.') else name)


@pytest.mark.slow
def test_a_newcomer_gets_a_model(guide, repository, tmp_path):
    make_pictures(tmp_path / 'my_data/train', [f'kitchen{number}' for number in range(1, 7)])
    make_pictures(tmp_path / 'my_data/val', ['kitchen41', 'kitchen42'])
    (tmp_path / 'training').symlink_to(repository / 'training')
    # The installed command may be of another checkout.
    (tmp_path / 'bin').mkdir()
    command = tmp_path / 'bin/clipseg'
    command.write_text(f'#!{sys.executable}\nfrom clipseg_model.cli.app import app\napp()\n')
    command.chmod(0o755)
    environment = {
        **os.environ,
        'PATH': f'{command.parent}:{Path(sys.executable).parent}:{os.environ["PATH"]}',
        'PYTHONPATH': str(repository),
        'OMP_NUM_THREADS': '1',
    }
    for line in commands(guide):
        if line in ELSEWHERE:
            continue
        if 'training.train' in line:
            line = f'{line} {REDUCED}'
        if line.startswith('tensorboard'):
            # Says what it would show, in place of waiting for a browser.
            line = f'{line} --inspect'
        done = subprocess.run(
            line, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True,
            timeout=200,
        )  # fmt: skip
        assert done.returncode == 0, f'{line}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}'
        if line.startswith('tensorboard'):
            assert 'validation/iou_fg' in done.stdout
    card = load_card(tmp_path / 'runs/own/model.safetensors')
    assert card.details['iterations'] == 4
    assert card.details['samples'] == 12
    written = [path.name for path in (tmp_path / 'out').rglob('*') if path.is_file()]
    assert any('kitchen41' in name for name in written), written
