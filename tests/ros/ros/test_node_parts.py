"""The parts of the nodes that need no topics: verdicts, throttling, QoS, tuning."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import rclpy
from builtin_interfaces.msg import Time
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.context import Context
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode
from rclpy.logging import get_logger
from rclpy.qos import (
    QoSDurabilityPolicy,
    QoSLivelinessPolicy,
    QoSProfile,
    QoSReliabilityPolicy,
)

from clipseg_ros.health.diagnostics import Level, Situation, diagnostic_array, judge
from clipseg_ros.ros.callback_groups import guard_transitions
from clipseg_ros.ros.interfaces import load_interfaces
from clipseg_ros.ros.log import ThrottledLog
from clipseg_ros.ros.qos import (
    command_input,
    image_output,
    incompatible_policies,
    latched_output,
    sensor_input,
)

ROOT = Path(__file__).parents[3]

GOOD = Situation(
    node='/clipseg',
    state='active',
    prompts=('mug', 'bowl'),
    image_topic='/image',
    camera_count=1,
    outputs=('mask',),
    idle=0.1,
    busy=0.02,
    watchdog=5.0,
    rate=12.34,
)


@pytest.mark.parametrize(
    ('changes', 'level', 'words'),
    [
        ({}, Level.OK, ['mug, bowl', '12.3']),
        ({'state': 'unconfigured'}, Level.WARN, ['ros2 lifecycle set /clipseg configure']),
        ({'state': 'inactive'}, Level.WARN, ['ros2 lifecycle set /clipseg activate']),
        ({'state': 'unconfigured', 'failure': 'no file'}, Level.ERROR, ['no file']),
        ({'enabled': False}, Level.OK, ['disabled', '/clipseg/enable']),
        ({'prompts': ()}, Level.WARN, ['no prompt set', '/clipseg/prompt']),
        (
            {'prompts': (), 'negative': 1},
            Level.WARN,
            ['1 negative prompt(s) only', '/clipseg/prompt', 'the mug; !the vase'],
        ),
        ({'prompts': (), 'disabled': 2}, Level.WARN, ['all 2 prompt(s) are disabled']),
        ({'prompts': (), 'negative': 1, 'disabled': 2}, Level.WARN, ['1 negative']),
        (
            {'namesakes': 1, 'state': 'unconfigured', 'failure': 'no file'},
            Level.ERROR,
            ['no file', 'another node is called /clipseg too'],
        ),
        ({'namesakes': 1}, Level.WARN, ['another node is called /clipseg too', '__node:=']),
        ({'busy': 7.0}, Level.ERROR, ['busy', '7 s']),
        ({'busy': 7.0, 'watchdog': 0.0}, Level.OK, ['12.3']),
        ({'frame_fault': 'bad image: step 3'}, Level.ERROR, ['bad image', 'step 3']),
        ({'memory_warning': 'memory is short'}, Level.WARN, ['memory is short']),
        (
            {'memory_warning': 'memory is short', 'frame_fault': 'out of it'},
            Level.ERROR,
            ['out of it'],
        ),
        # What was wrong with the last image does not hide that there are none now.
        (
            {'idle': 9.0, 'frame_fault': 'bad image: rgb9'},
            Level.ERROR,
            ['no image on /image for 9 s'],
        ),
        (
            {'idle': 9.0, 'camera_count': 0, 'frame_fault': 'bad image: rgb9'},
            Level.ERROR,
            ['nobody publishes on /image'],
        ),
        ({'idle': 9.0, 'watchdog': 0.0, 'frame_fault': 'bad image: rgb9'}, Level.OK, ['12.3']),
        ({'idle': 9.0, 'watchdog': 60.0, 'frame_fault': 'bad image: rgb9'}, Level.ERROR, ['rgb9']),
        ({'idle': 9.0, 'camera_count': 0}, Level.ERROR, ['nobody publishes on /image']),
        ({'idle': 9.0}, Level.ERROR, ['no image on /image for 9 s', '1 publisher', 'fastdds.xml']),
        ({'idle': 9.0, 'watchdog': 0.0}, Level.OK, ['12.3']),
        ({'idle': 9.0, 'mismatches': ('QoS mismatch on /image: x',)}, Level.ERROR, ['QoS']),
        (
            {'idle': 9.0, 'camera_count': 0, 'mismatches': ('transport mismatch on /image: x',)},
            Level.ERROR,
            ['transport'],
        ),
        ({'mismatches': ('QoS mismatch on /clipseg/mask: x',)}, Level.WARN, ['/clipseg/mask']),
        ({'loss': '9 of 9 lost'}, Level.WARN, ['9 of 9 lost']),
        ({'idle': 9.0, 'loss': '9 of 9 lost'}, Level.ERROR, ['9 of 9 lost']),
        ({'callback_fault': '3 failed'}, Level.WARN, ['3 failed']),
        # What could not be taken has come.
        ({'idle': 9.0, 'callback_fault': '3 failed', 'deaf': 'x'}, Level.ERROR, ['3 failed']),
        ({'idle': 9.0, 'deaf': 'others hear', 'loss': 'x'}, Level.ERROR, ['others hear']),
        ({'depth_fault': 'no depth on /depth'}, Level.WARN, ['3D: no depth on /depth']),
        ({'outputs': ()}, Level.OK, ['nobody subscribes']),
        # Who needs no images misses none; a camera that is not there is missed before.
        ({'outputs': (), 'idle': 9.0, 'receives': False}, Level.OK, ['nobody subscribes']),
        (
            {'outputs': (), 'idle': 9.0, 'receives': False, 'camera_count': 0},
            Level.ERROR,
            ['nobody publishes on /image'],
        ),
    ],
)
def test_verdicts(changes: dict[str, Any], level: Level, words: list[str]) -> None:
    verdict = judge(dataclasses.replace(GOOD, **changes))
    assert verdict.level == level
    for word in words:
        assert word in verdict.message


def test_diagnostic_message() -> None:
    stamp = Time(sec=3, nanosec=4)
    verdict = judge(GOOD)
    array = diagnostic_array('clipseg: segmentation', 'cpu', verdict, {'fps': '3', 'b': ''}, stamp)
    assert array.header.stamp == stamp
    (status,) = array.status
    assert (status.name, status.hardware_id, status.message) == (
        'clipseg: segmentation',
        'cpu',
        verdict.message,
    )
    assert status.level == b'\x00'
    assert [(item.key, item.value) for item in status.values] == [('fps', '3'), ('b', '')]


class Recorder:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, line: str) -> None:
        self.lines.append(f'W {line}')

    def error(self, line: str) -> None:
        self.lines.append(f'E {line}')


def test_throttling_is_by_what_happened() -> None:
    recorder = Recorder()
    log = ThrottledLog(recorder, period=0.1)
    for _ in range(3):
        log.warning('step', 'bad step')
        log.error('size', 'bad size')
    assert recorder.lines == ['W bad step', 'E bad size']
    time.sleep(0.12)
    log.warning('step', 'bad step')
    assert recorder.lines[2:] == ['W bad step (2 more like it in between)']
    time.sleep(0.12)
    log.warning('step', 'bad step')
    assert recorder.lines[3:] == ['W bad step']


def test_a_flood_of_different_lines_is_throttled_and_cut() -> None:
    recorder = Recorder()
    log = ThrottledLog(recorder)
    for number in range(1000):
        log.warning('refused', f'{number} refused ' + 'x' * 5000, each=True)
    assert len(recorder.lines) == 2, 'those of before a flood are there'
    assert all(len(line) < 1100 for line in recorder.lines)
    assert recorder.lines[0].endswith('… (5010 characters)')
    for _ in range(3):
        log.warning('same', 'the same again', each=True)
    assert recorder.lines[2:] == ['W the same again']
    for number in range(1000):
        log.error(f'key {number}', 'another cause')
    assert len(log._passed) <= 200


def test_a_transition_that_there_is_not_is_refused_in_a_line_of_ours(domain: int) -> None:
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    node = LifecycleNode('guarded', context=context)
    refused: list[str] = []
    guard_transitions(node, refused.append)
    change = node._service_change_state.callback

    def ask(**transition: Any) -> bool:
        request = ChangeState.Request(transition=Transition(**transition))
        return bool(change(request, ChangeState.Response()).success)

    try:
        assert not ask(id=Transition.TRANSITION_ACTIVATE)
        assert not ask(label='x' * 5000)
        assert [len(line) < 200 for line in refused] == [True, True]
        assert 'from unconfigured: there are configure, shutdown' in refused[0]
        assert ask(id=Transition.TRANSITION_CONFIGURE)
        assert ask(label='activate')
        assert len(refused) == 2
    finally:
        node.destroy_node()
        context.try_shutdown()


def test_the_logger_of_a_node_takes_both_severities() -> None:
    """rclpy's raises where one line of code logs in another severity than before."""
    log = ThrottledLog(get_logger('throttled'))
    for number in range(3):
        log.warning(f'warning {number}', 'a warning')
        log.error(f'error {number}', 'an error')


def test_profiles_connect_to_every_kind_of_peer() -> None:
    best_effort = QoSProfile(depth=5, reliability=QoSReliabilityPolicy.BEST_EFFORT)
    reliable = QoSProfile(depth=5, reliability=QoSReliabilityPolicy.RELIABLE)
    for peer in (best_effort, reliable):
        assert incompatible_policies(image_output(), peer) == []
        assert incompatible_policies(latched_output(), peer) == []
        assert incompatible_policies(peer, sensor_input()) == []
    assert incompatible_policies(best_effort, command_input()) == ['reliability']
    assert (sensor_input().depth, image_output().depth) == (1, 1)


def test_what_makes_peers_incompatible() -> None:
    def profile(**policies: Any) -> QoSProfile:
        return QoSProfile(depth=1, **policies)

    latched = profile(durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
    assert incompatible_policies(profile(), latched) == ['durability']
    assert incompatible_policies(latched, profile()) == []
    manual = profile(liveliness=QoSLivelinessPolicy.MANUAL_BY_TOPIC)
    assert incompatible_policies(profile(), manual) == ['liveliness']
    hasty = profile(deadline=Duration(seconds=0.1))
    assert incompatible_policies(profile(), hasty) == ['deadline']
    assert incompatible_policies(hasty, profile(deadline=Duration(seconds=1))) == []
    # An endless duration, as peers report it.
    endless = Duration(seconds=9223372036, nanoseconds=854775807)
    never = profile(deadline=endless, liveliness_lease_duration=endless)
    assert incompatible_policies(profile(), never) == []
    assert incompatible_policies(never, profile()) == []


def run(code: str, **variables: str) -> str:
    import os

    environment = {k: v for k, v in os.environ.items() if k != 'OMP_WAIT_POLICY'}
    done = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**environment, **variables},
        check=True,
    )
    return done.stdout.strip()


def test_the_process_is_tuned_before_torch_is_there() -> None:
    code = (
        'import os, sys\n'
        'import clipseg_ros.segment_node\n'
        "assert 'torch' not in sys.modules\n"
        'from clipseg_ros.process.tuning import keep_large_buffers, tune_process\n'
        'tune_process()\n'
        "print(os.environ['OMP_WAIT_POLICY'], keep_large_buffers())\n"
    )
    taken = 'True' if sys.platform.startswith('linux') else 'False'
    assert run(code) == f'PASSIVE {taken}'
    assert run(code, OMP_WAIT_POLICY='ACTIVE') == f'ACTIVE {taken}'


@pytest.mark.parametrize(
    'name', ['command', 'console_node', 'segment_node', 'segment_cameras_node']
)
def test_what_is_started_is_tuned_before_numpy_is_there(name: str) -> None:
    code = (
        'import sys\n'
        'from clipseg_ros.process import tuning\n'
        "tuning.tune_process = lambda: sys.exit(print('numpy' in sys.modules))\n"
        f'import clipseg_ros.{name}\n'
        f'clipseg_ros.{name}.main()\n'
    )
    assert run(code) == 'False'


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='of glibc')
def test_what_loading_frees_goes_back_at_once() -> None:
    code = (
        'import ctypes, re\n'
        'from pathlib import Path\n'
        'from clipseg_ros.process.tuning import keep_large_buffers, large_blocks_apart\n'
        'libc = ctypes.CDLL(None)\n'
        'libc.malloc.restype = ctypes.c_void_p\n'
        'libc.free.argtypes = [ctypes.c_void_p]\n'
        'def left():\n'
        '    before = own()\n'
        '    block, fence = libc.malloc(20 << 20), libc.malloc(1000)\n'
        '    ctypes.memset(block, 1, 20 << 20)\n'
        '    libc.free(block)\n'
        '    return (own() - before) >> 10 > 10\n'
        'def own():\n'
        "    text = Path('/proc/self/status').read_text()\n"
        "    return int(re.search(r'RssAnon:\\s+(\\d+)', text)[1])\n"
        'keep_large_buffers()\n'
        'with large_blocks_apart():\n'
        '    apart = left()\n'
        'print(apart, left())\n'
    )
    assert run(code) == 'False True', 'and frames keep theirs'


def test_tuning_too_late_is_an_error() -> None:
    code = (
        "import sys; sys.modules['torch'] = sys\n"
        'from clipseg_ros.process.tuning import tune_process\n'
        'try:\n    tune_process()\n'
        'except RuntimeError as error:\n    print(error)\n'
    )
    assert 'OMP_WAIT_POLICY=PASSIVE' in run(code)


def test_interfaces_of_an_older_version_are_told(tmp_path: Path) -> None:
    """As after a pull without a new build: with all messages but one kind."""
    names = {'msg': ['Prompt', 'PromptArray', 'Segment', 'SegmentArray'], 'srv': ['SetPrompts']}
    for kind, classes in names.items():
        (tmp_path / 'clipseg_ros' / kind).mkdir(parents=True)
        text = ''.join(f'class {name}: ...\n' for name in classes)
        (tmp_path / 'clipseg_ros' / kind / '__init__.py').write_text(text)
    code = (
        f'import clipseg_ros; clipseg_ros.__path__.insert(0, {str(tmp_path / "clipseg_ros")!r})\n'
        'from clipseg_ros.ros.interfaces import load_interfaces\n'
        'from clipseg_ros.process.runner import run_node\n'
        'raise SystemExit(run_node(load_interfaces, ["node"]))\n'
    )
    command = [sys.executable, '-c', code]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 1
    assert 'Traceback' not in answer.stderr
    for words in ('cannot start', str(tmp_path), 'lack PickPrompt, PromptMask, GetMasks', 'colcon'):
        assert words in answer.stderr


def test_interfaces_are_all_or_none() -> None:
    interfaces = load_interfaces()
    if interfaces is not None:
        for field in dataclasses.fields(interfaces):
            assert getattr(interfaces, field.name).__module__.startswith('clipseg_ros.')
