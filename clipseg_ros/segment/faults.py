"""What was wrong with a frame: one line in the log, and a sentence for the diagnostics."""

from __future__ import annotations

from clipseg_model.errors import ClipsegError
from clipseg_ros.errors import ImageConversionError
from clipseg_ros.ros.log import ThrottledLog


class FrameFaults:
    """Logs what the worker's threads raise, and keeps it while it is the newest thing to say.

    Args:
        log: Of the node.

    Attributes:
        newest: What was wrong with the newest frame; empty if nothing.
    """

    def __init__(self, log: ThrottledLog) -> None:
        self._log = log
        self.newest = ''

    def clear(self) -> None:
        """A frame was good."""
        self.newest = ''

    def add(self, error: Exception) -> None:
        """A frame was not."""
        if isinstance(error, ImageConversionError):
            self.newest = f'bad image: {error}'
            self._log.warning(f'image {error.kind}', f'image dropped: {error}')
            return
        named = isinstance(error, ClipsegError)
        kind = type(error).__name__
        self.newest = f'image not segmented: {error if named else f"{kind}: {error}"}'
        self._log.error(kind, self.newest)
