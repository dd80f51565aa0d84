"""What can be wrong with a message."""

from __future__ import annotations

from clipseg_model.errors import ClipsegError


class ImageConversionError(ValueError):
    """An image message that cannot be read.

    Attributes:
        kind: What was wrong, in one of a few words: ``encoding``, ``size``, ``step``, ``data``,
            ``values`` or ``format``. Errors of a kind are reported together.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class ParameterError(ClipsegError):
    """A parameter has a value that it cannot have."""


class ImageBackendError(ClipsegError):
    """What shall read the images cannot: it is not installed, broken, or fails its self-test."""


class DepthError(ValueError):
    """Why an image has no points: depth, calibration or transform do not serve.

    Attributes:
        kind: What was wrong, in one of a few words: ``size``, ``frame``, ``calibration``,
            ``distortion``, ``stamp``, ``silence`` or ``transform``. Errors of a kind are reported
            together.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class SourceError(RuntimeError):
    """A camera's source cannot be opened, or gives no frame."""


class InterfacesError(ImportError):
    """The generated messages are of no use."""


class BagError(ClipsegError):
    """A bag cannot be read or written, or does not say which of its topics is meant."""


class NodeTimeoutError(ClipsegError, TimeoutError):
    """The node ``segment`` is not there, does not answer, or sends nothing."""
