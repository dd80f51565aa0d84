"""Once a second: how the node is, on ``/diagnostics``, and in the log where that changes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType

from clipseg_ros.ros.qos import LOOKS, UNKNOWN_NODE, QosWatch, report_output
from clipseg_ros.ros.transport import find_transport_problem
from clipseg_ros.segment.diagnostics import Situation, diagnostic_array, judge, no_images

if TYPE_CHECKING:
    from collections.abc import Callable

    from clipseg_model.segmenter import Segmenter
    from clipseg_ros.depth.stage import DepthStage
    from clipseg_ros.outputs.publishers import SegmentOutputs
    from clipseg_ros.prompts.set import ActivePrompt
    from clipseg_ros.segment.frame_worker import FrameWorker
    from clipseg_ros.segment.parameters import Settings
    from clipseg_ros.segment.pipeline import SegmentationPipeline


@dataclass(frozen=True)
class Parts:
    """The node as it is at a moment; what does not exist in its state is None.

    Attributes:
        state: Lifecycle state.
        failure: Why configuring or activating failed last; empty otherwise.
        enabled: Whether ~/enable is on.
        prompts: Those that are reported.
        settings: The parameters.
        frame_fault: What was wrong with the newest frame; empty if nothing.
        watch: Watches the QoS of peers.
        subscription: To the images.
        lost: Images that the camera published and that never came, since activation.
        segmenter: The model.
        worker: Its threads.
        pipeline: What they do.
        outputs: The publishers.
        depth: The 3D part.
    """

    state: str
    failure: str
    enabled: bool
    prompts: tuple[ActivePrompt, ...]
    settings: Settings
    frame_fault: str
    watch: QosWatch
    subscription: Any
    lost: int
    segmenter: Segmenter | None
    worker: FrameWorker[Any, Any, Any] | None
    pipeline: SegmentationPipeline | None
    outputs: SegmentOutputs | None
    depth: DepthStage | None


class NodeReport:
    """Publishes ``/diagnostics``, and logs peers that do not fit and images that stay away.

    Args:
        node: The node.
        look: Returns it as it is now.
    """

    def __init__(self, node: Any, look: Callable[[], Parts]) -> None:
        self._node, self._look = node, look
        self._mismatches: list[str] = []
        self._silent = False
        self._nameless = 0
        # Of its own: the node's is made anew when the node is configured.
        self._watch = QosWatch(node)
        self._publisher = self._watch.create_publisher(
            DiagnosticArray, '/diagnostics', report_output()
        )
        # Steady: with use_sim_time and no clock yet, the node reports all the same.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(1.0, self._report, clock=steady)

    def _report(self) -> None:
        node, parts = self._node, self._look()
        mismatches = self._find_mismatches(parts)
        for mismatch in mismatches:
            # Once, and again where it comes back.
            if mismatch not in self._mismatches:
                node.get_logger().warning(mismatch)
        self._mismatches = mismatches
        situation = self._situation(parts, mismatches)
        self._tell_silence(situation, mismatches)
        device = str(parts.segmenter.device) if parts.segmenter is not None else ''
        self._publisher.publish(
            diagnostic_array(
                f'{node.full_name.lstrip("/")}: segmentation',
                device,
                judge(situation),
                self._values(parts),
                node.get_clock().now().to_msg(),
            )
        )

    def _find_mismatches(self, parts: Parts) -> list[str]:
        mismatches = [*parts.watch.mismatches(), *self._watch.mismatches()]
        if parts.subscription is not None:
            compressed = self._node.get_parameter('image_transport').value == 'compressed'
            problem = find_transport_problem(self._node, parts.subscription.topic_name, compressed)
            self._nameless = self._nameless + 1 if UNKNOWN_NODE in problem else 0
            if problem and not 0 < self._nameless < LOOKS:  # Its name comes later than its topic.
                return [problem, *mismatches]
        return mismatches

    def _tell_silence(self, situation: Situation, mismatches: Sequence[str]) -> None:
        waiting = situation.state == 'active' and situation.enabled and situation.prompts
        silent = bool(waiting and situation.watchdog and situation.idle > situation.watchdog)
        if silent == self._silent:
            return
        self._silent = silent
        reason = no_images(situation)
        if silent and reason not in mismatches:
            self._node.get_logger().warning(reason)
        elif waiting and not silent:
            self._node.get_logger().info(f'images arrive on {situation.image_topic}')

    def _situation(self, parts: Parts, mismatches: Sequence[str]) -> Situation:
        topic = parts.subscription.topic_name if parts.subscription is not None else ''
        counts = parts.worker.statistics() if parts.worker is not None else None
        memory = parts.pipeline.memory.warning() if parts.pipeline is not None else ''
        return Situation(
            node=self._node.full_name,
            state=parts.state,
            failure=parts.failure,
            enabled=parts.enabled,
            prompts=tuple(entry.name for entry in parts.prompts),
            image_topic=topic,
            camera_count=self._node.count_publishers(topic) if topic else 0,
            outputs=tuple(parts.outputs.wanted()) if parts.outputs is not None else (),
            idle=counts.idle if counts is not None else 0.0,
            busy=counts.busy if counts is not None else 0.0,
            watchdog=parts.settings.watchdog,
            rate=counts.rate if counts is not None else 0.0,
            frame_fault=parts.frame_fault,
            mismatches=tuple(mismatches),
            depth_fault=parts.depth.fault() if parts.depth is not None else '',
            memory_warning=memory,
        )

    def _values(self, parts: Parts) -> dict[str, str]:
        values = {
            'state': parts.state,
            'model': '',
            'device': '',
            'prompts': str(len(parts.prompts)),
            'memory_mb': f'{_resident() / 1e6:.0f}',
        }
        if parts.segmenter is not None:
            values['model'] = parts.segmenter.card.name
            values['device'] = str(parts.segmenter.device)
            if parts.segmenter.device.type == 'cuda':
                reserved = torch.cuda.memory_reserved(parts.segmenter.device)
                values['gpu_memory_mb'] = f'{reserved / 1e6:.0f}'
        if parts.worker is not None and parts.pipeline is not None:
            counts = parts.worker.statistics()
            values |= {
                'fps': f'{counts.rate:.2f}',
                'latency_ms': f'{counts.latency * 1e3:.1f}',
                'latency_max_ms': f'{counts.latency_max * 1e3:.1f}',
                'model_ms': f'{parts.pipeline.model_seconds * 1e3:.1f}',
                'age_ms': f'{parts.pipeline.age * 1e3:.1f}',
                'received': str(counts.received),
                'processed': str(counts.processed),
                'dropped': str(counts.dropped),
                'lost': str(parts.lost),
                'failed': str(counts.failed),
                'prompts_at_once': str(parts.pipeline.memory.at_once or 'all'),
                'last_error': parts.frame_fault,
            }
            values |= parts.pipeline.reuse_values()
        if parts.depth is not None:
            values |= parts.depth.values()
        return values


def _resident() -> int:
    """Memory of this process, bytes."""
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE')
