"""The command ``clipseg`` with everything that ROS adds to it: bags."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

import clipseg_model.cli.app
from clipseg_model.cli.console import ColorOption, err, fail, out, report, show_progress, tell_reuse
from clipseg_model.errors import ClipsegError, PromptError

__all__ = ['app']

app = clipseg_model.cli.app.app


@app.command()
def bag(
    source: Annotated[
        Path,
        typer.Argument(help='A ROS 2 bag: its folder, or one .mcap or .db3 file.', metavar='BAG'),
    ],
    output: Annotated[
        Path, typer.Option('--output', '-o', help='Folder of the new bag; may not exist.')
    ],
    prompt: Annotated[
        list[str],
        typer.Option(
            '--prompt',
            '-p',
            help='What to look for; ";" separates several, "name: phrase" names one. Repeatable.',
        ),
    ],
    topic: Annotated[
        str | None, typer.Option(help='The image topic, where the bag has more than one.')
    ] = None,
    outputs: Annotated[
        str,
        typer.Option(
            help='What to write: mask, labels, confidence, probability, overlay, segments, '
            'detections; with commas.'
        ),
    ] = 'mask,labels,confidence,segments',
    model: Annotated[
        str, typer.Option('--model', '-m', help='Name of a model, or path of a checkpoint.')
    ] = 'tabletop',
    device: Annotated[str, typer.Option(help='auto, cpu, cuda or cuda:N.')] = 'auto',
    threads: Annotated[
        int | None, typer.Option(help="Threads of the model on a CPU; torch's choice.", min=1)
    ] = None,
    reuse_below: Annotated[
        float,
        typer.Option(
            help='An approximation, as the parameter of the node: reuse the encoding of an earlier '
            'image while no tile of the picture changes by so many levels of 255; 0 is never.',
            metavar='LEVELS',
        ),
    ] = 0.0,
    threshold: Annotated[
        float | None,
        typer.Option(help="Probability between 0 and 1 above which a pixel is on; the model's."),
    ] = None,
    min_area: Annotated[
        int, typer.Option(help='Least area of a detection.', metavar='PIXELS', min=1)
    ] = 100,
    color: ColorOption = None,
    node: Annotated[
        str, typer.Option(help='Node whose topics are written: /clipseg/mask and so on.')
    ] = '/clipseg',
    storage: Annotated[str, typer.Option(help='mcap or sqlite3.')] = 'mcap',
) -> None:
    """Segment every image of a ROS 2 bag into a new bag; no ROS is needed.

    Topics, types and stamps are those of the node. Images that cannot be read are left out and
    counted, and the exit code is then 1.
    """
    # torch takes seconds to import: not before the arguments are understood.
    from clipseg_model.outputs.palette import read_colours
    from clipseg_model.registry import create_model
    from clipseg_ros.bag.reading import find_camera, open_bag
    from clipseg_ros.bag.runner import BagOutput, BagRunner
    from clipseg_ros.prompts.text import read_prompts

    try:
        prompts = read_prompts(prompt)
        if not prompts:
            raise PromptError('There is nothing to look for: give --prompt')
        wanted = [name.strip() for name in outputs.split(',') if name.strip()]
        colours = read_colours(color or [])
        target = BagOutput(output, wanted, storage, node, min_area, colours)
        with open_bag(source) as reader:
            cameras = find_camera(reader, topic)
            segmenter = create_model(model, device, threads, reuse_below=reuse_below)
            if segmenter.card.notice:
                err.print(f'[yellow]Note:[/] {escape(segmenter.card.notice)}', soft_wrap=True)
            runner = BagRunner(segmenter, prompts, target, threshold)
            with show_progress() as progress:
                count = sum(camera.msgcount for camera in cameras)
                task = progress.add_task(escape(cameras[0].topic), total=count)
                done = runner.run(reader, cameras, lambda: progress.advance(task))
    except ClipsegError as error:
        fail(str(error))
    tell_reuse(segmenter)
    out.print(f'{done} images of {escape(cameras[0].topic)}, written to {escape(str(output))}')
    for problem, times in runner.problems.items():
        report(source, f'{times} × {problem}')
    if runner.problems:
        fail(f'{runner.problems.total()} of {done + runner.problems.total()} images left out')


if __name__ == '__main__':
    app()
