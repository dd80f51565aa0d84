"""Processes: listened to, waited for, and ended whatever they do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from ros_peers import wait_until

from clipseg_ros.process.child_process import ChildError, ChildProcess

SLEEP = 'print("up", flush=True); import time; time.sleep(60)'


def start(code: str, log: Path | None = None) -> ChildProcess:
    return ChildProcess('the child', [sys.executable, '-c', code], log)


def test_an_early_end_is_told_with_the_end_of_the_output(tmp_path: Path) -> None:
    log = tmp_path / 'logs' / 'child.log'
    with start('print("first"); raise SystemExit("no luck")', log) as child:
        assert child.join(20) == 1
        with pytest.raises(ChildError, match=r'(?s)the child has ended \(exit status 1\).*no luck'):
            child.check()
        with pytest.raises(ChildError, match=f'exit status 1.*{log}'):
            child.wait_for('second')
        assert child.wait_for('first') == 'first'
    assert log.read_text().splitlines() == child.lines == ['first', 'no luck']


def test_its_output_is_waited_for() -> None:
    code = 'print("one\\ntwo"); print("a part", end="", flush=True); import time; time.sleep(60)'
    with start(code) as child:
        assert child.wait_for('tw') == 'two'
        wait_until(lambda: 'a part' in child.output)
        assert child.lines == ['one', 'two']
        with pytest.raises(ChildError, match=r"did not say 'one' within 0\.1 s"):
            child.wait_for('one', 0.1, since=1)
        with pytest.raises(ChildError, match=r'still running after 0\.1 s'):
            child.join(0.1)


def test_it_is_asked_to_end_first() -> None:
    code = f'import signal; signal.signal(signal.SIGINT, lambda *_: exit(7)); {SLEEP}'
    with start(code) as child:
        child.wait_for('up')
        child.check()
        assert child.stop() == 7


def test_one_that_does_not_listen_is_ended_all_the_same() -> None:
    code = (
        'import signal\n'
        'for n in (signal.SIGINT, signal.SIGTERM): signal.signal(n, signal.SIG_IGN)\n' + SLEEP
    )
    with start(code) as child:
        child.wait_for('up')
        assert child.stop(patience=0.2) == -signal.SIGKILL


def test_it_has_a_process_group_of_its_own_and_no_session() -> None:
    with start(SLEEP) as child:
        child.wait_for('up')
        assert os.getpgid(child.pid) == child.pid
        assert os.getsid(child.pid) == os.getsid(0)


def test_it_does_not_outlive_its_parent(repository: Path) -> None:
    code = (
        'import os, sys\n'
        'from clipseg_ros.process.child_process import ChildProcess\n'
        'child = ChildProcess("c", [sys.executable, "-c", sys.argv[1]])\n'
        'child.wait_for("up"); print(child.pid, flush=True); os.kill(os.getpid(), 9)'
    )
    done = subprocess.run(
        [sys.executable, '-c', code, SLEEP],
        cwd=repository,
        env={**os.environ, 'PYTHONPATH': str(repository)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    pid = int(done.stdout)
    wait_until(
        lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    )
