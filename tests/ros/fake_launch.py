"""Stands in for ``launch`` and ``launch_ros``, which come with a ROS 2 installation alone.

It knows as much of them as the launch files of this package use, and refuses everything else:
what a launch file declares and starts can then be looked at on any machine.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml


@dataclass
class LaunchContext:
    launch_configurations: dict[str, str] = field(default_factory=dict)


@dataclass
class LaunchConfiguration:
    name: str

    def perform(self, context: LaunchContext) -> str:
        return context.launch_configurations[self.name]


@dataclass
class DeclareLaunchArgument:
    name: str
    default_value: str
    description: str


@dataclass
class OpaqueFunction:
    function: Callable[[LaunchContext], list[Any]]


@dataclass
class SetEnvironmentVariable:
    name: str
    value: str


@dataclass
class LogInfo:
    msg: str


@dataclass
class PythonLaunchDescriptionSource:
    location: str


@dataclass
class IncludeLaunchDescription:
    source: PythonLaunchDescriptionSource
    launch_arguments: Iterable[tuple[str, Any]]


@dataclass
class IfCondition:
    predicate: LaunchConfiguration


@dataclass
class LaunchDescription:
    entities: list[Any]


@dataclass
class ParameterValue:
    value: LaunchConfiguration
    value_type: type | None = None

    def __post_init__(self) -> None:
        # Launch converts what it substitutes, and nothing else: a text is no bool.
        if not isinstance(self.value, LaunchConfiguration):
            raise TypeError(f'{self.value!r} is not converted to {self.value_type}')

    def perform(self, context: LaunchContext) -> Any:
        text = self.value.perform(context)
        return text if self.value_type is str else yaml.safe_load(text)


@dataclass
class Node:
    package: str
    executable: str
    name: str | None = None
    namespace: Any = None
    parameters: list[Any] = field(default_factory=list)
    remappings: list[tuple[str, str]] = field(default_factory=list)
    arguments: list[Any] = field(default_factory=list)
    output: str = 'log'
    emulate_tty: bool = False
    respawn: bool = False
    respawn_delay: float | None = None
    condition: IfCondition | None = None


SHARED = 'clipseg_ros.ros.launch_support'
_MODULES: dict[str, tuple[type, ...]] = {
    'launch': (LaunchContext, LaunchDescription),
    'launch.actions': (
        DeclareLaunchArgument,
        IncludeLaunchDescription,
        LogInfo,
        OpaqueFunction,
        SetEnvironmentVariable,
    ),
    'launch.conditions': (IfCondition,),
    'launch.launch_description_sources': (PythonLaunchDescriptionSource,),
    'launch.substitutions': (LaunchConfiguration,),
    'launch_ros': (),
    'launch_ros.actions': (Node,),
    'launch_ros.parameter_descriptions': (ParameterValue,),
}


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes imports of launch and launch_ros give this module's classes."""
    for name, classes in _MODULES.items():
        module = ModuleType(name)
        for kind in classes:
            setattr(module, kind.__name__, kind)
        if name == 'launch':
            module.LaunchDescriptionEntity = object  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)
    # What the launch files share is imported again, with these classes; monkeypatch takes it away.
    monkeypatch.setitem(sys.modules, SHARED, ModuleType(SHARED))
    del sys.modules[SHARED]


@dataclass
class Launched:
    """What a launch file did with some arguments.

    Attributes:
        arguments: Every argument that it declares.
        values: What they were, given or default.
        nodes: The nodes that it starts.
        environment: Variables that it sets.
        includes: Launch files that it includes, with the names of the arguments it passes.
        lines: What it logs.
    """

    arguments: dict[str, DeclareLaunchArgument]
    values: dict[str, str]
    nodes: list[Node]
    environment: dict[str, str]
    includes: dict[str, dict[str, str]]
    lines: list[str] = field(default_factory=list)


def _evaluated(parameters: dict[str, Any], context: LaunchContext) -> dict[str, Any]:
    return {
        name: value.perform(context) if isinstance(value, ParameterValue) else value
        for name, value in parameters.items()
    }


def run(path: Path, given: dict[str, str]) -> Launched:
    """Runs a launch file with the given arguments."""
    specification = importlib.util.spec_from_file_location(path.name.replace('.', '_'), path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)

    launched = Launched({}, {}, [], {}, {})
    context = LaunchContext(dict(given))

    def visit(entities: Iterable[Any]) -> None:
        for entity in entities:
            match entity:
                case DeclareLaunchArgument(name, default, _):
                    launched.arguments[name] = entity
                    context.launch_configurations.setdefault(name, default)
                case LogInfo(text):
                    launched.lines.append(text)
                case SetEnvironmentVariable(name, value):
                    launched.environment[name] = value
                case OpaqueFunction(function):
                    visit(function(context))
                case IncludeLaunchDescription(source, arguments):
                    launched.includes[source.location] = {
                        name: value if isinstance(value, str) else value.perform(context)
                        for name, value in arguments
                    }
                case Node(condition=condition):
                    wish = 'true' if condition is None else condition.predicate.perform(context)
                    entity.parameters = [
                        _evaluated(part, context) if isinstance(part, dict) else part
                        for part in entity.parameters
                    ]
                    if wish == 'true':
                        launched.nodes.append(entity)
                case _:
                    raise TypeError(f'{path} has a {type(entity).__name__} that is not known here')

    visit(module.generate_launch_description().entities)
    launched.values = context.launch_configurations
    return launched
