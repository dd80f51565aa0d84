"""Evaluate generalized zero-shot segmentation: all classes of Pascal VOC at once, by argmax."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch.nn import functional
from tqdm import tqdm

from clipseg_model import Segmenter, SegmentSettings
from clipseg_model.calibration import sigmoid
from clipseg_model.model_card import ModelCard
from clipseg_model.modeling.base import SegmentationModel
from clipseg_model.prompting.templates import TEMPLATES
from training.datasets.pascal import IGNORED, PascalZeroShot, Scene
from training.datasets.samples import Sample, evenly_spread
from training.evaluation.modes import Evaluation, device_of
from training.loop.learner import Learner
from training.loop.prompting import square
from training.metrics.classes import ConfusionMatrix, zero_shot_classes
from training.metrics.outcomes import Outcome
from training.metrics.sums import sum_over_processes


@torch.no_grad()
def evaluate_zero_shot(
    model: SegmentationModel,
    card: ModelCard,
    data: PascalZeroShot,
    evaluation: Evaluation,
    accelerator: Accelerator,
    pictures: int | None = None,
    outcomes: list[Outcome] | None = None,
) -> dict[str, float]:
    """Evaluate a model; every process takes its share of the pictures.

    Args:
        model: The model.
        card: Its card.
        data: Pictures and classes.
        evaluation: Mode and options; in paper mode pictures and classes are squeezed to a square.
        accelerator: The processes, and the device.
        pictures: Most pictures, evenly spread.
        outcomes: Gets what came out for each class of each picture of this process that is there,
            or was found.

    Returns:
        mIoU over ``seen`` and ``unseen`` classes, their ``harmonic`` mean, and ``overall``, 0…1;
        ``seen_published`` and ``unseen_published``, what the published script calls so (NaN where
        it knows no such split).
    """
    chosen = evenly_spread(len(data), pictures)
    mine = chosen[accelerator.process_index :: accelerator.num_processes]
    matrix = ConfusionMatrix.of(len(data.names))
    ask = (
        _Squares(model, data.names, evaluation, device_of(accelerator))
        if evaluation.mode == 'paper'
        else _Pictures(model, card, data.names, evaluation, device_of(accelerator))
    )
    for index in tqdm(mine, disable=not accelerator.is_main_process, leave=False):
        # A picture that is broken gives no scene.
        for scene in data.each([index]):
            predicted, labels = ask(scene)
            matrix.add(predicted, labels)
            if outcomes is not None:
                outcomes += outcomes_of(index, scene.key, predicted, labels, data.names)
    total = sum_over_processes(matrix, accelerator)
    return {**total.seen_unseen(data.unseen), **as_published(total, data)}


def outcomes_of(
    index: int,
    key: str,
    predicted: NDArray[np.int64],
    labels: NDArray[np.uint8],
    names: list[str],
) -> Iterator[Outcome]:
    """Yield what came out for each class of a picture that is there, or was found."""
    valid = labels != IGNORED
    for number in np.union1d(labels[valid], predicted[valid]).tolist():
        yield Outcome.of(
            predicted == number,
            labels == number,
            valid,
            index=index,
            key=key,
            phrase=names[number],
            class_id=number,
            score=None,
        )


def as_published(matrix: ConfusionMatrix, data: PascalZeroShot) -> dict[str, float]:
    """Return "seen" and "unseen" as CLIPSeg's published script counts them.

    It looks the classes up in JoEm's lists by the number of pairs that training held out, 5 for ten
    classes, and hands the list of unseen classes to JoEm's evaluator in place of that of seen ones.
    """
    listed = data.published_list
    if not listed:
        return {'seen_published': float('nan'), 'unseen_published': float('nan')}
    found = matrix.seen_unseen(listed)
    return {'seen_published': found['unseen'], 'unseen_published': found['seen']}


class _Squares:
    """Predicts the classes of pixels in squares, and returns them with the true ones."""

    def __init__(
        self,
        model: SegmentationModel,
        names: list[str],
        evaluation: Evaluation,
        device: torch.device,
    ) -> None:
        self.learner = Learner(model).to(device).eval()
        self.evaluation = evaluation
        (caption,) = TEMPLATES[evaluation.template or 'plain']
        self.prompts = model.embed_texts([caption.format(name) for name in names])[None]

    def __call__(self, scene: Scene) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        size, learner = self.evaluation.size, self.learner
        whole = Sample(scene.key, '', scene.image, np.ones(scene.labels.shape, bool))
        pixels = square(whole, size)[0][None]
        features = learner.model.encode_image(learner.normalised(pixels))
        logits = learner.model.decode(features, self.prompts)[0].float().cpu().numpy()
        labels = torch.from_numpy(scene.labels)[None, None].float()
        small = functional.interpolate(labels, (size, size), mode='nearest')[0, 0]
        return zero_shot_classes(sigmoid(logits)), small.numpy().astype(np.uint8)


class _Pictures:
    """Predicts the classes of pixels in whole pictures, and returns them with the true ones."""

    def __init__(
        self,
        model: SegmentationModel,
        card: ModelCard,
        names: list[str],
        evaluation: Evaluation,
        device: torch.device,
    ) -> None:
        self.segmenter = Segmenter(
            model, card, device, SegmentSettings(template=evaluation.template)
        )
        self.names = names

    def __call__(self, scene: Scene) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        results = self.segmenter.segment(scene.image, self.names).results
        return zero_shot_classes(np.stack([r.probability for r in results])), scene.labels
