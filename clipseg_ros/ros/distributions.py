"""What differs between the ROS 2 distributions: rclpy of Humble beside that of Jazzy and later.

Humble's rclpy (3.3) calls the module of events by another name, counts fewer things, tells nothing
of a message but its content, and has no callback for parameters that have been set. Nothing
elsewhere in the package asks which distribution it runs on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rclpy.subscription import Subscription

try:
    from rclpy.event_handler import (
        PublisherEventCallbacks,
        SubscriptionEventCallbacks,
        UnsupportedEventTypeError,
    )
except ModuleNotFoundError:
    from rclpy.qos_event import (
        PublisherEventCallbacks,
        SubscriptionEventCallbacks,
        UnsupportedEventTypeError,
    )

__all__ = [
    'PublisherEventCallbacks',
    'SubscriptionEventCallbacks',
    'UnsupportedEventTypeError',
    'count_matched_publishers',
    'with_message_info',
]

_TELLS_INFO = hasattr(Subscription, 'CallbackType')
"""Whether callbacks of subscriptions may take a second argument."""


def count_matched_publishers(node: Any, subscription: Any) -> int:
    """Return how many publishers a subscription has found.

    Under Humble: how many its topic has, those included whose QoS does not fit.
    """
    if hasattr(subscription, 'get_publisher_count'):
        return int(subscription.get_publisher_count())
    return int(node.count_publishers(subscription.topic_name))


def with_message_info(callback: Callable[[Any, Mapping[str, Any]], None]) -> Callable[..., None]:
    """Return a callback for a subscription, called with a message and rclpy's information on it.

    Under Humble the information has no sequence number, as with a middleware that supplies none.
    """
    if _TELLS_INFO:
        return callback
    return lambda message: callback(message, {'publication_sequence_number': None})
