"""The demo: a camera and the node as two processes, prompts in, masks out, a check.

Run by ``make demo``, as ``python -m clipseg_ros.demo``, or as ``clipseg-demo``. For some scenes of
the simulated household it prompts for objects that are there and for one that is not, compares the
masks with the renderer's, prints a table and writes pictures. It ends with status 1 if the masks
are not good enough.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape

from clipseg_model.cli.result_folder import ResultFolder
from clipseg_model.errors import ClipsegError, ImageError
from clipseg_model.images import native_name
from clipseg_ros.client import Frame
from clipseg_ros.demo.client import DemoClient
from clipseg_ros.demo.picture import Tile, contact_sheet, draw_mask
from clipseg_ros.demo.report import (
    Answer,
    find_faults,
    intersection_over_union,
    make_table,
    mean_iou,
)
from clipseg_ros.demo.scenes import DemoScene, Question, make_scene
from clipseg_ros.process.child_process import ChildError, ChildProcess
from clipseg_ros.process.domain import keep_to_own_domain
from clipseg_ros.process.shared_memory import remove_orphans
from clipseg_ros.process.start import INTERRUPTED, take_signals_as_usual

SEEDS = (1, 5, 9, 10)
WIDTH, HEIGHT = 640, 480
CAMERA_RATE = 10.0
"""Frames a second: rendering takes its share of the processor too."""
FRAMES = 10
"""Masks per prompt, for latency and frame rate."""
START_TIMEOUT = 120.0
LOGS = ('camera.log', 'segment.log')

OverwriteOption = Annotated[
    bool,
    typer.Option(
        '--overwrite', help='Replace files of the same names that are in that folder already.'
    ),
]


def prepare_environment(domain: int | None) -> None:
    """Give this process and its children a ROS domain on this machine alone."""
    keep_to_own_domain(domain)
    os.environ['PYTHONUNBUFFERED'] = '1'


def quoted(text: str) -> str:
    """Return a text as YAML reads it as that text, whatever is in it: an apostrophe, a colon."""
    return json.dumps(text, ensure_ascii=False)


def start_nodes(
    stack: ExitStack,
    output: ResultFolder,
    model: str,
    device: str,
    camera: Sequence[str] = ('motion:=still',),
    segment: Sequence[str] = (),
) -> list[ChildProcess]:
    """Start the camera and the node, which log to a folder and end with the stack.

    ``camera`` and ``segment`` are further parameters of the two. Raises an ImageError where there
    are logs already that may not be replaced.
    """
    cameras = ['source:=tabletop', f'rate:={CAMERA_RATE}', *camera]
    cameras += [f'width:={WIDTH}', f'height:={HEIGHT}']
    segments = [f'model:={quoted(model)}', f'device:={device}', *segment]
    children = []
    output.check(*LOGS)
    for name, parameters in (('camera', cameras), ('segment', segments)):
        arguments = [word for parameter in parameters for word in ('-p', parameter)]
        command = [sys.executable, '-m', f'clipseg_ros.{name}_node', '--ros-args', *arguments]
        output.open(f'{name}.log').close()
        child = ChildProcess(name, command, output.path / f'{name}.log', os.environ)
        children.append(stack.enter_context(child))
    return children


@contextmanager
def explained(console: Console, children: list[ChildProcess]) -> Iterator[None]:
    """Print why the demo fails, and what nodes that are still running said last."""
    try:
        yield
    except (ChildError, ClipsegError) as error:
        lines = [str(error)]
        if isinstance(error, ClipsegError):
            lines += [f'The end of {child.log}:\n{child.tail(5)}' for child in children]
        console.print(f'[red]failed:[/red] {escape(chr(10).join(lines))}', highlight=False)
        raise


def ask_scene(
    client: DemoClient, scene: DemoScene, output: ResultFolder
) -> tuple[list[Answer], list[NDArray[np.bool_]]]:
    """Ask prompt by prompt, then all at once for the overlay; return answers and masks."""
    client.show(scene.seed, scene.rgb)
    answers, masks = [], []
    for question in scene.questions:
        client.set_prompts(question.text)
        frames = [client.wait_for('mask') for _ in range(FRAMES)]
        answers.append(judge(scene, question, frames, client.score(frames[-1].stamp)))
        masks.append(frames[-1]['mask'])
    client.set_prompts([question.text for question in scene.questions])
    overlay = client.overlay(client.wait_for('mask').stamp)
    output.write_image(f'scene_{scene.seed}.png', overlay)
    return answers, masks


def judge(scene: DemoScene, question: Question, frames: list[Frame], score: float | None) -> Answer:
    """Compare a prompt's masks with its truth; the last of them counts."""
    mask = frames[-1]['mask']
    seconds = (frames[-1].arrival - frames[0].arrival) / 1e9
    return Answer(
        scene=scene.seed,
        prompt=question.text,
        kind=question.kind,
        iou=None if question.absent else intersection_over_union(mask, question.truth),
        share=float(mask.mean()),
        score=score,
        latency_ms=float(np.median([frame.arrival - frame.stamp for frame in frames])) / 1e6,
        fps=(len(frames) - 1) / seconds,
    )


def draw_row(scene: DemoScene, answers: list[Answer], masks: list[NDArray[np.bool_]]) -> list[Tile]:
    """Return a row of the contact sheet: the picture, then each prompt's mask."""
    row = [Tile(scene.rgb, f'scene {scene.seed}', 'the camera')]
    for question, answer, mask in zip(scene.questions, answers, masks, strict=True):
        note = 'absent: ' if answer.iou is None else f'IoU {answer.iou:.2f}'
        if answer.iou is None:
            note += f'{answer.share:.1%} of the picture on'
        picture = draw_mask(scene.rgb, mask, question.truth)
        row.append(Tile(picture, question.text, note))
    return row


def run_demo(
    console: Console, seeds: list[int], model: str, device: str, output: ResultFolder
) -> list[Answer]:
    """Run the demo and write its files; print why it fails, if it does, and raise that."""
    answers: list[Answer] = []
    rows: list[list[Tile]] = []
    with ExitStack() as stack:
        stack.callback(remove_orphans)
        with console.status('starting the camera and the node'):
            children = start_nodes(stack, output, model, device)

            def check() -> None:
                for child in children:
                    child.check()

            client = DemoClient(check)
            stack.enter_context(client)
            # Printed before anything is closed: the middleware may not survive the end of a peer.
            stack.enter_context(explained(console, children))
            client.wait_until_active(START_TIMEOUT)
        for number, seed in enumerate(seeds, start=1):
            with console.status(f'scene {number} of {len(seeds)}'):
                scene = make_scene(seed, WIDTH, HEIGHT)
                given, masks = ask_scene(client, scene, output)
            answers += given
            rows.append(draw_row(scene, given, masks))
    results = {'mean_iou': mean_iou(answers), 'answers': [asdict(answer) for answer in answers]}
    with explained(console, []):
        output.write_image('contact_sheet.png', contact_sheet(rows))
        output.write('results.json', (json.dumps(results, indent=2) + '\n').encode())
    return answers


app = typer.Typer(add_completion=False)


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help='Folder for pictures, results and logs.')] = Path(
        'demo'
    ),
    model: Annotated[str, typer.Option(help='Name of a model, or path of one.')] = 'tabletop',
    device: Annotated[str, typer.Option(help='auto, cpu, cuda or cuda:N.')] = 'auto',
    seed: Annotated[
        list[int] | None, typer.Option(help='Scene of the test split; give several.')
    ] = None,
    domain: Annotated[
        int | None, typer.Option(help='ROS_DOMAIN_ID, to look on with other tools.')
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Run a camera and the node, and compare the masks with the truth."""
    try:
        native_name(output)
    except ImageError as error:
        raise typer.BadParameter(str(error), param_hint='--output') from None
    take_signals_as_usual()
    console = Console(width=None if sys.stdout.isatty() else 110)
    prepare_environment(domain)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    seeds = list(seed or SEEDS)
    try:
        with explained(console, []):
            folder = ResultFolder(output, overwrite)
            pictures = [f'scene_{number}.png' for number in seeds]
            folder.check(*LOGS, *pictures, 'contact_sheet.png', 'results.json')
        console.print(
            f'camera and node on ROS_DOMAIN_ID={os.environ["ROS_DOMAIN_ID"]}; logs in {output}'
        )
        answers = run_demo(console, seeds, model, device, folder)
    except KeyboardInterrupt:
        console.print('stopped')
        raise typer.Exit(INTERRUPTED) from None
    except (ChildError, ClipsegError):
        raise typer.Exit(1) from None
    console.print(make_table(answers, CAMERA_RATE))
    console.print(f'{output / "contact_sheet.png"} shows all of it')
    faults = find_faults(answers)
    for fault in faults:
        console.print(f'[red]wrong:[/red] {escape(fault)}', highlight=False)
    if faults:
        raise typer.Exit(1)
    console.print('[green]all masks are good enough')
