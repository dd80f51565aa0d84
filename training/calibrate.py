"""Choose a model's thresholds on a validation split of any data set, in native mode.

Where the data set can tell what its pictures do not show, prompts for that count too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray

from clipseg_model.model_card import ModelCard
from clipseg_model.modeling.base import SegmentationModel
from training.datasets.samples import SampleSource, StrictSettings, evenly_spread
from training.datasets.sources import check_source, open_source
from training.evaluation.modes import Evaluation, EvaluationError, evaluate
from training.loop.validation import absent_samples, open_absent
from training.metrics.pixels import BINS
from training.metrics.tally import NO_CLASS, Tally


def calibrate(
    model: SegmentationModel,
    card: ModelCard,
    data: Mapping[str, Any],
    accelerator: Accelerator,
    empty: float | None = None,
    samples: int | None = None,
    workers: int = 0,
) -> ModelCard:
    """Return the card with the threshold of the best IoU_FG on a validation split.

    ``details['calibration']`` says what it costs and brings.

    Args:
        model: The model.
        card: Its card; its own thresholds do not matter.
        data: Of a validation split.
        accelerator: The processes, and the device.
        empty: Share, 0…1, of absent prompts whose masks shall be empty: the presence threshold is
            the lowest that does it. None leaves it as it is.
        samples: At most so many.
        workers: Processes that load.

    Raises:
        EvaluationError: There is no foreground, the data set has no absent prompts, or ``empty``
            is not within 0…1.
    """
    if empty is not None and not 0 < empty < 1:
        raise EvaluationError(f'the share of absent prompts must be within 0…1, not {empty}')
    settings = check_source(data)
    source = open_source({**data, **_given(settings, 'negatives', 0.0)})
    how = Evaluation('native', workers=workers)
    indices = evenly_spread(len(source), samples)
    found = evaluate(model, card, source, how, accelerator, indices)
    if not found.pixels().foreground.any():
        raise EvaluationError(f'{dict(data)} shows nothing: no threshold can be chosen on it')
    lacking = open_absent(data)
    missed = None
    if lacking is not None:
        knows = [index for index in indices if _lacks_something(lacking, index)]
        if knows:
            missed = evaluate(model, card, lacking, how, accelerator, knows)
            found.merge(_absent_alone(missed))
    best, threshold = found.best('iou_fg')
    record: dict[str, Any] = {
        'data': {key: str(value) for key, value in data.items()},
        'samples': found.pixels().samples,
        'mode': 'native',
        'iou_fg': round(best, 4),
        'ap': round(found.figure('ap'), 4),
    }
    changes: dict[str, Any] = {'threshold': threshold}
    if missed is not None:
        record['absent_samples'] = missed.absent.samples
    if empty is not None:
        if missed is None:
            raise EvaluationError(
                f'{data["dataset"]} cannot tell what its pictures do not show '
                f'({_why_not(settings)}): presence cannot be calibrated on it. Give --calibrate '
                "another data set, such as '{dataset: folder, folder: my_data/val}' with two "
                'phrases or more'
            )
        changes['presence_threshold'] = level = presence_level(missed.prompts.absent, empty)
        first = round(level * BINS)
        record['absent_prompts'] = int(missed.prompts.absent.sum())
        record['absent_kept_empty'] = share_below(missed.prompts.absent, first)
        record['true_prompts_lost'] = share_below(found.prompts.present, first)
    split = data.get('split') or data.get('folder') or data.get('annotations')
    calibrated_on = f'{data["dataset"]} {split}' if split else str(data['dataset'])
    details = {**card.details, 'calibrated_on': calibrated_on, 'calibration': record}
    return replace(card, details=details, **changes)


def presence_level(scores: NDArray[np.int64], empty: float) -> float:
    """Return the lowest presence threshold that keeps a share of absent prompts empty.

    ``scores`` counts them by level of score, (BINS + 1,); EvaluationError where all are zero.
    """
    total = int(scores.sum())
    if not total:
        raise EvaluationError(
            'no prompt is absent from its picture: nothing to choose presence on. Add pictures '
            'that do not show everything that is asked for'
        )
    # A score of exactly the threshold is present, so that level is not below it.
    below = np.concatenate([[0], scores.cumsum()])
    return float(min(np.argmax(below >= np.ceil(empty * total)) / BINS, 1.0))


def share_below(scores: NDArray[np.int64], level: int) -> float:
    """Return the share of prompts that score below a level."""
    return round(float(scores[:level].sum() / max(int(scores.sum()), 1)), 4)


def _lacks_something(lacking: SampleSource, index: int) -> bool:
    return any(True for _ in absent_samples(lacking, 'text', 0, [index]))


def _absent_alone(tally: Tally) -> Tally:
    """Return the pixels of a tally that are of prompts for absent things."""
    alone = Tally(tally.threshold)
    alone.classes.by_class[NO_CLASS].merge(tally.absent)
    return alone


def _why_not(settings: StrictSettings) -> str:
    return (
        'it has one class, or does not know'
        if 'negatives' in type(settings).model_fields
        else 'it has no setting negatives'
    )


def _given(settings: StrictSettings, name: str, value: Any) -> dict[str, Any]:
    """Return a setting, if the data set has it."""
    return {name: value} if name in type(settings).model_fields else {}
