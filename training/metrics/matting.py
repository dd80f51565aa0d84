"""Metrics of mattes: SAD, MSE, MAD, Grad and Conn (Rhemann et al. 2009), as RefMatte reports them.

All are over the whole picture (no trimap). Sums over pixels are in thousands, as is usual in the
literature; MSE and MAD are means over pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.metrics.sums import Counts

#: Standard deviation of the derivative of a Gaussian in Grad, pixels.
GRADIENT_SIGMA = 1.4
#: Values below this share of its peak are cut off the derivative.
GRADIENT_CUT = 1e-2
#: Levels of Conn, and the difference from which connectedness is lost.
CONNECTIVITY_LEVELS, CONNECTIVITY_SLACK = 11, 0.15
#: Units that sums over pictures are kept in, so that they are exact.
UNITS = 2**40


@dataclass(frozen=True)
class MattingErrors:
    """Errors of one matte, or the mean over several; smaller is better.

    Attributes:
        sad: Sum of absolute differences, thousands.
        mse: Mean squared error.
        mad: Mean absolute difference.
        grad: Sum of squared differences of gradient magnitudes, thousands.
        conn: Sum of differences of connectedness, thousands.
    """

    sad: float
    mse: float
    mad: float
    grad: float
    conn: float


def matting_errors(predicted: NDArray[np.floating], truth: NDArray[np.floating]) -> MattingErrors:
    """Compare a matte with the truth.

    Args:
        predicted: float (H, W), 0…1.
        truth: float (H, W), 0…1.

    Raises:
        ValueError: Shapes differ, or values are not within 0…1.
    """
    if predicted.shape != truth.shape or truth.ndim != 2:
        raise ValueError(f'mattes {predicted.shape} and {truth.shape} differ in shape')
    for name, matte in (('predicted', predicted), ('true', truth)):
        if not (matte.min() >= 0 and matte.max() <= 1):
            raise ValueError(f'the {name} matte is {matte.min()} … {matte.max()}, not within 0…1')
    ours: NDArray[np.float64] = predicted.astype(np.float64)
    theirs: NDArray[np.float64] = truth.astype(np.float64)
    difference = np.abs(ours - theirs)
    return MattingErrors(
        sad=float(difference.sum() / 1000),
        mse=float((difference**2).mean()),
        mad=float(difference.mean()),
        grad=gradient_error(ours, theirs) / 1000,
        conn=connectivity_error(ours, theirs) / 1000,
    )


def gradient_error(predicted: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    """Return the sum over pixels of the squared difference of gradient magnitudes."""
    return float(((_gradient(predicted) - _gradient(truth)) ** 2).sum())


def connectivity_error(predicted: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    """Return the sum over pixels of the difference of their connectedness.

    At each level 0.1, 0.2, … 1, the connected part is the largest 4-connected region in which both
    mattes reach it. The level l of a pixel is the last one at which it is connected; its
    connectedness is 1 - d where d = matte - l is 0.15 or more, else 1.
    """
    # Quotients, so that 153 of 255 is at the level 0.6.
    levels = np.arange(CONNECTIVITY_LEVELS) / (CONNECTIVITY_LEVELS - 1)
    lost_at = np.full(truth.shape, -1.0)
    for below, level in pairwise(levels):
        regions, count = ndimage.label((predicted >= level) & (truth >= level))
        connected = np.zeros(truth.shape, bool)
        if count:
            connected = regions == 1 + np.bincount(regions.ravel())[1:].argmax()
        lost_at[(lost_at == -1) & ~connected] = below
    lost_at[lost_at == -1] = 1
    return float(np.abs(_connectedness(predicted, lost_at) - _connectedness(truth, lost_at)).sum())


def _connectedness(matte: NDArray[np.float64], lost_at: NDArray[np.float64]) -> NDArray[np.float64]:
    beyond = matte - lost_at
    return 1 - beyond * (beyond >= CONNECTIVITY_SLACK)


def _gradient(matte: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the gradient magnitude, by derivatives of a Gaussian of unit energy."""
    sigma = GRADIENT_SIGMA
    reach = np.sqrt(-2 * np.log(np.sqrt(2 * np.pi) * sigma * GRADIENT_CUT))
    half = int(np.ceil(sigma * reach))
    at = np.arange(-half, half + 1, dtype=np.float64)
    gauss = np.exp(-(at**2) / (2 * sigma**2)) / (sigma * np.sqrt(2 * np.pi))
    across = np.outer(gauss, -at * gauss / sigma**2)
    across /= np.sqrt((across**2).sum())
    x = ndimage.convolve(matte, across, mode='nearest')
    y = ndimage.convolve(matte, across.T, mode='nearest')
    return np.sqrt(x**2 + y**2)


def _zeros() -> NDArray[np.object_]:
    return np.zeros(len(fields(MattingErrors)), object)


@dataclass
class MattingStatistics(Counts):
    """Sums of errors over mattes and over expressions.

    RefMatte reports two means: those marked (E) are over expressions; the others are over mattes,
    of the means over each one's expressions.

    Attributes:
        mattes: How many.
        expressions: How many.
        sums: Of each error over mattes, in units of 2⁻⁴⁰, so that their order does not matter.
        expression_sums: The same over expressions.
    """

    mattes: int = 0
    expressions: int = 0
    # Arrays of Python's integers, which do not overflow.
    sums: NDArray[np.object_] = field(default_factory=_zeros)
    expression_sums: NDArray[np.object_] = field(default_factory=_zeros)

    def add(self, errors: Sequence[MattingErrors]) -> None:
        """Add a matte.

        Args:
            errors: Of each expression that is true of it, what :func:`matting_errors` returns.

        Raises:
            ValueError: If there is none.
        """
        if not errors:
            raise ValueError('a matte without expressions')
        self.mattes += 1
        self.expressions += len(errors)
        for place, part in enumerate(fields(MattingErrors)):
            units = [round(getattr(one, part.name) * UNITS) for one in errors]
            self.sums[place] += round(sum(units) / len(units))
            self.expression_sums[place] += sum(units)

    def per_matte(self) -> MattingErrors:
        """Return the means over mattes; NaN without any."""
        return _mean(self.sums, self.mattes)

    def per_expression(self) -> MattingErrors:
        """Return the means over expressions (E); NaN without any."""
        return _mean(self.expression_sums, self.expressions)


def _mean(sums: NDArray[np.object_], count: int) -> MattingErrors:
    return MattingErrors(*(total / UNITS / count if count else float('nan') for total in sums))
