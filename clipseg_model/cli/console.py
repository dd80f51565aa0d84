"""What the commands say and where: results to stdout; notes, progress and errors to stderr."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from clipseg_model.model_card import ModelCard
    from clipseg_model.segmenter import Segmenter

out = Console()
err = Console(stderr=True)

before_work: list[Callable[[], None]] = []
"""Called by :func:`begin_work`: who starts the command may have it end otherwise until then."""


def begin_work() -> None:
    """Say that what a command needs is imported, and that work begins which ends in order.

    Until then Ctrl-C may end the process at once, as an exception in the middle of an import may
    surface as any error.
    """
    for call in before_work:
        call()


def report(path: Path, reason: str) -> None:
    """Say what is wrong with a file, and go on."""
    err.print(f'[red]{escape(str(path))}:[/] {escape(reason)}', highlight=False, soft_wrap=True)


def fail(message: str) -> NoReturn:
    """Say what is wrong, and end the command with exit code 1."""
    err.print(f'[bold red]Error:[/] {escape(message)}', highlight=False, soft_wrap=True)
    raise typer.Exit(1)


def show_progress() -> Progress:
    """Return a bar that counts images; nothing is shown where errors go to no terminal."""
    return Progress(
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )


def show_notice(card: ModelCard) -> None:
    """Say what a model is not for, if its card does."""
    if card.notice:
        err.print(f'[yellow]Note:[/] {escape(card.notice)}', soft_wrap=True)


def show_reuse(segmenter: Segmenter) -> None:
    """Say that the results are an approximation if encodings may have been reused."""
    from clipseg_model.video.still import describe_reuse

    still, settings = segmenter.still, segmenter.settings
    if settings.reuse_below:
        err.print(
            f'Approximation: {still.reused} of {still.frames} images reused an encoding; '
            f'{escape(describe_reuse(settings.reuse_below, settings.reuse_frames))}',
            soft_wrap=True,
        )
