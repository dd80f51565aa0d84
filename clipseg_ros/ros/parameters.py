"""Declaring, describing and checking the parameters of a node."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor


@dataclass(frozen=True)
class Declaration:
    """One parameter.

    Attributes:
        name: Its name.
        default: Its default, which sets its type.
        description: One sentence, for `ros2 param describe`.
        low: Smallest value of a number.
        high: Largest value of a number.
        constraints: What the range cannot say, for people.
        fixed: Whether it can be set at start only.
        loads: Whether it takes effect when the node is configured, and cannot be set after.
        dynamic_type: Whether values of other types are allowed.
        check: Returns what is wrong with a value, or an empty string. Has no side effects.
    """

    name: str
    default: Any
    description: str
    low: float | None = None
    high: float | None = None
    constraints: str = ''
    fixed: bool = False
    loads: bool = False
    dynamic_type: bool = False
    check: Callable[[Any], str] | None = None

    def descriptor(self) -> ParameterDescriptor:
        """Returns the descriptor that clients see."""
        constraints = self.constraints
        if self.loads:
            constraints = f'{constraints} Takes effect when the node is configured.'.strip()
        descriptor = ParameterDescriptor(
            name=self.name,
            description=self.description,
            additional_constraints=constraints,
            read_only=self.fixed,
            dynamic_typing=self.dynamic_type,
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

    def problem(self, value: Any) -> str:
        """Returns what is wrong with a value, or an empty string."""
        if isinstance(value, float) and not math.isfinite(value):
            return f'{self.name} is {value}: give a finite number'
        if self.check is None:
            return ''
        problem = self.check(value)
        return f'{self.name}: {problem}' if problem else ''


def declare(node: Any, declarations: Iterable[Declaration]) -> None:
    """Declares parameters on a node.

    Raises:
        rclpy.exceptions.InvalidParameterValueException: A value given at start is refused.
        rclpy.exceptions.InvalidParameterTypeException: It is of another type.
    """
    for declaration in declarations:
        node.declare_parameter(declaration.name, declaration.default, declaration.descriptor())


def readable(read: Callable[[Any], object], error: type[Exception]) -> Callable[[Any], str]:
    """Returns a check that ``read`` takes a value; what it raises as ``error`` says why not."""

    def check(value: Any) -> str:
        try:
            read(value)
        except error as problem:
            return str(problem)
        return ''

    return check


def one_of(*choices: str) -> Callable[[Any], str]:
    """Returns a check that a value is one of a few words."""

    def check(value: Any) -> str:
        return '' if value in choices else f'{value!r} is not one of {", ".join(choices)}'

    return check
