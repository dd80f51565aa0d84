"""The node with a bundled model where torch is not installed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from ros_peers import ROOT, NodeProcess, Peer, ros_arguments, running_node, until_answered
from sensor_msgs.msg import Image

from clipseg_model.images import read_image
from clipseg_model.registry import create_model
from clipseg_ros.ros.interfaces import load_interfaces
from clipseg_ros.ros.qos import image_output

DEMO = Path(__file__).parents[3] / 'docs' / 'images' / 'demo.png'
NAME = '/light/clipseg'
PROMPTS = ['the mug', 'a red bowl', 'book']


@pytest.fixture(scope='module')
def node(domain: int) -> Iterator[NodeProcess]:
    parameters = {'device': 'cpu', 'threads': 1, 'prompt': f"'{'; '.join(PROMPTS)}'"}
    arguments = ros_arguments(parameters, ['-r', '__ns:=/light'])
    # With the package's messages, where they are built.
    environment = {'PYTHONPATH': f'{ROOT}:{os.environ.get("PYTHONPATH", "")}'}
    words = ['tests.without_torch', 'clipseg_ros.segment_node', *arguments, '-p', 'model:=tabletop']
    with running_node(
        '-m', script=words, environment=environment, ready='active: tabletop', afresh=True
    ) as started:
        yield started


@pytest.fixture(scope='module')
def scene() -> NDArray[np.uint8]:
    return np.ascontiguousarray(read_image(DEMO)[6:215, 6:286])


def test_answers_as_torch_does(node: NodeProcess, peer: Peer, scene: NDArray[np.uint8]) -> None:
    assert 'Runtime: onnxruntime fp32 on cpu' in node.output
    labels = peer.collect(Image, f'{NAME}/labels', image_output())
    images = peer.publisher(Image, '/light/image', image_output())
    (answer,) = until_answered(images, peer.stamped(scene), labels)
    found = np.frombuffer(answer.data, np.uint8).reshape(scene.shape[:2])
    expected = create_model('tabletop', 'cpu', runtime='eager').segment(scene, PROMPTS).labels()
    assert (expected > 0).sum() > 500, 'something is seen'
    assert ((found > 0) & (found == expected)).sum() >= 0.995 * ((found > 0) | (expected > 0)).sum()


def test_services_and_pictures(node: NodeProcess, peer: Peer, scene: NDArray[np.uint8]) -> None:
    interfaces: Any = load_interfaces()
    if interfaces is None:
        pytest.skip('the messages of the package are not built')
    from clipseg_ros.srv import GetMasks, PickPrompt

    images = peer.publisher(Image, '/light/image', image_output())
    images.publish(peer.stamped(scene))
    answer = peer.call(GetMasks, f'{NAME}/get_masks', GetMasks.Request(wait=10.0))
    assert answer.success, answer.message
    assert [mask.name for mask in answer.masks] == PROMPTS
    request = PickPrompt.Request(name='that', x=90, y=60, width=60, height=60)
    picked = peer.call(PickPrompt, f'{NAME}/pick', request)
    assert picked.success, picked.message
    images.publish(peer.stamped(scene))
    answer = peer.call(GetMasks, f'{NAME}/get_masks', GetMasks.Request(wait=10.0))
    assert 'that' in [mask.name for mask in answer.masks], answer.message


def test_what_needs_torch_is_refused_and_the_node_lives_on(node: NodeProcess, peer: Peer) -> None:
    answer = peer.set_parameter(NAME, 'visual_method', 'attention_cls')
    assert not answer.successful
    assert 'clipseg_ros[torch]' in answer.reason
    assert peer.set_parameter(NAME, 'visual_method', 'crop').successful
