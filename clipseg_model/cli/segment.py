"""The command ``clipseg segment``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from clipseg_model.cli.console import (
    begin_work,
    err,
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
    PrecisionOption,
    ThresholdOption,
    grouped,
)
from clipseg_model.cli.zoom_options import ZoomOptions
from clipseg_model.errors import ClipsegError, ImageError, PromptError, RegionError, ReuseError
from clipseg_model.images import LARGEST, MAX_PIXELS

if TYPE_CHECKING:
    from clipseg_model.cli.file_runner import FileRunner, PromptSummary
    from clipseg_model.prompts import Prompt
    from clipseg_model.segmenter import Segmenter
    from clipseg_model.settings import SegmentSettings


@dataclass(frozen=True)
class ExecutionOptions:
    """What runs, on what, and how exactly."""

    model: ModelOption = 'everyday'
    device: DeviceOption = 'auto'
    input_size: Annotated[
        int | None,
        typer.Option(
            help="Side of the square that images are resized to; the model's. Smaller is faster "
            'and finds less.',
            metavar='PIXELS',
        ),
    ] = None
    reuse_below: Annotated[
        float,
        typer.Option(
            help='An approximation for videos of a camera that stands still: reuse the encoding of '
            'an earlier frame while no tile of the picture changes by so many levels of 255 (2 to '
            '6; 0 is never).',
            metavar='LEVELS',
        ),
    ] = 0.0
    runtime: Annotated[
        str, typer.Option(help='eager, compile, onnxruntime, openvino, tensorrt, or auto.')
    ] = 'auto'
    precision: PrecisionOption = 'fp32'
    exports: Annotated[
        Path | None,
        typer.Option(help="Folder of clipseg export; the user's cache.", file_okay=False),
    ] = None

    def load(self, settings: SegmentSettings) -> Segmenter:
        """Return the model, ready to segment, after a note on what it is not for."""
        from clipseg_model.registry import create_model

        segmenter = create_model(
            self.model,
            self.device,
            runtime=self.runtime,
            precision=self.precision,
            exports=self.exports,
            input_size=self.input_size,
        )
        segmenter.check_settings(settings)
        segmenter.settings = settings
        show_notice(segmenter.card)
        if self.precision != 'fp32' or self.runtime not in ('auto', 'eager'):
            err.print(f'Runtime: {escape(segmenter.runtime.describe())}', soft_wrap=True)
        return segmenter


@dataclass(frozen=True)
class PromptOptions:
    """What to look for: phrases, an example image, or a mix of both."""

    prompt: Annotated[list[str] | None, PROMPT] = None
    prompt_image: Annotated[
        Path | None, typer.Option(help='An example image of what to look for.')
    ] = None
    prompt_mask: Annotated[
        Path | None, typer.Option(help='Mask of the example in it, white on the object.')
    ] = None
    prompt_box: Annotated[
        str | None,
        typer.Option(
            help='Bounding box of the example, in place of a mask: X,Y,WIDTH,HEIGHT in pixels.'
        ),
    ] = None
    visual_prompt: Annotated[
        str | None,
        typer.Option(
            help='How example and mask are combined: crop_blur_10, blur_10_crop, crop, '
            'background_10, blur, red_outline, attention_cls …; a name that is unknown lists them '
            "all. The model's own where it is left out."
        ),
    ] = None
    text_weight: Annotated[
        float | None,
        typer.Option(
            help='Mix the example with the one --prompt; the share of the text, 0 to 1. Without '
            'it they are prompts of their own.'
        ),
    ] = None
    template: Annotated[
        str | None,
        typer.Option(
            help='What phrases are put into: none, fixed, ensemble (the average over the nine '
            "captions of CLIPSeg), or a caption such as 'a photo of a {}.'; the model's."
        ),
    ] = None

    def read(self, max_pixels: int) -> list[Prompt]:
        """Return the prompts; the files of the example are read, of so many pixels at most."""
        from clipseg_model.images import read_image, read_mask
        from clipseg_model.prompting.visual_prompt import box_mask
        from clipseg_model.prompts import Prompt, parse_prompts

        prompts = parse_prompts('\n'.join(self.prompt or []))
        if self.prompt_image is None:
            for name in ('prompt_mask', 'prompt_box', 'text_weight'):
                if getattr(self, name) is not None:
                    option = name.replace('_', '-')
                    raise PromptError(f'--{option} belongs to a --prompt-image: give both')
            if not prompts:
                raise PromptError(
                    'There is nothing to look for: give --prompt, --prompt-image, or both'
                )
            return prompts
        image = read_image(self.prompt_image, max_pixels)
        mask = None if self.prompt_mask is None else read_mask(self.prompt_mask, max_pixels)
        if self.prompt_box is not None:
            if mask is not None:
                raise PromptError('--prompt-mask and --prompt-box say the same: give one of them')
            mask = box_mask(_parse_box(self.prompt_box), *image.shape[:2])
        if self.text_weight is None:
            # A name of a file need not be text, as that of a prompt is.
            name = self.prompt_image.stem.encode(errors='replace').decode()
            return [*prompts, Prompt(image=image, mask=mask, name=name)]
        if len(prompts) != 1:
            raise PromptError(
                f'--text-weight mixes the example with one --prompt, and there are {len(prompts)}'
            )
        return [replace(prompts[0], image=image, mask=mask, weight=self.text_weight)]


@dataclass(frozen=True)
class ResultOptions:
    """What counts as found, and what is written of it."""

    output: Annotated[
        Path, typer.Option('--output', '-o', help='Folder for the results.', file_okay=False)
    ] = Path('out')
    overwrite: Annotated[
        bool,
        typer.Option(
            '--overwrite', help='Replace files of the same names that are in that folder already.'
        ),
    ] = False
    threshold: ThresholdOption = None
    frame_masks: Annotated[
        bool, typer.Option('--frame-masks', help='Write the masks of every frame of a video.')
    ] = False
    color: ColorOption = None
    instances: Annotated[
        bool, typer.Option('--instances', help='Write the connected parts of each mask, too.')
    ] = False
    min_area: Annotated[
        int | None, typer.Option(help='Least area of an instance; 1.', metavar='PIXELS')
    ] = None

    def least_area(self) -> int | None:
        """Return the least area of an instance, pixels; None where none are asked for."""
        if self.min_area is not None and not self.instances:
            raise RegionError('--min-area belongs to --instances: give both')
        if self.min_area is not None:
            from clipseg_model.instances import check_min_area

            check_min_area(self.min_area)
        return 1 if self.instances and self.min_area is None else self.min_area


@dataclass(frozen=True)
class InputOptions:
    """What is looked at."""

    inputs: Annotated[
        list[Path] | None,
        typer.Argument(help='Images, folders of images, or videos.', metavar='INPUT...'),
    ] = None
    camera: Annotated[
        str | None,
        typer.Option(
            help='Segment a camera until Ctrl-C, in place of files: its number, or the path of a '
            'video device. Newest frame only.',
            metavar='DEVICE',
        ),
    ] = None
    max_pixels: Annotated[
        int,
        typer.Option(
            help='Most pixels of a picture, an example or a frame of a video; larger ones are '
            'reported and left out.',
            min=1,
            max=LARGEST,
        ),
    ] = MAX_PIXELS

    def __post_init__(self) -> None:
        if not self.inputs and self.camera is None:
            raise typer.BadParameter('name files, or give --camera 0', param_hint="'INPUT...'")

    def find(self, reuse_below: float, frame_masks: bool) -> tuple[list[Path], int]:
        """Return the files to segment and how many inputs are of no use, which are reported."""
        from clipseg_model.cli.file_runner import find_files
        from clipseg_model.images import VIDEO_SUFFIXES

        if self.camera is not None:
            if self.inputs or frame_masks:
                raise ImageError('--camera is in place of files and --frame-masks: choose one')
            return [], 0
        files, problems = find_files(self.inputs or [])
        for path, reason in problems:
            report(path, reason)
        if not files:
            fail('There is nothing to segment')
        if reuse_below and not any(path.suffix.lower() in VIDEO_SUFFIXES for path in files):
            raise ReuseError('--reuse-below is for videos, and there is none: leave it out')
        return files, len(problems)


@grouped
def segment(
    sources: InputOptions,
    prompts: PromptOptions,
    execution: ExecutionOptions,
    results: ResultOptions,
    zoom: ZoomOptions,
) -> None:
    """Write masks, an overlay and scores for each image or video.

    Exit status: 0 if every input was segmented whole and all is written;
    1 if not, which is reported; 2 for wrong options. "--" ends options.
    """
    # torch takes seconds to import: not before the arguments are understood.
    from clipseg_model.cli.file_runner import FileRunner
    from clipseg_model.cli.result_folder import ResultFolder
    from clipseg_model.outputs.palette import read_colours
    from clipseg_model.settings import SegmentSettings

    try:
        wanted = prompts.read(sources.max_pixels)
        colours = read_colours(results.color or [])
        least_area = results.least_area()
        settings = SegmentSettings(
            template=prompts.template,
            visual_method=prompts.visual_prompt,
            zoom=zoom.refiner(execution.device),
            reuse_below=execution.reuse_below,
        )
        files, unusable = sources.find(execution.reuse_below, results.frame_masks)
        segmenter = execution.load(settings)
        zoom.fit(segmenter)
        begin_work()
        runner = FileRunner(
            segmenter,
            wanted,
            ResultFolder(results.output, results.overwrite),
            results.threshold,
            results.frame_masks,
            least_area,
            colours,
            sources.max_pixels,
        )
        if sources.camera is not None:
            _run_camera(runner, sources.camera)
            return
    except ClipsegError as error:
        fail(str(error))
    failed = _run(runner, files) + unusable
    show_reuse(segmenter)
    if failed:
        fail(f'{failed} of {len(files) + unusable} inputs failed')


def _parse_box(text: str) -> tuple[int, int, int, int]:
    try:
        x, y, width, height = (int(part) for part in text.split(','))
    except ValueError as error:
        raise PromptError(
            f'--prompt-box is written X,Y,WIDTH,HEIGHT in whole pixels, unlike {text!r}'
        ) from error
    return x, y, width, height


def _run_camera(runner: FileRunner, device: str) -> None:
    """Segment a camera until it ends or Ctrl-C, and print a table."""
    from clipseg_model.cli.camera import NewestFrames

    camera = NewestFrames(device, runner.max_pixels)
    err.print(f'Writing to {escape(str(runner.output.path))} until Ctrl-C.', soft_wrap=True)
    table = _table()
    _add_rows(table, Path(camera.name), runner.run_camera(camera))
    out.print(table)


def _table() -> Table:
    table = Table()
    for heading in ('file', 'prompt', 'score', 'present', 'area'):
        table.add_column(heading, justify='left' if heading in ('file', 'prompt') else 'right')
    return table


def _run(runner: FileRunner, files: list[Path]) -> int:
    """Segment every file with a progress bar, and print a table; return how many failed."""
    from clipseg_model.cli.video_files import count_frames

    table = _table()
    failed = 0
    with show_progress() as progress:
        task = progress.add_task('Segmenting', total=sum(map(count_frames, files)))
        for path in files:
            progress.update(task, description=escape(path.name))
            try:
                summaries = runner.run(path, lambda: progress.advance(task))
            except (ClipsegError, OSError) as error:
                report(path, str(error))
                failed += 1
                continue
            _add_rows(table, path, summaries)
    if table.row_count:
        out.print(table)
        out.print(f'Written to {escape(str(runner.output.path))}')
    return failed


def _add_rows(table: Table, path: Path, summaries: list[PromptSummary]) -> None:
    for row, summary in enumerate(summaries):
        if summary.frames == 1:
            present = 'yes' if summary.present else 'no'
        else:
            present = f'{summary.present} of {summary.frames}'
        table.add_row(
            '' if row else escape(path.name),
            escape(summary.label),
            f'{summary.score:.3f}',
            present,
            f'{100 * summary.share:.2f} %',
        )
