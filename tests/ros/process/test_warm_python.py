"""Nodes of tests that are forked off a process which has imported torch."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from ros_peers import ROOT, NodeProcess

TELL = """
import json, os, signal, sys
told = {'argv': sys.argv[1:], 'folder': os.getcwd(), 'group': os.getpgid(0) == os.getpid()}
told |= {'domain': os.environ['ROS_DOMAIN_ID'], 'torch': 'torch' in sys.modules}
told |= {'python': os.environ['PYTHONPATH'], 'interrupts': callable(signal.getsignal(2))}
print(json.dumps(told), flush=True)
if 'stay' in sys.argv:
    signal.pause()
sys.exit(3)
"""


def test_it_is_as_if_it_was_started(tmp_path: Path) -> None:
    script = tmp_path / 'tell.py'
    script.write_text(TELL)
    for afresh in (False, True):
        words = {'script': ['some', 'words'], 'environment': {'ROS_DOMAIN_ID': '7'}}
        process = NodeProcess(str(script), **words, afresh=afresh)  # type: ignore[arg-type]
        assert process.join(40) == 3, process.output
        assert json.loads(process.output) == {
            'argv': ['some', 'words'],
            'folder': str(ROOT),
            'group': True,
            'domain': '7',
            'torch': not afresh,
            'python': str(ROOT),
            'interrupts': True,
        }


def test_signals_end_it(tmp_path: Path) -> None:
    script = tmp_path / 'tell.py'
    script.write_text(TELL)
    for number, status in ((signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, -signal.SIGINT)):
        process = NodeProcess(str(script), script=['stay'])
        process.wait_for('stay')
        assert process.running
        assert process.stop([number]) == status
        assert ('KeyboardInterrupt' in process.output) == (number == signal.SIGINT)
