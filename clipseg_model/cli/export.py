"""The command ``clipseg export``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from clipseg_model.cli.console import begin_work, fail, out
from clipseg_model.cli.options import DeviceOption, PrecisionOption, grouped
from clipseg_model.errors import ClipsegError, ExportError

if TYPE_CHECKING:
    from clipseg_model.prompts import Prompt


@dataclass(frozen=True)
class CalibrationOptions:
    """What int8 is calibrated on, and how well it has to agree."""

    calibration: Annotated[
        list[Path] | None,
        typer.Option(
            help='Images or folders of images such as the model will see, for int8. Repeatable.'
        ),
    ] = None
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            '--prompt', '-p', help='What those images show, for int8; ";" separates several.'
        ),
    ] = None
    least_iou: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help='Agreement of int8 masks with fp32 below which nothing is written; 0.95.',
        ),
    ] = None

    def check_unused(self) -> None:
        """Refuse these options where nothing is calibrated."""
        if self.calibration or self.prompt or self.least_iou is not None:
            raise ExportError('--calibration, --prompt and --least-iou belong to --precision int8')

    def read(self) -> tuple[list[Any], list[Prompt], float]:
        """Return images, prompts and the least IoU."""
        from clipseg_model.cli.file_runner import find_files
        from clipseg_model.images import read_image
        from clipseg_model.prompts import parse_prompts
        from clipseg_model.quantization import LEAST_IOU, MOST_IMAGES

        if not self.calibration or not self.prompt:
            raise ExportError(
                'int8 is calibrated on images such as the model will see: give --calibration '
                'FOLDER and a --prompt for what they show'
            )
        files, problems = find_files(self.calibration)
        if problems:
            path, reason = problems[0]
            raise ExportError(f'{path}: {reason}')
        images = [read_image(path) for path in files[:: max(1, len(files) // MOST_IMAGES)]]
        least_iou = LEAST_IOU if self.least_iou is None else self.least_iou
        return images, parse_prompts('\n'.join(self.prompt)), least_iou


@grouped
def export(
    model: Annotated[str, typer.Argument(help='Name of a model, or path of a checkpoint.')],
    calibration: CalibrationOptions,
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="Where to; a folder in the user's cache, where the runtimes look by themselves.",
            file_okay=False,
            show_default=False,
        ),
    ] = None,
    runtime: Annotated[
        str, typer.Option('--runtime', '-r', help='onnxruntime, openvino or tensorrt.')
    ] = 'onnxruntime',
    precision: PrecisionOption = 'fp32',
    device: DeviceOption = 'auto',
    overwrite: Annotated[
        bool,
        typer.Option(
            '--overwrite', help='Replace what is in that folder already and is no older export.'
        ),
    ] = False,
) -> None:
    """Write a model as a runtime needs it: ONNX, OpenVINO IR, or an engine of TensorRT.

    Runtimes make what they need by themselves, except int8, which needs images: --calibration
    names them, and the masks are compared with those of fp32 on the same images.

    Exit status: 0 if the export is complete, 1 if nothing was written, with the reason, 2 for a
    wrong command line.
    """
    try:
        written = write_export(model, folder, runtime, precision, device, calibration, overwrite)
    except ClipsegError as error:
        fail(str(error))
    out.print(escape(f'Written to {written}'), soft_wrap=True)


def check_exporting() -> None:
    """Raise RuntimeMissingError unless what makes exports is installed."""
    from clipseg_model.runtime.base import require

    for package in ('torch', 'onnx', 'onnxscript'):
        require(package, 'export', 'export')


def write_export(
    model: str,
    folder: Path | None,
    runtime: str,
    precision: str = 'fp32',
    device: str = 'auto',
    calibration: CalibrationOptions | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a model as a runtime needs it; arguments are those of :func:`export`.

    Returns:
        The folder of the variant that was written.

    Raises:
        ClipsegError: Nothing was written.
    """
    check_exporting()
    from clipseg_model.quantization import export_int8
    from clipseg_model.registry import load_model
    from clipseg_model.runtime import runtime_class
    from clipseg_model.runtime.devices import resolve_device
    from clipseg_model.runtime.exported import Exporting
    from clipseg_model.runtime.exports.files import ONNX, check_replaceable, exports_folder
    from clipseg_model.runtime.split import check_exportable, weights_digest

    begin_work()
    calibration = calibration or CalibrationOptions()
    kind = runtime_class(runtime)
    if not issubclass(kind, Exporting):
        raise ExportError(f'The runtime {runtime!r} runs the checkpoint itself: no export')
    if precision in kind.made_on_demand:
        calibration.check_unused()
    place = resolve_device(
        'cpu' if device == 'auto' and 'cuda' not in kind.device_types else device
    )
    kind.check(place, precision)
    if folder is not None and not overwrite:
        for variant in (ONNX, kind.variant(place, precision)):
            check_replaceable(folder / variant)
    loaded, card = load_model(model)
    check_exportable(loaded)
    digest = weights_digest(loaded)
    root = exports_folder(card, digest) if folder is None else folder
    if precision in kind.made_on_demand:
        kind.export(loaded, card, digest, root, place, precision)
    else:
        agreement = export_int8(loaded, card, digest, root, *calibration.read())
        out.print(
            f'Masks agree with fp32 at IoU {agreement.iou:.4f} over {agreement.images} images '
            f'(correlation of logits {agreement.correlation:.4f})',
            soft_wrap=True,
        )
    return root / kind.variant(place, precision)
