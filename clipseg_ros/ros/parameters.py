"""Parameters of a node, each declared once: as a field of the settings that the node reads.

    @dataclass(frozen=True)
    class Settings:
        rate: float = parameter(10.0, 'Frames per second.', low=0.01, high=240.0)

From such a class come the descriptors, the validation and the settings of the node, its file in
``config/``, and the tables of the documentation (``scripts/make_reference.py``). Values are
taken as people type them: see :mod:`clipseg_ros.ros.given`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from typing import Any, Literal, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

from clipseg_model.errors import ClipsegError
from clipseg_model.files.small_files import shorten
from clipseg_ros.errors import ParameterError

_DECLARATION, _GROUP = 'declaration', 'group'

_KINDS = {bool: 'true or false', int: 'a whole number', float: 'a number', str: 'a text'}

S = TypeVar('S')


def _as_it_is(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Declaration:
    """One parameter.

    Attributes:
        default: Sets its type.
        description: Whole sentences, for ``ros2 param describe`` and the documentation.
        low, high: Least and greatest value of a number.
        choices: The words that a text may be; any text where empty.
        constraints: What neither range nor choices say, for people.
        when: When it can be set: at any time; until the node is configured, when it takes effect;
            or at start only.
        any_type: Whether values of other types are allowed.
        link: Where docs/ says more, relative to docs/nodes.md.
        read: From a value to what the settings hold; raises a ClipsegError for a wrong value.
        write: From a value that was given to the one that the parameter shows.
    """

    name: str
    default: Any
    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    constraints: str = ''
    when: Literal['any time', 'configure', 'start'] = 'any time'
    any_type: bool = False
    link: str = ''
    read: Callable[[Any], Any] = _as_it_is
    write: Callable[[Any], Any] = _as_it_is

    @property
    def allowed(self) -> str:
        """What the range does not say of allowed values, for people."""
        if self.choices:
            return f'{", ".join(self.choices[:-1])} or {self.choices[-1]}.'
        return self.constraints

    def descriptor(self) -> ParameterDescriptor:
        """Return the descriptor that clients see."""
        late = 'Takes effect when the node is configured.' if self.when == 'configure' else ''
        descriptor = ParameterDescriptor(
            name=self.name,
            description=self.description,
            additional_constraints=f'{self.allowed} {late}'.strip(),
            read_only=self.when == 'start',
            dynamic_typing=self.any_type,
        )
        if self.low is not None and self.high is not None:
            if isinstance(self.default, float):
                descriptor.floating_point_range = [
                    FloatingPointRange(from_value=self.low, to_value=self.high, step=0.0)
                ]
            else:
                descriptor.integer_range = [
                    IntegerRange(from_value=int(self.low), to_value=int(self.high), step=1)
                ]
        return descriptor

    def typed(self, value: Any) -> Any:
        """Return a value in the parameter's own type, where it can be meant by another one.

        A whole number is a number, and the other way round. Null and an empty list are the empty
        value of a text or a list.

        Raises:
            ParameterError: It is of another type, or empty and has to be a number or a bool.
        """
        kind, default = type(self.default), self.default
        if not isinstance(value, (bool, int, float, str, type(None))):
            value = list(value)
        if _is_empty(value):
            if kind in (str, list):
                return type(default)() if kind is str else default
            raise ParameterError(f'{self.name} is empty: give {_KINDS[kind]}, such as {default}')
        if isinstance(value, list):
            numbers = all(type(item) in (int, float) for item in value)
            if kind is list and numbers and all(item == item // 1 for item in value):
                value = [int(item) for item in value]
        elif kind is float and type(value) is int:
            return float(value)
        elif kind is int and type(value) is float and value.is_integer():
            return int(value)
        if type(value) is kind or (self.any_type and type(value) in (str, list)):
            return self.write(value)
        if kind is str:
            raise ParameterError(
                f'{self.name} is a text, and YAML reads this one as {_shown(value)}: quote it '
                f'twice, such as -p {self.name}:=\'"text"\''
            )
        wanted = _KINDS.get(kind, self.constraints)
        raise ParameterError(f'{self.name} is {_shown(value)}: give {wanted}, such as {default}')

    def find_problem(self, value: Any) -> str:
        """Return what is wrong with a value, or an empty string."""
        if isinstance(value, float) and not math.isfinite(value):
            return f'{self.name} is {value}: give a finite number'
        if self.choices and value not in self.choices:
            return f'{self.name}: {shorten(value)} is not one of {", ".join(self.choices)}'
        try:
            self.read(value)
        except ClipsegError as error:
            return f'{self.name}: {error}'
        return ''


def parameter(default: Any, description: str, *, name: str = '', **more: Any) -> Any:
    """Declare a parameter as a field of a frozen dataclass, whose name it has unless one is given.

    The field's default is what the settings hold for ``default``.
    """
    declaration = Declaration(name, default, description, **more)
    return field(default=declaration.read(default), metadata={_DECLARATION: declaration})


def group(settings: type[Any]) -> Any:
    """Declare the parameters of another such class, an instance of which the field holds."""
    return field(default=settings(), metadata={_GROUP: settings})


def declarations_of(settings: type[Any]) -> dict[str, Declaration]:
    """Return the parameters that a class of settings declares, by name, in order."""
    found: dict[str, Declaration] = {}
    for entry in fields(settings):
        if _GROUP in entry.metadata:
            found |= declarations_of(entry.metadata[_GROUP])
        else:
            declaration = _declaration(entry)
            found[declaration.name] = declaration
    return found


def read_settings(settings: type[S], node: Any) -> S:
    """Return the settings that the parameters of a node, declared on it, make."""
    values: dict[str, Any] = {}
    for entry in fields(settings):  # type: ignore[arg-type]
        if _GROUP in entry.metadata:
            values[entry.name] = read_settings(entry.metadata[_GROUP], node)
        else:
            declaration = _declaration(entry)
            values[entry.name] = declaration.read(node.get_parameter(declaration.name).value)
    return settings(**values)


def _is_empty(value: Any) -> bool:
    """Return whether a value is an empty list, or null, which rcl's YAML reads as a text."""
    if isinstance(value, str):
        return value.strip().lower() in ('', '~', 'null')
    return value is None or value == []


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return shorten(value)


def _declaration(entry: Field[Any]) -> Declaration:
    """Return the declaration of a field, under the name of the parameter."""
    declaration: Declaration = entry.metadata[_DECLARATION]
    return replace(declaration, name=declaration.name or entry.name)


def find_problem(
    declarations: Mapping[str, Declaration], name: str, value: Any, configured: bool = False
) -> str:
    """Return what is wrong with a value for a parameter of a node, or an empty string.

    Parameters that are not declared here are left to others.
    """
    declaration = declarations.get(name)
    if declaration is None:
        return ''
    if declaration.when == 'configure' and configured:
        return (
            f'{name} takes effect when the node is configured, and it is: clean it up first '
            '(ros2 lifecycle set <node> deactivate, then cleanup), set it, configure again'
        )
    return declaration.find_problem(value)
