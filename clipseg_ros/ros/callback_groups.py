"""What the nodes need of rclpy's callback groups beyond its documentation.

Everything here relies on internals of rclpy (checked with 3.3, Humble, 7.1, Jazzy, and 9.1,
Kilted), and nothing elsewhere in the package does.
"""

from __future__ import annotations

from collections.abc import Callable
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


def guard_transitions(node: Any, refuse: Callable[[str], None]) -> None:
    """Have a lifecycle node refuse transitions that its state has none of, in a line of ours.

    rclpy logs two for each such request, however many come.
    """
    service, machine = node._service_change_state, node._state_machine
    change = service.callback

    def guarded(request: Any, response: Any) -> Any:
        wish = request.transition
        possible = [entry[:2] for entry in machine.available_transitions]
        if any(wish.label == name if wish.label else wish.id == key for key, name in possible):
            return change(request, response)
        state = machine.current_state[1]
        refuse(
            f'there is no transition {wish.label[:50]!r} ({wish.id}) from {state}: there are '
            f'{", ".join(name for _, name in possible)}'
        )
        response.success = False
        return response

    service.callback = guarded
