"""The console with something to look at: the simulated camera and the node, and their page.

Run by ``make console``, that is ``python -m clipseg_ros.demo.console``. The camera goes round a
table of the simulated household; the address of the page is printed.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from clipseg_model.cli.result_folder import ResultFolder
from clipseg_model.errors import ClipsegError
from clipseg_ros.console.app import Looked, Served, import_back_end, make_back_end, serve
from clipseg_ros.demo.app import OverwriteOption, prepare_environment, quoted, start_nodes
from clipseg_ros.process.child_process import ChildError
from clipseg_ros.process.shared_memory import remove_orphans
from clipseg_ros.process.start import take_signals_as_usual

NODE = '/clipseg'

app = typer.Typer(add_completion=False)


@app.command()
def console(
    port: Annotated[int, typer.Option(help='Port of the page; 0 takes one that is free.')] = 8088,
    model: Annotated[str, typer.Option(help='Name of a model, or path of one.')] = 'tabletop',
    device: Annotated[str, typer.Option(help='auto, cpu, cuda or cuda:N.')] = 'auto',
    seed: Annotated[int, typer.Option(help='Scene of the simulated household.')] = 1,
    motion: Annotated[str, typer.Option(help='Of the camera: still or orbit.')] = 'orbit',
    prompt: Annotated[str, typer.Option(help='What is looked for at first.')] = 'the mug',
    output: Annotated[Path, typer.Option(help='Folder for the logs.')] = Path('demo'),
    domain: Annotated[
        int | None, typer.Option(help='ROS_DOMAIN_ID, to look on with other tools.')
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Run a simulated camera, the node and the console, until Ctrl-C."""
    looked = Looked(nodes=(NODE,))
    import_back_end(looked)
    take_signals_as_usual()
    terminal = Console(width=None if sys.stdout.isatty() else 110)
    prepare_environment(domain)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)

    def say(line: str) -> None:
        terminal.print(escape(line), soft_wrap=True, emoji=False, highlight=False)

    try:
        with ExitStack() as stack:
            stack.callback(remove_orphans)
            start_nodes(
                stack, ResultFolder(output, overwrite), model, device,
                camera=[f'motion:={motion}', f'seed:={seed}'],
                segment=[f'prompt:={quoted(prompt)}'],
            )  # fmt: skip
            say(f'camera and node on ROS_DOMAIN_ID={os.environ["ROS_DOMAIN_ID"]}; logs in {output}')
            serve(make_back_end(looked), Served(port=port, device=device), say)
    except KeyboardInterrupt:
        say('stopped')
    except (ChildError, ClipsegError) as error:
        terminal.print(f'[red]failed:[/red] {escape(str(error))}', highlight=False)
        raise typer.Exit(1) from None


if __name__ == '__main__':
    app()
