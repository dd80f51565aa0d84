"""Keeps what this package imports from telling its makers about it."""

from __future__ import annotations

import os
import sys
from typing import Any

_SWITCHES = ('ORT_DISABLE_TELEMETRY', 'HF_HUB_DISABLE_TELEMETRY')


def switch_off_telemetry() -> None:
    """Opt out of the telemetry of OpenVINO, NNCF, ONNX Runtime and huggingface_hub.

    It must come before any of them is imported: OpenVINO and ONNX Runtime report that they were
    imported, and write an id into the user's home. Child processes inherit what is in the
    environment.
    """
    for name in _SWITCHES:
        os.environ[name] = '1'
    # OpenVINO and NNCF have no switch but a file in the home; without the package that reports for
    # both they do as if it were not installed.
    modules: dict[str, Any] = sys.modules
    modules.setdefault('openvino_telemetry', None)
