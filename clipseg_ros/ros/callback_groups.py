"""What the nodes need of rclpy's callback groups beyond its documentation.

Everything here relies on internals of rclpy (checked with 3.3, Humble, 7.1, Jazzy, and 9.1,
Kilted), and nothing elsewhere in the package does.
"""

from __future__ import annotations

from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup


class Gate(MutuallyExclusiveCallbackGroup):
    """A callback group whose entities the executor leaves alone while it is ``shut``."""

    def __init__(self) -> None:
        super().__init__()
        self.shut = False

    def can_execute(self, entity: Any) -> bool:
        """Return whether the executor may run a callback of an entity now."""
        return not self.shut and super().can_execute(entity)


def forget_dead_entities(node: Any) -> None:
    """Remove destroyed entities from a node's default callback group.

    rclpy adds a weak reference for every publisher, subscription, timer and service, and never
    removes one: some forty for each time that the node is configured.
    """
    entities = node.default_callback_group.entities
    entities.difference_update([entity for entity in entities if entity() is None])
