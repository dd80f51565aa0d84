"""A camera of the soak: eight pictures in turn, each with its number in the stamp.

python camera.py FILE RATE FRAME

FILE holds the seconds that its clock is wrong by, and is read before every image.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path


def main() -> int:

    from rclpy.node import Node
    from ros_peers import picture
    from sensor_msgs.msg import Image
    from std_msgs.msg import Header

    from clipseg_ros.images.conversion import array_to_image
    from clipseg_ros.process.runner import run_node
    from clipseg_ros.ros.qos import image_output
    from clipseg_ros.ros.timing import create_steady_timer

    shift, rate, frame = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]

    class Camera(Node):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__('camera', namespace='/soak')
            self._publisher = self.create_publisher(Image, '/soak/image', image_output())
            self._number = 0
            self._images = [
                array_to_image(picture(120, 160, seed=number), 'rgb8', Header(frame_id=frame))
                for number in range(8)
            ]
            self._timer = create_steady_timer(self, 1.0 / rate, self._tick)

        def _tick(self) -> None:
            image = self._images[self._number % 8]
            now = time.time_ns() + int(float(shift.read_text() or 0) * 1e9)
            # The last three digits tell the picture.
            now = now // 1000 * 1000 + self._number % 8
            image.header.stamp.sec, image.header.stamp.nanosec = divmod(now, 10**9)
            self._publisher.publish(image)
            self._number += 1

        def close(self) -> None:
            self._timer.cancel()

    return run_node(Camera, [sys.argv[0]])


if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).parents[1] / 'ros'))
    raise SystemExit(main())
