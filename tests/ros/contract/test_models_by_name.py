"""The node runs every model of the papers by its name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.qos import QoSProfile
from ros_peers import NodeProcess, Peer, picture, running_node, wait_until
from sensor_msgs.msg import Image
from tiny_models import CARD
from tiny_variants import make

from clipseg_model.weights.checkpoints import save_checkpoint
from clipseg_model.weights.untrained import UNTRAINED
from clipseg_ros.ros.qos import image_output

NODE = '/named/clipseg'


@pytest.fixture(scope='module')
def node(domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    folder = tmp_path_factory.mktemp('models')
    for name in UNTRAINED:
        save_checkpoint(folder / f'{name}.safetensors', make(name), CARD)
    with running_node(
        'clipseg_ros.segment_node',
        {'device': 'cpu', 'threads': 1, 'prompt': "'a mug; blue cup'", 'autostart': False},
        ['-r', '__ns:=/named'],
        environment={'CLIPSEG_MODELS': str(folder)},
        ready='',
    ) as process:
        yield process


@pytest.mark.parametrize('name', list(UNTRAINED))
def test_the_name_is_enough(name: str, node: NodeProcess, peer: Peer) -> None:
    def change(transition: int) -> None:
        request = ChangeState.Request(transition=Transition(id=transition))
        assert peer.call(ChangeState, f'{NODE}/change_state', request).success, node.output

    answer = peer.set_parameter(NODE, 'model', name)
    assert answer.successful, answer.reason
    labels = peer.collect(Image, f'{NODE}/labels', QoSProfile(depth=1))
    change(Transition.TRANSITION_CONFIGURE)
    change(Transition.TRANSITION_ACTIVATE)
    node.wait_for(f'active: {name} ')
    publisher = peer.publisher(Image, '/named/image', image_output())

    def came() -> bool:
        publisher.publish(peer.stamped(picture(90, 120)))
        return bool(labels)

    try:
        wait_until(came, what=f'labels of {name}')
        assert (labels[0].height, labels[0].width) == (90, 120)
    finally:
        peer.node.destroy_publisher(publisher)
        change(Transition.TRANSITION_DEACTIVATE)
        change(Transition.TRANSITION_CLEANUP)
