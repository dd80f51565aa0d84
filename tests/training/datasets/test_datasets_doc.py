"""The page on data sets: its example runs, and what it names exists."""

from __future__ import annotations

import importlib
import io
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml
from phrasecut_files import write_phrasecut
from publishers import offer_phrasecut, put_tools
from scipy.io import savemat
from test_configs import write_coco, write_voc

from training.datasets.coco import CocoSettings
from training.datasets.folder import FolderSettings
from training.datasets.lvis import LvisSettings
from training.datasets.pascal import PascalSettings
from training.datasets.phrasecut import PhraseCutSettings
from training.datasets.refmatte import RefMatteSettings
from training.datasets.sources import open_source
from training.datasets.tabletop_phrases import TabletopSettings
from training.loop.prompting import PromptSettings


@pytest.fixture(scope='module')
def page(repository: Path) -> str:
    return (repository / 'docs' / 'datasets.md').read_text()


def test_the_example_runs(page, tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r'```python\n(.*?)```', page, re.DOTALL)
    write_phrasecut(tmp_path)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, 'datasets.md', 'exec'), {})
    assert 'torch.Size([4, 3, 352, 352])' in capsys.readouterr().out


def test_classes_that_are_named_exist(page):
    named = re.findall(r'`((?:metrics\.)?[a-z_]+)\.([A-Z]\w+)`', page)
    assert len(named) >= 9
    for module, name in named:
        package = 'training' if module.startswith('metrics.') else 'training.datasets'
        assert hasattr(importlib.import_module(f'{package}.{module}'), name), name


def test_options_that_are_named_exist(page):
    settings = (
        PhraseCutSettings, CocoSettings, FolderSettings, LvisSettings, PascalSettings,
        PromptSettings, RefMatteSettings, TabletopSettings,
    )  # fmt: skip
    fields = {name for kind in settings for name in kind.model_fields}
    options = re.findall(r'`([a-z_]+): [^`]+`', page)
    assert len(set(options)) >= 10
    # The name of a data set is no setting of it.
    assert set(options) <= fields | {'dataset'}


def configured(repository: Path, name: str) -> list[dict]:
    """The data of a configuration, for training and validation, as it stands in the file."""
    config = yaml.safe_load((repository / 'training/configs' / name).read_text())
    return [config['data'], config['validation']['data']]


def follow(page: str, heading: str, sent: Path, place: Path) -> None:
    """Runs the commands below a heading of the page, word for word, in an empty folder."""
    part = page.split(f'\n## {heading}\n')[1]
    commands = re.search(r'```bash\n(.*?)```', part, re.DOTALL)[1]
    path = f'{put_tools(sent)}:{os.environ["PATH"]}'
    subprocess.run(['bash', '-ec', commands], cwd=place, env={'PATH': path}, check=True)


@pytest.fixture
def empty(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """What publishers send, and an empty folder, where the test is."""
    sent, place = tmp_path / 'sent', tmp_path / 'checkout'
    sent.mkdir()
    place.mkdir()
    monkeypatch.chdir(place)
    return sent, place


def test_phrasecut_from_an_empty_folder(page, repository, empty):
    sent, place = empty
    offer_phrasecut(sent)
    follow(page, 'PhraseCut and PhraseCut+', sent, place)
    # The downloader may be run again, for pictures that are missing.
    (place / 'data/VGPhraseCut_v0/images/11.jpg').unlink()
    subprocess.run([sys.executable, 'data/PhraseCutDataset/download_dataset.py'], check=True)
    for data in configured(repository, 'clipseg_pc_plus.yaml'):
        assert len(open_source(data)) > 0


def test_pascal_from_an_empty_folder(page, repository, empty):
    sent, place = empty
    files = write_voc(sent)
    (files / 'SegmentationClassAug').rmdir()
    with tarfile.open(sent / 'VOCtrainval_11-May-2012.tar', 'w') as archive:
        archive.add(files, 'VOCdevkit/VOC2012')
    labels = io.BytesIO()
    savemat(labels, {'GTcls': {'Segmentation': [[0]]}})
    with tarfile.open(sent / 'benchmark.tgz', 'w:gz') as archive:
        for name, content in (('train.txt', b''), ('cls/2008_000002.mat', labels.getvalue())):
            entry = tarfile.TarInfo(f'benchmark_RELEASE/dataset/{name}')
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    follow(page, 'Pascal VOC 2012 and SBD', sent, place)
    for data in configured(repository, 'clsclip.yaml'):
        assert len(open_source(data)) > 0


def test_coco_from_an_empty_folder(page, repository, empty):
    sent, place = empty
    files = write_coco(sent)
    for archive, folder in (
        ('annotations_trainval2014', 'annotations'),
        ('train2014', 'train2014'),
        ('val2014', 'val2014'),
    ):
        with zipfile.ZipFile(sent / f'{archive}.zip', 'w') as whole:
            for path in (files / folder).iterdir():
                whole.write(path, f'{folder}/{path.name}')
    follow(page, 'COCO, COCO-20i', sent, place)
    for data in configured(repository, 'clipseg_coco.yaml'):
        assert len(open_source(data)) > 0
