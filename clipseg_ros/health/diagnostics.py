"""What ``/diagnostics`` says: whether masks are published, and if not, why and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from std_msgs.msg import Header

from clipseg_model.errors import ClipsegError
from clipseg_ros.errors import ImageConversionError
from clipseg_ros.prompts.set import ActivePrompt, reported
from clipseg_ros.ros.log import ThrottledLog

# Seconds after which an image is no longer the present one, where no watchdog says otherwise.
_FRESH = 5.0


class Level(IntEnum):
    """Levels of ``diagnostic_msgs/DiagnosticStatus``."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3


@dataclass(frozen=True)
class Verdict:
    """How the node is, in one sentence; where nothing is published, the reason and the remedy."""

    level: Level
    message: str


@dataclass(frozen=True)
class Situation:
    """Everything that decides whether masks are published.

    Attributes:
        node: Fully qualified name.
        state: Lifecycle state.
        failure: Why configuring or activating failed last.
        enabled: Whether ~/enable is on.
        prompts: Names of the enabled prompts that are not negative.
        negative: Number of the enabled prompts that are.
        disabled: Number of the prompts that are not enabled.
        image_topic: Resolved name.
        camera_count: Publishers on it.
        outputs: Outputs that somebody subscribes to.
        receives: Whether images are received: somebody needs them.
        idle: Seconds since the last image.
        busy: Seconds that the model has spent on the image in work.
        watchdog: Seconds after which idle or busy is a fault; 0 is never.
        rate: Frames a second.
        frame_fault: What was wrong with the newest frame.
        callback_fault: How many callbacks failed, or messages could not be taken, of late.
        deaf: Why no image reaches the node, though others get them; empty otherwise.
        loss: How many images do not arrive, and why; empty while few or none are lost.
        mismatches: Peers whose QoS does not fit.
        namesakes: Other nodes of the same name.
        depth_fault: Why there are no points though somebody subscribes to them.
        memory_warning: Why memory is short.
    """

    node: str
    state: str
    failure: str = ''
    enabled: bool = True
    prompts: tuple[str, ...] = ()
    negative: int = 0
    disabled: int = 0
    image_topic: str = ''
    camera_count: int = 0
    outputs: tuple[str, ...] = ()
    receives: bool = True
    idle: float = 0.0
    busy: float = 0.0
    watchdog: float = 0.0
    rate: float = 0.0
    frame_fault: str = ''
    callback_fault: str = ''
    deaf: str = ''
    loss: str = ''
    mismatches: tuple[str, ...] = ()
    namesakes: int = 0
    depth_fault: str = ''
    memory_warning: str = ''

    @classmethod
    def at_rest(
        cls, node: str, state: str, failure: str, enabled: bool, prompts: Sequence[ActivePrompt]
    ) -> Situation:
        """Return the situation of a node, given all its prompts, without any of its images."""
        on = [entry for entry in prompts if entry.enabled]
        names = tuple(entry.name for entry in reported(on))
        negative, disabled = len(on) - len(names), len(prompts) - len(on)
        return cls(node, state, failure, enabled, names, negative, disabled)


def find_rest(now: Situation) -> Verdict | None:
    """Return why no image is segmented though images may arrive; None where they are segmented."""
    if now.state != 'active':
        if now.failure:
            return Verdict(Level.ERROR, f'{now.state}: {now.failure}')
        step = 'configure' if now.state == 'unconfigured' else 'activate'
        return Verdict(
            Level.WARN, f'{now.state}: nothing is published. ros2 lifecycle set {now.node} {step}'
        )
    if not now.enabled:
        return Verdict(Level.OK, disabled(now.node))
    if not now.prompts:
        return Verdict(Level.WARN, no_prompt(now.node, now.negative, now.disabled))
    return None


def judge(now: Situation) -> Verdict:
    """Return how the node is; of several reasons for silence, the one to mend first."""
    verdict = _judge_alone(now)
    if not now.namesakes:
        return verdict
    # Whatever else it is: nobody can tell which of the nodes says so.
    silent = verdict.level != Level.OK or find_rest(now) is not None
    told = f'{verdict.message}. Besides, ' if silent else ''
    return Verdict(max(verdict.level, Level.WARN), f'{told}{namesake(now.node)}')


def _judge_alone(now: Situation) -> Verdict:
    rest = find_rest(now)
    if rest is not None:
        return rest
    if now.watchdog and now.busy > now.watchdog:
        return Verdict(Level.ERROR, f'the model has been busy on one image for {now.busy:.0f} s')
    # Nobody misses images that nobody needs; that there is no camera can be told all the same.
    if now.watchdog and now.idle > now.watchdog and (now.receives or not now.camera_count):
        return Verdict(Level.ERROR, no_images(now))
    fault = present_fault(now.frame_fault, now.idle, now.watchdog)
    if fault:
        return Verdict(Level.ERROR, fault)
    depth_fault = now.depth_fault and f'3D: {now.depth_fault}'
    for warning in (now.callback_fault, now.loss, *now.mismatches, depth_fault, now.memory_warning):
        if warning:
            return Verdict(Level.WARN, warning)
    if not now.outputs:
        return Verdict(Level.OK, 'nobody subscribes to an output, so nothing is computed')
    return Verdict(Level.OK, f'{", ".join(now.prompts)[:200]} at {now.rate:.1f} frames a second')


def present_fault(fault: str, idle: float, watchdog: float) -> str:
    """Return the fault of the newest image; empty once images have stopped.

    It says nothing of now then. ``idle`` is the time since the last image, seconds.
    """
    return fault if idle <= (watchdog or _FRESH) else ''


def disabled(node: str) -> str:
    """Return the sentence for a node that is disabled."""
    return f'disabled: call {node}/enable with true'


def no_prompt(node: str, negative: int = 0, disabled: int = 0) -> str:
    """Return the sentence for a node without a prompt that is enabled and not negative."""
    remedy = f'publish a string on {node}/prompt'
    if negative:
        what = f'{negative} negative prompt(s) only, which compete with others and find nothing'
        return f'nothing to look for: {what}: add another prompt ({remedy}, "the mug; !the vase")'
    if disabled:
        return (
            f'nothing to look for: all {disabled} prompt(s) are disabled: enable one, or {remedy}'
        )
    return f'no prompt set: {remedy}'


def namesake(node: str) -> str:
    """Return the sentence for a node whose name others have too."""
    return (
        f'another node is called {node} too, and publishes on the same topics: what both say is '
        'mixed. End one of them, or start it under another name (--ros-args -r '
        '__node:=other, or -r __ns:=/other). One that was killed counts for some 20 s'
    )


def no_images(now: Situation) -> str:
    """Return the sentence for a node without images."""
    for mismatch in now.mismatches:
        if f' mismatch on {now.image_topic}:' in mismatch:
            return mismatch
    if now.camera_count == 0:
        return (
            f'nobody publishes on {now.image_topic}: start the camera, or remap the topic '
            '(--ros-args -r image:=/its/topic)'
        )
    for reason in (now.callback_fault, now.deaf, now.loss):
        if reason:
            return reason
    return (
        f'no image on {now.image_topic} for {now.idle:.0f} s, though it has '
        f'{now.camera_count} publisher(s): is the camera running? Large images between processes '
        'need a large shared-memory segment on its side (config/fastdds.xml)'
    )


def diagnostic_array(
    name: str, hardware: str, verdict: Verdict, values: Mapping[str, str], stamp: Time
) -> DiagnosticArray:
    """Return the message; further facts are shown in the order of ``values``."""
    status = DiagnosticStatus(
        level=bytes([verdict.level]),
        name=name,
        message=verdict.message,
        hardware_id=hardware,
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )
    return DiagnosticArray(header=Header(stamp=stamp), status=[status])


class FrameFaults:
    """Logs what is wrong with frames, and keeps the ``newest`` until a frame is good.

    ``refused`` counts images that could not be read, or were too large.
    """

    def __init__(self, log: ThrottledLog) -> None:
        self._log = log
        self.newest = ''
        self.refused = 0

    def clear(self) -> None:
        """Take note of a good frame."""
        self.newest = ''

    def add(self, error: Exception) -> None:
        """Take note of a frame that failed, and log why."""
        if isinstance(error, ImageConversionError):
            self.refused += 1
            self.newest = f'bad image: {error}'
            self._log.warning(f'image {error.kind}', f'image dropped: {error}')
            return
        named = isinstance(error, ClipsegError)
        kind = type(error).__name__
        self.newest = f'image not segmented: {error if named else f"{kind}: {error}"}'
        self._log.error(kind, self.newest)
