"""Walks a node through its life many times, and prints what the process holds after each: JSON.

python cycle_host.py MODEL CYCLES
"""

from __future__ import annotations

import gc
import json
import os
import sys
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

from clipseg_ros.process.tuning import tune_process


def holds(node: Any, watcher: Any) -> dict[str, int]:
    """What the process has now."""
    gc.collect()
    status = dict(line.split(':', 1) for line in Path('/proc/self/status').read_text().splitlines())
    topics = node.get_publisher_names_and_types_by_node('clipseg', '/cycles')
    listened = node.get_subscriber_names_and_types_by_node('clipseg', '/cycles')
    return {
        'rss_kb': int(status['VmRSS'].split()[0]),
        'threads': int(status['Threads']),
        'files': len(os.listdir('/proc/self/fd')),
        'publishers': len(topics),
        'subscriptions': len(listened),
        'entities': sum(
            1 for _ in (*node.timers, *node.guards, *node.waitables, *node.services, *node.clients)
        ),
        'objects': len(gc.get_objects()),
    }


def main() -> int:
    tune_process()
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from sensor_msgs.msg import Image
    from std_msgs.msg import Header

    from clipseg_model.registry import create_model
    from clipseg_ros.images.conversion import array_to_image
    from clipseg_ros.ros.qos import image_output
    from clipseg_ros.segment.lifecycle import SegmentNode

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from ros_peers import picture

    model, cycles = sys.argv[1], int(sys.argv[2])
    segmenters: list[weakref.ref[Any]] = []
    models: list[weakref.ref[Any]] = []

    def load(*words: Any) -> Any:
        segmenter = create_model(*words)
        segmenters.append(weakref.ref(segmenter))
        models.append(weakref.ref(segmenter.runtime))
        return segmenter

    rclpy.init()
    arguments = ['--ros-args', '-r', '__ns:=/cycles', '-p', f'model:={model}', '-p', 'device:=cpu']
    arguments += ['-p', 'threads:=1', '-p', 'autostart:=false', '-p', 'prompt:=the mug']
    node = SegmentNode(load=load, cli_args=arguments, use_global_arguments=False)
    camera = rclpy.create_node('camera')
    executor = SingleThreadedExecutor()
    for each in (node, camera):
        executor.add_node(each)
    labels: list[Any] = []
    for name in ('labels', 'overlay', 'probability', 'mask'):
        keep = labels.append if name == 'overlay' else lambda message: None
        camera.create_subscription(Image, f'/cycles/clipseg/{name}', keep, image_output())
    images = camera.create_publisher(Image, '/cycles/image', image_output())
    seen: list[dict[str, int]] = []
    types: list[Counter[str]] = []
    late = 0
    for number in range(cycles):
        for step in ('configure', 'activate'):
            assert getattr(node, f'trigger_{step}')().name == 'SUCCESS', step
        labels.clear()
        for attempt in range(400):
            if attempt % 10 == 0:
                header = Header(stamp=camera.get_clock().now().to_msg(), frame_id='lens')
                image = array_to_image(picture(240, 320), 'rgb8', header)
                images.publish(image)
            executor.spin_once(timeout_sec=0.02)
            if labels:
                break
        assert labels, f'nothing came out in cycle {number}'
        # As an executor does that runs a transition for a service.
        waited_for = [*node.subscriptions, *node.timers, *node.services]
        for step in ('deactivate', 'cleanup'):
            assert getattr(node, f'trigger_{step}')().name == 'SUCCESS', step
        late += segmenters[-1]() is not None
        del waited_for
        for _ in range(3):
            executor.spin_once(timeout_sec=0.01)
        seen.append(holds(node, camera))
        if number in (min(10, cycles - 2), cycles - 1):
            types.append(Counter(type(one).__qualname__ for one in gc.get_objects()))
    alive = [sum(reference() is not None for reference in kind) for kind in (segmenters, models)]
    more = dict((types[1] - types[0]).most_common(12))
    print(
        json.dumps(
            {'loaded': len(models), 'alive': alive, 'late': late, 'seen': seen, 'more': more}
        )
    )
    node.close()
    executor.shutdown()
    for each in (node, camera):
        each.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
