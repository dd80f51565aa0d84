"""The errors of the nodes, the client and the bag command."""

from __future__ import annotations

from clipseg_model.errors import ClipsegError


class KindError(ValueError):
    """An error with a ``kind``, in a word; errors of a kind are reported together."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class ImageConversionError(KindError):
    """An image cannot be read: its encoding, size, step, data, values or format is wrong."""


class ParameterError(ClipsegError):
    """A parameter has a value that it cannot have."""


class ImageBackendError(ClipsegError):
    """The image backend is not installed, is broken, or fails its self-test."""


class DepthError(KindError):
    """An image has no points, because depth, calibration or transform are missing or wrong.

    Its kind is size, frame, calibration, distortion, stamp, silence, transform or closed.
    """


class OnceError(ClipsegError):
    """A request for one answer is refused: the node is inactive, busy, or has no image in time."""


class SourceError(RuntimeError):
    """A camera's source cannot be opened, or gives no frame."""


class InterfacesError(ImportError):
    """The generated messages were built from another version."""


class BagError(ClipsegError):
    """A bag cannot be read or written, or does not say which of its topics is meant."""


class NodeTimeoutError(ClipsegError, TimeoutError):
    """A node is not there, does not answer, or sends nothing."""
