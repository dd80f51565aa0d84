"""The node's life: failing, mending, waiting, ending."""

from __future__ import annotations

import json
import os
import signal
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest
import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.context import Context
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from ros_peers import (
    NOTICE,
    NodeProcess,
    Peer,
    picture,
    ros_arguments,
    shared_memory_files,
    wait_until,
)
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String
from std_srvs.srv import SetBool

from clipseg_model.errors import ClipsegError
from clipseg_ros.ros.qos import command_input, image_output, sensor_input
from clipseg_ros.segment.lifecycle import SegmentNode


@pytest.fixture(scope='module')
def broken_models(tiny_model: Path) -> tuple[Path, Path]:
    # Beside the model that the nodes may be given while they run.
    folder = tiny_model.parent
    (folder / 'corrupt.safetensors').write_bytes(tiny_model.read_bytes()[:-1000])
    return folder / 'missing.safetensors', folder / 'corrupt.safetensors'


@pytest.fixture(scope='module')
def host(domain: int, tiny_model: Path, broken_models: tuple[Path, Path]) -> Iterator[NodeProcess]:
    """A process with a node for each test below, in a namespace of its own."""
    common = {'model': tiny_model, 'device': 'cpu', 'threads': 1}
    mask = 'qos_overrides./{}/clipseg/mask.publisher.'
    nodes: dict[str, list[str]] = {
        'mend': ros_arguments({**common, 'model': broken_models[0]}),
        'manual': ros_arguments({**common, 'autostart': False}),
        'unreadable': ros_arguments({**common, 'prompt': 'чашка'}),
        'silent': ros_arguments({**common, 'prompt': 'the mug', 'watchdog': 1.0}),
        'latched': ros_arguments(
            {
                **common,
                'prompt': 'the mug',
                mask.format('latched') + 'durability': 'transient_local',
            }
        ),
        'perhaps': ros_arguments({**common, mask.format('perhaps') + 'reliability': 'perhaps'}),
        'robot': ros_arguments(
            {**common, 'prompt': "['the mug', 'red bowl']", 'image_transport': 'compressed'},
            ['-r', 'image:=/front/image_raw'],
        ),
    }
    process = NodeProcess(
        str(Path(__file__).parents[1] / 'processes' / 'node_host.py'), script=[json.dumps(nodes)]
    )
    process.wait_for('images from /front/image_raw/compressed')
    yield process
    status = process.stop()
    assert status == 0, process.output
    assert 'Traceback' not in process.output, process.output


class Remote:
    """One of those nodes, seen from here."""

    def __init__(self, peer: Peer, host: NodeProcess, namespace: str) -> None:
        self.peer, self.host, self.name = peer, host, f'/{namespace}/clipseg'
        self.namespace = namespace
        self.diagnostics = peer.collect(DiagnosticArray, '/diagnostics', 50)

    def change_state(self, transition: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=transition))
        return bool(self.peer.call(ChangeState, f'{self.name}/change_state', request).success)

    def state(self) -> int:
        answer = self.peer.call(GetState, f'{self.name}/get_state', GetState.Request())
        return int(answer.current_state.id)

    def set(self, name: str, value: Any) -> bool:
        return bool(self.peer.set_parameter(self.name, name, value).successful)

    def reason(self) -> str:
        statuses = [array.status[0] for array in list(self.diagnostics)]
        own = [status for status in statuses if status.name.startswith(f'{self.namespace}/')]
        return str(own[-1].message) if own else ''

    def count(self, text: str, since: int = 0) -> int:
        lines = self.host.lines[since:]
        return sum(text in line and f'[{self.namespace}.clipseg]' in line for line in lines)

    def wait_for(self, text: str, since: int = 0) -> str:
        wait_until(lambda: self.count(text, since), what=f'{text!r}\n{self.host.output}')
        return next(
            line
            for line in self.host.lines[since:]
            if text in line and f'[{self.namespace}.clipseg]' in line
        )

    def serve(self) -> None:
        """Asserts that images sent to the node are answered."""
        masks = self.peer.collect(Image, f'{self.name}/mask', image_output())
        publisher = self.peer.publisher(Image, f'/{self.namespace}/image', image_output())
        try:

            def came() -> bool:
                publisher.publish(self.peer.stamped(picture()))
                time.sleep(0.05)
                return bool(masks)

            wait_until(came, what='a mask')
        finally:
            self.peer.node.destroy_publisher(publisher)


@pytest.fixture
def remote(request: pytest.FixtureRequest, host: NodeProcess, peer: Peer) -> Remote:
    return Remote(peer, host, request.param)


def on(node: str) -> Any:
    """Chooses the node that a test is about."""
    return pytest.mark.parametrize('remote', [node], indirect=True)


@on('mend')
def test_what_cannot_be_loaded_leaves_the_node_alive_and_mendable(
    remote: Remote, tiny_model: Path, broken_models: tuple[Path, Path]
) -> None:
    missing, corrupt = broken_models
    line = remote.wait_for('configure failed')
    assert '[ERROR]' in line
    assert str(missing) in line
    assert 'ros2 lifecycle set /mend/clipseg configure' in line
    assert remote.state() == State.PRIMARY_STATE_UNCONFIGURED
    wait_until(lambda: str(missing) in remote.reason(), what='the reason in the diagnostics')

    for name, value, expected in (
        ('model', str(corrupt), str(corrupt)),
        ('model', 'tabeltop', "Did you mean 'tabletop'"),
        ('device', 'cuda:99', "'cuda:99'"),
    ):
        assert remote.set(name, value)
        # It may be mended: what was wrong with the value of before says nothing of this one.
        wait_until(lambda: 'unconfigured: nothing is published' in remote.reason())
        since = len(remote.host.lines)
        assert not remote.change_state(Transition.TRANSITION_CONFIGURE)
        assert expected in remote.wait_for('configure failed', since)
        assert remote.count('configure failed', since) == 1
        assert remote.state() == State.PRIMARY_STATE_UNCONFIGURED
        if name == 'model':
            assert remote.set('model', str(tiny_model))

    for elsewhere in ('/etc/passwd', '~/.ssh/id_rsa', f'{tiny_model.parent}/../x.pth'):
        assert not remote.set('model', elsewhere), 'a peer may not have any file opened'

    assert remote.set('device', 'cpu')
    assert remote.change_state(Transition.TRANSITION_CONFIGURE)
    assert remote.change_state(Transition.TRANSITION_ACTIVATE)
    assert remote.state() == State.PRIMARY_STATE_ACTIVE
    assert remote.set('prompt', 'the mug')
    remote.serve()
    wait_until(lambda: 'the mug at' in remote.reason(), what='good diagnostics')


def test_a_failed_model_is_gone_when_its_memory_is_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models: list[weakref.ref[torch.Tensor]] = []
    alive: list[bool] = []

    def load(*_: Any) -> Any:
        model = torch.zeros(1000)
        models.append(weakref.ref(model))
        raise ClipsegError('it does not fit')

    monkeypatch.setattr(
        'clipseg_ros.segment.memory_relief.release_freed_memory',
        lambda: alive.append(models[0]() is not None),
    )
    context = Context()
    rclpy.init(context=context)
    try:
        overrides = [Parameter('autostart', value=False)]
        node = SegmentNode(load=load, context=context, parameter_overrides=overrides)
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert alive == [False]
        node.destroy_node()
    finally:
        context.try_shutdown()


@on('manual')
def test_all_transitions_and_what_each_allows(remote: Remote) -> None:
    peer, topic = remote.peer, f'{remote.name}/mask'
    wait_until(lambda: 'unconfigured' in remote.reason())
    assert 'ros2 lifecycle set /manual/clipseg configure' in remote.reason()
    assert peer.node.count_publishers(topic) == 0
    assert remote.set('prompt', 'the mug')

    for _ in range(2):
        assert remote.change_state(Transition.TRANSITION_CONFIGURE)
        wait_until(lambda: peer.node.count_publishers(topic) == 1)
        masks = peer.collect(Image, topic, image_output())
        publisher = peer.publisher(Image, '/manual/image', image_output())
        for _ in range(5):
            publisher.publish(peer.stamped(picture()))
            time.sleep(0.02)
        assert masks == [], 'an inactive node is silent'
        assert not remote.set('model', 'tabletop')
        peer.node.destroy_publisher(publisher)

        assert remote.change_state(Transition.TRANSITION_ACTIVATE)
        remote.serve()
        assert remote.change_state(Transition.TRANSITION_DEACTIVATE)
        assert remote.change_state(Transition.TRANSITION_CLEANUP)
        wait_until(lambda: peer.node.count_publishers(topic) == 0)

    assert remote.change_state(Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
    assert remote.state() == State.PRIMARY_STATE_FINALIZED
    assert remote.count(NOTICE) == 1, "a model's notice is said once"


@on('manual')
def test_what_repeats_is_logged_once(remote: Remote) -> None:
    enable = f'{remote.name}/enable'
    since = len(remote.host.lines)
    for wish in (False, False, True, True):
        assert remote.peer.call(SetBool, enable, SetBool.Request(data=wish)).success
    assert remote.set('reuse_below', 3.0)
    assert remote.set('reuse_below', 3.0)
    assert remote.set('reuse_below', 0.0)
    wait_until(lambda: remote.count('no approximation', since))
    said = ('disabled: no image', 'enabled', 'approximation (reuse_below)', 'no approximation')
    assert [remote.count(f']: {text}', since) for text in said] == [1, 1, 1, 1]


@on('unreadable')
def test_prompt_that_the_model_cannot_read_at_start(remote: Remote) -> None:
    assert 'no word of the prompt' in remote.wait_for('parameter prompt refused')
    remote.wait_for('active: tiny')
    assert 'publish a string on /unreadable/clipseg/prompt' in remote.wait_for('no prompt set')
    assert remote.peer.get_parameter(remote.name, 'prompt') == ''
    publisher = remote.peer.publisher(String, f'{remote.name}/prompt', command_input())
    publisher.publish(String(data='the mug'))
    remote.wait_for("1 prompt(s) active: 1 'the mug'")
    remote.serve()


@on('silent')
def test_silence_is_explained(remote: Remote) -> None:
    peer = remote.peer
    line = remote.wait_for('nobody publishes on /silent/image')
    assert 'image:=' in line
    wait_until(lambda: 'nobody publishes on /silent/image' in remote.reason())
    time.sleep(1.5)
    assert remote.count('nobody publishes on /silent/image') == 1, 'said once'

    peer.collect(Image, f'{remote.name}/mask', image_output())  # Somebody needs images.
    publisher = peer.publisher(Image, '/silent/image', image_output())
    wait_until(lambda: 'no image on /silent/image for' in remote.reason())

    def heard() -> bool:
        publisher.publish(peer.stamped(picture()))
        time.sleep(0.05)
        return bool(remote.count('images arrive on /silent/image'))

    wait_until(heard, what='the news that images arrive')
    wait_until(lambda: 'no image' not in remote.reason())
    peer.node.destroy_publisher(publisher)


@on('silent')
def test_qos_that_does_not_fit_is_reported_once(remote: Remote) -> None:
    peer, mask = remote.peer, f'{remote.name}/mask'
    fits = peer.node.create_subscription(Image, mask, lambda message: None, sensor_input())
    demanding = peer.node.create_subscription(
        Image,
        mask,
        lambda message: None,
        QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL),
    )
    line = remote.wait_for(f'QoS mismatch on {mask}')
    assert 'this node offers durability volatile' in line
    assert '/peer asks for durability transient_local' in line
    assert f'-p qos_overrides.{mask}.publisher.durability:=transient_local' in line

    weak = peer.node.create_publisher(String, f'{remote.name}/prompt', sensor_input())
    line = remote.wait_for(f'QoS mismatch on {remote.name}/prompt')
    assert '/peer offers reliability best_effort' in line
    assert 'this node asks for reliability reliable' in line
    assert 'subscription.reliability:=best_effort' in line
    time.sleep(2.1)
    assert remote.count('QoS mismatch') == 2, 'once each'
    for subscription in (fits, demanding):
        peer.node.destroy_subscription(subscription)
    peer.node.destroy_publisher(weak)


@on('latched')
def test_qos_overrides_are_obeyed(remote: Remote) -> None:
    node = remote.peer.node
    info = wait_until(lambda: node.get_publishers_info_by_topic('/latched/clipseg/mask'))[0]
    assert info.qos_profile.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL
    assert info.qos_profile.reliability == QoSReliabilityPolicy.RELIABLE
    remote.serve()


@on('perhaps')
def test_impossible_override_is_one_clear_message(remote: Remote) -> None:
    assert 'perhaps' in remote.wait_for('configure failed')
    assert remote.count('configure failed') == 1
    assert remote.state() == State.PRIMARY_STATE_UNCONFIGURED


@on('robot')
def test_compressed_transport_in_a_namespace(remote: Remote) -> None:
    peer = remote.peer
    masks = peer.collect(Image, '/robot/clipseg/mask', sensor_input())
    publisher = peer.publisher(CompressedImage, '/front/image_raw/compressed', image_output())
    good, data = cv2.imencode('.jpg', picture(100, 130))
    assert good
    image = CompressedImage(header=peer.stamped(picture()).header, format='jpeg')
    image.data = data.tobytes()
    truncated = CompressedImage(header=image.header, format='jpeg')
    truncated.data = data.tobytes()[: len(data) // 2]
    undecodable = CompressedImage(header=image.header, format='jpeg', data=b'no picture')
    wait_until(lambda: peer.node.count_publishers('/robot/clipseg/mask'))

    for bad, words in ((truncated, 'is truncated'), (undecodable, 'cannot be decoded')):

        def warned(bad: CompressedImage = bad, words: str = words) -> bool:
            publisher.publish(bad)
            time.sleep(0.05)
            return bool(remote.count(words))

        wait_until(warned)
        assert masks == []

    def came() -> bool:
        publisher.publish(image)
        time.sleep(0.05)
        return bool(masks)

    wait_until(came)
    assert (masks[0].height, masks[0].width) == (100, 130)
    assert masks[0].header == image.header


def test_a_signal_ends_the_node_in_order(domain: int, peer: Peer, tiny_model: Path) -> None:
    # Those of the other nodes in this domain, which outlive this one.
    others = set(os.listdir('/dev/shm'))
    node = NodeProcess(
        'clipseg_ros.segment_node',
        {'model': tiny_model, 'device': 'cpu', 'threads': 1, 'prompt': 'the mug'},
        ['-r', '__ns:=/signal'],
    )
    node.wait_for('active: tiny')
    masks = peer.collect(Image, '/signal/clipseg/overlay', image_output())
    publisher = peer.publisher(Image, '/signal/image', image_output())
    wait_until(lambda: publisher.publish(peer.stamped(picture(480, 640))) or masks)
    used = shared_memory_files(node.pid) - shared_memory_files() - others
    assert used, 'the shared-memory transport is in use'
    # In the middle of its work.
    publisher.publish(peer.stamped(picture(480, 640)))
    assert node.stop([signal.SIGTERM]) == 0, node.output
    for word in ('Traceback', 'ERROR', 'terminate', 'Invalid'):
        assert word not in node.output, node.output
    assert not used & set(os.listdir('/dev/shm'))
    peer.node.destroy_publisher(publisher)
