"""Commands of ``clipseg`` for weights: list, download and convert them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from clipseg_model.cli.console import begin_work, err, fail, out
from clipseg_model.errors import CheckpointError, ClipsegError, ModelNotFoundError

if TYPE_CHECKING:
    from clipseg_model.model_card import ModelCard


def models(as_json: Annotated[bool, typer.Option('--json', help='For machines.')] = False) -> None:
    """List the models that are known by name."""
    from clipseg_model.registry import get_card, list_models

    begin_work()
    try:
        cards = [get_card(name) for name in list_models()]
    except ClipsegError as error:
        fail(str(error))
    if as_json:
        typer.echo(json.dumps([_describe(card) for card in cards], indent=2, ensure_ascii=False))
        return
    table = Table(title='Models')
    table.add_column('name', no_wrap=True)
    for heading in ('weights', 'size', 'input', 'taps', 'threshold'):
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
        )
    out.print(table)
    for card in cards:
        source = f' Source: {card.source}.' if card.source else ''
        licence = f' Licence: {card.licence}.' if card.licence else ''
        text = escape(f'{card.description}{source}{licence}')
        out.print(f'[bold]{escape(card.name)}[/]: {text}', soft_wrap=True)
    if not all(card.present for card in cards):
        out.print('[dim]clipseg download NAME fetches what is not present.[/]', soft_wrap=True)


def download(
    names: Annotated[
        list[str],
        typer.Argument(
            help='Names of models (see "clipseg models"), owner/name of a CLIPSeg at the Hugging '
            'Face hub, towers (clip-vit-b-16, -b-32, -l-14-336), or a detector of torchvision for '
            '--zoom detector, such as fasterrcnn_resnet50_fpn_v2.',
            metavar='NAME...',
        ),
    ],
    revision: Annotated[str, typer.Option(help='Branch, tag or commit at the hub.')] = 'main',
    runtime: Annotated[
        str | None,
        typer.Option(
            help='Export the model too, for onnxruntime or openvino: once, by clipseg_ros[export]; '
            'the folder then runs anywhere without torch and without the download.'
        ),
    ] = None,
    exports: Annotated[
        Path | None,
        typer.Option(
            help="Where that is written to, of one model; a folder in the user's cache.",
            file_okay=False,
        ),
    ] = None,
) -> None:
    """Fetch weights from the Hugging Face hub, or torchvision's; no other command uses a network.

    Every file is checked against the digest that the hub states for it, or that torchvision has
    put into its name. CLIPSEG_MODELS names another folder than ~/.cache/clipseg. HF_TOKEN,
    HF_ENDPOINT and HF_HUB_OFFLINE count.

    Exit status: 0 if all that was named is here and checked, 1 if not, with what is missing and
    why, 2 for a wrong command line.
    """
    from clipseg_model.cli.export import check_exporting, write_export
    from clipseg_model.weights.download import download as fetch_all
    from clipseg_model.weights.store import SOURCES, source_of
    from clipseg_model.weights.torchvision_download import download_detector
    from clipseg_model.weights.torchvision_store import LICENCE, detector_weights, list_detectors

    begin_work()
    if exports is not None and (runtime is None or len(names) != 1):
        fail('--exports is the folder of one model for a --runtime: give both, and one name')
    if runtime is not None:
        try:
            check_exporting()
        except ClipsegError as error:
            fail(str(error))
    problems = []
    for name in names:
        try:
            source = source_of(name)
            if source is not None:
                path = fetch_all(source, revision)[-1]
                terms = f'{source.licence or "see the source"} ({source.url})'
            elif name in list_detectors():
                weights = detector_weights(name)
                path, terms = download_detector(weights), f'{LICENCE} ({weights.url})'
            else:
                raise ModelNotFoundError(
                    f'{name!r} cannot be downloaded: there are {", ".join(SOURCES)}, any CLIPSeg '
                    'at the Hugging Face hub as owner/name, and the detectors '
                    f'{", ".join(list_detectors())}'
                )
        except ClipsegError as error:
            problems.append(str(error))
            continue
        out.print(escape(f'{name}: {path}'), soft_wrap=True)
        out.print(escape(f'Licence: {terms}'), soft_wrap=True)
        if runtime is None:
            continue
        try:
            written = write_export(name, exports, runtime)
        except ClipsegError as error:
            problems.append(str(error))
            continue
        out.print(escape(f'Written to {written}'), soft_wrap=True)
    if problems:
        fail('\n'.join(problems))


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
    overwrite: Annotated[
        bool, typer.Option('--overwrite', help='Replace a .safetensors file that is there already.')
    ] = False,
) -> None:
    """Convert weights: any kind to a .safetensors file, or to a Hugging Face folder.

    Exit status: 0 if the target is complete, 1 if nothing was written, with the reason, 2 for a
    wrong command line.
    """
    from clipseg_model.registry import load_model
    from clipseg_model.runtime.base import require

    try:
        torch = require('torch', 'convert', 'torch')
        from clipseg_model.weights.checkpoints import save_checkpoint
        from clipseg_model.weights.huggingface import save_huggingface

        own = target.suffix == '.safetensors'
        if not own and (half or without_towers):
            raise CheckpointError(
                f'--half and --without-towers are for .safetensors files, unlike {target}'
            )
        if own and os.path.lexists(target) and not overwrite:
            raise CheckpointError(
                f'{target} is there already: name another file, or give --overwrite'
            )
        begin_work()
        model, card = load_model(source, towers, None if layers is None else _numbers(layers))
        if own:
            dtype = torch.float16 if half else None
            fields = card.stored_fields()
            save_checkpoint(target, model, fields, dtype=dtype, include_backbone=not without_towers)
        else:
            save_huggingface(target, model, card)
    except ClipsegError as error:
        fail(str(error))
    if unused := card.details.get('unused weights'):
        err.print(
            f'[yellow]Note:[/] left out, since the model does not use them: {", ".join(unused)}',
            soft_wrap=True,
        )
    out.print(escape(f'Written to {target}'), soft_wrap=True)


def _describe(card: ModelCard) -> dict[str, Any]:
    return {
        'name': card.name,
        'present': card.present,
        'weights': None if card.weights is None else str(card.weights),
        'size_mb': _size_mb(card),
        'architecture': card.architecture,
        'input_size': card.input_size,
        'resize': card.resize,
        'visual_method': card.visual_method,
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


def _size_mb(card: ModelCard) -> float | None:
    if card.weights is None or not card.present:
        return None
    return round(card.weights.stat().st_size / 1e6, 2)
