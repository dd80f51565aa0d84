"""Damaged files: read, or refused in our words; no traceback, no hang, no crash, no flood."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fuzz.files import fuzz

SEED = int(os.environ.get('FUZZ_SEED', '17'))
COUNT = 540
"""Inputs: sixty of each of the nine kinds. ``make fuzz`` reads as many as an hour allows."""

CORPUS = Path(__file__).with_name('corpus')


@pytest.mark.timeout(900)
def test_damaged_files(tmp_path: Path) -> None:
    found = fuzz(SEED, tmp_path / 'kept', count=COUNT)
    assert found['failures'] == []
    assert found['files'] == COUNT
    assert found['peak_mb'] < 2500
    outcomes = found['outcomes']
    kinds = {name.partition(':')[0] for name in outcomes}
    assert len(kinds) == 9
    for kind in kinds:
        assert outcomes[f'{kind}: refused'] >= 10, f'{kind}: the damage does none'
        assert outcomes.get(f'{kind}: read', 0) >= 1, f'{kind}: all are refused at the first byte'


def test_what_ever_failed_does_not_any_more(tmp_path: Path) -> None:
    found = fuzz(0, tmp_path / 'kept', corpus=CORPUS)
    assert found['failures'] == []
    assert found['files'] == len(list(CORPUS.glob('*/*')))
    assert set(found['outcomes']) == {f'{kind.name}: refused' for kind in CORPUS.iterdir()}
