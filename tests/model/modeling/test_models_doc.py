"""The reference in docs/models.md says what is true."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clipseg_model import errors, list_models, registry
from clipseg_model.cli.app import app


@pytest.fixture
def page(repository: Path) -> str:
    return (repository / 'docs' / 'models.md').read_text(encoding='utf-8')


def test_the_examples_run(
    page: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not registry.get_card('tabletop').present:
        folder = tmp_path / 'weights'
        folder.mkdir()
        shutil.copy(checkpoint, folder / 'tabletop.safetensors')
        monkeypatch.setattr(registry, 'WEIGHTS_FOLDER', folder)
        # The tiny model of the tests knows few words.
        page = page.replace('short green grass', 'something to sit on')
    blocks = re.findall(r'```python\n(.*?)```', page, re.DOTALL)
    assert len(blocks) >= 4
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)


def test_models_and_errors_are_complete(page: str) -> None:
    for name in list_models():
        assert f'| `{name}` |' in page
    for name in errors.__all__:
        assert f'`{name}`' in page


def test_options_exist(page: str) -> None:
    commands = re.findall(r'^\$ clipseg (.*)$', page, re.MULTILINE)
    assert commands
    for command in commands:
        name, *arguments = shlex.split(command)
        help_text = CliRunner().invoke(app, [name, '--help'], env={'COLUMNS': '200'}).output
        for argument in arguments:
            if argument.startswith('-'):
                assert argument in help_text
