"""A camera that shows one scene."""

from __future__ import annotations

import threading
import time

import numpy as np
from numpy.typing import NDArray
from ros_peers import Peer
from sensor_msgs.msg import Image

from clipseg_ros.ros.qos import image_output


class SceneCamera:
    """Publishes one picture at a rate, from a thread of its own."""

    def __init__(
        self, peer: Peer, rgb: NDArray[np.uint8], rate: float = 5.0, topic: str = '/image'
    ) -> None:
        self._peer, self.rgb, self._rate = peer, rgb, rate
        self.publisher = peer.node.create_publisher(Image, topic, image_output())
        self.sends = threading.Event()
        self.sends.set()
        self.last = 0.0
        self._ends = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ends = True
        self._thread.join(5)
        self._peer.node.destroy_publisher(self.publisher)

    def message(self) -> Image:
        return self._peer.stamped(self.rgb)

    def _run(self) -> None:
        while not self._ends:
            if self.sends.is_set():
                self.publisher.publish(self.message())
                self.last = time.monotonic()
            time.sleep(1 / self._rate)
