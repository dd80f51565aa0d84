"""Command-line arguments that the benchmarks share."""

from __future__ import annotations

import argparse

from clipseg_model.errors import DeviceError
from clipseg_model.runtime.devices import resolve_device


def frame_size(text: str) -> tuple[int, int]:
    """Return (height, width) of ``WIDTHxHEIGHT``, pixels."""
    try:
        width, height = (int(part) for part in text.lower().split('x'))
    except ValueError:
        width = height = 0
    if width < 1 or height < 1:
        raise argparse.ArgumentTypeError(f'a size is written WIDTHxHEIGHT, unlike {text!r}')
    return height, width


def count_of_cameras(text: str) -> int:
    """Return a number of cameras."""
    if not text.isdigit() or not 1 <= int(text) <= 64:
        raise argparse.ArgumentTypeError(f'cameras are 1 to 64, not {text!r}')
    return int(text)


def device_name(text: str) -> str:
    """Return the name of a device that exists."""
    try:
        resolve_device(text)
    except DeviceError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add the option for the device that models run on."""
    parser.add_argument(
        '--device',
        type=device_name,
        default='auto',
        help='auto, cpu, cuda or cuda:N; with auto, runtimes for CPUs alone stay there',
    )
