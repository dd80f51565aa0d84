"""Everything of the node that exists while it is configured: model, topics and worker threads."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image

from clipseg_model.errors import ClipsegError
from clipseg_ros.depth.stage import DepthStage
from clipseg_ros.health.arrivals import LostImages, NewestImage
from clipseg_ros.health.diagnostics import FrameFaults, present_fault
from clipseg_ros.health.loss import LossWatch
from clipseg_ros.health.wire_watch import WireWatch, hears_images
from clipseg_ros.images.backend import ImageBackend
from clipseg_ros.outputs.on_demand import FramesOnDemand
from clipseg_ros.outputs.publishers import SegmentOutputs
from clipseg_ros.outputs.result import FrameResult
from clipseg_ros.prompts.set import PromptSet, reported
from clipseg_ros.ros.interfaces import Interfaces
from clipseg_ros.ros.log import ThrottledLog
from clipseg_ros.ros.qos import QosWatch
from clipseg_ros.segment.frame_worker import FrameWorker
from clipseg_ros.segment.loading import NodeSegmenter
from clipseg_ros.segment.memory_relief import MemoryRelief, give_back_memory, stream_on_gpu
from clipseg_ros.segment.parameters import Settings
from clipseg_ros.segment.pipeline import FrameRequest, SegmentationPipeline, StartedFrame
from clipseg_ros.segment.subscription import ImageSubscription
from clipseg_ros.segment.zoom import NodeZoom


class CameraStream:
    """Brings the images of one camera through the model to the outputs.

    The executor's thread overwrites one slot with each image; the three threads of a worker make a
    request of the newest image, publish its result, and publish what can wait. Prompts are read at
    the start of each frame; ``demand`` may ask for a result though nobody subscribes.

    Attributes:
        segmenter: The loaded model.
        zoom: How it looks at parts of images again.
        settings: The parameters.
        watch: Creates topics and watches their peers.
        outputs: The publishers.
        depth: The 3D part.
        pipeline: What the threads of the worker run.
        worker: The threads; None while the node is inactive.
        newest: The newest image and the newest result.
        lost: Counts images that did not arrive, or were overwritten before this node took them.
        losses: Judges those that did not arrive.
        images: The subscription to the images, which is there while somebody needs them.
        faults: What was wrong with the newest frame.
        wire: Finds out why no images come.
        topic: Resolved name of the image topic.
    """

    def __init__(
        self,
        node: Any,
        settings: Settings,
        segmenter: NodeSegmenter,
        backend: ImageBackend,
        prompts: PromptSet,
        demand: FramesOnDemand,
        interfaces: Interfaces | None,
        log: ThrottledLog,
    ) -> None:
        self._node, self._prompts, self._demand = node, prompts, demand
        self._backend = backend
        self.segmenter = segmenter
        self.zoom = NodeZoom(settings, segmenter)
        self.settings = settings
        self.worker: FrameWorker[Any, StartedFrame, FrameResult] | None = None
        self.newest, self.lost = NewestImage(self.to_rgb), LostImages()
        self.losses = LossWatch()
        self.faults, self.watch = FrameFaults(log), QosWatch(node)
        compressed = settings.image_transport == 'compressed'
        self.topic = node.resolve_topic_name('image') + ('/compressed' if compressed else '')
        # Whatever fails, the topics that were created by then are removed.
        with ExitStack() as created:
            self.outputs = SegmentOutputs(node, self.watch, interfaces)
            created.callback(self.outputs.destroy)
            self.depth = DepthStage(node, self.watch, self.outputs, settings.depth, log)
            created.callback(self.depth.destroy)
            report = partial(log.warning, 'memory')
            memory = MemoryRelief(segmenter, stream_on_gpu(segmenter), report)
            self.pipeline = SegmentationPipeline(
                memory, self.outputs, node.get_clock(), self.zoom.segment_settings
            )
            message_type = CompressedImage if compressed else Image
            self.images = ImageSubscription(
                node,
                self.watch,
                message_type,
                self.topic,
                self._on_image,
                self.losses.lose,
                self._is_needed,
                self._begin_to_receive,
                self._forget_images,
            )
            created.callback(self.images.destroy)
            self.wire = WireWatch(
                self._receive_anew,
                partial(
                    hears_images, message_type.__name__, self.topic, node.context.get_domain_id()
                ),
            )
            created.callback(self.wire.close)
            self.watch.expect_images(self.topic, compressed)
            self._created = created.pop_all()

    def start(self) -> None:
        """Warm the model up, in the thread that will run it, and segment images from then on.

        Raises:
            ClipsegError: The model fails.
        """
        worker: FrameWorker[Any, StartedFrame, FrameResult] = FrameWorker(
            self.segment, self.publish, self.finish, self._fail, self.settings.max_rate
        )
        worker.start(setup=self._warm_up)
        self.faults.clear()
        self.lost.start()
        self.losses.start()
        self.worker = worker
        self.depth.start()

    def _warm_up(self) -> None:
        prompts = [entry.prompt for entry in self._prompts.enabled]
        self.segmenter.warm_up(prompts=max(1, len(prompts)))
        if prompts:
            # The first image tells what is wrong with one.
            with suppress(ClipsegError):
                self.segmenter.prepare(prompts, self.zoom.segment_settings(self.settings))
        # Prompts change seldom, and what reads them is loaded anew in a tenth of a second.
        self.segmenter.runtime.release_prompt_towers()

    def stop(self) -> bool:
        """Stop the threads after the frames in work; return whether they ended in time."""
        worker, self.worker = self.worker, None
        ended = worker is None or worker.stop()
        self.depth.stop()
        return ended

    def close(self) -> None:
        """Remove the topics and let go of the model; the worker has been stopped before."""
        self._created.close()
        # rclpy's executor keeps what it waited for last, and so callbacks, which are methods of
        # this object, until it waits anew: the model's memory would be given back after that.
        del self.segmenter, self.zoom, self.pipeline
        self.newest.forget()

    def set_parameters(self, settings: Settings) -> None:
        """Follow the parameters."""
        before, self.settings = self.settings, settings
        if settings != before:
            # It may have been the cause: the next image tells.
            self.faults.clear()
        if self.worker is not None:
            self.worker.max_rate = settings.max_rate
        # Not in any case: subscribing declares parameters (of its QoS), and comes here again.
        if settings.depth != before.depth:
            self.depth.set_parameters(settings.depth)

    @property
    def enabled(self) -> bool:
        """Whether images are received and segmented; may be set at any time."""
        return self.images.enabled

    @enabled.setter
    def enabled(self, wish: bool) -> None:
        self.depth.pause(not wish)
        self.images.enabled = wish

    def to_rgb(self, message: Any) -> NDArray[np.uint8]:
        """Return the pixels of an image message of the camera, RGB uint8 (H, W, 3).

        Raises:
            ImageConversionError: It cannot be read, or has more pixels than ``max_pixels``.
        """
        return self._backend.to_rgb(message, self.settings.max_pixels)

    def segment_again(self) -> None:
        """Segment the newest image by the prompts of now, if it was not; or the next one."""
        self.images.update()
        if self.worker is None:
            return
        message = self.newest.take_back(self._prompts.reported)
        if message is not None:
            self.worker.put(message, again=True)

    def needs_model(self, idle: float) -> bool:
        """Return whether images are segmented, and one came within the last ``idle`` seconds."""
        worker = self.worker
        wanted = self.enabled and bool(self._prompts.reported) and bool(self.outputs.wanted())
        return wanted and worker is not None and worker.statistics().idle < idle

    def fault(self) -> str:
        """Return what is wrong with the images that come, or that they have stopped; else empty."""
        fault, worker = self.faults.newest, self.worker
        idle = worker.statistics().idle if fault and worker is not None else 0.0
        if present_fault(fault, idle, self.settings.watchdog) != fault:
            return f'no image has come for {idle:.0f} s: /diagnostics says why'
        return fault

    def _on_image(self, message: Any, info: Mapping[str, Any]) -> None:
        self.newest.put(message)
        self.lost.see(info, self.images.publishers())
        self.losses.arrive()
        if not self.images.counts_losses:
            self.losses.lose(self.lost.count)
        # Of a node that is disabled, somebody may have claimed an image for himself.
        if self.worker is not None and self.images.enabled:
            self.worker.put(message)

    def _is_needed(self) -> bool:
        return bool(self._demand.needs_images or self.outputs.wanted())

    def _begin_to_receive(self) -> None:
        self.lost.pause()
        self.losses.resume(counts_from_zero=self.images.counts_losses)
        if self.worker is not None:
            self.worker.expect()

    def _receive_anew(self) -> None:
        self.images.renew()
        self.lost.pause()
        self.losses.resume(counts_from_zero=self.images.counts_losses)

    def _forget_images(self) -> None:
        """Forget what came last: the camera sees other things by now."""
        self.newest.forget()
        self.pipeline.forget_things()
        self.faults.clear()
        if self.worker is not None:
            # In the thread that owns the model: its last image may be in work.
            self.worker.run(self._rest)

    def _rest(self) -> None:
        """Give back what frames were computed in: none will come for a while."""
        self.segmenter.release_caches()
        self.segmenter.runtime.release_prompt_towers()
        self.pipeline.release_scratch()
        give_back_memory()

    # The three steps of the worker.

    def segment(self, message: Any) -> StartedFrame | None:
        """Segment an image; return None where no prompt is active, or nobody wants the result.

        Raises:
            ImageConversionError: The message cannot be read.
            ClipsegError: The region of interest reaches out of the image, or the model refuses the
                image or a prompt.
        """
        prompts = self._prompts.enabled
        if not reported(prompts) or not (self._demand.asked or self.outputs.wanted()):
            self.newest.skip(message)
            self.faults.clear()
            return None
        self.depth.expect(message)
        request = FrameRequest.of(message, self.to_rgb(message), prompts, self.settings)
        frame = self.pipeline.segment(request)
        self.faults.clear()
        return frame

    def publish(self, frame: StartedFrame) -> FrameResult | None:
        """Publish a result, the mask first, and hand it to depth and services.

        Where all prompts are gone, publish nothing and return None.
        """
        if not self._prompts.enabled:
            return None
        result = self.pipeline.publish(frame, segments_wait=self.depth.takes_segments)
        self.newest.result = result
        self._demand.notice()
        self.depth.put(result)
        return result

    def finish(self, result: FrameResult) -> None:
        """Publish what can wait."""
        self.pipeline.finish(result, self.settings)

    def _fail(self, error: Exception) -> None:
        # Otherwise the process is ending, and publishing failed for that reason.
        if self._node.context.ok():
            self.faults.add(error)
