"""The one way in for prompts: every entry makes requests, and calls :meth:`PromptServer.change`.

The parameter ``prompt`` is the text of all active prompts that have words, whichever way they came.
A change writes it last, and the node never reads it back. What a text cannot say, the pictures,
stays beside it: see :func:`clipseg_ros.prompts.requests.from_text`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rclpy.parameter import Parameter

from clipseg_model.errors import ClipsegError
from clipseg_model.prompts import Prompt
from clipseg_ros.prompts.messages import write_messages
from clipseg_ros.prompts.paced_inbox import PacedInbox
from clipseg_ros.prompts.requests import as_requests, from_text, with_text_weight
from clipseg_ros.prompts.set import ActivePrompt, PromptRequest, PromptSet, describe
from clipseg_ros.prompts.support_pair import SupportPair
from clipseg_ros.prompts.text import Texts, read_prompts, survive_yaml_texts, write_prompts
from clipseg_ros.ros.interfaces import Interfaces
from clipseg_ros.ros.log import ThrottledLog


class PromptServer:
    """Keeps the active prompts, and the parameter ``prompt`` in step with them.

    Args:
        node: The node; has the parameters ``prompt`` and ``text_weight``.
        interfaces: The package's own messages, if they are built.
        check: Raises a PromptError for prompts that the loaded model cannot read.
        announce: Called after the prompts have changed.
    """

    def __init__(
        self,
        node: Any,
        interfaces: Interfaces | None,
        check: Callable[[Sequence[Prompt]], None],
        announce: Callable[[], None],
    ) -> None:
        self.prompts = PromptSet()
        self.inbox = PacedInbox(node)
        """What has come by topic, until it takes effect."""
        self.pair = SupportPair()
        """The support image and its mask, which come one by one."""
        self._node, self._interfaces = node, interfaces
        self._check_readable, self._announce = check, announce
        self._log = ThrottledLog(node.get_logger())
        # From the validation of the parameter to its application: a value, and what it asks for;
        # None for a value that was written here, after it had taken effect.
        self._validated: tuple[Parameter | None, list[PromptRequest] | None] = (None, None)
        # What the parameter asked for at start, until a model is loaded.
        self._first: list[PromptRequest] | None = None
        # The words that the parameter says; None until it has been applied or written.
        self._words: str | None = None

    def change(self, requests: Sequence[PromptRequest], text: Texts | None = None) -> None:
        """Make these the active prompts: check, apply, announce, and write the parameter.

        An empty list stops. ``text`` is the parameter's value; by default it is written from the
        requests.

        Raises:
            PromptError: The model cannot read one, or they do not go together: nothing has changed.
        """
        self._check(requests)
        self._apply(requests)
        self._write(text)

    def replace(self, requests: Sequence[PromptRequest]) -> None:
        """Make these the active prompts, pictures included, as :meth:`change` does.

        A support mask that comes later does not refine a picture of before.
        """
        self.change(requests)
        self.pair.forget()

    def restore(self, requests: Sequence[PromptRequest]) -> None:
        """Make these the active prompts as :meth:`replace` does, after a model has been loaded.

        Words that are active already are checked too: the model of before has read them.
        """
        self._check(requests, new_model=True)
        self._apply(requests)
        self._write()
        self.pair.forget()

    def read(self, text: Texts) -> list[PromptRequest]:
        """Return what a text asks for, given the pictures that are active; raises a PromptError."""
        return from_text(read_prompts(text), self.prompts.active, self.text_weight)

    def find_problem(self, parameter: Parameter) -> str:
        """Return why a value of the parameter is refused, or an empty string. Changes no prompt."""
        if parameter is self._validated[0]:
            return ''
        try:
            requests = self.read(parameter.value)
            self._check(requests)
        except ClipsegError as error:
            return str(error)
        self._validated = parameter, requests
        return ''

    def follow(self, parameter: Parameter) -> None:
        """Make a value of the parameter the active prompts; it has just been validated."""
        validated, requests = self._validated
        assert parameter is validated, 'a parameter is validated before it is applied'
        if requests is not None:
            self.inbox.clear('~/prompt')
            self._apply(requests)
            self._words = self._active_words()

    def start(self) -> None:
        """Keep what the parameter, declared just now, asks for until a model is loaded."""
        self._first = self._validated[1]

    def resume(self) -> None:
        """Activate the prompts of before, at first those of the parameter, with another model.

        Without any if it cannot read them, which is logged.
        """
        requests = self._first or as_requests(self.prompts.active)
        try:
            self._check(requests, new_model=True)
        except ClipsegError as error:
            self._log.error(
                'resume', f'parameter prompt refused, going on without one: {error}', each=True
            )
            # Not by change(): a model may refuse even no prompts, with this visual method.
            self._apply([])
            self._write()
            return
        if self._first:
            self._apply(self._first)
        self._words = self._active_words()

    def remix(self, before: float, weight: float) -> None:
        """Follow ``text_weight``; prompts that were given another weight of their own keep that."""
        mixed = with_text_weight(self.prompts.active, before, weight)
        if mixed != as_requests(self.prompts.active):
            self.change(mixed)

    def messages(self, active: Sequence[ActivePrompt]) -> list[Any]:
        """Return prompts as messages; none if the package's messages are not built."""
        if self._interfaces is None:
            return []
        thresholds = self._node.threshold(), self._node.presence_threshold()
        return write_messages(self._interfaces.Prompt, active, *thresholds)

    def text_weight(self) -> float:
        """Return the parameter ``text_weight``."""
        return float(self._node.get_parameter('text_weight').value)

    def max_pixels(self) -> int:
        """Return the parameter ``max_pixels``, which holds for pictures of prompts too."""
        return int(self._node.get_parameter('max_pixels').value)

    def _check(self, requests: Sequence[PromptRequest], new_model: bool = False) -> None:
        # The model has read the words that are active, unless it has just been loaded. Words that
        # are known may have become a negative prompt's.
        known = set() if new_model else {entry.prompt.text for entry in self.prompts.active}
        prompts = [request.prompt for request in requests]
        self._check_readable([one for one in prompts if one.text not in known or one.negative])
        self.prompts.check(requests)

    def _apply(self, requests: Sequence[PromptRequest]) -> None:
        self._first = None
        if not requests:
            self.inbox.clear()
            self.pair.forget()
        before = self.prompts.active
        if self.prompts.replace(requests) != before:
            self._log.info('prompts', describe(self.prompts.active), each=True)
        self._announce()

    def _write(self, text: Texts | None = None) -> None:
        """Set the parameter to a text, or to the active words if it says others."""
        words = self._active_words()
        if text is None and words == self._words:
            return
        self._words = words
        value = words if text is None else survive_yaml_texts(text)
        parameter = Parameter('prompt', value=value)
        self._validated = parameter, None
        result = self._node.set_parameters_atomically([parameter])
        if not result.successful:
            self._log.error('lag', f'parameter prompt lags behind: {result.reason}')

    def _active_words(self) -> str:
        return write_prompts(entry.prompt for entry in self.prompts.active)
