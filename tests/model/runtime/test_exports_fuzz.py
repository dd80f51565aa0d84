"""Damaged exports: used, or refused by an error of ours, whatever a runtime says to them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
@pytest.mark.parametrize('runtime', ['onnxruntime', 'openvino'])
def test_damaged_exports(vit: Path, exported: Path, tmp_path: Path, runtime: str) -> None:
    script = Path(__file__).with_name('fuzz_exports.py')
    done = subprocess.run(
        [sys.executable, str(script), str(vit), str(exported), str(tmp_path), runtime, '56'],
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    outcomes = json.loads(done.stdout.splitlines()[-1])
    assert not outcomes['others'], '\n'.join(outcomes['others'])[:5000]
    assert outcomes['refused'] > 20, outcomes
    assert outcomes['used'] > 0, outcomes
