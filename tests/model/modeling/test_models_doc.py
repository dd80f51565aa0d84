"""The reference in docs/models.md says what is true."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipseg_model import errors, list_models
from tests.doc_examples import check_options, run_python


@pytest.fixture
def page(repository: Path) -> str:
    return (repository / 'docs' / 'models.md').read_text(encoding='utf-8')


def test_the_examples_run(page: str) -> None:
    assert run_python(page) >= 4


def test_models_and_errors_are_complete(page: str) -> None:
    for name in list_models():
        assert f'| `{name}` |' in page
    for name in errors.__all__:
        assert f'`{name}`' in page


def test_options_exist(page: str) -> None:
    assert check_options(page) >= 1
