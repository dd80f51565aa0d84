"""The command ``clipseg``: segment files; list, download, convert and export models."""

from __future__ import annotations

import io
import sys

import typer

from clipseg_model.cli.export import export
from clipseg_model.cli.models import convert, download, models
from clipseg_model.cli.segment import segment

app = typer.Typer(
    help='Segment images and videos by what you ask for.',
    no_args_is_help=True,
    add_completion=False,
)


@app.callback()
def _speak_any_name() -> None:
    # Names of files need not be text, and a terminal need not have all letters.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='backslashreplace')


for _command in (segment, models, download, convert, export):
    app.command()(_command)
