"""Several cameras: a node each, in one process, on one model that works for them in turns."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
from ros_peers import (
    NodeProcess,
    Peer,
    claimed_domain,
    picture,
    ros_arguments,
    stamp_of,
    wait_until,
)
from sensor_msgs.msg import Image

from clipseg_model.registry import create_model
from clipseg_ros import segment_cameras_node
from clipseg_ros.conversion import image_to_array
from clipseg_ros.qos import image_output
from clipseg_ros.shared_model import SharedModels, Turns


@pytest.mark.parametrize(
    ('cameras', 'words'),
    [
        ([], 'name the cameras'),
        (['front', '2nd'], "'2nd' cannot be a namespace"),
        (['front', 'a b'], "'a b' cannot be a namespace"),
        (['front/'], 'cannot be a namespace'),
        (['front', 'rear', '/front'], "'front' is named twice"),
    ],
)
def test_names_of_cameras(
    cameras: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert segment_cameras_node.main(['segment_cameras', *cameras, '--ros-args', '-r', 'a:=b']) == 2
    assert words in capsys.readouterr().err
    assert segment_cameras_node.find_problem(['front', '/robot/rear_2']) == ''


def test_the_model_is_loaded_once_and_freed_with_its_last_user(tiny_model: Path) -> None:
    models = SharedModels()
    first = models.load(str(tiny_model), 'cpu', None)
    second = models.load(str(tiny_model), 'cpu', None)
    assert first is not second
    assert first.model is second.model
    assert first.card == second.card
    model = weakref.ref(first.model)
    del first
    gc.collect()
    third = models.load(str(tiny_model), 'cpu', None)
    assert third.model is second.model
    del second, third
    gc.collect()
    assert model() is None
    assert models.load(str(tiny_model), 'cpu', None).card.name == 'tiny'


def test_each_segmenter_has_images_of_its_own(tiny_model: Path) -> None:
    models = SharedModels()
    alone = create_model(tiny_model, 'cpu')
    pictures = [picture(60, 80, seed) for seed in range(3)]
    expected = [alone.segment(rgb, ['the mug']).labels() for rgb in pictures]
    wrong: list[int] = []

    def work(number: int) -> None:
        segmenter = models.load(str(tiny_model), 'cpu', None)
        for _ in range(10):
            labels = segmenter.segment(pictures[number], ['the mug']).labels()
            if not np.array_equal(labels, expected[number]):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_turns_go_round() -> None:
    turns, order = Turns(), []
    ready = threading.Barrier(3)

    def work(name: str) -> None:
        ready.wait()
        for _ in range(6):
            with turns.mine():
                order.append(name)
                time.sleep(0.01)

    threads = [threading.Thread(target=work, args=(name,)) for name in 'abc']
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(order) == 18
    # After the start, nobody comes again before the two others have been.
    for start in range(2, 15):
        assert len(set(order[start : start + 3])) == 3, order


def test_turns_survive_an_error() -> None:
    turns = Turns()
    with pytest.raises(RuntimeError), turns.mine():
        raise RuntimeError('out of memory')
    with turns.mine():
        pass


def test_every_camera_is_answered_in_its_own_namespace(tiny_model: Path) -> None:
    with claimed_domain() as domain:
        words = ros_arguments(
            {'model': tiny_model, 'device': 'cpu', 'threads': 1, 'prompt': 'the mug'},
            ['-r', 'image:=color/image_raw'],
        )
        module = str(Path(segment_cameras_node.__file__))
        node = NodeProcess(
            module, script=['front', '/robot/rear', *words],
            environment={'ROS_DOMAIN_ID': str(domain)},
        )  # fmt: skip
        peer = Peer(domain)
        try:
            for name in ('front', 'robot.rear'):
                node.wait_for(f'[{name}.clipseg]: active: tiny')
            alone = create_model(tiny_model, 'cpu')
            received, cameras, images = {}, {}, {}
            for seed, name in enumerate(('/front', '/robot/rear')):
                received[name] = peer.collect(Image, f'{name}/clipseg/labels', image_output())
                cameras[name] = peer.publisher(Image, f'{name}/color/image_raw', image_output())
                images[name] = peer.stamped(picture(60, 80, seed), frame=name)

            def answered() -> bool:
                for name, camera in cameras.items():
                    camera.publish(images[name])
                time.sleep(0.1)
                return all(received.values())

            wait_until(answered, 20)
            for seed, (name, labels) in enumerate(received.items()):
                assert stamp_of(labels[-1]) == stamp_of(images[name])
                assert labels[-1].header.frame_id == name
                truth = alone.segment(picture(60, 80, seed), ['the mug']).labels()
                assert np.mean(image_to_array(labels[-1]) != truth) < 1e-3
            # Prompts are each node's own.
            assert peer.set_parameter('/front/clipseg', 'prompt', 'a chair').successful
            assert peer.get_parameter('/robot/rear/clipseg', 'prompt') == 'the mug'
        finally:
            peer.close()
            status = node.stop()
        assert status == 0, node.output
        assert 'Traceback' not in node.output, node.output
