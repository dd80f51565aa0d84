"""Every fault in the diagnostics ends with its cause: the report of a node made of fakes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from builtin_interfaces.msg import Time

import clipseg_ros.segment.report as report_module
from clipseg_model.prompts import Prompt
from clipseg_ros.health.diagnostics import Level, Situation
from clipseg_ros.prompts.set import PromptRequest, PromptSet
from clipseg_ros.segment.parameters import Settings
from clipseg_ros.segment.report import _FAULT_SECONDS, NodeReport, NodeState

PROMPTS = PromptSet().replace([PromptRequest(Prompt('the mug'))])
NEGATIVE = PromptSet().replace([PromptRequest(Prompt('the vase', negative=True))])
DISABLED = PromptSet().replace([PromptRequest(Prompt('the mug'), enabled=False)])


class Watch:
    """Peers that do not fit, as a QosWatch tells them."""

    def __init__(self, *_: Any) -> None:
        self.peers: list[str] = []
        self.statuses: list[Any] = []

    def warn(self) -> list[str]:
        return list(self.peers)

    def create_publisher(self, *_: Any) -> Any:
        return SimpleNamespace(publish=lambda array: self.statuses.append(array.status[0]))


class Bench:
    """A node that segments, whose parts can be changed before each report."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.lines = 1000.0, list[str]()
        monkeypatch.setattr(report_module, 'QosWatch', Watch)
        monkeypatch.setattr(report_module, 'create_steady_timer', lambda *_: None)
        monkeypatch.setattr(report_module, 'time', SimpleNamespace(monotonic=lambda: self.now))
        log = SimpleNamespace(info=self.lines.append, warning=self.lines.append,
                              error=self.lines.append)  # fmt: skip
        self.names = [('clipseg', '/')]
        self.cameras = 1
        self.node: Any = SimpleNamespace(
            full_name='/clipseg',
            executor=SimpleNamespace(faults=0),
            get_logger=lambda: log,
            get_name=lambda: 'clipseg',
            get_namespace=lambda: '/',
            get_node_names_and_namespaces=lambda: self.names,
            count_publishers=lambda topic: self.cameras,
            get_clock=lambda: SimpleNamespace(now=lambda: SimpleNamespace(to_msg=Time)),
        )
        self.counts = SimpleNamespace(
            idle=0.0, busy=0.0, rate=9.0, latency=0.1, latency_max=0.1, received=1, processed=1,
            dropped=0, failed=0,
        )  # fmt: skip
        self.share: tuple[int, int] | None = None
        self.memory = ''
        self.depth = ''
        self.on_wire = False
        self.stream: Any = SimpleNamespace(
            topic='/image',
            watch=Watch(),
            worker=SimpleNamespace(statistics=lambda: self.counts),
            outputs=SimpleNamespace(wanted=lambda: ['mask']),
            images=SimpleNamespace(is_open=True, counts_losses=True),
            losses=SimpleNamespace(share=lambda: self.share, total=0),
            lost=SimpleNamespace(count=0),
            faults=SimpleNamespace(newest='', refused=0),
            wire=SimpleNamespace(look=lambda missing: missing and self.on_wire),
            depth=SimpleNamespace(fault=lambda: self.depth, values=dict),
            segmenter=SimpleNamespace(
                card=SimpleNamespace(name='tiny'), device=SimpleNamespace(type='cpu')
            ),
            pipeline=SimpleNamespace(
                memory=SimpleNamespace(warning=lambda: self.memory, at_once=1),
                model_seconds=0.1,
                age=0.1,
            ),
        )
        self.state = NodeState('active', '', True, PROMPTS, Settings(), self.stream)
        self.report = NodeReport(self.node, lambda: self.state)

    def change(self, **values: Any) -> None:
        self.state = dataclasses.replace(self.state, **values)

    def told(self) -> tuple[Level, str]:
        """What the next report says."""
        self.now += 1.0
        self.report._report()
        status = self.report._watch.statuses[-1]
        return Level(status.level[0]), status.message


Do = Callable[[Bench], Any]

# Of a situation, what can be at fault → what is said, how it comes about, and how it ends.
FAULTS: dict[str, list[tuple[str, Do, Do]]] = {
    'state': [
        ('inactive', lambda b: b.change(state='inactive'), lambda b: b.change(state='active')),
    ],
    'failure': [
        (
            'no file',
            lambda b: b.change(state='unconfigured', failure='no file'),
            lambda b: b.change(state='active'),
        )
    ],
    'enabled': [
        ('disabled', lambda b: b.change(enabled=False), lambda b: b.change(enabled=True)),
    ],
    'prompts': [
        ('no prompt set', lambda b: b.change(prompts=()), lambda b: b.change(prompts=PROMPTS)),
    ],
    'negative': [
        ('1 negative', lambda b: b.change(prompts=NEGATIVE), lambda b: b.change(prompts=PROMPTS)),
    ],
    'disabled': [
        ('all 1 prompt', lambda b: b.change(prompts=DISABLED), lambda b: b.change(prompts=PROMPTS)),
    ],
    'camera_count': [
        (
            'nobody publishes',
            lambda b: (setattr(b, 'cameras', 0), setattr(b.counts, 'idle', 9.0)),
            lambda b: (setattr(b, 'cameras', 1), setattr(b.counts, 'idle', 0.0)),
        ),
    ],
    'outputs': [
        (
            'nobody subscribes',
            lambda b: setattr(b.stream.outputs, 'wanted', list),
            lambda b: setattr(b.stream.outputs, 'wanted', lambda: ['mask']),
        ),
    ],
    'idle': [
        (
            'no image on /image',
            lambda b: setattr(b.counts, 'idle', 9.0),
            lambda b: setattr(b.counts, 'idle', 0.0),
        ),
    ],
    'busy': [
        (
            'busy on one image',
            lambda b: setattr(b.counts, 'busy', 9.0),
            lambda b: setattr(b.counts, 'busy', 0.0),
        ),
    ],
    'frame_fault': [
        (
            'rgb9',
            lambda b: setattr(b.stream.faults, 'newest', 'bad image: rgb9'),
            lambda b: setattr(b.stream.faults, 'newest', ''),
        ),
    ],
    'callback_fault': [
        (
            '1 message(s)',
            lambda b: setattr(b.node.executor, 'faults', 1),
            lambda b: setattr(b, 'now', b.now + _FAULT_SECONDS),
        ),
    ],
    'deaf': [
        (
            'its connection to the middleware is broken',
            lambda b: (setattr(b.counts, 'idle', 9.0), setattr(b, 'on_wire', True)),
            lambda b: setattr(b.counts, 'idle', 0.0),
        ),
    ],
    'loss': [
        ('lost', lambda b: setattr(b, 'share', (9, 10)), lambda b: setattr(b, 'share', None)),
    ],
    'mismatches': [
        (
            'QoS mismatch',
            lambda b: b.stream.watch.peers.append('QoS mismatch on /image: x'),
            lambda b: b.stream.watch.peers.clear(),
        ),
        (
            'QoS mismatch',
            lambda b: b.report._watch.peers.append('QoS mismatch on /diagnostics: x'),
            lambda b: b.report._watch.peers.clear(),
        ),
    ],
    'namesakes': [
        (
            'another node is called /clipseg',
            lambda b: b.names.append(('clipseg', '/')),
            lambda b: b.names.pop(),
        ),
    ],
    'depth_fault': [
        (
            '3D: no depth',
            lambda b: setattr(b, 'depth', 'no depth'),
            lambda b: setattr(b, 'depth', ''),
        ),
    ],
    'memory_warning': [
        (
            'memory is short',
            lambda b: setattr(b, 'memory', 'memory is short'),
            lambda b: setattr(b, 'memory', ''),
        ),
    ],
}

NO_FAULT = {'node', 'image_topic', 'receives', 'watchdog', 'rate'}


def test_every_fault_is_here() -> None:
    assert {one.name for one in dataclasses.fields(Situation)} == set(FAULTS) | NO_FAULT


@pytest.mark.parametrize(
    ('words', 'come', 'go'),
    [pytest.param(*case, id=name) for name, cases in FAULTS.items() for case in cases],
)
def test_it_goes_with_its_cause(
    monkeypatch: pytest.MonkeyPatch, words: str, come: Do, go: Do
) -> None:
    bench = Bench(monkeypatch)
    good = (Level.OK, 'the mug at 9.0 frames a second')
    assert bench.told() == good
    for _ in range(2):
        come(bench)
        level, message = bench.told()
        assert words in message
        assert level != Level.OK or 'frames a second' not in message
        go(bench)
        assert bench.told() == good
        # A fault that comes again is told again.
        bench.node.executor.faults = 0
        bench.report._faults = 0


def test_the_last_error_is_of_images_that_come(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)

    def last_error() -> str:
        bench.told()
        values = {one.key: one.value for one in bench.report._watch.statuses[-1].values}
        return values['last_error']

    assert last_error() == ''
    bench.stream.faults.newest = 'bad image: rgb9'
    assert last_error() == 'bad image: rgb9'
    bench.counts.idle = 23.0
    assert last_error() == '', 'the camera has stopped'
    bench.counts.idle = 0.0
    assert last_error() == 'bad image: rgb9'


@pytest.mark.parametrize('exits', [False, True])
def test_a_node_that_hears_no_images_ends_where_it_is_started_again(
    monkeypatch: pytest.MonkeyPatch, exits: bool
) -> None:
    bench = Bench(monkeypatch)
    bench.change(settings=Settings(exit_on_failure=exits))
    bench.node.gave_up = False
    bench.counts.idle = 9.0
    bench.told()
    assert not bench.node.gave_up, 'nobody hears them'
    bench.on_wire = True
    bench.told()
    assert bench.node.gave_up is exits
    told = [line for line in bench.lines if 'its connection to the middleware is broken' in line]
    assert len(told) == 1


def first_of(name: str) -> tuple[str, Do, Do]:
    return FAULTS[name][0]


@pytest.mark.parametrize('old', ['frame_fault', 'loss', 'depth_fault', 'memory_warning'])
@pytest.mark.parametrize('new', ['camera_count', 'state', 'prompts', 'enabled', 'busy'])
def test_an_old_fault_hides_no_present_reason(
    monkeypatch: pytest.MonkeyPatch, old: str, new: str
) -> None:
    bench = Bench(monkeypatch)
    first_of(old)[1](bench)
    words, come, _ = first_of(new)
    come(bench)
    assert words in bench.told()[1]
