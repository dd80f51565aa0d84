"""The node, which prints when its model is loaded, warmed up, and asked about an image."""

from __future__ import annotations

import sys
from typing import Any


def main() -> int:
    from clipseg_ros.process.tuning import tune_process

    tune_process()
    from clipseg_model.registry import create_model
    from clipseg_model.segmenter import Segmenter
    from clipseg_ros.process.runner import run_node
    from clipseg_ros.segment.lifecycle import SegmentNode

    def tell(name: str) -> None:
        method = getattr(Segmenter, name)

        def told(self: Any, *arguments: Any, **options: Any) -> Any:
            print('TOLD', name, flush=True)
            return method(self, *arguments, **options)

        setattr(Segmenter, name, told)

    def load(*arguments: Any) -> Segmenter:
        print('TOLD load', flush=True)
        return create_model(*arguments)

    tell('warm_up')
    tell('segment')
    return run_node(lambda: SegmentNode(load=load), sys.argv)


if __name__ == '__main__':
    raise SystemExit(main())
