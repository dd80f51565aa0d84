"""Takes from the installed rclpy what Humble's (3.3) does not have, of what the nodes might use.

Compared with rclpy's sources, class by class: modules, methods of nodes, publishers,
subscriptions, clients and services, and callbacks that take two arguments. Import this first.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import rclpy.client
import rclpy.event_handler
import rclpy.lifecycle
import rclpy.node
import rclpy.publisher
import rclpy.service
import rclpy.subscription
import rclpy.task

MODULES = (
    'event_handler',
    'logging_service',
    'parameter_client',
    'parameter_event_handler',
    'service_introspection',
    'type_description_service',
)
"""Of rclpy, that are not in Humble's: event_handler is qos_event there."""

METHODS = {
    rclpy.node.Node: (
        'add_post_set_parameters_callback',
        'add_pre_set_parameters_callback',
        'count_clients',
        'count_services',
        'get_fully_qualified_node_names',
        'remove_post_set_parameters_callback',
        'remove_pre_set_parameters_callback',
        'wait_for_node',
    ),
    rclpy.client.Client: ('configure_introspection', 'logger_name', 'service_name'),
    rclpy.publisher.Publisher: ('logger_name',),
    rclpy.service.Service: ('configure_introspection', 'logger_name', 'service_name'),
    rclpy.subscription.Subscription: ('get_publisher_count', 'logger_name'),
    rclpy.task.Future: ('remove_done_callback',),
}


class _Absent:
    """In the place of a method: as if there were none."""

    def __get__(self, instance: Any, owner: type) -> Any:
        raise AttributeError(f'{owner.__name__} of Humble has none')


def _one_argument(create: Callable[..., Any]) -> Callable[..., Any]:
    """Returns ``create_subscription`` as it was: a callback gets the message, and nothing else."""

    def create_subscription(
        self: Any, kind: Any, topic: str, callback: Any, *more: Any, **options: Any
    ) -> Any:
        return create(self, kind, topic, lambda message: callback(message), *more, **options)

    return create_subscription


def become_humble() -> None:
    """Do so, for this process."""
    sys.modules['rclpy.qos_event'] = rclpy.event_handler
    for name in MODULES:
        sys.modules[f'rclpy.{name}'] = None  # type: ignore[assignment]
    for owner, names in METHODS.items():
        for name in names:
            assert hasattr(owner, name), f'{owner} has no {name} to be taken away'
            setattr(owner, name, _Absent())
    node: Any = rclpy.node.Node
    node.create_subscription = _one_argument(node.create_subscription)
    # rclpy itself needs this one: it is away while the package looks for it.
    subscription: Any = rclpy.subscription.Subscription
    kinds = subscription.CallbackType
    del subscription.CallbackType
    importlib.import_module('clipseg_ros.ros.distributions')
    subscription.CallbackType = kinds
