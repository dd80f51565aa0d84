"""Evaluate a model on any data set, in one of two modes that never mix.

``paper``: pictures and truth are squares of 352 × 352 pixels, as in CLIPSeg's evaluation; figures
are of the pixels of these squares. ``native``: the model is used through
:class:`~clipseg_model.Segmenter`, and figures are of the pixels of the pictures, at their own size
and aspect.

Only counts are kept: memory does not grow with the data, and sums over processes are exact.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from clipseg_model import Prompt, Segmenter, SegmentSettings
from clipseg_model.calibration import sigmoid, top_scores
from clipseg_model.errors import ClipsegError
from clipseg_model.model_card import ModelCard
from clipseg_model.modeling.base import SegmentationModel
from clipseg_model.prompting.templates import TEMPLATES
from clipseg_model.settings import Refiner
from training.datasets.samples import Sample, SampleSource
from training.evaluation.outcomes import Outcomes
from training.loop.feeding import Load
from training.loop.learner import Learner
from training.loop.prompting import PromptSettings, make_batch
from training.metrics.matting import MattingErrors, matting_errors
from training.metrics.sums import sum_over_processes
from training.metrics.tally import Tally

Mode = Literal['paper', 'native']
#: Seconds between two partial results.
PARTIAL_EVERY_S = 60.0
#: Side of the squares of the paper, pixels.
PAPER_SIZE = 352


class EvaluationError(ClipsegError):
    """A data set or a model cannot be evaluated as asked."""


@dataclass(frozen=True)
class Evaluation:
    """Mode and options.

    Attributes:
        mode: See the module.
        prompt: Phrases, or the support images of the samples.
        template: Caption of the phrases, a key of
            :data:`clipseg_model.prompting.templates.TEMPLATES`, in paper mode one with a single
            caption. None: plain phrases in paper mode, the template of the model card in native
            mode.
        method: Makes prompt images of support images; the card's where None.
        fit: Makes squares of pictures in paper mode.
        size: Side of the square in paper mode.
        seed: Of the random parts of samples.
        batch: Size of a batch in paper mode.
        workers: Number of processes that load.

    Raises:
        EvaluationError: If the template has several captions in paper mode.
    """

    mode: Mode
    prompt: Literal['text', 'image'] = 'text'
    template: str | None = None
    method: str | None = None
    fit: Literal['squeeze', 'pad'] = 'squeeze'
    size: int = PAPER_SIZE
    seed: int = 0
    batch: int = 8
    workers: int = 0

    def __post_init__(self) -> None:
        captions = TEMPLATES[self.template or 'plain']
        if self.mode == 'paper' and len(captions) != 1:
            raise EvaluationError(
                f'{self.template} is {len(captions)} captions, and paper mode asks with one: take '
                'plain or fixed, or native mode, which averages over them'
            )

    def described(self, card: ModelCard) -> dict[str, Any]:
        """Return the options that apply, for the result."""
        shown: dict[str, Any] = {
            'mode': self.mode,
            'prompt': self.prompt,
            'template': self.template or ('plain' if self.mode == 'paper' else card.template),
            'method': self.method or card.visual_method,
            'seed': self.seed,
        }
        if self.mode == 'paper':
            return {**shown, 'pixels': f'{self.size} × {self.size}', 'fit': self.fit}
        model_input = {'input_size': card.input_size, 'resize': card.resize}
        return {**shown, 'pixels': "the pictures' own", **model_input}


def evaluate(
    model: SegmentationModel,
    card: ModelCard,
    source: SampleSource,
    evaluation: Evaluation,
    accelerator: Accelerator,
    indices: Sequence[int] | None = None,
    outcomes: Outcomes | None = None,
    zoom: Callable[[Sample], Refiner] | None = None,
    partial: Callable[[Tally], None] | None = None,
) -> Tally:
    """Evaluate a model on samples of a data set; every process takes its share.

    Args:
        model: The model, on any device.
        card: Its card.
        source: The data set.
        evaluation: Mode and options.
        accelerator: The processes, and the device.
        indices: Samples; all by default.
        outcomes: Where what came out for each sample of this process is kept.
        zoom: Says how a model looks closely at the picture of a sample, in native mode.
        partial: Told once in a while what this process has counted so far.

    Returns:
        The counts of all processes, the same in each.

    Raises:
        EvaluationError: If the data set draws random crops, there is no sample to evaluate, or
            zoom is asked for in paper mode.
        BadRecord: If a record is broken, and the policy of the data set is to raise.
    """
    check_whole(source)
    chosen = range(len(source)) if indices is None else indices
    groups = grouped(source, chosen)[accelerator.process_index :: accelerator.num_processes]
    data, device = _Groups(source, groups, evaluation), device_of(accelerator)
    mine = Tally(card.threshold)
    if accelerator.is_main_process:
        # Every process found the same when it opened the data set.
        mine.skipped.update(source.problems.opening)
    if evaluation.mode == 'native':
        counting = _native(model, card, data, device, mine, outcomes, zoom)
    elif zoom is None:
        counting = _paper(model, card, data, device, mine, outcomes)
    else:
        raise EvaluationError('zoom needs the pictures at their own size: native mode')
    told = time.monotonic()
    steps = len(groups) if evaluation.mode == 'native' else -(-len(groups) // evaluation.batch)
    shown = tqdm(counting, total=steps, disable=not accelerator.is_main_process, leave=False)
    for mine in shown:
        if partial is not None and time.monotonic() - told > PARTIAL_EVERY_S:
            partial(mine)
            told = time.monotonic()
    tally = sum_over_processes(mine, accelerator)
    if not tally.pixels().samples:
        raise EvaluationError(
            f'there is no sample to evaluate among {len(chosen)}; {dict(tally.skipped) or "none"}'
        )
    return tally


def device_of(accelerator: Accelerator) -> torch.device:
    """Return the device of this process."""
    # Several processes share one CPU, whose device has no number.
    device: torch.device = accelerator.device
    return torch.device('cpu') if device.type == 'cpu' else device


def check_whole(source: SampleSource) -> None:
    """Raise an EvaluationError if a data set draws random crops."""
    if getattr(getattr(source, 'settings', None), 'crop', 'none') == 'random':
        raise EvaluationError(
            'the data set draws random crops: measure whole pictures, with crop: none'
        )


def grouped(source: SampleSource, indices: Sequence[int]) -> list[list[int]]:
    """Group the expressions of each matte of RefMatte, whose errors are averaged first."""
    matte = getattr(source, 'matte', None)
    if matte is None:
        return [[index] for index in indices]
    of_matte: dict[str, list[int]] = {}
    for index in indices:
        of_matte.setdefault(matte(index), []).append(index)
    return list(of_matte.values())


#: Samples with their numbers in the data set.
Numbered = list[tuple[int, Sample]]


class _Groups(Dataset[tuple[Numbered, dict[str, int]]]):
    """Groups of samples, and the number of samples left out, by reason."""

    def __init__(
        self, source: SampleSource, groups: list[list[int]], evaluation: Evaluation
    ) -> None:
        self.source, self.groups, self.evaluation = source, groups, evaluation

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, number: int) -> tuple[Numbered, dict[str, int]]:
        before = Counter(self.source.problems.counts)
        how = self.evaluation
        samples = [
            (index, sample)
            for index in self.groups[number]
            for sample in self.source.each_with(how.prompt, how.seed, [index])
        ]
        return samples, dict(self.source.problems.counts - before)


class _Batches(Dataset[tuple[Load | None, Numbered, dict[str, int]]]):
    """Batches of samples as squares."""

    def __init__(self, groups: _Groups, prompts: PromptSettings, size: int) -> None:
        self.groups, self.prompts, self.size = groups, prompts, size

    def __len__(self) -> int:
        return -(-len(self.groups) // self.size)

    def __getitem__(self, number: int) -> tuple[Load | None, Numbered, dict[str, int]]:
        samples: Numbered = []
        skipped: Counter[str] = Counter()
        first = number * self.size
        for group in range(first, min(first + self.size, len(self.groups))):
            more, left_out = self.groups[group]
            samples += more
            skipped.update(left_out)
        if not samples:
            return None, [], dict(skipped)
        drawn = [sample for _, sample in samples]
        batch = make_batch(drawn, self.prompts, np.random.default_rng(0))
        # Pictures need not be copied from the loading process.
        bare = [(i, replace(sample, image=sample.image[:0], support=None)) for i, sample in samples]
        return Load([], batch), bare, dict(skipped)


def _loader(data: Dataset[Any], workers: int) -> Iterator[Any]:
    generator = torch.Generator().manual_seed(0)
    return iter(DataLoader(data, batch_size=None, num_workers=workers, generator=generator))


def paper_prompts(card: ModelCard, model: SegmentationModel, how: Evaluation) -> PromptSettings:
    """Return the settings that make prompts of samples in paper mode."""
    return PromptSettings(
        size=how.size,
        fit=how.fit,
        template=how.template or 'plain',
        method=how.method or card.visual_method,
        ground=card.ground_levels(model.backbone.mean),
        text_weight=(0.0, 0.0),
    )


@torch.no_grad()
def _paper(
    model: SegmentationModel,
    card: ModelCard,
    data: _Groups,
    device: torch.device,
    tally: Tally,
    outcomes: Outcomes | None,
) -> Iterator[Tally]:
    """Yield the tally, which grows from batch to batch."""
    how = data.evaluation
    learner = Learner(model).to(device).eval()
    flat = _Groups(data.source, [[index] for group in data.groups for index in group], how)
    batches = _Batches(flat, paper_prompts(card, model, how), how.batch)
    for load, samples, left_out in _loader(batches, how.workers):
        tally.skipped.update(left_out)
        if load is None:
            yield tally
            continue
        logits = learner(load)[1][:, 0].cpu()
        scores = top_scores(logits.numpy())
        truth, valid = load.batch.masks[:, 0] >= 0.5, load.batch.valid[:, 0]
        for row, (index, sample) in enumerate(samples):
            probability = sigmoid(logits[row].numpy())
            mask = probability > card.threshold
            if scores[row] < card.presence_threshold:
                mask[:] = False
            known = truth[row].numpy(), valid[row].numpy()
            tally.add(probability, mask, scores[row], *known, sample.class_id)
            if outcomes is not None:
                outcomes.add(index, sample, mask, *known, float(scores[row]))
        yield tally


def _native(
    model: SegmentationModel,
    card: ModelCard,
    data: _Groups,
    device: torch.device,
    tally: Tally,
    outcomes: Outcomes | None,
    zoom: Callable[[Sample], Refiner] | None = None,
) -> Iterator[Tally]:
    """Yield the tally, which grows from picture to picture."""
    how = data.evaluation
    segmenter = Segmenter(model, card, device, SegmentSettings(how.template, how.method))
    for samples, left_out in _loader(data, how.workers):
        tally.skipped.update(left_out)
        errors: list[MattingErrors] = []
        for index, sample in samples:
            if sample.support is None:
                prompt = Prompt(text=sample.phrase)
            else:
                prompt = Prompt(image=sample.support.image, mask=sample.support.mask)
            if zoom is not None:
                segmenter.zoom = zoom(sample)
            (result,) = segmenter.segment(np.ascontiguousarray(sample.image), [prompt]).results
            known = sample.mask, sample.valid
            tally.add(result.probability, result.mask, result.score, *known, sample.class_id)
            if outcomes is not None:
                outcomes.add(index, sample, result.mask, *known, result.score)
            if sample.alpha is not None:
                errors.append(matting_errors(result.probability, sample.alpha))
        if errors:
            tally.matting.add(errors)
        yield tally
