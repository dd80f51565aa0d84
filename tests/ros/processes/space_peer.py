"""A peer that listens to positions in ~/segments; prints what it saw as JSON.

python space_peer.py DOMAIN
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
from geometry_msgs.msg import Quaternion, Transform, TransformStamped, Vector3
from ros_peers import Peer, picture, stamp_of, wait_until
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

from clipseg_ros.camera.node import camera_info
from clipseg_ros.images.conversion import array_to_image
from clipseg_ros.msg import Prompt, SegmentArray
from clipseg_ros.ros.qos import image_output
from clipseg_ros.srv import SegmentOnce

HEIGHT, WIDTH = 100, 140
K = np.array([[120.0, 0.0, 69.5], [0.0, 120.0, 49.5], [0.0, 0.0, 1.0]])


def depth_of_the_test() -> np.ndarray[Any, Any]:
    """A slope with a strip that is not known."""
    depth = np.linspace(1.0, 3.0, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    depth[:, 40:50] = np.nan
    return depth


def main() -> int:
    peer = Peer(int(sys.argv[1]), 'space_peer')
    arrays = peer.collect(SegmentArray, '/clipseg/segments', image_output())
    images = peer.publisher(Image, '/image', image_output())
    seen: dict[str, Any] = {}

    def space_of(array: Any) -> dict[str, Any]:
        return {
            'frame': array.points_frame,
            'segments': [
                [s.area, s.points]
                + [[p.x, p.y, p.z] for p in (s.position, s.position_min, s.position_max, s.nearest)]
                for s in array.segments
            ],
        }

    def ask(depth: Any = None, info: Any = None) -> Any:
        """The segments of an image, sent with its depth where that is given."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            image = peer.stamped(picture(HEIGHT, WIDTH, seed=3), frame='lens')
            if depth is not None:
                info.publish(camera_info(image.header, WIDTH, HEIGHT, K))
                depth.publish(array_to_image(depth_of_the_test(), '32FC1', image.header))
            images.publish(image)
            end = time.monotonic() + 0.6
            while time.monotonic() < end:
                for array in list(arrays):
                    if stamp_of(array) == stamp_of(image):
                        return array
                time.sleep(0.01)
        raise AssertionError('no segments')

    seen['without depth'] = space_of(ask())
    depth = peer.publisher(Image, '/depth', image_output())
    info = peer.publisher(CameraInfo, '/camera_info', image_output())

    def placed() -> Any:
        array = ask(depth, info)
        return array if array.points_frame else None

    seen['with depth'] = space_of(wait_until(placed))
    # Depth is there and silent: an image waits for it, and then leaves without.
    started = time.monotonic()
    seen['silent depth'] = space_of(ask())
    seen['waited'] = time.monotonic() - started
    before = len(arrays)
    for _ in range(12):
        ask(depth, info)
    stamps = [stamp_of(array) for array in arrays[before:]]
    seen['in order'] = stamps == sorted(stamps)

    clouds = peer.collect(PointCloud2, '/clipseg/points', image_output())
    assert peer.set_parameter('/clipseg', 'target_frame', 'base_link').successful
    transforms = peer.publisher(TransformStamped, '/tf_stand_in', 10)
    seen['no transform yet'] = space_of(wait_until(placed))
    moved = TransformStamped(
        header=Header(frame_id='base_link'),
        child_frame_id='lens',
        transform=Transform(
            translation=Vector3(x=0.2, z=1.0),
            rotation=Quaternion(x=-0.5, y=0.5, z=-0.5, w=0.5),
        ),
    )
    transforms.publish(moved)
    seen['in base_link'] = space_of(
        wait_until(lambda: next((a for a in [placed()] if a.points_frame == 'base_link'), None))
    )
    wait_until(lambda: placed() and clouds and clouds[-1].header.frame_id == 'base_link')

    # Nobody listens to anything in space any more: whoever asks once hears transforms all the same.
    for subscription in list(peer.node.subscriptions):
        if subscription.topic_name in ('/clipseg/segments', '/clipseg/points'):
            peer.node.destroy_subscription(subscription)
    wait_until(lambda: not depth.get_subscription_count(), what='the node lets go of depth')
    peer.node.create_timer(0.1, lambda: transforms.publish(moved))
    for target in ('base_link', 'elsewhere'):
        assert peer.set_parameter('/clipseg', 'target_frame', target).successful
        image = peer.stamped(picture(HEIGHT, WIDTH, seed=3), frame='lens')
        request = SegmentOnce.Request(
            image=image,
            depth=array_to_image(depth_of_the_test(), '32FC1', image.header),
            camera_info=camera_info(image.header, WIDTH, HEIGHT, K),
            prompts=[Prompt(phrase=text) for text in ('the mug', 'red bowl')],
        )
        answer = peer.call(SegmentOnce, '/clipseg/segment_once', request)
        seen[f'once in {target}'] = {**space_of(answer.segments), 'message': answer.message}
    peer.close()
    print(json.dumps(seen))
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
