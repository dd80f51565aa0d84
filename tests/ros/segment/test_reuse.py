"""Encodings that are reused while the camera stands still: the node's parameter ``reuse_below``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from ros_peers import (
    NodeProcess,
    Peer,
    picture,
    ros_arguments,
    running_node,
    stamp_of,
    until_answered,
    wait_until,
)
from sensor_msgs.msg import Image

from clipseg_model.modeling.clsclip import ClsCLIP
from clipseg_model.registry import create_model
from clipseg_model.weights.checkpoints import load_checkpoint, save_checkpoint
from clipseg_ros.ros.qos import image_output

PROMPTS = ['the mug', 'red bowl']
RGB = picture(120, 160, seed=5) // 2 + np.uint8(50)


@pytest.fixture(scope='module')
def host(
    domain: int, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NodeProcess]:
    sees_prompts = tmp_path_factory.mktemp('model') / 'clsclip.safetensors'
    model, _ = load_checkpoint(tiny_model)
    torch.manual_seed(0)
    decoder: dict[str, Any] = {'dim': 16, 'num_layers': 1, 'num_heads': 4, 'feedforward': 32}
    other = ClsCLIP(model.backbone, [1], **decoder)
    save_checkpoint(sees_prompts, other.eval(), {'name': 'cls', 'input_size': 64})
    common = {'device': 'cpu', 'threads': 1, 'prompt': f"'{'; '.join(PROMPTS)}'"}
    nodes = {
        'still': ros_arguments({**common, 'model': tiny_model, 'reuse_below': 6.0}),
        'refused': ros_arguments({**common, 'model': sees_prompts, 'reuse_below': 6.0}),
        'plain': ros_arguments({**common, 'model': sees_prompts}),
    }
    host = str(Path(__file__).parents[1] / 'processes' / 'node_host.py')
    with running_node(
        host, script=[json.dumps(nodes)], ready='images from /still/image'
    ) as process:
        process.wait_for('images from /plain/image')
        yield process


class StillCamera:
    """A camera before the node ``/still/clipseg``, and who listens to it."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.found = peer.collect(Image, '/still/clipseg/probability', image_output())
        self.images = peer.publisher(Image, '/still/image', image_output())
        self.diagnostics = peer.collect(DiagnosticArray, '/diagnostics', 50)
        # Other pixels than those of the tests, which send each image once.
        until_answered(self.images, peer.stamped(np.zeros_like(RGB)), self.found)

    def show(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        image = self.peer.stamped(rgb)
        self.images.publish(image)

        def answer() -> Any:
            return [one for one in list(self.found) if stamp_of(one) == stamp_of(image)]

        [message] = wait_until(answer, what='an answer')
        return np.frombuffer(message.data, np.float32).reshape(rgb.shape[:2])

    def values(self) -> dict[str, str]:
        """What the next diagnostics say."""
        self.diagnostics.clear()

        def status() -> Any:
            arrays = [array.status[0] for array in list(self.diagnostics)]
            return [one for one in arrays if one.name.startswith('still/')]

        wait_until(status, what='diagnostics')
        return {item.key: item.value for item in status()[0].values}


@pytest.fixture(scope='module')
def camera(host: NodeProcess, peer: Peer) -> StillCamera:
    return StillCamera(peer)


def noisy(seed: int) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).integers(-2, 3, RGB.shape)
    return (RGB + noise).astype(np.uint8)


def test_it_is_in_the_log_at_start(host: NodeProcess) -> None:
    line = host.wait_for('approximation (reuse_below)')
    assert '[still.clipseg]' in line
    assert '6 levels' in line
    assert host.count('approximation') == 1


def test_still_frames_have_the_answer_of_the_encoded_one(
    camera: StillCamera, tiny_model: Path
) -> None:
    segmenter = create_model(tiny_model, 'cpu', 1)
    first = camera.show(RGB)
    expected = segmenter.segment(RGB, PROMPTS).probability()
    np.testing.assert_allclose(first, expected, atol=1e-4)
    for seed in range(3):
        np.testing.assert_array_equal(camera.show(noisy(seed)), first)
    moved = RGB.copy()
    moved[60:76, 80:96] = 255
    np.testing.assert_allclose(
        camera.show(moved), segmenter.segment(moved, PROMPTS).probability(), atol=1e-4
    )
    values = camera.values()
    assert int(values['reused']) >= 3
    assert 0 < float(values['reused_share']) < 1


def test_new_prompts_are_answered_from_it(camera: StillCamera, tiny_model: Path) -> None:
    camera.show(RGB)
    assert camera.peer.set_parameter('/still/clipseg', 'prompt', 'red bowl').successful
    before = int(camera.values()['reused'])
    try:
        found = camera.show(noisy(1))
        expected = create_model(tiny_model, 'cpu', 1).segment(RGB, ['red bowl']).probability()
        np.testing.assert_allclose(found, expected, atol=1e-4)
        assert int(camera.values()['reused']) == before + 1
    finally:
        camera.peer.set_parameter('/still/clipseg', 'prompt', '; '.join(PROMPTS))


def test_is_changed_while_the_node_runs(
    host: NodeProcess, camera: StillCamera, tiny_model: Path
) -> None:
    node, since = '/still/clipseg', len(host.lines)
    camera.show(RGB)
    assert camera.peer.set_parameter(node, 'reuse_below', 0.0).successful
    host.wait_for('every image is encoded', since=since)
    segmenter = create_model(tiny_model, 'cpu', 1)
    expected = segmenter.segment(noisy(3), PROMPTS).probability()
    exact = camera.show(noisy(3))
    np.testing.assert_allclose(exact, expected, atol=1e-4)
    assert 'reused' not in camera.values()
    assert camera.peer.set_parameter(node, 'reuse_frames', 1).successful
    assert camera.peer.set_parameter(node, 'reuse_below', 6.0).successful
    host.wait_for('at most once', since=since)
    first, second, third = (camera.show(noisy(seed)) for seed in (4, 5, 6))
    np.testing.assert_array_equal(first, second)
    assert np.abs(third - first).max() > 0, 'encoded anew after one reuse'
    assert camera.peer.set_parameter(node, 'reuse_frames', 30).successful


@pytest.mark.parametrize(('name', 'value'), [('reuse_below', -1.0), ('reuse_frames', 0)])
def test_values_that_are_refused(camera: StillCamera, name: str, value: Any) -> None:
    answer = camera.peer.set_parameter('/still/clipseg', name, value)
    assert not answer.successful
    assert name in answer.reason


def test_a_model_that_cannot_is_refused_with_the_reason(host: NodeProcess, peer: Peer) -> None:
    lines = [line for line in host.lines if '[refused.clipseg]' in line]
    [line] = [line for line in lines if 'configure failed' in line]
    assert "'cls' sees the prompt" in line
    assert 'reuse_below 0' in line
    answer = peer.set_parameter('/plain/clipseg', 'reuse_below', 3.0)
    assert not answer.successful
    assert "'cls' sees the prompt" in answer.reason
