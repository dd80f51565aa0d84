"""The reference in docs/prompts.md says what is true."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipseg_model.prompting.templates import TEMPLATES
from clipseg_model.prompting.visual_prompt import METHODS
from tests.doc_examples import check_options, run_python


@pytest.fixture
def page(repository: Path) -> str:
    return (repository / 'docs' / 'prompts.md').read_text(encoding='utf-8')


def test_the_examples_run(page: str) -> None:
    assert run_python(page) == 6


def test_methods_and_templates_are_complete(page: str) -> None:
    for name, method in METHODS.items():
        assert f'| `{name}` | {method.summary} |' in page
    for name in TEMPLATES:
        assert f'`{name}`' in page


def test_options_exist(page: str) -> None:
    assert check_options(page) >= 5
