"""Runs the command `clipseg` in the process of the tests."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
from click.testing import Result
from typer.testing import CliRunner

from clipseg_model.cli.app import app

CODEC = cv2.VideoWriter.fourcc(*'mp4v')


def clipseg(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    # Users see messages, not tracebacks.
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def segment(checkpoint: Path, *arguments: object) -> Result:
    """Runs it as often as a test likes into the same folder."""
    options = ('--overwrite', '--model', checkpoint, '--device', 'cpu')
    return clipseg('segment', *arguments, *options)


def squeezed(text: str) -> str:
    return re.sub(r'\s+', ' ', text)
