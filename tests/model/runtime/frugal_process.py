"""What memory and threads a process without torch takes, for test_frugal.py; prints it as JSON.

python frugal_process.py THREADS
"""

from __future__ import annotations

import gc
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

from tests.without_torch import hide


def own_memory() -> float:
    """Memory of this process that no file has, MB."""
    found = re.search(r'RssAnon:\s+(\d+)', Path('/proc/self/status').read_text())
    assert found
    return int(found[1]) * 1024 / 1e6


def cpu_of_threads() -> dict[str, int]:
    """Ticks that each thread has computed."""
    seen = {}
    for task in Path('/proc/self/task').iterdir():
        fields = (task / 'stat').read_text().rpartition(')')[2].split()
        seen[task.name] = int(fields[11]) + int(fields[12])
    return seen


def main(threads: int) -> None:
    hide()
    from clipseg_ros.process.tuning import release_freed_memory, tune_process

    tune_process()
    import cv2
    import numpy as np
    import onnxruntime  # noqa: F401 - what is imported stays
    import tokenizers  # noqa: F401

    from clipseg_model.registry import create_model
    from clipseg_model.runtime.devices import free_device_memory

    image = np.random.default_rng(0).integers(0, 255, (720, 1280, 3), np.uint8)
    prompts = ['a red mug', 'the book', 'something to drink from', 'a bottle']

    def give_back() -> float:
        gc.collect()
        free_device_memory()
        release_freed_memory()
        return own_memory()

    def use(segmenter: Any) -> None:
        segmenter.segment(image, prompts)
        cv2.GaussianBlur(image, (0, 0), 5.0)

    seen: dict[str, Any] = {'memory before': give_back(), 'threads before': len(cpu_of_threads())}
    seen['memory after'] = []
    for _ in range(3):
        segmenter = create_model('tabletop', 'cpu', threads=threads)
        use(segmenter)
        loaded = len(cpu_of_threads())
        before, began, used = cpu_of_threads(), time.perf_counter(), time.process_time()
        for _ in range(6):
            use(segmenter)
        seen['at once'] = (time.process_time() - used) / (time.perf_counter() - began)
        after = cpu_of_threads()
        seen['workers'] = sum(after[name] > before.get(name, 0) for name in after)
        seen['threads'] = loaded
        seen['memory at work'] = own_memory()
        seen['memory idle'] = give_back()
        used = time.process_time()
        time.sleep(0.5)
        seen['idle seconds'] = time.process_time() - used
        del segmenter
        seen['memory after'].append(give_back())
    seen['runtime'] = sorted(name for name in ('torch', 'openvino') if name in sys.modules)
    seen['cores'] = len(os.sched_getaffinity(0))
    print(json.dumps(seen))


if __name__ == '__main__':
    main(int(sys.argv[1]))
