"""Publication of a trained model: a checkpoint, or a folder for the Hugging Face hub."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from clipseg_model.errors import ClipsegError
from clipseg_model.files.atomic_files import write_atomically
from clipseg_model.model_card import ModelCard
from clipseg_model.modeling.backbone import OpenClipBackbone
from clipseg_model.modeling.base import SegmentationModel
from clipseg_model.modeling.clipseg import CLIPSeg
from clipseg_model.weights.checkpoints import save_checkpoint
from clipseg_model.weights.huggingface import save_huggingface
from training.console import markdown_table

#: Licences that the hub knows by these names.
LICENCES = (
    'apache-2.0', 'mit', 'bsd-3-clause', 'cc0-1.0', 'cc-by-4.0', 'cc-by-sa-4.0', 'cc-by-nc-4.0',
    'cc-by-nc-sa-4.0', 'gpl-3.0',
)  # fmt: skip
#: Figures that a card shows of an evaluation, and their titles.
SHOWN = {
    'iou_fg': 'IoU_FG',
    'iou_bin': 'IoU_BIN',
    'miou_samples': 'mIoU over samples',
    'miou_classes': 'mIoU over classes',
}


class PublishError(ClipsegError):
    """A model cannot be written for others as asked."""


def fits_transformers(model: SegmentationModel) -> bool:
    """Whether transformers' ``CLIPSegForImageSegmentation`` has such a model."""
    return isinstance(model, CLIPSeg) and isinstance(model.backbone, OpenClipBackbone)


def read_evaluation(path: Path) -> dict[str, Any]:
    """Read a result of ``python -m training.evaluate data --output``, or raise PublishError."""
    try:
        result = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise PublishError(f'{path} cannot be read: {error}') from error
    if not isinstance(result, dict) or not {'mode', 'pixels', 'data', 'at'} <= result.keys():
        raise PublishError(
            f'{path} is no result of python -m training.evaluate data --output: it does not say '
            'in which mode it was measured'
        )
    return result


def quality(result: Mapping[str, Any], threshold: float) -> dict[str, Any]:
    """Return what a card keeps of an evaluation; PublishError if not measured at its threshold."""
    at = result['at'].get(f'{threshold:g}')
    if at is None:
        raise PublishError(
            f'the evaluation is at the thresholds {", ".join(result["at"])}, and the card has '
            f'{threshold:g}: measure again with --threshold {threshold:g}'
        )
    kept = ('mode', 'pixels', 'prompt', 'template', 'data', 'samples', 'absent', 'ap')
    figures = {name: round(value, 4) for name, value in at.items() if value is not None}
    return {**{key: result[key] for key in kept if key in result}, 'at_threshold': figures}


def write_folder(folder: Path, model: SegmentationModel, card: ModelCard) -> None:
    """Write a new folder that can be uploaded to the Hugging Face hub.

    A CLIPSeg on CLIP's towers is written as transformers reads it; any other architecture as this
    project's own ``model.safetensors``. Both have ``README.md`` with the model card.

    Raises:
        PublishError: The folder is there.
        CheckpointError: transformers has no such CLIPSeg, or the disk refuses.
    """
    if folder.exists():
        raise PublishError(f'{folder} is there already: name a folder that is not')
    if fits_transformers(model):
        save_huggingface(folder, model, card)
    else:
        save_checkpoint(folder / 'model.safetensors', model, card.stored_fields())
    write_atomically(folder / 'README.md', readme(card, folder.name, fits_transformers(model)))


def front_matter(card: ModelCard, for_transformers: bool) -> dict[str, Any]:
    """Return what the hub reads of a model card: the YAML at the head of ``README.md``."""
    licence = re.sub(r'\s+', '-', card.licence.strip().lower())
    known = {'license': licence}
    if licence not in LICENCES:
        known = {'license': 'other', 'license_name': card.licence.strip() or 'not stated'}
    meta: dict[str, Any] = {
        **known,
        'library_name': 'transformers' if for_transformers else 'clipseg_ros',
        'pipeline_tag': 'image-segmentation',
        'tags': ['clipseg', 'image-segmentation', 'open-vocabulary', card.architecture],
    }
    results = []
    for measured in card.details.get('evaluations', ()):
        figures = {**measured['at_threshold'], 'ap': measured.get('ap')}
        metrics = [
            {'type': name, 'name': SHOWN.get(name, name.upper()), 'value': round(value, 4)}
            for name, value in figures.items()
            if value is not None
        ]
        name = str(measured['data']['dataset'])
        dataset = {'name': name, 'type': name, 'split': str(measured['data'].get('split', ''))}
        task = {'type': 'image-segmentation', 'name': f'{measured["mode"]} mode'}
        results.append({'task': task, 'dataset': dataset, 'metrics': metrics})
    if results:
        meta['model-index'] = [{'name': card.name, 'results': results}]
    return meta


def readme(card: ModelCard, name: str, for_transformers: bool) -> str:
    """Return a model card as the hub shows it."""
    head = yaml.safe_dump(front_matter(card, for_transformers), sort_keys=False, width=100)
    parts = [f'---\n{head}---\n', f'# {card.name}\n', card.description + '\n']
    if card.notice:
        parts.append(f'**{card.notice}**\n')
    parts.append(_use(card, name, for_transformers))
    parts.append(_thresholds(card))
    parts.append(_figures(card))
    parts.append(_training(card))
    parts.append(f'## Licence\n\n{card.licence or "not stated"}. Source: {card.source or "–"}.\n')
    return '\n'.join(part for part in parts if part)


def _use(card: ModelCard, name: str, for_transformers: bool) -> str:
    weights = name if for_transformers else f'{name}/model.safetensors'
    command = f"clipseg segment photo.jpg --model {weights} -p 'red mug; spoon' -o out/"
    own = f'```bash\n{command}\n```\n'
    if not for_transformers:
        return (
            f'## Use\n\ntransformers has no architecture `{card.architecture}`. With clipseg_ros, '
            f'also as the parameter `model` of its ROS 2 node:\n\n{own}'
        )
    caption = (
        ''
        if card.template == '{}'
        else f'prompts = [{card.template!r}.format(p) for p in prompts]\n'
    )
    return f"""## Use

With transformers:

```python
import torch
from PIL import Image
from transformers import CLIPSegForImageSegmentation, CLIPSegProcessor

processor = CLIPSegProcessor.from_pretrained({name!r})
model = CLIPSegForImageSegmentation.from_pretrained({name!r}).eval()
image = Image.open('photo.jpg').convert('RGB')
prompts = ['red mug', 'spoon']
{caption}inputs = processor(
    text=prompts, images=[image] * len(prompts), padding=True, return_tensors='pt'
)
with torch.no_grad():
    logits = model(**inputs, interpolate_pos_encoding=True).logits
logits = torch.nn.functional.interpolate(
    logits.reshape(1, len(prompts), *logits.shape[-2:]), image.size[::-1], mode='bilinear'
)[0]
masks = logits.sigmoid() > {card.threshold:g}  # (prompts, height, width)
```

With clipseg_ros, also as the parameter `model` of its ROS 2 node:

{own}"""


def _thresholds(card: ModelCard) -> str:
    lines = [
        '## Thresholds\n',
        f'A pixel is on where its probability is above {card.threshold:g}. '
        + (
            f'A prompt counts as absent where its presence is below {card.presence_threshold:g}.'
            if card.presence_threshold
            else 'Prompts are not tested for presence.'
        ),
    ]
    record = card.details.get('calibration')
    if record:
        lines.append(
            f'Chosen on {card.details["calibrated_on"]}, {record["samples"]} samples, where IoU_FG '
            f'is {record["iou_fg"]:g} and AP {record["ap"]:g}.'
        )
        if 'absent_prompts' in record:
            lines.append(
                f'Of {record["absent_prompts"]} absent prompts {record["absent_kept_empty"]:.1%} '
                f'leave an empty mask; {record["true_prompts_lost"]:.1%} of the true ones do too.'
            )
    elif card.details.get('calibrated_on'):
        lines.append(f'Chosen on {card.details["calibrated_on"]}.')
    return '\n'.join(lines) + '\n'


def _figures(card: ModelCard) -> str:
    lines = []
    for measured in card.details.get('evaluations', ()):
        figures = {**measured['at_threshold'], 'AP': measured.get('ap')}
        shown = [(SHOWN.get(k, k), v) for k, v in figures.items() if v is not None]
        data = ', '.join(f'{key} {value}' for key, value in measured['data'].items())
        lines += [
            f'{data}; {measured["mode"]} mode, pixels: {measured["pixels"]}, '
            f'{measured["samples"]} samples, at the threshold:\n',
            *markdown_table([name for name, _ in shown], [[f'{value:.4f}' for _, value in shown]]),
            '',
        ]
    return '\n'.join(['## Measured\n', *lines]) if lines else ''


def _training(card: ModelCard) -> str:
    details = card.details
    run = details.get('run')
    lines = [f'Architecture `{card.architecture}`, input {card.input_size} px ({card.resize}).']
    if isinstance(run, Mapping):
        lines.append(
            f'Trained on `{run["data"]["dataset"]}`, {details.get("samples")} samples, '
            f'{details.get("iterations")} iterations of {run["batch_size"]}, at commit '
            f'`{details.get("commit")}` of clipseg_ros.'
        )
        if isinstance(details.get('init_from'), Mapping):
            began = details['init_from']
            lines.append(f'Began with {began["name"]} ({began["licence"]}; {began["source"]}).')
        settings = yaml.safe_dump(dict(run), sort_keys=False)
        lines.append(
            f'\n<details><summary>Settings</summary>\n\n```yaml\n{settings}```\n</details>'
        )
    return '\n'.join(['## Training\n', *lines]) + '\n'
