"""Several cameras: a node each, in one process, on one model."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from ros_peers import (
    NodeProcess,
    Peer,
    picture,
    ros_arguments,
    stamp_of,
    wait_until,
)
from sensor_msgs.msg import Image

from clipseg_model.registry import create_model
from clipseg_ros import segment_cameras_node
from clipseg_ros.images.conversion import image_to_array
from clipseg_ros.process.domain import claimed_domain
from clipseg_ros.ros.qos import image_output


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
