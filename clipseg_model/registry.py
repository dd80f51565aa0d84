"""Models by name."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from clipseg_model.errors import CheckpointError, ClipsegError, ModelNotFoundError
from clipseg_model.files.user_folders import expanded
from clipseg_model.model_card import AS_RELEASED, ModelCard
from clipseg_model.runtime import create_runtime, open_exported
from clipseg_model.runtime.base import require
from clipseg_model.runtime.exports.files import ExportSource
from clipseg_model.runtime.threads import set_threads
from clipseg_model.segmenter import Segmenter
from clipseg_model.settings import SegmentSettings
from clipseg_model.weights import store
from clipseg_model.weights.cards import read_own_card
from clipseg_model.weights.untrained import UNTRAINED, how_to_train

if TYPE_CHECKING:
    from clipseg_model.modeling.base import SegmentationModel

DEFAULT_MODEL = 'everyday'

WEIGHTS_FOLDER = Path(__file__).parent / 'weights'

BUNDLED = {
    'everyday': 'Small model of this project: everyday things in photographs, and rendered scenes.',
    'tabletop': 'Demonstration model of this project: tiny, and knows rendered scenes only.',
}

# What the configuration files of the published models say of their decoders.
_PUBLISHED = {
    'clipseg-rd64-refined': (64, 'refined'),
    'clipseg-rd64': (64, 'plain'),
    'clipseg-rd16': (16, 'plain'),
}


def list_models() -> list[str]:
    """Return the names that :func:`create_model` knows, the default first."""
    return [*BUNDLED, *_PUBLISHED, *UNTRAINED]


def get_card(name: str) -> ModelCard:
    """Return what is known of a model of :func:`list_models`, its weights being here or not.

    Raises:
        ModelNotFoundError: There is no model of that name.
        CheckpointError: Its file is here and damaged.
    """
    if name in _PUBLISHED:
        return _published_card(name)
    if name not in BUNDLED and name not in UNTRAINED:
        raise _not_found(name)
    weights = _own_weights(name)
    if weights.is_file():
        card = read_own_card(weights)
        if name in UNTRAINED:
            return replace(card, name=name, source=card.source or 'trained by you')
        return replace(card, source=card.source or 'trained by this project')
    if name in UNTRAINED:
        return UNTRAINED[name]
    return ModelCard(
        name=name,
        architecture='clipseg',
        config={},
        input_size=256,
        description=BUNDLED[name],
        weights=weights,
    )


def create_model(
    name_or_path: str | os.PathLike[str] = DEFAULT_MODEL,
    device: object = 'auto',
    threads: int | None = None,
    runtime: str = 'auto',
    precision: str = 'fp32',
    exports: str | os.PathLike[str] | None = None,
    input_size: int | None = None,
    reuse_below: float = 0.0,
) -> Segmenter:
    """Load a model, ready to segment.

    Args:
        name_or_path: One of :func:`list_models`, ``owner/name`` of a CLIPSeg that was downloaded
            from the Hugging Face hub, or a path in any format of
            :func:`~clipseg_model.weights.checkpoints.load_checkpoint`.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: Threads that compute on the CPU, for the whole process: of every runtime and of
            OpenCV. None leaves them.
        runtime: What executes the model, a key of :data:`clipseg_model.runtime.RUNTIMES`, or
            ``auto``.
        precision: What it computes in: ``fp32``, ``bf16``, ``fp16`` or ``int8``, as far as the
            runtime and the device can.
        exports: Folder that ``clipseg export`` wrote the model to, for a runtime that needs one;
            a folder in the user's cache where None.
        input_size: Side of the square that images are resized to (see :class:`ModelCard`), a
            multiple of the patch size; the model's own where None. Another size is an
            approximation: a smaller one is faster and finds less. Example images keep theirs.
        reuse_below: See :class:`clipseg_model.settings.SegmentSettings`; an approximation.

    Raises:
        ModelNotFoundError: It is neither a name that is known nor a path.
        CheckpointError: The weights are missing or damaged, or the input size does not fit.
        DeviceError: The device is not there, or is none of the runtime's.
        RuntimeMissingError: There is no such runtime, or its package is not installed.
        PrecisionError: The runtime or the device has no such precision.
        ExportError: The model cannot be exported, or its export cannot be used.
        ReuseError: ``reuse_below`` is out of range, or the model has nothing to reuse.
        ValueError: ``threads`` is less than 1.
    """
    settings = SegmentSettings(reuse_below=reuse_below)
    if threads is not None:
        set_threads(threads)
    source = _export_source(os.fspath(name_or_path))
    opened = open_exported(source, device, runtime, precision, exports)
    if opened is not None:
        chosen, card = opened
        card = _with_input_size(card, input_size)
    else:
        require('torch', 'eager' if runtime == 'auto' else runtime, 'torch')
        model, card = load_model(name_or_path)
        card = _with_input_size(card, input_size)
        chosen = create_runtime(model, card, device, runtime, precision, exports)
    return Segmenter(chosen, card, settings=settings)


def _with_input_size(card: ModelCard, input_size: int | None) -> ModelCard:
    if input_size is None:
        return card
    prompt_size = card.prompt_image_size or card.input_size
    return replace(card, input_size=input_size, prompt_image_size=prompt_size)


def _export_source(name: str) -> ExportSource:
    """Return where the files of a model are, which need not be here.

    Raises:
        ModelNotFoundError: It is neither a name that is known nor a path.
        CheckpointError: It is bundled, and its file is missing.
    """
    if name in BUNDLED or name in UNTRAINED:
        if name in BUNDLED:
            _find_weights(name)
        return ExportSource(name, _own_weights(name), name in BUNDLED)
    if not os.path.exists(expanded(name)):
        source = store.source_of(name)
        if source is not None:
            return ExportSource(source.name, store.find_downloaded(source))
    path = Path(_find_weights(name))
    if os.path.isdir(path):
        files = [path / weights for weights in store.WEIGHT_FILES]
        path = next((file for file in files if file.is_file()), path)
    return ExportSource(name, path)


def load_model(
    name_or_path: str | os.PathLike[str],
    backbone_weights: str | Path | None = None,
    layers: Sequence[int] | None = None,
) -> tuple[SegmentationModel, ModelCard]:
    """Load as :func:`~clipseg_model.weights.checkpoints.load_checkpoint`, bundled names too.

    Args:
        name_or_path: As :func:`create_model` takes it.
        backbone_weights: Towers for a file without them.
        layers: Taps of an official decoder.

    Raises:
        ModelNotFoundError: It is neither a name that is known nor a path.
        CheckpointError: The weights are missing or damaged.
    """
    from clipseg_model.weights.checkpoints import load_checkpoint

    name = os.fspath(name_or_path)
    weights = _find_weights(name)
    model, card = load_checkpoint(weights, backbone_weights=backbone_weights, layers=layers)
    return model, replace(card, name=name) if name in UNTRAINED else card


def _own_weights(name: str) -> Path:
    """Return the file of a bundled model, or of one that users train."""
    folder = WEIGHTS_FOLDER if name in BUNDLED else store.models_folder()
    return folder / f'{name}.safetensors'


def _find_weights(name_or_path: str) -> str | Path:
    if name_or_path in BUNDLED or name_or_path in UNTRAINED:
        weights = _own_weights(name_or_path)
        if name_or_path in UNTRAINED and not weights.is_file():
            raise CheckpointError(how_to_train(name_or_path, weights))
        if not weights.is_file():
            raise CheckpointError(
                f'The bundled weights of {name_or_path!r} are missing from this installation '
                f'({weights}): reinstall the package'
            )
        return weights
    path = expanded(name_or_path)
    known = name_or_path in store.SOURCES
    if known or path.suffix or os.sep in name_or_path or (name_or_path and os.path.exists(path)):
        return name_or_path
    raise _not_found(name_or_path)


def _not_found(name: str) -> ClipsegError:
    names = list_models()
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f'Did you mean {" or ".join(map(repr, close))}? ' if close else ''
    return ModelNotFoundError(
        f'There is no model {name!r}. {hint}There are {", ".join(names)}; '
        'or give the path of a checkpoint'
    )


def _published_card(name: str) -> ModelCard:
    source = store.SOURCES[name]
    dim, head = _PUBLISHED[name]
    return ModelCard(
        name=name,
        architecture='clipseg',
        config={
            'architecture': 'clipseg',
            'backbone': {
                'type': 'open_clip',
                'architecture': 'ViT-B-16-quickgelu',
                'mean': [0.485, 0.456, 0.406],  # ImageNet's.
                'std': [0.229, 0.224, 0.225],
                'overrides': {},
            },
            'layers': [3, 6, 9],
            'decoder': {
                'dim': dim,
                'cond_layer': 0,
                'num_heads': 4,
                'feedforward': 2048,
                'head': head,
            },
        },
        input_size=352,
        **AS_RELEASED,
        licence=source.licence,
        source=source.url,
        description=source.description,
        details={'parameters': source.parameters},
        weights=store.find_downloaded(source),
    )
