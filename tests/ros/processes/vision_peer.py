"""A consumer of the node's vision_msgs, Nav2's segmentation layer among them; prints JSON.

python vision_peer.py DOMAIN

It subscribes as that layer does (its README, "Required Topics and Message Types"): the images
with sensor-data QoS, `label_info` reliably and transient local, and late.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
from rclpy.qos import qos_profile_sensor_data
from ros_peers import Peer, picture, wait_until
from sensor_msgs.msg import Image, PointCloud2, PointField
from std_msgs.msg import String
from vision_msgs.msg import Detection2DArray, LabelInfo

from clipseg_ros.ros.qos import command_input, image_output, latched_output


def aligned_cloud(image: Image) -> PointCloud2:
    """What a depth camera's driver publishes for an image: a point for every pixel, in rows."""
    fields = [
        PointField(name=name, offset=4 * n, datatype=PointField.FLOAT32, count=1)
        for n, name in enumerate('xyz')
    ]
    cloud = PointCloud2(header=image.header, height=image.height, width=image.width, fields=fields)
    cloud.point_step, cloud.row_step = 12, 12 * image.width
    cloud.data = np.ones((image.height, image.width, 3), np.float32).tobytes()
    return cloud


def image_fields(message: Image) -> dict[str, Any]:
    return {
        'stamp': [message.header.stamp.sec, message.header.stamp.nanosec],
        'frame': message.header.frame_id,
        'size': [message.height, message.width],
        'step': message.step,
        'encoding': message.encoding,
        'data': list(message.data),
    }


def label_fields(message: LabelInfo) -> dict[str, Any]:
    return {
        'frame': message.header.frame_id,
        'stamped': message.header.stamp.sec > 0,
        'classes': [[entry.class_id, entry.class_name] for entry in message.class_map],
        'threshold': message.threshold,
    }


def main() -> int:
    peer = Peer(int(sys.argv[1]), 'vision_peer')
    infos = peer.collect(LabelInfo, '/clipseg/label_info', latched_output())
    wait_until(lambda: infos, 20, 'label_info')
    seen: dict[str, Any] = {'info': label_fields(infos[-1])}

    # Detections alone are subscribed to first: they have to be reason enough to segment.
    detections = peer.collect(Detection2DArray, '/clipseg/detections', image_output())
    camera = peer.publisher(Image, '/image', image_output())
    image = peer.stamped(picture(100, 140, seed=3), frame='lens')
    wait_until(lambda: camera.publish(image) or time.sleep(0.1) or detections, 20, 'detections')
    seen['detections header'] = detections[-1].header == image.header
    seen['detections'] = [
        {
            'header': one.header == image.header,
            'id': one.id,
            'hypotheses': [[h.hypothesis.class_id, h.hypothesis.score] for h in one.results],
            'centre': [one.bbox.center.position.x, one.bbox.center.position.y],
            'theta': one.bbox.center.theta,
            'box': [one.bbox.size_x, one.bbox.size_y],
        }
        for one in detections[-1].detections
    ]

    labels = peer.collect(Image, '/clipseg/labels', qos_profile_sensor_data)
    confidences = peer.collect(Image, '/clipseg/confidence', qos_profile_sensor_data)
    image = peer.stamped(picture(100, 140, seed=3), frame='lens')
    cloud = aligned_cloud(image)

    def matched() -> bool:
        camera.publish(image)
        time.sleep(0.1)
        return all(m and m[-1].header.stamp == cloud.header.stamp for m in (labels, confidences))

    wait_until(matched, 20, 'labels and confidence with the stamp of the cloud')
    seen['cloud'] = {
        'stamp': [cloud.header.stamp.sec, cloud.header.stamp.nanosec],
        'frame': cloud.header.frame_id,
        'size': [cloud.height, cloud.width],
    }
    seen['labels'] = image_fields(labels[-1])
    seen['confidence'] = image_fields(confidences[-1])

    prompts = peer.publisher(String, '/clipseg/prompt', command_input())
    prompts.publish(String(data='sit: a chair; red bowl'))
    wait_until(lambda: len(infos) > 1, 20, 'another label_info')
    seen['info after'] = label_fields(infos[-1])
    peer.set_parameter('/clipseg', 'threshold', 0.7)
    wait_until(lambda: abs(infos[-1].threshold - 0.7) < 1e-6, 20, 'label_info with the threshold')
    peer.set_parameter('/clipseg', 'detection_min_area', 100_000)
    del detections[:]
    wait_until(lambda: camera.publish(image) or time.sleep(0.1) or detections, 20, 'detections')
    seen['detections too small'] = len(detections[-1].detections)
    peer.close()
    print(json.dumps(seen))
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
