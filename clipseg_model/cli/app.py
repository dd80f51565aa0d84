"""The command ``clipseg``: segment files; list, download and convert models."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from clipseg_model.cli.console import ColorOption, err, fail, out, report, show_progress, tell_reuse
from clipseg_model.cli.export import export
from clipseg_model.cli.weights import convert, download, models
from clipseg_model.errors import ClipsegError, PromptError, RegionError, ReuseError

if TYPE_CHECKING:
    from clipseg_model.cli.file_runner import FileRunner, PromptSummary
    from clipseg_model.prompts import Prompt
    from clipseg_model.zoom.refinement import Zoom

__all__ = ['app']

app = typer.Typer(
    help='Segment images and videos by what you ask for.',
    no_args_is_help=True,
    add_completion=False,
)

_ZOOM = 'Zoom'


class ZoomKind(str, Enum):
    """Who says where to zoom in."""

    self_ = 'self'
    boxes = 'boxes'
    detector = 'detector'


@app.command()
def segment(
    inputs: Annotated[
        list[Path], typer.Argument(help='Images, folders of images, or videos.', metavar='INPUT...')
    ],
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            '--prompt',
            '-p',
            help='What to look for; ";" separates several, "name: phrase" names one. Repeatable.',
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option('--output', '-o', help='Folder for the results.', file_okay=False)
    ] = Path('out'),
    model: Annotated[
        str, typer.Option('--model', '-m', help='Name of a model, or path of a checkpoint.')
    ] = 'tabletop',
    device: Annotated[str, typer.Option(help='auto, cpu, cuda or cuda:N.')] = 'auto',
    input_size: Annotated[
        int | None,
        typer.Option(
            help="Side of the square that images are resized to; the model's. Smaller is faster "
            'and finds less.',
            metavar='PIXELS',
        ),
    ] = None,
    reuse_below: Annotated[
        float,
        typer.Option(
            help='An approximation for videos of a camera that stands still: reuse the encoding of '
            'an earlier frame while no tile of the picture changes by so many levels of 255 (2 to '
            '6; 0 is never).',
            metavar='LEVELS',
        ),
    ] = 0.0,
    runtime: Annotated[
        str,
        typer.Option(help='eager, compile, onnxruntime, openvino, tensorrt, or auto.'),
    ] = 'eager',
    precision: Annotated[
        str, typer.Option(help='fp32, bf16, fp16 or int8, as far as the runtime has it.')
    ] = 'fp32',
    exports: Annotated[
        Path | None,
        typer.Option(help="Folder of clipseg export; the user's cache.", file_okay=False),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Probability between 0 and 1 above which a pixel is on; the model's."),
    ] = None,
    prompt_image: Annotated[
        Path | None, typer.Option(help='An example image of what to look for.')
    ] = None,
    prompt_mask: Annotated[
        Path | None, typer.Option(help='Mask of the example in it, white on the object.')
    ] = None,
    prompt_box: Annotated[
        str | None,
        typer.Option(
            help='Bounding box of the example, in place of a mask: X,Y,WIDTH,HEIGHT in pixels.'
        ),
    ] = None,
    visual_prompt: Annotated[
        str,
        typer.Option(
            help='How example and mask are combined: crop_blur_10, crop, background_10, blur, '
            'red_outline, attention_cls …; a name that is unknown lists them all.'
        ),
    ] = 'crop_blur_10',
    text_weight: Annotated[
        float | None,
        typer.Option(
            help='Mix the example with the one --prompt; the share of the text, 0 to 1. Without '
            'it they are prompts of their own.'
        ),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            help='What phrases are put into: none, fixed, ensemble (the average over the nine '
            "captions of CLIPSeg), or a caption such as 'a photo of a {}.'; the model's."
        ),
    ] = None,
    frame_masks: Annotated[
        bool, typer.Option('--frame-masks', help='Write the masks of every frame of a video.')
    ] = False,
    color: ColorOption = None,
    instances: Annotated[
        bool, typer.Option('--instances', help='Write the connected parts of each mask, too.')
    ] = False,
    min_area: Annotated[
        int | None, typer.Option(help='Least area of an instance; 1.', metavar='PIXELS')
    ] = None,
    zoom: Annotated[
        ZoomKind | None,
        typer.Option(
            help='Look closely at parts of each image: those that the model itself proposes, '
            'boxes that you give, or what a detector finds.',
            rich_help_panel=_ZOOM,
        ),
    ] = None,
    zoom_box: Annotated[
        list[str] | None,
        typer.Option(
            help='A box in pixels, for --zoom boxes. Repeatable.',
            metavar='X,Y,WIDTH,HEIGHT',
            rich_help_panel=_ZOOM,
        ),
    ] = None,
    zoom_weights: Annotated[
        Path | None,
        typer.Option(
            help="File of a torchvision detector's weights, for --zoom detector.",
            rich_help_panel=_ZOOM,
        ),
    ] = None,
    zoom_detector: Annotated[
        str | None,
        typer.Option(
            help="The detector's name in torchvision; fasterrcnn_resnet50_fpn_v2.",
            rich_help_panel=_ZOOM,
        ),
    ] = None,
    zoom_category: Annotated[
        list[str] | None,
        typer.Option(
            help='Look only at detections of this category (of COCO). Repeatable.',
            rich_help_panel=_ZOOM,
        ),
    ] = None,
    zoom_combine: Annotated[
        str | None,
        typer.Option(
            help='How close looks and the whole image are joined: mean, replace, max or or; mean.',
            rich_help_panel=_ZOOM,
        ),
    ] = None,
    zoom_regions: Annotated[
        int | None, typer.Option(help='Most close looks at an image; 8.', rich_help_panel=_ZOOM)
    ] = None,
) -> None:
    """Write masks, an overlay and scores for each image or video.

    A file that cannot be read is reported, the others are done, and the exit code is then 1.
    """
    # torch takes seconds to import: not before the arguments are understood.
    from clipseg_model.cli.file_runner import FileRunner, find_files
    from clipseg_model.images import VIDEO_SUFFIXES
    from clipseg_model.outputs.palette import read_colours
    from clipseg_model.registry import create_model
    from clipseg_model.settings import SegmentSettings

    try:
        prompts = _prompts(prompt or [], prompt_image, prompt_mask, prompt_box, text_weight)
        colours = read_colours(color or [])
        if min_area is not None and not instances:
            raise RegionError('--min-area belongs to --instances: give both')
        zoom_options = {
            '--zoom-box': zoom_box,
            '--zoom-weights': zoom_weights,
            '--zoom-detector': zoom_detector,
            '--zoom-category': zoom_category,
            '--zoom-combine': zoom_combine,
            '--zoom-regions': zoom_regions,
        }
        zooming = _zoom(zoom, {k: v for k, v in zoom_options.items() if v is not None}, device)
        files, problems = find_files(inputs)
        for path, reason in problems:
            report(path, reason)
        if not files:
            fail('There is nothing to segment')
        if reuse_below and not any(path.suffix.lower() in VIDEO_SUFFIXES for path in files):
            raise ReuseError('--reuse-below is for videos, and there is none: leave it out')
        settings = SegmentSettings(
            template=template, visual_method=visual_prompt, zoom=zooming, reuse_below=reuse_below
        )
        segmenter = create_model(
            model,
            device,
            runtime=runtime,
            precision=precision,
            exports=exports,
            input_size=input_size,
        )
        segmenter.check_settings(settings)
        segmenter.settings = settings
        if segmenter.card.notice:
            err.print(f'[yellow]Note:[/] {escape(segmenter.card.notice)}', soft_wrap=True)
        least = 1 if instances and min_area is None else min_area
        if (runtime, precision) != ('eager', 'fp32'):
            err.print(f'Runtime: {escape(segmenter.runtime.describe())}', soft_wrap=True)
        runner = FileRunner(segmenter, prompts, output, threshold, frame_masks, least, colours)
    except ClipsegError as error:
        fail(str(error))
    failed = _run(runner, files) + len(problems)
    tell_reuse(segmenter)
    if failed:
        fail(f'{failed} of {len(files) + len(problems)} inputs failed')


for _command in (models, download, convert, export):
    app.command()(_command)


def _prompts(
    lines: list[str],
    image_path: Path | None,
    mask_path: Path | None,
    box: str | None,
    text_weight: float | None,
) -> list[Prompt]:
    from clipseg_model.images import read_image, read_mask
    from clipseg_model.prompting.visual_prompt import box_mask
    from clipseg_model.prompts import Prompt, parse_prompts

    prompts = parse_prompts('\n'.join(lines))
    if image_path is None:
        for option, value in (('mask', mask_path), ('box', box)):
            if value is not None:
                raise PromptError(f'--prompt-{option} belongs to a --prompt-image: give both')
        if text_weight is not None:
            raise PromptError('--text-weight mixes a --prompt with a --prompt-image: give both')
        if not prompts:
            raise PromptError(
                'There is nothing to look for: give --prompt, --prompt-image, or both'
            )
        return prompts
    image = read_image(image_path)
    mask = None if mask_path is None else read_mask(mask_path)
    if box is not None:
        if mask is not None:
            raise PromptError('--prompt-mask and --prompt-box say the same: give one of them')
        mask = box_mask(_parse_box(box), *image.shape[:2])
    if text_weight is None:
        return [*prompts, Prompt(image=image, mask=mask, name=image_path.stem)]
    if len(prompts) != 1:
        raise PromptError(
            f'--text-weight mixes the example with one --prompt, and there are {len(prompts)}'
        )
    return [replace(prompts[0], image=image, mask=mask, weight=text_weight)]


def _parse_box(text: str) -> tuple[int, int, int, int]:
    try:
        x, y, width, height = (int(part) for part in text.split(','))
    except ValueError as error:
        raise PromptError(
            f'--prompt-box is written X,Y,WIDTH,HEIGHT in whole pixels, unlike {text!r}'
        ) from error
    return x, y, width, height


def _zoom(kind: ZoomKind | None, options: dict[str, Any], device: str) -> Zoom | None:
    """What the options of zoom that were given ask for."""
    from clipseg_model.zoom.proposals import CoarseProposals, GivenBoxes, Proposer
    from clipseg_model.zoom.refinement import Zoom

    owners = {
        '--zoom-box': ZoomKind.boxes,
        '--zoom-weights': ZoomKind.detector,
        '--zoom-detector': ZoomKind.detector,
        '--zoom-category': ZoomKind.detector,
    }
    for name in options:
        if kind is None or owners.get(name, kind) is not kind:
            owner = owners[name].value if name in owners else ' or '.join(k.value for k in ZoomKind)
            raise RegionError(f'{name} belongs to --zoom {owner}: give that, or leave it out')
    if kind is None:
        return None
    proposer: Proposer = CoarseProposals()
    if kind is ZoomKind.boxes:
        if '--zoom-box' not in options:
            raise RegionError('--zoom boxes needs a --zoom-box X,Y,WIDTH,HEIGHT, or several')
        proposer = GivenBoxes([text.split(',') for text in options['--zoom-box']])
    elif kind is ZoomKind.detector:
        from clipseg_model.devices import resolve_device
        from clipseg_model.zoom.detectors import DEFAULT_DETECTOR, DetectorProposals, load_detector

        if '--zoom-weights' not in options:
            raise RegionError(
                "--zoom detector needs --zoom-weights, the file of a torchvision detector's "
                'weights: nothing is downloaded; --zoom self needs no detector'
            )
        detector, categories = load_detector(
            options['--zoom-weights'],
            options.get('--zoom-detector', DEFAULT_DETECTOR),
            device=resolve_device(device),
        )
        wanted = options.get('--zoom-category', [])
        proposer = DetectorProposals(detector, categories, wanted)
    given = {'--zoom-combine': 'combination', '--zoom-regions': 'max_regions'}
    settings = {given[name]: value for name, value in options.items() if name in given}
    return Zoom(proposer, **settings)


def _run(runner: FileRunner, files: list[Path]) -> int:
    """Segment every file with a progress bar, and print a table; returns how many failed."""
    from clipseg_model.cli.file_runner import count_frames

    table = Table()
    for heading in ('file', 'prompt', 'score', 'present', 'area'):
        table.add_column(heading, justify='left' if heading in ('file', 'prompt') else 'right')
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
        out.print(f'Written to {escape(str(runner.output))}')
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
