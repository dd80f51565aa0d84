"""Every launch file, started with `ros2 launch` as a user would: what it was told is what runs."""

from __future__ import annotations

import fcntl
import os
import pty
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

REASON = '`ros2 launch` comes with a ROS 2 installation, not with the pip wheels'
pytest.importorskip('launch_ros', reason=REASON)
pytest.importorskip('ros2launch', reason=REASON)

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from ros_peers import PROFILE, ROOT, NodeProcess, Peer, picture, stamp_of, wait_until
from sensor_msgs.msg import Image, PointCloud2

from clipseg_ros.ros.interfaces import load_interfaces
from clipseg_ros.ros.qos import image_output
from clipseg_ros.ros.share import PROFILE_VARIABLES, profile_variable

ROS2 = shutil.which('ros2')
pytestmark = [
    pytest.mark.skipif(ROS2 is None, reason=REASON),
    pytest.mark.skipif(load_interfaces() is None, reason='the package is not built'),
]
PARAMETERS = """/**/clipseg:
  ros__parameters:
    threshold: 0.25
    prompt: a chair
    max_rate: 200.0
"""


def variables() -> dict[str, str]:
    """The environment of `ros2 launch`: the installed package, and the profile of nobody's."""
    environment = {'PYTHONPATH': os.environ.get('PYTHONPATH', '')}
    for name in PROFILE_VARIABLES:
        os.environ.pop(name, None)
    return environment


@contextmanager
def launched(file: str, *, models: Path | None = None, **arguments: Any) -> Iterator[NodeProcess]:
    """Runs a launch file; asserts that Ctrl-C ends all it started cleanly.

    Args:
        file: Its name.
        models: Folder of models that may be chosen while the node runs.
        arguments: Of the launch file.
    """
    assert ROS2 is not None
    given = [f'{name}:={value}' for name, value in arguments.items()]
    environment = variables() | ({'CLIPSEG_MODELS': str(models)} if models else {})
    process = NodeProcess(
        ROS2, script=['launch', 'clipseg_ros', file, *given], environment=environment
    )
    try:
        yield process
    finally:
        status = process.stop(patience=30.0)
    assert status == 0, process.output
    started = process.count('process started with pid')
    assert started >= 1, process.output
    assert process.count('process has finished cleanly') == started, process.output
    for word in ('Traceback', 'process has died', 'failed to terminate'):
        assert word not in process.output, process.output


def answer(peer: Peer, image_topic: str, mask_topic: str, timeout: float = 60.0) -> Image:
    """Publishes images until one is answered by a mask of its own stamp; returns that mask."""
    masks = peer.collect(Image, mask_topic, image_output())
    publisher = peer.publisher(Image, image_topic, image_output())
    sent: set[tuple[int, int]] = set()

    def came() -> list[Image]:
        image = peer.stamped(picture(), frame='lens')
        sent.add(stamp_of(image))
        publisher.publish(image)
        time.sleep(0.05)
        return [mask for mask in masks if stamp_of(mask) in sent]

    try:
        mask = wait_until(came, timeout, f'a mask on {mask_topic}')[0]
        assert (mask.height, mask.width, mask.header.frame_id) == (120, 160, 'lens')
        return mask
    finally:
        peer.node.destroy_publisher(publisher)


def state(peer: Peer, node: str) -> int:
    response = peer.call(GetState, f'{node}/get_state', GetState.Request(), timeout=60.0)
    return int(response.current_state.id)


def change_state(peer: Peer, node: str, transition: int) -> bool:
    request = ChangeState.Request(transition=Transition(id=transition))
    return bool(peer.call(ChangeState, f'{node}/change_state', request, timeout=60.0).success)


def process_id(process: NodeProcess, executable: str) -> int:
    line = process.wait_for(f'[{executable}')
    return int(line.rsplit('[', 1)[1].rstrip(']'))


def test_one_camera(peer: Peer, tiny_model: Path, tmp_path: Path) -> None:
    file = tmp_path / 'mine.yaml'
    file.write_text(PARAMETERS)
    with launched(
        'segment.launch.py',
        namespace='robot1',
        params_file=file,
        image='/front/image_raw',
        prompt='the mug; red bowl',
        model=tiny_model,
        device='cpu',
        log_level='debug',
    ) as process:
        line = process.wait_for("active: 1 'the mug'")
        assert '[robot1.clipseg]' in line
        process.wait_for('active: tiny on cpu, images from /front/image_raw')
        answer(peer, '/front/image_raw', '/robot1/clipseg/mask')
        node = '/robot1/clipseg'
        assert state(peer, node) == State.PRIMARY_STATE_ACTIVE
        # Of the file, unless an argument was given beside it.
        assert peer.get_parameter(node, 'threshold') == 0.25
        assert peer.get_parameter(node, 'max_rate') == 200.0
        assert peer.get_parameter(node, 'prompt') == 'the mug; red bowl'
        assert peer.get_parameter(node, 'model') == str(tiny_model)
        assert peer.get_parameter(node, 'use_sim_time') is False
        assert process.count('[DEBUG]'), 'log_level'
        environment = Path(f'/proc/{process_id(process, "segment-1")}/environ').read_text()
        given = dict(v.split('=', 1) for v in environment.split('\0') if '=' in v)
        assert Path(given[profile_variable(os.environ)]).read_text() == PROFILE.read_text()


def test_words_that_yaml_would_change_and_a_node_that_waits(peer: Peer, tiny_model: Path) -> None:
    with launched(
        'segment.launch.py',
        models=tiny_model.parent,
        autostart='false',
        use_sim_time='true',
        prompt='no',
        model='7',
        target_frame='1.0',
    ):
        node = '/clipseg'
        assert state(peer, node) == State.PRIMARY_STATE_UNCONFIGURED
        for name, value in {
            'prompt': 'no',
            'model': '7',
            'target_frame': '1.0',
            'use_sim_time': True,
            'autostart': False,
        }.items():
            assert peer.get_parameter(node, name) == value
        for name, text in (('prompt', 'the mug'), ('model', str(tiny_model)), ('device', 'cpu')):
            assert peer.set_parameter(node, name, text).successful
        # As a lifecycle manager does.
        assert change_state(peer, node, Transition.TRANSITION_CONFIGURE)
        assert change_state(peer, node, Transition.TRANSITION_ACTIVATE)
        answer(peer, '/image', '/clipseg/mask')


def test_several_cameras(peer: Peer, tiny_model: Path) -> None:
    with launched(
        'cameras.launch.py',
        cameras='front rear',
        namespace='robot1',
        image='image_raw',
        prompt='the mug',
        model=tiny_model,
        device='cpu',
    ) as process:
        for camera in ('front', 'rear'):
            process.wait_for(f'images from /robot1/{camera}/image_raw')
        for camera in ('front', 'rear'):
            answer(peer, f'/robot1/{camera}/image_raw', f'/robot1/{camera}/clipseg/mask')
        assert process.count('process started with pid') == 1, 'composed'


def test_cameras_without_names() -> None:
    assert ROS2 is not None
    process = NodeProcess(
        ROS2,
        script=['launch', 'clipseg_ros', 'cameras.launch.py', 'cameras:=2nd'],
        environment=variables(),
    )
    process.wait_for("cameras: '2nd' cannot be a namespace")
    assert process.join(15) == 1


def test_a_camera_with_depth(peer: Peer, tiny_model: Path) -> None:
    topics = {
        'image': '/head/color/image_raw',
        'depth': '/head/aligned_depth_to_color/image_raw',
        'camera_info': '/head/color/camera_info',
    }
    remappings = [part for name, topic in topics.items() for part in ('-r', f'{name}:={topic}')]
    camera = NodeProcess('clipseg_ros.camera_node', {'rate': 5.0, 'width': 320}, remappings)
    try:
        with launched(
            'depth.launch.py', camera='/head', prompt='the mug', model=tiny_model, device='cpu'
        ):
            clouds = peer.collect(PointCloud2, '/clipseg/points', image_output())
            cloud = wait_until(lambda: clouds, 60.0, 'points')[0]
            assert cloud.header.frame_id == 'camera_optical_frame'
            assert cloud.width * cloud.height > 0
    finally:
        assert camera.stop() == 0, camera.output


def test_the_demo_and_ctrl_c_in_a_terminal(peer: Peer) -> None:
    """There the signal reaches every process at once, and `ros2 launch` passes none on."""
    assert ROS2 is not None
    ours, theirs = pty.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    arguments = ['demo.launch.py', 'namespace:=kitchen', 'image:=front', 'prompt:=the mug']
    process = subprocess.Popen(
        [sys.executable, '-u', ROS2, 'launch', 'clipseg_ros', *arguments, 'device:=cpu'],
        cwd=ROOT,
        env={**os.environ, **variables()},
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=take_terminal,
    )
    try:
        masks = peer.collect(Image, '/kitchen/clipseg/mask', image_output())
        images = peer.collect(Image, '/kitchen/front', image_output())
        wait_until(lambda: masks and images, 60.0, 'a mask')
        assert (masks[0].height, masks[0].width) == (images[0].height, images[0].width)
    finally:
        os.write(ours, b'\x03')
        output, _ = process.communicate(timeout=30)
        os.close(ours)
        os.close(theirs)
    assert process.returncode == 0, output
    assert output.count('process has finished cleanly') == 2, output
    assert 'Traceback' not in output, output
