"""The page on data sets: its example runs, and what it names exists."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from phrasecut_files import write_phrasecut

from training.datasets.coco import CocoSettings
from training.datasets.folder import FolderSettings
from training.datasets.lvis import LvisSettings
from training.datasets.pascal import PascalSettings
from training.datasets.phrasecut import PhraseCutSettings
from training.datasets.refmatte import RefMatteSettings
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
