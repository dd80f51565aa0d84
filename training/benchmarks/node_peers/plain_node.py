"""The baseline of the node's benchmark: a segmentation node as people write them.

    python -m training.benchmarks.node_peers.plain_node --model tabletop --prompts 'a mug; a book'

It does what tutorials do and :mod:`clipseg_ros` does not: the model runs in the image callback of a
multi-threaded executor with a queue of ten images, the image is copied to convert it, probabilities
are made at full size for every prompt, and pixels are assigned to ``Image.data`` as a numpy array
(``--assign bytes``: as cv_bridge does). All outputs are made, with or without subscribers.

The model is that of the measured node: ``stand-in:30`` waits for 30 ms, anything else is the name
of a model.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import rclpy
import torch
from numpy.typing import NDArray
from PIL import Image as Picture
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import Image

from clipseg_model import create_model

Model = Callable[[NDArray[np.uint8]], torch.Tensor]
"""From an RGB image to logits (P, h, w)."""


def load_model(name: str, prompts: Sequence[str]) -> Model:
    """Return a call from an image to logits.

    Args:
        name: ``stand-in:MILLISECONDS``, or that of a model.
        prompts: Texts.
    """
    kind, _, milliseconds = name.partition(':')
    if kind == 'stand-in':
        logits = torch.randn(len(prompts), 256, 256, generator=torch.Generator().manual_seed(0))

        def wait(image: NDArray[np.uint8]) -> torch.Tensor:
            time.sleep(float(milliseconds) * 1e-3)
            return logits

        return wait
    segmenter = create_model(name)

    def run(image: NDArray[np.uint8]) -> torch.Tensor:
        found = segmenter.segment(image, list(prompts))
        return torch.from_numpy(np.stack([result.logits for result in found.results]))

    return run


class PlainNode(Node):
    """The node; its name and topics are those of the measured one.

    Args:
        model: From an image to logits.
        assign: ``numpy`` or ``bytes``: type of the pixels that are assigned to a message.
    """

    def __init__(self, model: Model, assign: str) -> None:
        super().__init__('clipseg')
        self._model = model
        self._assign = assign
        self._mask = self.create_publisher(Image, '~/mask', 10)
        self._labels = self.create_publisher(Image, '~/labels', 10)
        self.create_subscription(Image, 'image', self._on_image, 10)

    def _on_image(self, message: Image) -> None:
        array = np.array(message.data, dtype=np.uint8).reshape(message.height, message.width, 3)
        image = np.array(Picture.fromarray(array).convert('RGB'))
        logits = self._model(image)
        with torch.no_grad():
            resized = torch.nn.functional.interpolate(
                logits[:, None], image.shape[:2], mode='bilinear'
            )
            probabilities = torch.sigmoid(resized)[:, 0].numpy()
        on = probabilities > 0.5
        mask = np.uint8(255) * on.any(axis=0).astype(np.uint8)
        labels = np.where(on.any(axis=0), probabilities.argmax(axis=0) + 1, 0).astype(np.uint8)
        self._publish(self._mask, mask, message.header)
        self._publish(self._labels, labels, message.header)

    def _publish(self, publisher: Any, pixels: NDArray[Any], header: Any) -> None:
        message = Image()
        message.header = header
        message.height, message.width = pixels.shape
        message.encoding = 'mono8'
        message.step = message.width
        message.data = pixels.tobytes() if self._assign == 'bytes' else pixels.ravel()
        publisher.publish(message)


def main(arguments: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument('--model', required=True, help='stand-in:MILLISECONDS, or a name')
    parser.add_argument('--prompts', required=True, help='separated by ;')
    parser.add_argument('--assign', choices=('numpy', 'bytes'), default='numpy')
    options, rest = parser.parse_known_args(arguments)
    model = load_model(options.model, [text.strip() for text in options.prompts.split(';')])
    rclpy.init(args=[sys.argv[0], *rest])
    node = PlainNode(model, options.assign)
    executor = MultiThreadedExecutor()
    executor.add_node(node)
    print('active: the plain node', flush=True)
    try:
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
