"""Runs on one machine choose different ROS domains."""

from __future__ import annotations

import subprocess
import sys

import pytest

from clipseg_ros.process import domain as domain_module
from clipseg_ros.process.domain import claimed_domain


def test_a_claim_holds_against_this_and_other_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with claimed_domain() as first, claimed_domain() as second:
        assert first != second
        code = (
            'import os; os.getpid = lambda: {}\n'
            'from clipseg_ros.process.domain import claim_domain; print(claim_domain())'
        )
        command = [sys.executable, '-c', code.format(first - 1)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert int(done.stdout) not in (first, second)
        # It looks for another one from the taken one on.
        monkeypatch.setattr(domain_module.os, 'getpid', lambda: first - 1)
        with claimed_domain() as third:
            assert third not in (first, second)
    with claimed_domain() as again:
        assert again == first


def test_all_of_them_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(domain_module, '_DOMAINS', 0)
    with pytest.raises(RuntimeError, match='all ROS domains'), claimed_domain():
        pass
