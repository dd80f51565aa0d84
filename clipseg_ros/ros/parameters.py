"""Parameters of a node, each declared once: as a field of the settings that the node reads.

    @dataclass(frozen=True)
    class Settings:
        rate: float = parameter(10.0, 'Frames per second.', low=0.01, high=240.0)

From such a class come the descriptors, the validation and the settings of the node, its file in
``config/``, and the tables of the documentation (``scripts/make_reference.py``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from typing import Any, Literal, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

from clipseg_model.errors import ClipsegError

_DECLARATION, _GROUP = 'declaration', 'group'

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

    def find_problem(self, value: Any) -> str:
        """Return what is wrong with a value, or an empty string."""
        if isinstance(value, float) and not math.isfinite(value):
            return f'{self.name} is {value}: give a finite number'
        if self.choices and value not in self.choices:
            return f'{self.name}: {value!r} is not one of {", ".join(self.choices)}'
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


def declare(node: Any, settings: type[Any]) -> None:
    """Declare the parameters of a class of settings on a node.

    Raises:
        rclpy.exceptions.InvalidParameterValueException: A value given at start is refused.
        rclpy.exceptions.InvalidParameterTypeException: It is of another type.
    """
    for name, declaration in declarations_of(settings).items():
        node.declare_parameter(name, declaration.default, declaration.descriptor())


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
