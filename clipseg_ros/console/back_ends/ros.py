"""The back end that attaches to a running node ``segment``, over its topics and services."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image

from clipseg_model.errors import PromptError
from clipseg_ros.console.back_ends import messages
from clipseg_ros.console.back_ends.base import Answer, Choice, ConsoleError, Status
from clipseg_ros.console.back_ends.joining import Joiner
from clipseg_ros.console.back_ends.node_health import Seen, troubles
from clipseg_ros.console.back_ends.node_parameters import NodeParameters
from clipseg_ros.console.back_ends.rates import Rates
from clipseg_ros.console.cards import LEAST_PRESENCE, Card, Cards, filled, ordered
from clipseg_ros.console.shots import Found, Shot
from clipseg_ros.ros.interfaces import MISSING, load_interfaces
from clipseg_ros.ros.peer import Peer
from clipseg_ros.ros.qos import latched_output, report_output, sensor_input
from clipseg_ros.ros.timing import stamp_of

_TIMEOUT = 20.0
_WAIT = 15.0
"""Seconds: the node answers before this process gives up, to say why."""

_GONE = 2.5
"""Seconds without diagnostics, which come every second, after which a node is taken for gone."""

_LAYER_TOPICS: dict[str, tuple[str, Any]] = {
    'labels': ('labels/compressed', CompressedImage),
    'overlay': ('overlay/compressed', CompressedImage),
    'heat': ('probability', Image),
    'instances': ('instances', Image),
}


class RosBackEnd:
    """See :class:`~clipseg_ros.console.back_ends.base.BackEnd`.

    Args:
        nodes: Names of nodes, with their namespaces; the first is looked at first. Others that are
            running are offered too.
        image: Image topic of the first node's camera; that which the node says where None.
        domain_id: ROS domain; that of the environment where None.
    """

    kind = 'ros'

    def __init__(
        self, nodes: Sequence[str], image: str | None = None, domain_id: int | None = None
    ) -> None:
        interfaces = load_interfaces()
        if interfaces is None:
            raise ConsoleError(
                f'the console needs the services of the node: {MISSING}, or run it without ROS: '
                'clipseg console --images FOLDER'
            )
        self.cards: Cards = ()
        self._interfaces: Any = interfaces
        self._given = tuple(f'/{name.strip("/")}' for name in nodes)
        self._node = self._given[0]
        self._image_given = image
        self._peer = Peer(f'clipseg_console_{os.getpid()}', domain_id)
        self._joiner = Joiner(self._on_shot, messages.make_shot)
        self._rates = Rates()
        self._layers: frozenset[str] | None = None
        self._lock = threading.RLock()
        self._streams: dict[str, Any] = {}
        self._camera: tuple[str, str] = ('', '')
        self._diagnostics: dict[str, tuple[float, DiagnosticStatus]] = {}
        self._order: tuple[str, ...] = ()
        self._examples: dict[str, Card] = {}
        self._parameters = NodeParameters(self._peer, self._on_parameters)
        # Of the node that is looked at, as its answers say it.
        self._model = ''
        self._closed = threading.Event()
        self._watched_at = 0.0
        self._thread = threading.Thread(
            target=self._follow_camera, name='console camera', daemon=True
        )

    def start(self, show: Callable[[Shot], None], tell: Callable[[], None]) -> None:
        """Subscribe to prompts and diagnostics; see :class:`BackEnd`."""
        self._show, self._tell = show, tell
        self._peer.node.create_subscription(
            DiagnosticArray, '/diagnostics', self._on_diagnostics, report_output()
        )
        self._attach()
        self._parameters.start()
        self._thread.start()

    def close(self) -> None:
        """End all subscriptions."""
        self._closed.set()
        self._parameters.close()
        self._thread.join(5.0)
        self._peer.close()

    def watch(self, layers: frozenset[str] | None) -> None:
        """Subscribe to what browsers show, and to nothing without one; see :class:`BackEnd`."""
        with self._lock:
            if layers == self._layers:
                return
            if self._layers is None:
                self._watched_at = time.monotonic()
            self._layers = layers
            self._joiner.want(layers or frozenset())
            self._subscribe()

    def status(self) -> Status:
        """Return how it is."""
        said = self._said()
        values = {} if said is None else {one.key: one.value for one in said.values}
        shown = self._rates.texts()
        return Status(
            title=self._node,
            model=values.get('model', ''),
            device=values.get('device', ''),
            values={**values, **{f'shown_{key}': text for key, text in shown.items()}},
            troubles=tuple(troubles(self._seen(said))),
            sources=tuple(Choice(name, name) for name in self._nodes()),
            source=self._node,
            threshold=self._parameters.thresholds[0],
            presence=self._parameters.thresholds[1],
            colours=dict(self._parameters.colours),
        )

    def change(self, cards: Sequence[Card]) -> str:
        """Make these the active prompts of the node; see :class:`BackEnd`."""
        interfaces = self._interfaces
        for card in cards:
            card.request() if card.example is not None or not card.pictured else None
        request = interfaces.SetPrompts.Request(
            prompts=[messages.prompt_message(interfaces.Prompt, card) for card in cards]
        )
        with self._lock:
            before = self._order, self._examples
            self._order = tuple(card.name for card in cards)
            self._examples = {card.key: card for card in cards if card.example is not None}
        answer = self._call(interfaces.SetPrompts, 'set_prompts', request)
        if not answer.success:
            with self._lock:
                self._order, self._examples = before
            raise PromptError(answer.message)
        self._take_prompts(answer.prompts)
        return str(answer.message)

    def cards_to_save(self) -> Cards:
        """Return the prompts as they are: the thresholds of all are the node's parameters."""
        return self.cards

    def set_values(self, values: dict[str, Any]) -> str:
        """Set parameters of the node; see :class:`BackEnd`."""
        for key, value in values.items():
            if key == 'colours':
                names = {card.key: card.name for card in self.cards}
                text = '; '.join(f'{names.get(name, name)}={code}' for name, code in value.items())
                self._set_parameter('overlay_colors', text)
                self._parameters.colours = dict(value)
            else:
                name = {'threshold': 'threshold', 'presence': 'presence_threshold'}[key]
                self._set_parameter(name, -1.0 if value is None else float(value))
        self._parameters.read_soon()
        return 'changed'

    def choose(self, what: str, key: str) -> str:
        """Look at another node; see :class:`BackEnd`."""
        if what != 'source' or key not in self._nodes():
            raise ConsoleError(f'there is no {what[:20]} {key[:60]!r} to choose')
        with self._lock:
            self._node = key
            self._camera, self._model = ('', ''), ''
            self.cards, self._order, self._examples = (), (), {}
            self._watched_at = time.monotonic()
            self._joiner.forget()
            self._attach()
        return f'{key} is looked at'

    def step(self, by: int, playing: bool | None = None) -> str:
        """Refuse: a camera moves by itself."""
        raise ConsoleError('there is nothing to step through: the camera moves by itself')

    def take_picture(self, rgb: NDArray[np.uint8], name: str) -> str:
        """Refuse: the node looks at its camera."""
        raise ConsoleError(
            'the node looks at its camera: drop the picture onto a prompt, as an example, or start '
            'the console without ROS (clipseg console)'
        )

    def answer(self, rgb: NDArray[np.uint8], cards: Sequence[Card]) -> Answer:
        """Have the node segment a picture that stands still; see :class:`BackEnd`."""
        interfaces = self._interfaces
        on = [card for card in cards if card.enabled]
        if not any(not card.negative for card in on):
            raise PromptError('there is nothing to look for: add a prompt, or enable one')
        image, cut = messages.image_message(rgb), self._parameters.thresholds[0]

        def ask(cards: Sequence[Card]) -> Any:
            request = interfaces.SegmentOnce.Request(
                image=image,
                prompts=[
                    messages.prompt_message(interfaces.Prompt, card, card.id) for card in cards
                ],
                positions=False,
                wait=_WAIT,
            )
            answer = self._call(interfaces.SegmentOnce, 'segment_once', request)
            if not answer.success:
                raise ConsoleError(str(answer.message))
            return answer

        def ask_against(keys: Collection[str], others: Collection[str]) -> NDArray[np.bool_]:
            asked = [card for card in filled(on, cut) if card.key in {*keys, *others}]
            # All are present: they were in the first answer, and have pixels.
            least = min(card.threshold or cut for card in asked)
            change = partial(replace, threshold=least, presence=LEAST_PRESENCE)
            answer = ask([change(card, negative=card.key in others) for card in asked])
            return np.logical_or.reduce([*messages.masks_of(answer).values()])

        return messages.answer_of(ask(on), ask_against)

    # What comes from the node -------------------------------------------------------------------

    def _attach(self) -> None:
        """Subscribe to the prompts of the node that is looked at."""
        with self._lock:
            self._destroy('prompts')
            self._streams['prompts'] = self._peer.node.create_subscription(
                self._interfaces.PromptArray,
                f'{self._node}/prompts',
                self._on_prompts,
                latched_output(),
            )
            for name in (*_LAYER_TOPICS, 'segments', 'picture'):
                self._destroy(name)
            self._subscribe()
        self._parameters.follow(self._node)

    def _subscribe(self) -> None:
        """Subscribe to what is shown, and end what is not."""
        layers = self._layers
        wanted: dict[str, tuple[Any, str, Callable[[Any], None]]] = {}
        if layers is not None:
            for name in layers:
                topic, kind = _LAYER_TOPICS[name]
                wanted[name] = (kind, f'{self._node}/{topic}', self._layer_taker(name))
            kind = self._interfaces.SegmentArray
            wanted['segments'] = (kind, f'{self._node}/segments', self._on_segments)
            topic, type_name = self._camera
            if topic:
                compressed = type_name.endswith('CompressedImage')
                kind = CompressedImage if compressed else Image
                wanted['picture'] = (kind, topic, self._on_picture)
        for name in set(self._streams) - {'prompts'} - set(wanted):
            self._destroy(name)
        for name, (kind, topic, take) in wanted.items():
            if name not in self._streams:
                self._streams[name] = self._peer.node.create_subscription(
                    kind, topic, take, sensor_input()
                )

    def _destroy(self, name: str) -> None:
        subscription = self._streams.pop(name, None)
        if subscription is not None:
            self._peer.node.destroy_subscription(subscription)

    def _layer_taker(self, name: str) -> Callable[[Any], None]:
        return lambda message: self._joiner.add_layer(stamp_of(message), name, message)

    def _on_picture(self, message: Any) -> None:
        self._joiner.add_picture(stamp_of(message), message)

    def _on_segments(self, message: Any) -> None:
        self._model = message.model
        self._joiner.add_found(
            [
                Found(one.id, one.name, float(one.score), bool(one.presence), int(one.area))
                for one in message.segments
            ]
        )

    def _on_shot(self, shot: Shot) -> None:
        self._rates.add(0.0, time.time() - shot.stamp)
        self._show(replace(shot, origin=f'{self._node} {self._model}'))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            name, _, what = status.name.partition(':')
            if what.strip() == 'segmentation':
                node = f'/{name}'
                # It may have been started anew, with other parameters.
                back = node == self._node and self._said() is None
                self._diagnostics[node] = (time.monotonic(), status)
                if back:
                    self._parameters.read_soon()
        self._tell()

    def _on_prompts(self, message: Any) -> None:
        if self._said() is None:
            # Prompts of a node that has just been started come before its diagnostics.
            self._parameters.read_soon()
        self._take_prompts(message.prompts)

    def _take_prompts(self, prompts: Sequence[Any]) -> None:
        with self._lock:
            defaults = self._parameters.thresholds
            cards = [messages.card_of(one, defaults, self._examples) for one in prompts]
            self.cards = ordered(cards, self._order)
            self._joiner.expect(any(card.enabled and not card.negative for card in self.cards))
        self._tell()

    # What this process finds out by itself ------------------------------------------------------

    def _follow_camera(self) -> None:
        """Find the camera's topic, which the node says in its diagnostics."""
        while not self._closed.wait(1.0 if self._layers is None else 0.25):
            said = self._said()
            values = {} if said is None else {one.key: one.value for one in said.values}
            given = self._image_given if self._node == self._given[0] else None
            topic = given or values.get('image_topic', '')
            kinds = dict(self._peer.node.get_topic_names_and_types()).get(topic, [])
            kind = next(iter(kinds), 'sensor_msgs/msg/Image')
            with self._lock:
                if topic and (topic, kind) != self._camera:
                    self._camera = (topic, kind)
                    self._destroy('picture')
                    self._subscribe()

    def _on_parameters(self) -> None:
        """Tell which thresholds are the prompts' own, now that those of all have been read."""
        threshold, presence = self._parameters.thresholds
        with self._lock:
            self.cards = tuple(
                replace(
                    card,
                    threshold=messages.own(card.threshold, threshold),
                    presence=messages.own(card.presence, presence),
                )
                for card in self.cards
            )
        self._tell()

    def _said(self) -> DiagnosticStatus | None:
        """Return what the node says of itself, unless it has fallen silent."""
        at, status = self._diagnostics.get(self._node, (0.0, None))
        return status if time.monotonic() - at < _GONE else None

    def _nodes(self) -> list[str]:
        now = time.monotonic()
        alive = {name for name, (at, _) in self._diagnostics.items() if now - at < 10.0}
        return list(dict.fromkeys((*self._given, *sorted(alive), self._node)))

    def _seen(self, said: DiagnosticStatus | None) -> Seen:
        topic = '' if self._layers is None else self._camera[0]
        level = b'\0' if said is None else said.level
        since = max(self._joiner.picture_at, self._watched_at)
        if self._layers == {'overlay'}:
            # Its own drawing is all that is shown of an image.
            since = max(since, self._joiner.layer_at)
        return Seen(
            node=self._node,
            domain=os.environ.get('ROS_DOMAIN_ID', '0'),
            known=self._node in self._diagnostics,
            alive=said is not None,
            level=level[0] if isinstance(level, bytes) else int(level),
            message='' if said is None else str(said.message),
            topic=topic,
            publishers=self._peer.node.count_publishers(topic) if topic else 0,
            silent=time.monotonic() - since,
        )

    def _set_parameter(self, name: str, value: Any) -> None:
        result = self._peer.set_parameter(self._node, name, value, _TIMEOUT)
        if not result.successful:
            raise PromptError(str(result.reason))

    def _call(self, kind: Any, name: str, request: Any) -> Any:
        return self._peer.call(kind, f'{self._node}/{name}', request, _TIMEOUT)
