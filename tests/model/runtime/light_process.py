"""What a process without torch does, for test_light.py; prints what came of it as JSON.

python light_process.py PICTURE FOLDER
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests.without_torch import HIDDEN, hide

#: Of clipseg_model, what makes, trains or converts models with torch.
NEEDS_TORCH = (
    'modeling',
    'quantization',
    *(
        f'runtime.{name}'
        for name in (
            *('compiled', 'eager', 'exporting', 'split', 'tensorrt_runtime', 'tf32'),
            *('torch_compile', 'torch_runtime'),
        )
    ),
    *(f'weights.{name}' for name in ('checkpoints', 'files', 'filling', 'huggingface', 'official')),
    'zoom.torchvision_detectors',
)
#: What a pip installation has not, with torch or without.
NEEDS_ROS_INSTALLATION = {'clipseg_ros.ros.launch_support'}
PROMPTS = ['the mug', 'a red bowl', 'something to sit on', 'book']


def modules() -> list[str]:
    """Import all that a node and the commands may; return what was."""
    import clipseg_model
    import clipseg_ros

    imported = []
    for package in (clipseg_model, clipseg_ros):
        for found in pkgutil.walk_packages(package.__path__, f'{package.__name__}.'):
            inner = found.name.partition('.')[2]
            passed = found.name in NEEDS_ROS_INSTALLATION or inner.endswith('__main__')
            if inner.startswith(NEEDS_TORCH) or passed:
                continue
            importlib.import_module(found.name)
            imported.append(found.name)
    return imported


def refusals(image: Any, mask: Any, folder: Path) -> dict[str, str]:
    """What is said of a feature that needs torch."""
    from clipseg_model import ClipsegError, Prompt, create_model
    from clipseg_model.cli.app import app

    light = create_model('tabletop', 'cpu')
    light.visual_method = 'attention_cls'
    weights = folder / 'mine.safetensors'
    weights.write_bytes((Path(create_model.__code__.co_filename).parent / 'weights' /
                         'tabletop.safetensors').read_bytes())  # fmt: skip
    attempts = {
        'eager': lambda: create_model('tabletop', 'cpu', runtime='eager'),
        'attention': lambda: light.segment(image, [Prompt(image=image, mask=mask)]),
        'no export': lambda: create_model(weights, 'cpu'),
        'not downloaded': lambda: create_model(
            'clipseg-rd64-refined', 'cpu', runtime='onnxruntime'
        ),
        'export': lambda: app(['export', 'tabletop', str(folder / 'made')], standalone_mode=False),
    }
    said = {}
    for name, attempt in attempts.items():
        try:
            said[name] = f'returned {attempt()}'
        except ClipsegError as error:
            said[name] = str(error)
    return said


def main(picture: Path, folder: Path) -> None:
    hide()
    seen: dict[str, Any] = {'modules': modules()}
    from clipseg_model import Prompt, create_model
    from clipseg_model.images import read_image

    image = np.ascontiguousarray(read_image(picture)[6:215, 6:286])
    mask = np.zeros(image.shape[:2], bool)
    mask[80:160, 100:200] = True
    example = Prompt(image=image, mask=mask, name='example')
    arrays = {}
    for name in ('tabletop', 'everyday'):
        segmenter = create_model(name, 'cpu', threads=1)
        seen[f'{name} runtime'] = segmenter.runtime.describe()
        found = segmenter.segment(image, [*PROMPTS, example])
        seen[f'{name} scores'] = [result.score for result in found.results]
        for number, result in enumerate(found.results):
            arrays[f'{name} {number}'] = result.resized_logits() > result.cut
    np.savez(folder / 'masks.npz', **arrays)
    seen['refused'] = refusals(image, mask, folder)
    seen['hidden'] = sorted(HIDDEN & set(sys.modules))
    print(json.dumps(seen))


if __name__ == '__main__':
    main(Path(sys.argv[1]), Path(sys.argv[2]))
