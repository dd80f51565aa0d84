"""The node with a model of a known duration, which writes down what it is given and what it takes.

python recorded_node.py FILE MILLISECONDS [--ros-args …]

The file gets a record (:data:`RECORD`) each time an image is put into the one slot or taken out of
it, in the order in which that happened. It is written as it comes: the node's memory is measured.
"""

from __future__ import annotations

import struct
import sys
import time
from typing import Any

RECORD = struct.Struct('<?qq')
"""Whether it was taken (else put), the image's stamp, and the time: nanoseconds."""


def main() -> int:
    from clipseg_ros.process.tuning import tune_process

    tune_process()
    from sensor_msgs.msg import Image

    from clipseg_ros.process.runner import run_node
    from clipseg_ros.ros.timing import stamp_of
    from clipseg_ros.segment import frame_worker
    from clipseg_ros.segment.lifecycle import SegmentNode
    from training.benchmarks.node_peers.stand_in import StandIn

    with open(sys.argv[1], 'wb') as file:

        def record(taken: bool, item: Any) -> None:
            if isinstance(item, tuple) and isinstance(item[0], Image):
                file.write(RECORD.pack(taken, stamp_of(item[0]), time.time_ns()))

        class RecordedSlot(frame_worker.NewestSlot[Any]):
            # The slot's own lock may be taken twice: nothing comes between an act and its record.
            def put(self, item: Any) -> bool:
                with self._condition:
                    record(False, item)
                    return super().put(item)

            def take(self, due: float = 0.0) -> Any:
                with self._condition:
                    item = super().take(due)
                    record(True, item)
                    return item

        frame_worker.NewestSlot = RecordedSlot  # type: ignore[misc]
        duration = float(sys.argv[2])
        return run_node(
            lambda: SegmentNode(load=lambda *_: StandIn(duration)),  # type: ignore[arg-type,return-value]
            [sys.argv[0], *sys.argv[3:]],
        )


if __name__ == '__main__':
    raise SystemExit(main())
