"""The reference in docs/prompts.md says what is true."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clipseg_model import registry
from clipseg_model.cli.app import app
from clipseg_model.prompting.templates import TEMPLATES
from clipseg_model.prompting.visual_prompt import METHODS


@pytest.fixture
def page(repository: Path) -> str:
    return (repository / 'docs' / 'prompts.md').read_text(encoding='utf-8')


def test_the_examples_run(
    page: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / 'weights'
    folder.mkdir()
    shutil.copy(checkpoint, folder / 'tabletop.safetensors')
    monkeypatch.setattr(registry, 'WEIGHTS_FOLDER', folder)
    blocks = re.findall(r'```python\n(.*?)```', page, re.DOTALL)
    assert len(blocks) == 6
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)


def test_methods_and_templates_are_complete(page: str) -> None:
    for name, method in METHODS.items():
        assert f'| `{name}` | {method.summary} |' in page
    for name in TEMPLATES:
        assert f'`{name}`' in page


def test_options_exist(page: str) -> None:
    commands = re.findall(r'^\$ clipseg (.*)$', page, re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        name, *arguments = shlex.split(command)
        help_text = CliRunner().invoke(app, [name, '--help'], env={'COLUMNS': '200'}).output
        for argument in arguments:
            if argument.startswith('-'):
                assert argument in help_text
