"""The managed node that segments a camera's images by prompts.

One thread runs ROS callbacks, and the image callback only overwrites a slot; the worker's threads
do the rest. *configure* loads the model, *activate* warms it up, *cleanup* frees it; ``autostart``
does the first two at start.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_msgs.msg import Header
from std_srvs.srv import SetBool

from clipseg_model.errors import ClipsegError
from clipseg_model.prompts import Prompt
from clipseg_model.registry import create_model
from clipseg_model.video.still import describe_reuse
from clipseg_ros.health.diagnostics import Situation, find_rest
from clipseg_ros.images.backend import open_backend
from clipseg_ros.outputs.messages import (
    MARKERS_MISSING,
    VISION_MISSING,
    load_marker_messages,
    load_vision_messages,
)
from clipseg_ros.process.tuning import large_blocks_apart
from clipseg_ros.prompts.server import PromptServer
from clipseg_ros.prompts.set import reported
from clipseg_ros.ros.callback_groups import forget_dead_entities, guard_transitions
from clipseg_ros.ros.given import GivenParameters, declare
from clipseg_ros.ros.interfaces import MISSING, load_interfaces
from clipseg_ros.ros.log import ThrottledLog, cut
from clipseg_ros.ros.parameters import find_problem, read_settings
from clipseg_ros.ros.timing import create_steady_timer
from clipseg_ros.segment.loading import NodeSegmenter, check_representable, load_segmenter
from clipseg_ros.segment.memory_relief import give_back_memory
from clipseg_ros.segment.model_choice import CHOICES, find_choice_problem
from clipseg_ros.segment.parameters import DECLARATIONS, Settings
from clipseg_ros.segment.report import NodeReport, NodeState
from clipseg_ros.segment.services import NodeServices
from clipseg_ros.segment.stream import CameraStream

_SUCCESS = TransitionCallbackReturn.SUCCESS
_FAILURE = TransitionCallbackReturn.FAILURE


class SegmentNode(GivenParameters, LifecycleNode):
    """The node ``clipseg``.

    Args:
        name: Of the node.
        load: Loads the model; takes the arguments of :func:`~clipseg_model.registry.create_model`.
        options: Those of :class:`rclpy.node.Node`.

    Raises:
        ParameterError: A parameter given at start is of another type.
        rclpy.exceptions.InvalidParameterValueException: A parameter given at start is refused.
    """

    declarations = DECLARATIONS

    def __init__(
        self,
        name: str = 'clipseg',
        load: Callable[..., NodeSegmenter] = create_model,
        **options: Any,
    ) -> None:
        super().__init__(name, **options)
        self._load = load
        self._stream: CameraStream | None = None
        # rclpy's own copy of the state is private.
        self._state = 'unconfigured'
        self._enabled = True
        self._failure = ''
        self.gave_up = False
        """Whether something failed that the process shall not outlive."""
        self._notices: set[str] = set()
        self._log = ThrottledLog(self.get_logger())
        guard_transitions(self, lambda said: self._log.warning('transition', said, each=True))
        self._interfaces = load_interfaces()
        if self._interfaces is None:
            self.get_logger().info(MISSING)
        if load_vision_messages() is None:
            self.get_logger().info(VISION_MISSING)
        if load_marker_messages() is None:
            self.get_logger().info(MARKERS_MISSING)
        self._prompt_server = PromptServer(
            self, self._interfaces, self._check_prompts, self._announce_prompts
        )
        self._servers = NodeServices(
            self,
            self._interfaces,
            self._prompt_server,
            self._log,
            self._look,
            self._check_prompts,
        )
        # Anything may be chosen at start.
        self._models_at_start: tuple[str, ...] | None = None
        self.add_on_set_parameters_callback(self._validate_parameters)
        declare(self, Settings)
        self._prompt_server.start()
        self._settings = read_settings(Settings, self)
        started = (getattr(self._settings, name) for name in CHOICES)
        self._models_at_start = tuple(one for one in started if one)
        self.follow_parameters(self._apply_parameters)
        self._report = NodeReport(self, self._look)
        self._enable_service = self.create_service(SetBool, '~/enable', self._on_enable)
        self._start_timer: Any = None
        if self._settings.autostart:
            self._start_timer = create_steady_timer(self, 0.0, self._autostart)

    @property
    def full_name(self) -> str:
        """The node's name with its namespace."""
        return str(self.get_fully_qualified_name())

    def threshold(self) -> float:
        """Return the threshold in force for prompts without one of their own."""
        if self._settings.threshold is not None:
            return self._settings.threshold
        return self._stream.segmenter.card.threshold if self._stream is not None else 0.5

    def presence_threshold(self) -> float:
        """Return the presence threshold in force for prompts without one of their own."""
        chosen = self._settings.presence_threshold
        if chosen is not None:
            return chosen
        return self._stream.segmenter.card.presence_threshold if self._stream is not None else 0.0

    def close(self) -> None:
        """Stop the threads and remove the topics; the node may be destroyed then."""
        self._stop()
        self._release()

    # Transitions. rclpy drops what they raise, so each reports its failure itself.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and create the topics."""
        return self._attempt('configure', self._configure, self._release, 'inactive')

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Warm the model up and start to segment."""
        return self._attempt('activate', lambda: self._activate(state), self._stop, 'active')

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop segmenting; the model stays loaded."""
        self._stop()
        super().on_deactivate(state)
        self._state, self._failure = 'inactive', ''
        self._log.info('inactive', 'inactive', each=True)
        return _SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model's memory and remove the topics."""
        self._release()
        self._state, self._failure = 'unconfigured', ''
        self._log.info('cleanup', 'cleaned up, memory freed', each=True)
        return _SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End everything, from any state."""
        self.close()
        self._state, self._failure = 'finalized', ''
        return _SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Return to unconfigured, from where the node can be configured again."""
        self.close()
        self._state = 'unconfigured'
        return _SUCCESS

    def _autostart(self) -> None:
        self.destroy_timer(self._start_timer)
        if self.trigger_configure() == _SUCCESS:
            self.trigger_activate()

    def _attempt(
        self, step: str, act: Callable[[], None], undo: Callable[[], None], reached: str
    ) -> TransitionCallbackReturn:
        try:
            with large_blocks_apart():
                act()
        except Exception as error:
            named = isinstance(error, ClipsegError)
            self._failure = str(error) if named else f'{type(error).__name__}: {error}'
        else:
            self._failure, self._state = '', reached
            return _SUCCESS
        # Here, not above: while an error is handled, its traceback keeps the model in memory.
        undo()
        if self._settings.exit_on_failure:
            self.gave_up = True
            self._log.error(step, f'{step} failed: {self._failure}. exit_on_failure: ending')
            return _FAILURE
        self._log.error(
            step,
            f'{step} failed: {cut(self._failure)}. The node lives on; mend it and call '
            f'`ros2 lifecycle set {self.full_name} {step}`, or restart it',
            each=True,
        )
        return _FAILURE

    def _configure(self) -> None:
        settings = self._settings
        backend = open_backend(settings.image_backend, settings.image_transport == 'compressed')
        if backend.notice:
            self._log.info('backend', backend.notice, each=True)
        segmenter = load_segmenter(settings, self._load)
        card = segmenter.card
        self._log.info('runtime', f'Runtime: {segmenter.runtime.describe()}', each=True)
        if settings.reuse_below:
            self._tell_reuse()
        if card.notice and card.name not in self._notices:
            self._notices.add(card.name)
            self.get_logger().warning(f'{card.name}: {card.notice}')
        self._stream = stream = CameraStream(
            self,
            settings,
            segmenter,
            backend,
            self._prompt_server.prompts,
            self._servers.demand,
            self._interfaces,
            self._log,
        )
        stream.enabled = self._enabled
        self._prompt_server.inbox.open()
        self._servers.open(stream.watch)
        if not self._servers.prompt_files.restore():
            self._prompt_server.resume()
        self._announce_prompts()

    def _activate(self, state: LifecycleState) -> None:
        stream = self._stream
        assert stream is not None
        super().on_activate(state)
        stream.start()
        # What loading took, and no frame takes again; and what the first one takes anew.
        give_back_memory()
        self._log.info(
            'active',
            f'active: {stream.segmenter.card.name} on {stream.segmenter.device}, images from '
            f'{stream.topic}',
            each=True,
        )
        rest = find_rest(
            Situation.at_rest(
                self.full_name, 'active', '', True, self._prompt_server.prompts.active
            )
        )
        if rest is not None:
            self._log.warning('rest', rest.message, each=True)

    def _stop(self) -> None:
        if self._stream is not None and not self._stream.stop():
            self.get_logger().error(
                'the model is still busy on an image after 10 s; its thread ends with the process'
            )

    def _release(self) -> None:
        self._servers.close()
        self._prompt_server.inbox.close()
        if self._stream is not None:
            self._stream.close()
        self._stream = None
        gc.collect()
        forget_dead_entities(self)
        give_back_memory()

    # Parameters, prompts, enable.

    def _validate_parameters(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            name, value = parameter.name, parameter.value
            problem = find_problem(DECLARATIONS, name, value, configured=self._stream is not None)
            if not problem and name in CHOICES and self._models_at_start is not None:
                wish = DECLARATIONS[name].read(value)
                problem = find_choice_problem(name, wish, self._models_at_start)
            if not problem and name == 'prompt':
                problem = self._prompt_server.find_problem(parameter)
            if not problem and name in ('template', 'visual_method', 'reuse_below', 'zoom'):
                problem = self._find_model_problem(name, value)
            if problem:
                return SetParametersResult(successful=False, reason=problem)
        return SetParametersResult(successful=True)

    def _find_model_problem(self, name: str, value: Any) -> str:
        """Return why the loaded model cannot do with a parameter, or an empty string."""
        if self._stream is None:
            return ''
        segmenter = self._stream.segmenter
        active = [entry.prompt for entry in self._prompt_server.prompts.active]
        settings = replace(self._settings, **{name: DECLARATIONS[name].read(value)})
        try:
            if name in ('reuse_below', 'zoom'):
                self._stream.zoom.check(settings, active)
            else:
                check_representable(segmenter, active, settings)
        except ClipsegError as error:
            return str(error)
        return ''

    def _apply_parameters(self, parameters: Sequence[Parameter]) -> None:
        before, self._settings = self._settings, read_settings(Settings, self)
        names = {parameter.name: parameter for parameter in parameters}
        if self._stream is not None:
            self._stream.set_parameters(self._settings)
        elif any(_takes_effect_late(name) for name in names) and self._settings != before:
            # It may have been the reason: the next attempt to configure tells.
            self._failure = ''
        if _reuse_of(self._settings) != _reuse_of(before):
            self._tell_reuse()
        if 'prompt' in names:
            self._prompt_server.follow(names['prompt'])
        elif names.keys() & {'threshold', 'presence_threshold'}:
            self._announce_prompts()
        if self._settings.text_weight != before.text_weight:
            self._prompt_server.remix(before.text_weight, self._settings.text_weight)

    def _check_prompts(self, prompts: Sequence[Prompt]) -> None:
        if self._stream is not None:
            check_representable(self._stream.segmenter, prompts, self._settings)
            self._stream.zoom.check(self._settings, prompts)

    def _tell_reuse(self) -> None:
        if self._settings.reuse_below:
            said = describe_reuse(self._settings.reuse_below, self._settings.reuse_frames)
            self._log.info('reuse', f'approximation (reuse_below): {said}', each=True)
        else:
            said = 'no approximation (reuse_below 0): every image is encoded'
            self._log.info('reuse', said, each=True)

    def _announce_prompts(self) -> None:
        if self._stream is None:
            return
        outputs, header = self._stream.outputs, Header(stamp=self.get_clock().now().to_msg())
        active = self._prompt_server.prompts.active
        messages = self._prompt_server.messages(active)
        outputs.publish_prompts(messages, self._stream.segmenter.card.name, header)
        outputs.publish_label_info(reported(active), self.threshold(), header)

    def _on_enable(self, request: Any, response: Any) -> Any:
        before, self._enabled = self._enabled, request.data
        if self._stream is not None:
            self._stream.enabled = self._enabled
        response.success = True
        response.message = 'enabled' if self._enabled else 'disabled: no image is segmented'
        if self._enabled != before:
            self._log.info('enable', response.message, each=True)
        return response

    # What its services and its report ask it.

    def _look(self) -> NodeState:
        return NodeState(
            self._state,
            self._failure,
            self._enabled,
            self._prompt_server.prompts.active,
            self._settings,
            self._stream,
        )


def _takes_effect_late(name: str) -> bool:
    return name in DECLARATIONS and DECLARATIONS[name].when == 'configure'


def _reuse_of(settings: Settings) -> tuple[float, int]:
    return settings.reuse_below, settings.reuse_frames
