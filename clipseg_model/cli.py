"""The command ``clipseg``: segment files; list, download and convert models."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from clipseg_model.errors import (
    CheckpointError,
    ClipsegError,
    ModelNotFoundError,
    PromptError,
    RegionError,
)

if TYPE_CHECKING:
    from clipseg_model.file_runner import FileRunner, PromptSummary
    from clipseg_model.model_card import ModelCard
    from clipseg_model.prompts import Prompt
    from clipseg_model.zoom import Zoom

__all__ = ['app']

app = typer.Typer(
    help='Segment images and videos by what you ask for.',
    no_args_is_help=True,
    add_completion=False,
)

_out = Console()
_err = Console(stderr=True)

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
    from clipseg_model.file_runner import FileRunner, find_files
    from clipseg_model.registry import create_model

    try:
        prompts = _prompts(prompt or [], prompt_image, prompt_mask, prompt_box, text_weight)
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
            _report(path, reason)
        if not files:
            _fail('There is nothing to segment')
        segmenter = create_model(model, device)
        segmenter.visual_method = visual_prompt
        segmenter.template = template
        if segmenter.card.notice:
            _err.print(f'[yellow]Note:[/] {escape(segmenter.card.notice)}', soft_wrap=True)
        segmenter.zoom = zooming
        least = 1 if instances and min_area is None else min_area
        runner = FileRunner(segmenter, prompts, output, threshold, frame_masks, least)
    except ClipsegError as error:
        _fail(str(error))
    failed = _run(runner, files) + len(problems)
    if failed:
        _fail(f'{failed} of {len(files) + len(problems)} inputs failed')


@app.command()
def models(
    as_json: Annotated[bool, typer.Option('--json', help='For machines.')] = False,
) -> None:
    """List the models that are known by name."""
    from clipseg_model.registry import get_card, list_models

    try:
        cards = [get_card(name) for name in list_models()]
    except ClipsegError as error:
        _fail(str(error))
    if as_json:
        typer.echo(json.dumps([_describe(card) for card in cards], indent=2, ensure_ascii=False))
        return
    table = Table(title='Models')
    for heading in ('name', 'weights', 'size', 'input', 'taps', 'threshold', 'licence'):
        table.add_column(heading)
    for card in cards:
        size = _size_mb(card)
        if size is not None:
            shown = f'{size:.1f} MB'
        elif card.details.get('parameters'):
            shown = f'about {4e-6 * card.details["parameters"]:.0f} MB'
        else:
            shown = '–'
        table.add_row(
            escape(card.name),
            '[green]present[/]' if card.present else '[red]not present[/]',
            shown,
            f'{card.input_size} px',
            ' '.join(map(str, card.layers)) or '–',
            f'{card.threshold:g}' if _is_calibrated(card) else f'{card.threshold:g} (usual)',
            escape(card.licence) or '–',
        )
    _out.print(table)
    for card in cards:
        source = f' Source: {card.source}.' if card.source else ''
        text = escape(f'{card.description}{source}')
        _out.print(f'[bold]{escape(card.name)}[/]: {text}', soft_wrap=True)
    if not all(card.present for card in cards):
        _out.print('[dim]clipseg download NAME fetches what is not present.[/]', soft_wrap=True)


@app.command()
def download(
    names: Annotated[
        list[str],
        typer.Argument(
            help='Names of models (see "clipseg models"), owner/name of a CLIPSeg at the Hugging '
            'Face hub, or clip-vit-b-16: the towers that an official decoder (.pth) needs.',
            metavar='NAME...',
        ),
    ],
    revision: Annotated[str, typer.Option(help='Branch, tag or commit at the hub.')] = 'main',
) -> None:
    """Fetch weights from the Hugging Face hub; the only command that uses a network.

    What broke off is continued, and every file is checked against the digest that the hub states
    for it. CLIPSEG_MODELS names another folder than ~/.cache/clipseg.
    """
    from clipseg_model.download import download as fetch_all
    from clipseg_model.store import SOURCES, source_of

    try:
        for name in names:
            source = source_of(name)
            if source is None:
                raise ModelNotFoundError(
                    f'{name!r} cannot be downloaded: there are {", ".join(SOURCES)}, and any '
                    'CLIPSeg at the Hugging Face hub as owner/name'
                )
            with _transfer_bar() as bar:
                paths = fetch_all(source, revision, _teller(bar))
            _out.print(escape(f'{name}: {paths[-1]}'), soft_wrap=True)
            terms = f'Licence: {source.licence or "see the source"} ({source.url})'
            _out.print(escape(terms), soft_wrap=True)
    except ClipsegError as error:
        _fail(str(error))


@app.command()
def convert(
    source: Annotated[
        str,
        typer.Argument(
            help='A checkpoint of any kind: the name of a model, a Hugging Face folder of CLIPSeg, '
            'an official decoder (.pth), or a .safetensors file.'
        ),
    ],
    target: Annotated[
        Path,
        typer.Argument(help='A .safetensors file; or a new folder, for Hugging Face transformers.'),
    ],
    towers: Annotated[
        str | None,
        typer.Option(
            help="CLIP's towers for a file without them: a file of open_clip, a Hugging Face "
            'folder of CLIPSeg, or a .safetensors checkpoint.'
        ),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(help='Blocks that an official decoder taps, such as 3,7,9; else 3,6,9.'),
    ] = None,
    half: Annotated[
        bool, typer.Option('--half', help='Store 16-bit values, for half the size.')
    ] = False,
    without_towers: Annotated[
        bool, typer.Option('--without-towers', help='Store the decoder alone.')
    ] = False,
) -> None:
    """Convert weights: any kind to a .safetensors file, or to a Hugging Face folder."""
    import torch

    from clipseg_model.checkpoints import save_checkpoint
    from clipseg_model.huggingface import save_huggingface
    from clipseg_model.registry import load_model

    try:
        own = target.suffix == '.safetensors'
        if not own and (half or without_towers):
            raise CheckpointError(
                f'--half and --without-towers are for .safetensors files, unlike {target}'
            )
        model, card = load_model(source, towers, None if layers is None else _numbers(layers))
        if own:
            dtype = torch.float16 if half else None
            fields = card.stored_fields()
            save_checkpoint(target, model, fields, dtype=dtype, include_backbone=not without_towers)
        else:
            save_huggingface(target, model, card)
    except ClipsegError as error:
        _fail(str(error))
    if unused := card.details.get('unused weights'):
        _err.print(
            f'[yellow]Note:[/] left out, since the model does not use them: {", ".join(unused)}',
            soft_wrap=True,
        )
    _out.print(escape(f'Written to {target}'), soft_wrap=True)


def _prompts(
    lines: list[str],
    image_path: Path | None,
    mask_path: Path | None,
    box: str | None,
    text_weight: float | None,
) -> list[Prompt]:
    from clipseg_model.images import read_image, read_mask
    from clipseg_model.prompts import Prompt, parse_prompts
    from clipseg_model.visual_prompt import box_mask

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
    from clipseg_model.proposals import CoarseProposals, GivenBoxes, Proposer
    from clipseg_model.zoom import Zoom

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
        from clipseg_model.detectors import DEFAULT_DETECTOR, DetectorProposals, load_detector
        from clipseg_model.devices import resolve_device

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
    from clipseg_model.file_runner import count_frames

    table = Table()
    for heading in ('file', 'prompt', 'score', 'present', 'area'):
        table.add_column(heading, justify='left' if heading in ('file', 'prompt') else 'right')
    failed = 0
    progress = Progress(
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=_err,
        transient=True,
        disable=not _err.is_terminal,
    )
    with progress:
        task = progress.add_task('Segmenting', total=sum(map(count_frames, files)))
        for path in files:
            progress.update(task, description=escape(path.name))
            try:
                summaries = runner.run(path, lambda: progress.advance(task))
            except (ClipsegError, OSError) as error:
                _report(path, str(error))
                failed += 1
                continue
            _add_rows(table, path, summaries)
    if table.row_count:
        _out.print(table)
        _out.print(f'Written to {escape(str(runner.output))}')
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


def _describe(card: ModelCard) -> dict[str, Any]:
    return {
        'name': card.name,
        'present': card.present,
        'weights': None if card.weights is None else str(card.weights),
        'size_mb': _size_mb(card),
        'architecture': card.architecture,
        'input_size': card.input_size,
        'resize': card.resize,
        'layers': list(card.layers),
        'threshold': card.threshold,
        'calibrated': _is_calibrated(card),
        'presence_threshold': card.presence_threshold,
        'licence': card.licence,
        'source': card.source,
        'description': card.description,
        'notice': card.notice,
        'details': dict(card.details),
    }


def _is_calibrated(card: ModelCard) -> bool:
    return bool(card.details.get('calibrated_on'))


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(',')]
    except ValueError as error:
        raise CheckpointError(
            f'--layers is written as numbers with commas, such as 3,7,9, unlike {text!r}'
        ) from error


def _teller(bar: Progress) -> Callable[[str, int, int], None]:
    tasks: dict[str, TaskID] = {}

    def tell(file: str, done: int, total: int) -> None:
        if file not in tasks:
            tasks[file] = bar.add_task(escape(file), total=total)
        bar.update(tasks[file], completed=done)

    return tell


def _transfer_bar() -> Progress:
    return Progress(
        TextColumn('{task.description}'),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=_err,
        disable=not _err.is_terminal,
    )


def _size_mb(card: ModelCard) -> float | None:
    if card.weights is None or not card.present:
        return None
    return round(card.weights.stat().st_size / 1e6, 2)


def _report(path: Path, reason: str) -> None:
    _err.print(f'[red]{escape(str(path))}:[/] {escape(reason)}', highlight=False, soft_wrap=True)


def _fail(message: str) -> NoReturn:
    _err.print(f'[bold red]Error:[/] {escape(message)}', highlight=False, soft_wrap=True)
    raise typer.Exit(1)
