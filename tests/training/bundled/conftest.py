"""What several tests of the bundled model's training start with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.bundled.own_photographs import write_start


@pytest.fixture(scope='session')
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights to start with."""
    return write_start(tmp_path_factory.mktemp('start'))
