"""Depth and calibration that do not serve: no points, and the reason in the diagnostics."""

from __future__ import annotations

import time

import numpy as np
import pytest
from depth_camera import Change, DepthCamera, change_depth, change_info, later
from ros_peers import NodeProcess, wait_until
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from clipseg_ros.images.conversion import array_to_image


def small_depth(image: Image, depth: Image, info: CameraInfo) -> None:
    small = array_to_image(np.ones((60, 80), np.float32), '32FC1', depth.header)
    depth.height, depth.width, depth.step, depth.data = 60, 80, small.step, small.data


def other_frame(image: Image, depth: Image, info: CameraInfo) -> None:
    depth.header = Header(stamp=depth.header.stamp, frame_id='ir')


BAD: dict[str, tuple[Change, list[str]]] = {
    'depth of another size': (small_depth, ['depth is 80x60, image 160x120', 'register']),
    'depth in another frame': (other_frame, ["'ir'", "'lens'", 'register']),
    'depth of another stamp': (
        lambda image, depth, info: later(depth, 20),
        ["no depth on /depth of the image's stamp", '20.0 ms later', 'depth_slop'],
    ),
    'calibration of another stamp': (
        lambda image, depth, info: later(info, 20),
        ["no camera_info on /camera_info of the image's stamp", '20.0 ms later'],
    ),
    'colour as depth': (change_depth(encoding='rgb8'), ["'rgb8'", '16UC1 in millimetres']),
    'truncated depth': (change_depth(data=b'123'), ['3 bytes of data', 'truncated']),
    'all-zero calibration': (change_info(k=[0.0] * 9, p=[0.0] * 12), ['all zero', 'REP 104']),
    'calibration of another resolution': (
        change_info(width=1280, height=960),
        ['camera_info is for 1280x960, image is 160x120'],
    ),
    'distortion': (change_info(d=[0.1, 0.0, 0.0, 0.0, 0.0]), ['distortion', 'rectified']),
}


@pytest.mark.parametrize('name', BAD)
def test_bad_depth_and_calibration(
    depth_camera: DepthCamera, segment: NodeProcess, name: str
) -> None:
    change, words = BAD[name]
    depth_camera.ask()
    clouds, since = len(depth_camera.clouds), len(segment.lines)

    def reported() -> bool:
        messages = depth_camera.messages()
        change(*messages)
        depth_camera.send(*messages)
        time.sleep(0.05)
        status = depth_camera.status()
        return status.level == b'\x01' and all(word in status.message for word in words)

    wait_until(reported, 8, f'{words} in the diagnostics')
    assert len(depth_camera.clouds) == clouds, 'no points where they would be wrong'
    dropped = [line for line in segment.lines[since:] if 'image without points' in line]
    assert len(dropped) <= 2, 'one message at most for one kind'
    depth_camera.ask()
