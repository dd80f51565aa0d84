"""Options that commands share, and dataclasses of options as parameters of a command."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

Result = TypeVar('Result')

ModelOption = Annotated[
    str, typer.Option('--model', '-m', help='Name of a model, or path of a checkpoint.')
]
DeviceOption = Annotated[str, typer.Option(help='auto, cpu, cuda or cuda:N.')]
PrecisionOption = Annotated[
    str, typer.Option(help='fp32, bf16, fp16 or int8, as far as the runtime has it.')
]
PROMPT = typer.Option(
    '--prompt',
    '-p',
    help='What to look for; ";" separates several, "name: phrase" names one. Repeatable.',
)
ThresholdOption = Annotated[
    float | None,
    typer.Option(help="Probability between 0 and 1 above which a pixel is on; the model's."),
]
ColorOption = Annotated[
    list[str] | None,
    typer.Option(
        help='Colour of a prompt on overlays, by its name or its id, which counts from 1 in the '
        'order of the prompts: "mug=#ff8800", "2=#00ff00". Repeatable.',
        metavar='NAME=#RRGGBB',
    ),
]


def grouped(command: Callable[..., Result]) -> Callable[..., Result]:
    """Let a command for typer take dataclasses, each field of which becomes an option.

    The option has the field's name, annotation and default.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name in groups:
            parameters += _parameters(groups[name])
        else:
            kind = inspect.Parameter.KEYWORD_ONLY
            parameters.append(parameter.replace(kind=kind, annotation=hints[name]))

    @functools.wraps(command)
    def run(**values: Any) -> Result:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        return command(**values)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {}
    return run


def _parameters(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(group)
    ]
