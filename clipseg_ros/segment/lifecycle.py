"""The managed node that segments a camera's images by prompts.

One thread runs ROS callbacks, and the image callback only overwrites a slot; the frame worker's
threads do the rest. Loading happens in *configure*, warming up in *activate*, freeing in
*cleanup*; ``autostart`` walks the first two at start.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import SetBool

from clipseg_model.errors import ClipsegError
from clipseg_model.prompts import Prompt
from clipseg_model.registry import create_model
from clipseg_model.segmenter import Segmenter
from clipseg_model.settings import SegmentSettings
from clipseg_model.video.still import describe_reuse
from clipseg_ros.depth.stage import DepthStage
from clipseg_ros.images.backend import open_backend
from clipseg_ros.outputs.masks import MaskServer, MaskSource
from clipseg_ros.outputs.publishers import SegmentOutputs
from clipseg_ros.outputs.vision import MISSING as VISION_MISSING
from clipseg_ros.outputs.vision import load_vision_messages
from clipseg_ros.prompts.file_server import PromptFiles
from clipseg_ros.prompts.pick_server import PickServer
from clipseg_ros.prompts.server import PromptServer, header_of_now
from clipseg_ros.prompts.set import reported
from clipseg_ros.prompts.topics import PromptTopics
from clipseg_ros.ros.interfaces import MISSING, load_interfaces
from clipseg_ros.ros.log import ThrottledLog
from clipseg_ros.ros.parameters import declare, find_problem, read_settings
from clipseg_ros.ros.qos import QosWatch, sensor_input
from clipseg_ros.ros.tuning import forget_dead_entities, release_freed_memory
from clipseg_ros.segment.diagnostics import Situation, find_rest, no_prompt
from clipseg_ros.segment.faults import FrameFaults
from clipseg_ros.segment.frame_worker import FrameWorker
from clipseg_ros.segment.lost_images import LostImages
from clipseg_ros.segment.newest_frame import NewestFrame
from clipseg_ros.segment.parameters import DECLARATIONS, Settings
from clipseg_ros.segment.pipeline import (
    FoundFrame,
    SegmentationPipeline,
    SegmentedFrame,
    check_representable,
    stream_on_gpu,
)
from clipseg_ros.segment.report import NodeReport, Parts
from clipseg_ros.segment.shared_model import SharedSegmenter

_SUCCESS = TransitionCallbackReturn.SUCCESS
_FAILURE = TransitionCallbackReturn.FAILURE


class SegmentNode(LifecycleNode):
    """The node ``clipseg``.

    Args:
        name: Of the node.
        load: From the parameters ``model``, ``device`` and ``threads`` to a segmenter.
        options: Those of :class:`rclpy.node.Node`.

    Raises:
        rclpy.exceptions.InvalidParameterValueException: A parameter given at start is refused.
    """

    def __init__(
        self,
        name: str = 'clipseg',
        load: Callable[..., Segmenter] = create_model,
        **options: Any,
    ) -> None:
        super().__init__(name, **options)
        self._load = load
        self._segmenter: Segmenter | None = None
        self._pipeline: SegmentationPipeline | None = None
        self._outputs: SegmentOutputs | None = None
        self._depth: DepthStage | None = None
        self._subscription: Any = None
        self._worker: FrameWorker[Any, FoundFrame, SegmentedFrame] | None = None
        self._enabled = True
        self._failure = ''
        self._told: set[str] = set()
        self._log = ThrottledLog(self.get_logger())
        self._faults = FrameFaults(self._log)
        self._interfaces = load_interfaces()
        if self._interfaces is None:
            self.get_logger().info(MISSING)
        if load_vision_messages() is None:
            self.get_logger().info(VISION_MISSING)
        self._watch = QosWatch(self)
        self._prompt_server = PromptServer(
            self, self._interfaces, self._check_prompts, self._announce_prompts
        )
        self._lost = LostImages()
        self._newest = NewestFrame(lambda: self._pipeline)
        entry = self, self._interfaces, self._prompt_server, self._log
        self._prompt_files = PromptFiles(*entry)
        self._prompt_entries = (
            PromptTopics(*entry),
            PickServer(self._newest.read, *entry),
            self._prompt_files,
        )
        self._mask_server = MaskServer(
            self, self._interfaces, self._look_for_masks, self._segment_again
        )
        self.add_on_set_parameters_callback(self._validate_parameters)
        declare(self, Settings)
        self._prompt_server.start()
        self._settings = read_settings(Settings, self)
        self.add_post_set_parameters_callback(self._apply_parameters)
        self._report = NodeReport(self, self._look)
        self._enable_service = self.create_service(SetBool, '~/enable', self._on_enable)
        self._start_timer: Any = None
        if self._settings.autostart:
            # Steady: with use_sim_time and no clock yet, the node still starts.
            steady = Clock(clock_type=ClockType.STEADY_TIME)
            self._start_timer = self.create_timer(0.0, self._autostart, clock=steady)

    @property
    def full_name(self) -> str:
        """The node's name with its namespace."""
        return str(self.get_fully_qualified_name())

    def threshold(self) -> float:
        """Returns the threshold in force for prompts without one of their own."""
        if self._settings.threshold is not None:
            return self._settings.threshold
        return self._segmenter.card.threshold if self._segmenter is not None else 0.5

    def presence_threshold(self) -> float:
        """Returns the presence threshold in force for prompts without one of their own."""
        chosen = self._settings.steadying.presence_threshold
        if chosen is not None:
            return chosen
        return self._segmenter.card.presence_threshold if self._segmenter is not None else 0.0

    def close(self) -> None:
        """Stops the threads and takes the topics away; the node may be destroyed then."""
        self._stop_worker()
        self._release()

    # Transitions. rclpy drops what they raise, so each reports its failure itself.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Loads the model and creates the topics."""
        return self._attempt('configure', self._configure, self._release)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Warms the model up and starts to segment."""
        return self._attempt('activate', lambda: self._activate(state), self._stop_worker)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stops segmenting; the model stays loaded."""
        self._stop_worker()
        super().on_deactivate(state)
        self.get_logger().info('inactive')
        return _SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Frees the model's memory and takes the topics away."""
        self._release()
        self.get_logger().info('cleaned up, memory freed')
        return _SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Ends everything, from any state."""
        self.close()
        return _SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Falls back to unconfigured, from where the node can be configured again."""
        self.close()
        return _SUCCESS

    def _autostart(self) -> None:
        self.destroy_timer(self._start_timer)
        if self.trigger_configure() == _SUCCESS:
            self.trigger_activate()

    def _attempt(
        self, step: str, act: Callable[[], None], undo: Callable[[], None]
    ) -> TransitionCallbackReturn:
        try:
            act()
        except Exception as error:
            undo()
            named = isinstance(error, ClipsegError)
            self._failure = str(error) if named else f'{type(error).__name__}: {error}'
            self.get_logger().error(
                f'{step} failed: {self._failure}. The node lives on; mend it and call '
                f'`ros2 lifecycle set {self.full_name} {step}`, or restart it'
            )
            return _FAILURE
        self._failure = ''
        return _SUCCESS

    def _configure(self) -> None:
        settings = self._settings
        compressed = settings.image_transport == 'compressed'
        backend = open_backend(settings.image_backend, compressed)
        if backend.notice:
            self.get_logger().info(backend.notice)
        self._segmenter = self._load(
            settings.model,
            settings.device,
            settings.threads,
            settings.runtime,
            settings.precision,
            settings.exports,
        )
        if isinstance(self._segmenter, SharedSegmenter):
            self._segmenter.max_batch = settings.max_batch
        self.get_logger().info(f'Runtime: {self._segmenter.runtime.describe()}')
        if self._settings.reuse_below:
            self._segmenter.check_settings(SegmentSettings(reuse_below=self._settings.reuse_below))
            self._tell_reuse()
        card = self._segmenter.card
        if card.notice and card.name not in self._told:
            self._told.add(card.name)
            self.get_logger().warning(f'{card.name}: {card.notice}')
        self._watch = QosWatch(self)
        self._outputs = SegmentOutputs(self, self._watch, self._interfaces)
        self._depth = DepthStage(self, self._watch, self._outputs, self._log)
        self._pipeline = SegmentationPipeline(
            self._segmenter,
            self._prompt_server.prompts,
            self._outputs,
            lambda: self._settings,
            lambda: int(self.get_clock().now().nanoseconds),
            backend.to_rgb,
            stream_on_gpu(self._segmenter),
            self._depth,
            self._mask_server,
            partial(self._log.warning, 'memory'),
        )
        topic = self.resolve_topic_name('image') + ('/compressed' if compressed else '')
        self._subscription = self._watch.create_subscription(
            CompressedImage if compressed else Image, topic, self._on_image, sensor_input()
        )
        self._prompt_server.inbox.open()
        for entry in self._prompt_entries:
            entry.open(self._watch)
        if not self._prompt_files.restore():
            self._prompt_server.resume()
        self._announce_prompts()

    def _activate(self, state: LifecycleState) -> None:
        assert self._pipeline is not None
        assert self._segmenter is not None
        assert self._depth is not None
        super().on_activate(state)
        worker: FrameWorker[Any, FoundFrame, SegmentedFrame] = FrameWorker(
            self._process,
            self._pipeline.publish,
            self._pipeline.finish,
            self._on_frame_error,
            self._settings.max_rate,
        )
        worker.start(setup=self._pipeline.warm_up)
        self._faults.clear()
        self._lost.start()
        self._worker = worker
        self._depth.start()
        self.get_logger().info(
            f'active: {self._segmenter.card.name} on {self._segmenter.device}, images from '
            f'{self._subscription.topic_name}'
        )
        if not self._prompt_server.prompts.reported:
            self.get_logger().warning(no_prompt(self.full_name))

    def _stop_worker(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None and not worker.stop():
            self.get_logger().error(
                'the model is still busy on an image after 10 s; its thread ends with the process'
            )
        if self._depth is not None:
            self._depth.stop()

    def _release(self) -> None:
        for entry in self._prompt_entries:
            entry.close()
        self._prompt_server.inbox.close()
        self._newest.clear()
        if self._subscription is not None:
            self.destroy_subscription(self._subscription)
        if self._depth is not None:
            self._depth.destroy()
        if self._outputs is not None:
            self._outputs.destroy()
        self._subscription = self._outputs = self._pipeline = self._segmenter = None
        self._depth = None
        gc.collect()
        forget_dead_entities(self)
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        release_freed_memory()

    # Frames.

    def _on_image(self, message: Any, info: Mapping[str, Any]) -> None:
        self._newest.put(message)
        self._lost.see(info, self._subscription.get_publisher_count())
        worker = self._worker
        if worker is not None and self._enabled:
            worker.put(message)

    def _process(self, message: Any) -> FoundFrame | None:
        assert self._pipeline is not None
        frame = self._pipeline.process(message)
        self._faults.clear()
        return frame

    def _on_frame_error(self, error: Exception) -> None:
        # Otherwise the process is ending, and publishing failed for that reason.
        if self.context.ok():
            self._faults.add(error)

    # Parameters, prompts, enable.

    def _validate_parameters(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            problem = find_problem(
                DECLARATIONS, parameter.name, parameter.value, self._segmenter is not None
            )
            if not problem and parameter.name == 'prompt':
                problem = self._prompt_server.find_problem(parameter)
            if not problem and parameter.name in ('template', 'visual_method'):
                problem = self._check_reading(**{parameter.name: parameter.value})
            if not problem and parameter.name == 'reuse_below':
                problem = self._check_reuse(parameter.value)
            if problem:
                return SetParametersResult(successful=False, reason=problem)
        return SetParametersResult(successful=True)

    def _apply_parameters(self, parameters: Sequence[Parameter]) -> None:
        before, self._settings = self._settings, read_settings(Settings, self)
        if self._worker is not None:
            self._worker.max_rate = self._settings.max_rate
        names = {parameter.name: parameter for parameter in parameters}
        # Not for others: subscribing declares parameters (of its QoS), and comes here from there.
        if self._depth is not None and self._settings.depth != before.depth:
            self._depth.update()
        if names.keys() & {'reuse_below', 'reuse_frames'}:
            self._tell_reuse()
        if 'prompt' in names:
            self._prompt_server.follow(names['prompt'])
        elif names.keys() & {'threshold', 'presence_threshold'}:
            self._announce_prompts()
        if self._settings.text_weight != before.text_weight:
            self._prompt_server.remix(before.text_weight, self._settings.text_weight)

    def _check_prompts(self, prompts: Sequence[Prompt]) -> None:
        if self._segmenter is not None:
            check_representable(self._segmenter, prompts, self._settings)

    def _check_reading(self, **changes: Any) -> str:
        """Why the active prompts cannot be read with another template or visual method."""
        active = [entry.prompt for entry in self._prompt_server.prompts.active]
        try:
            if self._segmenter is not None:
                check_representable(self._segmenter, active, replace(self._settings, **changes))
        except ClipsegError as error:
            return str(error)
        return ''

    def _check_reuse(self, below: float) -> str:
        """Why the loaded model cannot reuse encodings."""
        try:
            if self._segmenter is not None:
                self._segmenter.check_settings(SegmentSettings(reuse_below=below))
        except ClipsegError as error:
            return str(error)
        return ''

    def _tell_reuse(self) -> None:
        """Logs that masks are an approximation, or no longer."""
        if self._settings.reuse_below:
            said = describe_reuse(self._settings.reuse_below, self._settings.reuse_frames)
            self.get_logger().info(f'approximation (reuse_below): {said}')
        else:
            self.get_logger().info('no approximation (reuse_below 0): every image is encoded')

    def _announce_prompts(self) -> None:
        if self._outputs is not None and self._segmenter is not None:
            self._outputs.publish_prompts(
                self._prompt_server.messages(self._prompt_server.prompts.active),
                self._segmenter.card.name,
                header_of_now(self),
            )
            self._outputs.publish_label_info(
                reported(self._prompt_server.prompts.active),
                self.threshold(),
                header_of_now(self),
            )

    def _on_enable(self, request: Any, response: Any) -> Any:
        self._enabled = request.data
        response.success = True
        response.message = 'enabled' if self._enabled else 'disabled: no image is segmented'
        self.get_logger().info(response.message)
        return response

    # How it is.

    def _look(self) -> Parts:
        return Parts(
            state=str(self._state_machine.current_state[1]),
            failure=self._failure,
            enabled=self._enabled,
            prompts=self._prompt_server.prompts.reported,
            settings=self._settings,
            frame_fault=self._faults.newest,
            watch=self._watch,
            subscription=self._subscription,
            lost=self._lost.count,
            segmenter=self._segmenter,
            worker=self._worker,
            pipeline=self._pipeline,
            outputs=self._outputs,
            depth=self._depth,
        )

    def _look_for_masks(self) -> MaskSource:
        parts = self._look()
        names = tuple(entry.name for entry in parts.prompts)
        rest = find_rest(
            Situation(self.full_name, parts.state, parts.failure, parts.enabled, names)
        )
        newest = self._newest.message
        return MaskSource(
            rest=rest.message if rest is not None else '',
            fault=parts.frame_fault,
            prompts=parts.prompts,
            header=newest.header if newest is not None else None,
            found=parts.pipeline.last_found if parts.pipeline is not None else None,
        )

    def _segment_again(self) -> None:
        """Has the newest image segmented by the prompts of now, if it was not."""
        pipeline, message = self._pipeline, self._newest.message
        if self._worker is None or pipeline is None or message is None:
            return
        if pipeline.take_back(message):
            self._worker.put(message, again=True)
