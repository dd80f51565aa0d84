"""Rules of the node that hold for it as a whole, each seen from other processes."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.parameter import Parameter
from ros_peers import NodeProcess, Peer, picture, ros_arguments, until_answered, wait_until
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import String

from clipseg_ros.ros.qos import command_input, image_output

pytestmark = [pytest.mark.slow, pytest.mark.ci]

HERE = Path(__file__).parents[1]
WATCHER = """import socket, sys
print('connections are watched', flush=True)
_connect = socket.socket.connect
def connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6):
        print('CONNECTED TO', address, flush=True)
    return _connect(self, address)
socket.socket.connect = connect
"""


def values_of(message: DiagnosticArray) -> dict[str, str]:
    return {item.key: item.value for item in message.status[0].values}


class Listener:
    """Sends images to a node, and keeps the masks and the diagnostics that come."""

    def __init__(self, peer: Peer, node: str, image: str) -> None:
        self.peer, self.node = peer, node
        self.masks = peer.collect(Image, f'{node}/mask', image_output())
        self.labels = peer.collect(Image, f'{node}/labels', image_output())
        self._diagnostics = peer.collect(DiagnosticArray, '/diagnostics', 50)
        self.images = peer.publisher(Image, image, image_output())

    def statuses(self) -> list[DiagnosticArray]:
        name = f'{self.node.lstrip("/")}: segmentation'
        return [array for array in list(self._diagnostics) if array.status[0].name == name]

    def ask(self, image: Image) -> Image:
        """Publishes until the image's labels are there; returns them."""
        [labels] = until_answered(self.images, image, self.labels)
        return labels


@contextmanager
def node_named(
    name: str, model: Any, environment: dict[str, str] | None = None, **parameters: Any
) -> Iterator[NodeProcess]:
    given = {'model': model, 'device': 'cpu', 'threads': 1, 'prompt': "'the mug'", **parameters}
    node = NodeProcess('clipseg_ros.segment_node', given, ['-r', f'__node:={name}'], environment)
    try:
        yield node
    finally:
        status = node.stop()
    assert status == 0, node.output
    assert 'Traceback' not in node.output, node.output


def test_instances_side_by_side(peer: Peer, domain: int, tiny_model: Path) -> None:
    """Two nodes on one camera: each answers under its own name, with its own prompts."""
    with (
        node_named('left', tiny_model, prompt="'the mug'") as left,
        node_named('right', tiny_model, prompt="'a chair; red bowl'") as right,
    ):
        for node in (left, right):
            node.wait_for('active: tiny')
        one, other = (Listener(peer, name, '/image') for name in ('/left', '/right'))
        image = peer.stamped(picture(120, 160, seed=5))
        assert set(np.unique(one.ask(image).data)) == {0, 1}
        assert 2 in np.unique(other.ask(image).data)
        assert peer.set_parameter('/left', 'prompt', '').successful
        right_before = peer.get_parameter('/right', 'prompt')
        assert right_before == 'a chair; red bowl'
        other.ask(peer.stamped(picture(120, 160, seed=5)))
        # Images are counted as lost where a topic has one publisher.
        for listener in (one, other):
            peer.node.destroy_publisher(listener.images)


def test_two_nodes_of_one_name_say_so(peer: Peer, tiny_model: Path) -> None:
    said = 'another node is called /twin too'
    with node_named('twin', tiny_model) as first:
        first.wait_for('active: tiny')
        diagnostics = peer.collect(DiagnosticArray, '/diagnostics', 50)

        def told(newest: int = 0) -> bool:
            messages = [array.status[0].message for array in list(diagnostics)[-newest:]]
            return any(said in message for message in messages)

        with node_named('twin', tiny_model, autostart=False) as second:
            first.wait_for(said)
            second.wait_for(said)
            wait_until(told, what='a warning in the diagnostics')
            time.sleep(1.2)
            assert (first.count(said), second.count(said)) == (1, 1)
        wait_until(lambda: not told(newest=2), 30.0, 'an end of the warning')


@pytest.fixture(scope='module')
def node(domain: int, tiny_model: Path) -> Iterator[NodeProcess]:
    with node_named('ruled', tiny_model) as made:
        made.wait_for('active: tiny')
        yield made


@pytest.fixture(scope='module')
def listener(node: NodeProcess, peer: Peer) -> Listener:
    return Listener(peer, '/ruled', '/image')


def test_all_parameters_of_a_request_or_none(
    node: NodeProcess, listener: Listener, peer: Peer
) -> None:
    """What is checked has no effect before all of it is known to be good."""

    def ask(**wanted: Any) -> Any:
        parameters = [Parameter(name, value=value) for name, value in wanted.items()]
        request = SetParametersAtomically.Request(
            parameters=[parameter.to_parameter_msg() for parameter in parameters]
        )
        return peer.call(
            SetParametersAtomically, '/ruled/set_parameters_atomically', request
        ).result

    since = len(node.lines)
    for bad in ({'threshold': 9.0}, {'model': 'other'}, {'overlay_alpha': -1.0}):
        result = ask(prompt='a chair; red bowl', min_area=7, **bad)
        assert not result.successful
        assert next(iter(bad)) in result.reason
    assert peer.get_parameter('/ruled', 'prompt') == 'the mug'
    assert peer.get_parameter('/ruled', 'min_area') == 0
    image = peer.stamped(picture(120, 160, seed=5))
    assert set(np.unique(listener.ask(image).data)) == {0, 1}
    assert node.count('active', since) == 0, 'nothing was applied'

    assert ask(prompt='red bowl', min_area=1, threshold=0.4).successful
    assert node.count('prompt(s) active', since) == 1
    found = np.unique(listener.ask(peer.stamped(picture(120, 160, seed=5))).data)
    assert set(found) == {0, 2}
    assert ask(prompt='the mug', min_area=0, threshold=-1.0).successful


def test_lines_separate_prompts(node: NodeProcess, peer: Peer) -> None:
    publisher = peer.publisher(String, '/ruled/prompt', command_input())
    for text, names in (
        ('the mug\nseat: a chair\n', "1 'the mug', "),
        ('the mug', "1 prompt(s) active: 1 'the mug'"),
    ):
        since = len(node.lines)
        publisher.publish(String(data=text))
        line = node.wait_for('prompt(s) active', since=since)
        assert names in line
        assert ("'seat'" in line) == ('seat' in text)
    peer.node.destroy_publisher(publisher)


def test_ids_outlive_a_model(node: NodeProcess, listener: Listener, peer: Peer) -> None:
    """They keep their meaning while the node lives, also where the model is loaded anew."""

    def change(*transitions: int) -> None:
        for transition in transitions:
            request = ChangeState.Request(transition=Transition(id=transition))
            assert peer.call(ChangeState, '/ruled/change_state', request, timeout=60.0).success

    def ids(prompt: str) -> set[int]:
        assert peer.set_parameter('/ruled', 'prompt', prompt).successful
        return set(np.unique(listener.ask(peer.stamped(picture(120, 160, seed=5))).data)) - {0}

    first, bowl = ids('red chair'), ids('blue bowl')
    assert len(first) == len(bowl) == 1
    assert first != bowl
    change(Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP)
    change(Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)
    assert ids('blue bowl') == bowl, 'the prompt that stayed'
    assert ids('red chair') == first, 'the one that had gone'
    assert ids('blue chair').isdisjoint(first | bowl)
    assert peer.set_parameter('/ruled', 'prompt', 'the mug').successful


def test_images_that_never_came_are_counted(
    node: NodeProcess, listener: Listener, peer: Peer
) -> None:
    """Of one publisher; nobody else can tell what a second one has sent."""

    def lost() -> int:
        count = len(listener.statuses())
        wait_until(lambda: len(listener.statuses()) > count + 1)
        return int(values_of(listener.statuses()[-1])['lost'])

    listener.ask(peer.stamped(picture()))
    before = lost()
    image = peer.stamped(picture())
    node.send_signal(signal.SIGSTOP)
    try:
        for _ in range(20):
            listener.images.publish(image)
    finally:
        node.send_signal(signal.SIGCONT)
    listener.ask(peer.stamped(picture()))
    # The middleware keeps one at most, until the next comes (several may, until one is answered).
    assert 19 <= lost() - before < 30
    second = peer.publisher(Image, '/image', image_output())
    now = lost()
    for _ in range(10):
        second.publish(image)
        listener.images.publish(image)
    assert lost() == now
    peer.node.destroy_publisher(second)


def test_the_diagnostics_are_complete(listener: Listener, peer: Peer) -> None:
    listener.ask(peer.stamped(picture()))
    count = len(listener.statuses())
    wait_until(lambda: len(listener.statuses()) > count + 1)
    values = values_of(listener.statuses()[-1])
    for name in ('fps', 'latency_ms', 'age_ms', 'model_ms', 'memory_mb'):
        assert float(values[name]) > 0, name
    assert int(values['dropped']) >= 0
    assert values['device'] == 'cpu'


@pytest.mark.slow
@pytest.mark.ci
def test_an_output_costs_nothing_while_nobody_subscribes(peer: Peer, domain: int) -> None:
    parameters = ['-p', "prompt:='mug; chair; bowl; sofa'", '-r', '__node:=idle']
    node = NodeProcess(
        str(HERE.parents[1] / 'training' / 'benchmarks' / 'node_peers' / 'stand_in.py'),
        script=['--milliseconds', '1', '--ros-args', *parameters],
    )
    end = threading.Event()
    try:
        node.wait_for('active:')
        diagnostics = peer.collect(DiagnosticArray, '/diagnostics', 50)
        images = peer.publisher(Image, '/image', image_output())
        image = peer.stamped(picture(720, 1280))

        def film() -> None:
            while not end.wait(0.05):
                images.publish(image)

        thread = threading.Thread(target=film)
        thread.start()
        usage = psutil.Process(node.pid)

        def newest() -> Any:
            own = [a for a in list(diagnostics) if a.status[0].name == 'idle: segmentation']
            return own[-1] if own else None

        def busy(seconds: float = 2.0, settling: float = 1.0) -> float:
            """Processor time over time."""
            time.sleep(settling)
            before = usage.cpu_times()
            time.sleep(seconds)
            after = usage.cpu_times()
            return (after.user + after.system - before.user - before.system) / seconds

        # Images are received for a while, in case that somebody comes back.
        alone = busy(settling=7.0)
        status = wait_until(newest)
        assert 'nobody subscribes to an output, so nothing is computed' in status.status[0].message
        assert values_of(status)['processed'] == '0'
        assert float(values_of(status)['model_ms']) == 0.0, 'the model was not asked'
        received = values_of(status)['received']
        time.sleep(2.0)
        assert values_of(newest())['received'] == received, 'nor is it received'
        assert alone < 0.05, alone

        subscription = peer.node.create_subscription(
            Image, '/idle/mask', lambda message: None, image_output()
        )
        mask = busy()
        assert int(values_of(newest())['processed']) > 20
        others = [
            peer.node.create_subscription(Image, f'/idle/{name}', lambda _: None, image_output())
            for name in ('overlay', 'probability', 'labels', 'confidence')
        ]
        everything = busy()
        told = {'alone': alone, 'mask': mask, 'everything': everything}
        print(json.dumps(told))
        assert alone < mask < everything, told
        assert everything > 2 * alone, told
        for one in (subscription, *others):
            peer.node.destroy_subscription(one)
        time.sleep(1.0)
        processed = values_of(newest())['processed']
        time.sleep(2.0)
        assert values_of(newest())['processed'] == processed, 'and it stops again'
    finally:
        end.set()
        thread.join()
        status = node.stop()
    assert status == 0, node.output


@pytest.mark.parametrize('model', ['tabletop', 'clipseg-rd64-refined'])
def test_no_network(peer: Peer, domain: int, tmp_path: Path, model: str) -> None:
    """Weights are fetched by `clipseg download`, and never by the node."""
    (tmp_path / 'sitecustomize.py').write_text(WATCHER)
    environment = {
        'PYTHONPATH': f'{tmp_path}:{HERE.parents[1]}',
        'XDG_CACHE_HOME': str(tmp_path / 'cache'),
        'HF_HOME': str(tmp_path / 'hub'),
    }
    with node_named('offline', model, environment, prompt="'the mug'") as node:
        node.wait_for('connections are watched')
        if model == 'tabletop':
            node.wait_for('active: tabletop')
            Listener(peer, '/offline', '/image').ask(peer.stamped(picture()))
        else:
            line = node.wait_for('configure failed')
            assert f'clipseg download {model}' in line
        assert 'CONNECTED TO' not in node.output, node.output


def test_loaded_and_warmed_before_active(peer: Peer, domain: int, tiny_model: Path) -> None:
    parameters = {
        'model': tiny_model,
        'autostart': False,
        'device': 'cpu',
        'threads': 1,
        'prompt': "'the mug'",
    }
    node = NodeProcess(
        str(HERE / 'processes' / 'told_node.py'),
        script=ros_arguments(parameters, ['-r', '__node:=told']),
    )
    try:

        def change(transition: int) -> None:
            request = ChangeState.Request(transition=Transition(id=transition))
            assert peer.call(ChangeState, '/told/change_state', request, timeout=60.0).success

        change(Transition.TRANSITION_CONFIGURE)
        assert node.count('TOLD load') == 1
        assert node.count('TOLD warm_up') == 0
        change(Transition.TRANSITION_ACTIVATE)
        state = peer.call(GetState, '/told/get_state', GetState.Request()).current_state
        assert state.id == State.PRIMARY_STATE_ACTIVE
        Listener(peer, '/told', '/image').ask(peer.stamped(picture()))
        events = [line for line in node.lines if 'TOLD' in line or 'active: tiny' in line]
        order = [line.split('TOLD ')[-1] if 'TOLD' in line else 'active' for line in events]
        assert order[:4] == ['load', 'warm_up', 'active', 'segment'], node.output
    finally:
        status = node.stop()
    assert status == 0, node.output


def test_time_of_a_simulation(peer: Peer, domain: int, tiny_model: Path) -> None:
    """Images come with stamps of /clock, which stands still, runs and jumps back."""
    with node_named(
        'simulated', tiny_model, use_sim_time=True, smoothing=0.2, watchdog=2.0
    ) as node:
        node.wait_for('active: tiny')  # Without any clock yet.
        listener = Listener(peer, '/simulated', '/image')
        wait_until(listener.statuses, what='diagnostics without a clock')
        assert listener.statuses()[-1].header.stamp == Time()
        clock = peer.publisher(Clock, '/clock', 10)
        for now in (100.0, 101.0, 3.0, 4.0):

            def arrived(now: float = now) -> bool:
                clock.publish(Clock(clock=Time(sec=int(now))))  # Not heard before it is matched.
                time.sleep(0.05)
                return listener.statuses()[-1].header.stamp.sec == int(now)

            wait_until(arrived, what=f'diagnostics of {now} s')
            image = peer.stamped(picture(), frame='lens')
            image.header.stamp = Time(sec=int(now) - 1, nanosec=750_000_000)
            labels = listener.ask(image)
            assert labels.header == image.header
            count = len(listener.statuses())
            wait_until(lambda count=count: len(listener.statuses()) > count + 1)
            newest = listener.statuses()[-1]
            assert float(values_of(newest)['age_ms']) == pytest.approx(250.0, abs=0.2)
            assert newest.header.stamp == Time(sec=int(now))
        assert 'ERROR' not in node.output, node.output
