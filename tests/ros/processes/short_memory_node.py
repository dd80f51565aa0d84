"""The node on a model that runs out of memory above a number of prompts that a file holds.

python short_memory_node.py LIMIT_FILE MODEL --ros-args …
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from clipseg_ros.process.tuning import tune_process


def main() -> int:
    tune_process()
    import torch

    from clipseg_model.registry import create_model
    from clipseg_ros.process.runner import run_node
    from clipseg_ros.segment.lifecycle import SegmentNode

    limit, path = Path(sys.argv[1]), sys.argv[2]

    def load(*_: Any) -> Any:
        segmenter = create_model(path, 'cpu', 1)
        model: Any = segmenter.model
        plain = model.decode

        def decode(features: Any, prompts: Any) -> Any:
            if prompts.condition.shape[-2] > int(limit.read_text() or 0):
                raise torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.')
            return plain(features, prompts)

        model.decode = decode
        return segmenter

    return run_node(lambda: SegmentNode(load=load), [sys.argv[0], *sys.argv[3:]])


if __name__ == '__main__':
    raise SystemExit(main())
