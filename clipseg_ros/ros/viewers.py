"""The layouts for RViz and Foxglove, for a node in a namespace and a camera of any name.

    python -m clipseg_ros.ros.viewers foxglove.json --namespace robot1 --image /camera/image_raw

writes that layout; one that ends in ``.rviz`` is for RViz. The launch files use the same.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from clipseg_ros.ros.share import share_path

_FRAME = 'camera_optical_frame'


def layout(file: str, namespace: str = '', image: str = 'image', frame: str = '') -> str:
    """Return a layout of `config/` with other topics and another fixed frame.

    Args:
        file: Its name there: ``clipseg.rviz`` or ``foxglove.json``.
        namespace: Of the node ``clipseg``, with or without ``/`` before it.
        image: The camera's image topic; without ``/`` before it, it is in the namespace.
        frame: Fixed frame, and the frame that Foxglove follows; the simulated camera's where empty.
    """
    text = share_path('config', file).read_text(encoding='utf-8')
    prefix = f'/{namespace.strip("/")}' if namespace.strip('/') else ''
    topic = image if image.startswith('/') else f'{prefix}/{image}'
    # A topic stands alone in quotes or at the end of a line; a path into a message goes on.
    text = re.sub(r'(?<=[\s"])/image(?=["\n])', lambda _: topic, text)
    text = text.replace('/clipseg/', f'{prefix}/clipseg/')
    return text.replace(_FRAME, frame) if frame else text


def main(words: list[str] | None = None) -> int:
    """Write a layout to a file."""
    parser = argparse.ArgumentParser(description='Write a layout for RViz or Foxglove.')
    parser.add_argument('file', type=Path, help='what to write: .rviz for RViz, else Foxglove')
    parser.add_argument('--namespace', default='', help='of the node')
    parser.add_argument('--image', default='image', help="the camera's image topic")
    parser.add_argument('--frame', default='', help='fixed frame, such as base_link')
    given = parser.parse_args(words)
    kind = 'clipseg.rviz' if given.file.suffix == '.rviz' else 'foxglove.json'
    text = layout(kind, given.namespace, given.image, given.frame)
    given.file.write_text(text, encoding='utf-8')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
