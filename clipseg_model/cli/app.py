"""The command ``clipseg``: segment files; list, download, convert and export models."""

from __future__ import annotations

import typer

from clipseg_model.cli.export import export
from clipseg_model.cli.models import convert, download, models
from clipseg_model.cli.segment import segment

app = typer.Typer(
    help='Segment images and videos by what you ask for.',
    no_args_is_help=True,
    add_completion=False,
)
for _command in (segment, models, download, convert, export):
    app.command()(_command)
