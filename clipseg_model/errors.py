"""The errors that a caller can mend, each with a message that says how."""

from __future__ import annotations

import re

__all__ = [
    'CheckpointError',
    'ClipsegError',
    'ColourError',
    'DeviceError',
    'DeviceMemoryError',
    'DownloadError',
    'ExportError',
    'FileError',
    'ImageError',
    'ModelNotFoundError',
    'PrecisionError',
    'PromptError',
    'RegionError',
    'ReuseError',
    'RuntimeMissingError',
]


class ClipsegError(Exception):
    """Base of every error that this package raises on purpose.

    Its message names what was wrong, the value seen, and the remedy, so that a program may
    show it to its user as it is.
    """


class PromptError(ClipsegError):
    """A prompt is blank, too long, contradictory, or not representable by the model."""


class ImageError(ClipsegError):
    """An image has the wrong type, shape or content, or none was given where one is needed."""


class CheckpointError(ClipsegError):
    """A file of weights is missing, damaged, or does not fit the model that it describes."""


class DeviceError(ClipsegError):
    """A device was asked for that this machine does not have."""


class DownloadError(ClipsegError):
    """A download was refused, broke off, or did not arrive as it was published."""


class FileError(ClipsegError):
    """A small file (settings, a manifest, prompts) is missing, too large, or not of its format."""


class ModelNotFoundError(ClipsegError):
    """No model of that name is registered."""


class RegionError(ClipsegError):
    """A box, a part of an image, or a setting of zoom or of instances is not usable."""


class ColourError(ClipsegError):
    """A colour of a label is not written as it must be, or names no prompt."""


class ReuseError(ClipsegError):
    """Encodings cannot be reused as asked, or not by this model."""


class RuntimeMissingError(ClipsegError):
    """There is no runtime of that name, or what it needs is not installed."""


class PrecisionError(ClipsegError):
    """A runtime or the device has no such precision, or the model does not bear it."""


class ExportError(ClipsegError):
    """An exported model is missing, damaged, foreign or of other sizes, or cannot be made."""


class DeviceMemoryError(ClipsegError):
    """There was not enough memory to run a model."""


def refusal_of(error: Exception) -> str:
    """Return why ``torch.load`` refused a file, without its advice to load it unsafely."""
    text = str(error)
    if asked := re.search(r'GLOBAL (\S+)', text):
        return f'it asks for {asked[1]} when it is opened, which is no weight and could run code'
    advice = re.compile(r'weights_only|torch\.load|trust|https?://|Please')
    lines = [line.strip() for line in text.splitlines() if line.strip() and not advice.search(line)]
    return (lines or [type(error).__name__])[0][:200]
