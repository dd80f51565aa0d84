"""Parameters as they are given: at start, by ``ros2 param load``, or by people.

YAML has more types than people think of: ``max_rate:=5`` is no double to it, and ``roi: []`` is
nothing at all. What is meant is plain, so it is taken (:meth:`Declaration.typed`). A parameter that
cannot be set any more is accepted where it stays as it is, so that a dump of all parameters loads.

Parameters given at start are in rclpy's private ``_parameter_overrides`` (checked with 3.3, Humble,
7.1, Jazzy, and 9.1, Kilted): nothing else tells their types, or which of them the node does not
have.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.parameter import Parameter

from clipseg_model.errors import FileError
from clipseg_model.files.small_files import parse_yaml
from clipseg_ros.errors import ParameterError
from clipseg_ros.ros.parameters import Declaration, declarations_of

# They are declared when their topic is created.
_QOS = re.compile(
    r'qos_overrides\./.+\.(publisher|subscription)(_\w+)?\.'
    r'(deadline|depth|durability|history|lifespan|liveliness|liveliness_lease_duration|reliability)'
)

_LONGEST_REREAD = 1000  # Characters.


def declare(node: Any, settings: type[Any]) -> None:
    """Declare the parameters of a class of settings on a node; log those given that it has not.

    Raises:
        ParameterError: A value given at start is of another type.
        rclpy.exceptions.InvalidParameterValueException: It is refused.
    """
    declared, given = declarations_of(settings), node._parameter_overrides
    for name, declaration in declared.items():
        if name in given:
            given[name] = _typed(declaration, given[name], declaration.default)
        node.declare_parameter(name, declaration.default, declaration.descriptor())
    unknown = [name for name in given if not (node.has_parameter(name) or _QOS.fullmatch(name))]
    if unknown:
        node.get_logger().warning(f'{explain_unknown(unknown, declared)}: ignored')


class GivenParameters:
    """Base of a node, before rclpy's own, whose parameters are set as described above.

    Attributes:
        declarations: Those of the node.
    """

    declarations: Mapping[str, Declaration] = {}
    _followers: tuple[Callable[[list[Parameter]], None], ...] = ()

    def follow_parameters(self: Any, callback: Callable[[list[Parameter]], None]) -> None:
        """Have a callback called with parameters, after they have been set.

        That is rclpy's post-set callback, which Humble does not have.
        """
        if hasattr(self, 'add_post_set_parameters_callback'):
            self.add_post_set_parameters_callback(callback)
        else:
            self._followers += (callback,)

    def set_parameters(self: Any, parameter_list: Sequence[Parameter]) -> list[SetParametersResult]:
        """Set parameters one by one; see :meth:`rclpy.node.Node.set_parameters`."""
        return [self.set_parameters_atomically([parameter]) for parameter in parameter_list]

    def set_parameters_atomically(
        self: Any, parameter_list: Sequence[Parameter]
    ) -> SetParametersResult:
        """Set all parameters or none; see :meth:`rclpy.node.Node.set_parameters_atomically`.

        One that is not declared is a reason in the result, with the name that may be meant.
        """
        changes = []
        for parameter in parameter_list:
            name = parameter.name
            if not self.has_parameter(name):
                reason = explain_unknown([name], self.declarations)
                return SetParametersResult(successful=False, reason=reason)
            current = _plain(self.get_parameter(name).value)
            declaration = self.declarations.get(name)
            if declaration is not None:
                try:
                    parameter = _typed(declaration, parameter, current)
                except ParameterError as error:
                    return SetParametersResult(successful=False, reason=str(error))
            fixed = declaration is not None and declaration.when == 'configure'
            fixed = fixed or self.describe_parameter(name).read_only
            if not fixed or _plain(parameter.value) != current:
                changes.append(parameter)
        if not changes:
            return SetParametersResult(successful=True)
        result: SetParametersResult = super().set_parameters_atomically(changes)  # type: ignore[misc]
        if result.successful:
            for follow in self._followers:
                follow(changes)
        return result


def explain_unknown(unknown: Iterable[str], known: Iterable[str]) -> str:
    """Return which parameters a node does not have, each with the name that may be meant."""
    known, parts = list(known), []
    for name in sorted(unknown):
        found = get_close_matches(name.lower(), known, n=1)
        if name.startswith('qos_overrides.'):
            found = ['qos_overrides.TOPIC.publisher.POLICY, or .subscription.POLICY']
        parts.append(f'{name} (did you mean {found[0]}?)' if found else name)
    return f'this node has no parameter {", ".join(parts)}'


def _typed(declaration: Declaration, given: Parameter, current: Any) -> Parameter:
    """Return a parameter in its own type: as given where that is right already.

    ``ros2 param load`` reads every text once more as YAML: a text that it makes a number of, and
    that the parameter has, is unchanged.
    """
    value = _plain(given.value)
    if isinstance(current, str) and not isinstance(value, str) and value == _reread(current):
        return Parameter(given.name, value=current)
    typed = declaration.typed(value)
    # As text: 1 and 1.0 are equal, also within lists.
    if repr(typed) == repr(value):
        return given
    return Parameter(given.name, value=typed)


def _reread(text: str) -> Any:
    """Return what YAML makes of a text; the text itself where that is not to be known."""
    # Any peer may have set it, and what is no text to YAML is short.
    if len(text) > _LONGEST_REREAD:
        return text
    try:
        return parse_yaml(text, 'the text')
    except FileError:
        return text


def _plain(value: Any) -> Any:
    """Return an array or tuple as a list."""
    return value if isinstance(value, (bool, int, float, str, type(None))) else list(value)
