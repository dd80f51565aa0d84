"""A bag recorded beside the running node: `clipseg bag` makes of it what the node made live."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rclpy.serialization import serialize_message
from ros_peers import NodeProcess, Peer, stamp_of, wait_until
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import CameraInfo, Image
from typer.testing import CliRunner

from clipseg_ros.cli import app
from clipseg_ros.ros.qos import image_output

PROMPTS = 'the mug; something to sit on; a bottle'
TYPES = {'/image': Image, '/camera_info': CameraInfo, '/recorded/labels': Image}


def record(path: Path, storage: StoragePlugin, received: dict[str, list[Any]]) -> None:
    """Writes messages as `ros2 bag record` does: as they came, serialised by ROS itself."""
    store = get_typestore(Stores.LATEST)
    with Writer(path, version=8, storage_plugin=storage) as writer:
        for topic, messages in received.items():
            kind = f'sensor_msgs/msg/{TYPES[topic].__name__}'
            connection = writer.add_connection(topic, kind, typestore=store)
            for message in messages:
                nanoseconds = stamp_of(message)[0] * 10**9 + stamp_of(message)[1]
                writer.write(connection, nanoseconds, serialize_message(message))


def labels_of(path: Path, topic: str) -> dict[tuple[int, int], Any]:
    store = get_typestore(Stores.LATEST)
    with AnyReader([path], default_typestore=store) as reader:
        connections = [c for c in reader.connections if c.topic == topic]
        assert connections, topic
        found = {}
        for connection, _, data in reader.messages(connections=connections):
            message = reader.deserialize(data, connection.msgtype)
            found[stamp_of(message)] = message
        return found


@pytest.mark.slow
@pytest.mark.ci
def test_live_and_offline_are_the_same(peer: Peer, domain: int, tmp_path: Path) -> None:
    """With the bundled model, a moving camera and what is absent; sqlite3 and mcap."""
    parameters = {'device': 'cpu', 'threads': 1, 'prompt': f"'{PROMPTS}'"}
    node = NodeProcess('clipseg_ros.segment_node', parameters, ['-r', '__node:=recorded'])
    camera = None
    received = {topic: peer.collect(kind, topic, image_output()) for topic, kind in TYPES.items()}
    try:
        node.wait_for('active: everyday', 60)
        camera = NodeProcess('clipseg_ros.camera_node', {'rate': 1.0, 'motion': 'orbit', 'seed': 4})
        wait_until(lambda: len(received['/recorded/labels']) >= 8, 90, 'labels')
    finally:
        statuses = [process.stop() for process in (node, camera) if process is not None]
    assert statuses == [0, 0], node.output
    time.sleep(0.2)
    live = {stamp_of(message): message for message in received['/recorded/labels']}
    # Node and recorder discover the camera each at its own time: what counts is from the first
    # frame that both have heard to the last that was answered.
    first = max(min(live), min(stamp_of(message) for message in received['/image']))
    live = {stamp: message for stamp, message in live.items() if stamp >= first}
    images = [m for m in received['/image'] if first <= stamp_of(m) <= max(live)]
    assert len(live) >= 5
    assert [stamp_of(m) for m in images] == sorted(live), 'at this rate nothing is dropped'
    received['/image'] = images

    for storage in (StoragePlugin.SQLITE3, StoragePlugin.MCAP):
        bag, out = tmp_path / storage.name, tmp_path / f'{storage.name}_out'
        record(bag, storage, received)
        words = ['bag', bag, '-p', PROMPTS, '-o', out, '--threads', 1]
        result = CliRunner().invoke(app, [str(w) for w in [*words, '--topic', '/image']])
        assert result.exit_code == 0, result.output
        offline = labels_of(out, '/clipseg/labels')
        assert sorted(offline) == sorted(live)
        for stamp, message in live.items():
            assert offline[stamp].data.tobytes() == bytes(message.data), storage
        seen = np.unique(np.concatenate([m.data for m in offline.values()]))
        assert len(seen) >= 2, 'the model answers'
