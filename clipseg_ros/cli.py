"""The command ``clipseg`` with everything that ROS adds to it: bags, and the console."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

import clipseg_model.cli.app
from clipseg_model.cli.console import (
    begin_work,
    fail,
    out,
    report,
    show_notice,
    show_progress,
    show_reuse,
)
from clipseg_model.cli.options import (
    PROMPT,
    ColorOption,
    DeviceOption,
    ModelOption,
    ThresholdOption,
    grouped,
)
from clipseg_model.errors import ClipsegError, PromptError
from clipseg_model.images import LARGEST, MAX_PIXELS

if TYPE_CHECKING:
    from clipseg_ros.bag.runner import BagOutput

app = clipseg_model.cli.app.app


@dataclass(frozen=True)
class ExecutionOptions:
    """What runs, and on what."""

    model: ModelOption = 'everyday'
    device: DeviceOption = 'auto'
    threads: Annotated[
        int | None, typer.Option(help='Threads of the model on a CPU; one for each core.', min=1)
    ] = None
    reuse_below: Annotated[
        float,
        typer.Option(
            help='An approximation, as the parameter of the node: reuse the encoding of an earlier '
            'image while no tile of the picture changes by so many levels of 255; 0 is never.',
            metavar='LEVELS',
        ),
    ] = 0.0


@dataclass(frozen=True)
class BagOptions:
    """What is read from the one bag and written to the other."""

    output: Annotated[
        Path, typer.Option('--output', '-o', help='Folder of the new bag; may not exist.')
    ]
    topic: Annotated[
        str | None, typer.Option(help='The image topic, where the bag has more than one.')
    ] = None
    outputs: Annotated[
        str,
        typer.Option(
            help='What to write: mask, labels, labels/color, confidence, probability, overlay, '
            'segments, detections; with commas.'
        ),
    ] = 'mask,labels,confidence,segments'
    threshold: ThresholdOption = None
    min_area: Annotated[
        int, typer.Option(help='Least area of a detection.', metavar='PIXELS', min=1)
    ] = 100
    color: ColorOption = None
    node: Annotated[
        str, typer.Option(help='Node whose topics are written: /clipseg/mask and so on.')
    ] = '/clipseg'
    storage: Annotated[str, typer.Option(help='mcap or sqlite3.')] = 'mcap'
    max_pixels: Annotated[
        int,
        typer.Option(
            help='Most pixels of an image; larger ones are reported and left out.',
            min=1,
            max=LARGEST,
        ),
    ] = MAX_PIXELS

    def target(self) -> BagOutput:
        """Return the new bag as the runner takes it."""
        from clipseg_model.outputs.palette import read_colours
        from clipseg_ros.bag.runner import BagOutput

        outputs = [name.strip() for name in self.outputs.split(',') if name.strip()]
        colours = read_colours(self.color or [])
        return BagOutput(self.output, outputs, self.storage, self.node, self.min_area, colours)


@app.command()
@grouped
def bag(
    source: Annotated[
        Path,
        typer.Argument(help='A ROS 2 bag: a folder, .mcap or .db3, maybe .zstd.', metavar='BAG'),
    ],
    prompt: Annotated[list[str], PROMPT],
    bags: BagOptions,
    execution: ExecutionOptions,
) -> None:
    """Segment every image of a ROS 2 bag into a new bag; no ROS is needed.

    Topics, types and stamps are those of the node. The exit status is 0 if the new bag has the
    results of every image that the bag counts, 1 if some are left out (which is said) or nothing
    was written, and 2 if the command was not understood.
    """
    # torch takes seconds to import: not before the arguments are understood.
    from clipseg_model.registry import create_model
    from clipseg_ros.bag.reading import open_camera
    from clipseg_ros.bag.runner import BagRunner
    from clipseg_ros.prompts.text import read_prompts

    try:
        prompts = read_prompts(prompt)
        if not prompts:
            raise PromptError('There is nothing to look for: give --prompt')
        target = bags.target()
        begin_work()
        with open_camera(source, bags.topic) as camera:
            segmenter = create_model(
                execution.model,
                execution.device,
                execution.threads,
                reuse_below=execution.reuse_below,
            )
            show_notice(segmenter.card)
            runner = BagRunner(segmenter, prompts, target, bags.threshold, bags.max_pixels)
            with show_progress() as progress:
                task = progress.add_task(escape(camera.topic), total=camera.total)
                done = runner.run(camera, lambda: progress.advance(task))
    except ClipsegError as error:
        fail(str(error))
    show_reuse(segmenter)
    written = f'{done} images of {camera.topic}, written to {bags.output}'.encode(errors='replace')
    out.print(escape(written.decode()), soft_wrap=True, emoji=False)
    for problem, times in runner.problems.items():
        report(source, f'{times} × {problem}')
    if runner.problems:
        fail(f'{runner.problems.total()} of {done + runner.problems.total()} images left out')


@dataclass(frozen=True)
class LookOptions:
    """What the console looks at."""

    images: Annotated[
        Path | None, typer.Option(help='A folder of pictures, or one.', metavar='FOLDER')
    ] = None
    video: Annotated[Path | None, typer.Option(help='A video.', metavar='FILE')] = None
    camera: Annotated[
        str | None, typer.Option(help='A camera of this machine: 0, or /dev/video0.', metavar='N')
    ] = None
    bag: Annotated[Path | None, typer.Option(help='A ROS 2 bag.', metavar='BAG')] = None
    topic: Annotated[
        str | None, typer.Option(help='The image topic, where the bag has more than one.')
    ] = None
    node: Annotated[
        list[str] | None,
        typer.Option(
            help='A running node `segment`, such as /clipseg, in place of a model in this process. '
            'Repeatable.',
            metavar='NAME',
        ),
    ] = None
    namespace: Annotated[str, typer.Option(help='Namespace of nodes without one.')] = ''
    image: Annotated[
        str | None, typer.Option(help="The first node's camera topic, where it does not say it.")
    ] = None


@dataclass(frozen=True)
class ServeOptions:
    """How the console is served."""

    host: Annotated[
        str,
        typer.Option(help='Address to listen on. Beyond this machine, a token is demanded.'),
    ] = '127.0.0.1'
    port: Annotated[int, typer.Option(help='Port; 0 takes one that is free.', min=0, max=65535)] = (
        8088
    )
    view: Annotated[bool, typer.Option('--view', help='Let browsers look, and change nothing.')] = (
        False
    )
    token: Annotated[bool, typer.Option('--token', help='Demand a token on this machine, too.')] = (
        False
    )
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help='A name of this machine that browsers may use. Repeatable.'),
    ] = None


@app.command()
@grouped
def console(
    look: LookOptions,
    serve: ServeOptions,
    prompt: Annotated[list[str] | None, PROMPT] = None,
    model: ModelOption = 'everyday',
    device: DeviceOption = 'auto',
    threads: Annotated[
        int | None, typer.Option(help="Threads of the model on a CPU; torch's choice.", min=1)
    ] = None,
) -> None:
    """Serve a page that shows what prompts find: in pictures, a camera, a bag, or a robot's node.

    It opens at the address that is printed. The exit status is 0 after Ctrl-C, and 1 if the page
    cannot be served.
    """
    try:
        from clipseg_ros.console.app import (
            Looked,
            Served,
            import_back_end,
            make_back_end,
            split_nodes,
        )
        from clipseg_ros.console.app import serve as run
    except ImportError as error:
        fail(f"the console needs its packages ({error}): pip install 'clipseg_ros[console]'")
    looked = Looked(
        nodes=split_nodes(look.node or (), look.namespace),
        image=look.image,
        pictures=look.images,
        video=look.video,
        camera=look.camera,
        bag=look.bag,
        topic=look.topic,
        model=model,
        device=device,
        threads=threads,
        prompts=tuple(prompt or ()),
    )
    served = Served(
        host=serve.host,
        port=serve.port,
        view=serve.view,
        token=serve.token,
        allowed=tuple(serve.allow_host or ()),
        device=device,
        threads=threads,
    )

    def say(line: str) -> None:
        out.print(escape(line), soft_wrap=True, emoji=False, highlight=False)

    import_back_end(looked)
    begin_work()
    try:
        run(make_back_end(looked), served, say)
    except ClipsegError as error:
        fail(str(error))


if __name__ == '__main__':
    app()
