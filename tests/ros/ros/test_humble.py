"""The nodes do with what rclpy of ROS 2 Humble has, of which there are no wheels to test with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from ros_peers import NodeProcess, Peer, picture, ros_arguments, running_node, until_answered
from sensor_msgs.msg import Image
from std_msgs.msg import String

from clipseg_ros.ros.qos import command_input, image_output

SCRIPT = str(Path(__file__).parents[1] / 'processes' / 'humble_node.py')


@pytest.fixture(scope='module')
def humble(own_domain: int, tiny_model: Path) -> Iterator[NodeProcess]:
    parameters = {'model': tiny_model, 'device': 'cpu', 'threads': 1, 'prompt': "'the mug'"}
    folder = str(Path(__file__).parents[1])
    with running_node(
        SCRIPT,
        script=['segment', *ros_arguments(parameters)],
        environment={'ROS_DOMAIN_ID': str(own_domain), 'PYTHONPATH': f'{Path.cwd()}:{folder}'},
    ) as node:
        yield node


@pytest.fixture(scope='module')
def human(own_domain: int) -> Iterator[Peer]:
    made = Peer(own_domain, 'human')
    yield made
    made.close()


def test_it_segments_and_takes_prompts_and_parameters(humble: NodeProcess, human: Peer) -> None:
    masks = human.collect(Image, '/clipseg/mask', image_output())
    reports = human.collect(DiagnosticArray, '/diagnostics', 50)
    camera = human.publisher(Image, '/image', image_output())
    until_answered(camera, human.stamped(picture()), masks)
    human.publisher(String, '/clipseg/prompt', command_input()).publish(String(data='red bowl'))
    humble.wait_for("'red bowl'")
    # What follows a parameter that is set: here the prompt, and what the node reports.
    assert human.set_parameter('/clipseg', 'prompt', 'blue chair').successful
    humble.wait_for("'blue chair'")
    refused = human.set_parameter('/clipseg', 'threshold', 7.0)
    assert not refused.successful
    assert 'threshold' in refused.reason
    assert human.get_parameter('/clipseg', 'prompt') == 'blue chair'
    until_answered(camera, human.stamped(picture()), masks)
    human.wait_until(lambda: reports, 5.0)
    values = {one.key: one.value for one in reports[-1].status[0].values}
    assert values['lost'] == '0', 'nothing is known of sequence numbers'


def test_it_is_the_api_of_humble(humble: NodeProcess) -> None:
    assert humble.count('Humble: no add_post_set_parameters_callback, no sequence numbers') == 1


def test_the_camera_changes_its_rate(own_domain: int, human: Peer) -> None:
    folder = str(Path(__file__).parents[1])
    source = Path(folder).parents[1] / 'docs' / 'images' / 'demo.png'
    parameters = {'source': source, 'width': 64, 'height': 48, 'rate': 0.1}
    with running_node(
        SCRIPT,
        script=['camera', *ros_arguments(parameters, ['-r', 'image:=/humble/image'])],
        environment={'ROS_DOMAIN_ID': str(own_domain), 'PYTHONPATH': f'{Path.cwd()}:{folder}'},
        ready='at 0.1 Hz',
    ):
        assert human.set_parameter('/camera', 'rate', 20).successful
        images = human.collect(Image, '/humble/image', image_output())
        assert human.wait_until(lambda: len(images) > 5, 15.0), len(images)
