"""Write the ONNX graphs of the bundled models, which read their weights out of the checkpoints.

    python scripts/export_bundled.py [NAME ...]

To be run after the weights of a bundled model have changed; `make exports` does it.
"""

from __future__ import annotations

import sys

from clipseg_model.registry import BUNDLED, load_model
from clipseg_model.runtime.exporting import export_bundled


def main(names: list[str]) -> None:
    for name in names or list(BUNDLED):
        print(export_bundled(*load_model(name)))


if __name__ == '__main__':
    main(sys.argv[1:])
