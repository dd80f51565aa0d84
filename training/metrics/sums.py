"""Counts that add up exactly, whatever the order, over samples and over processes."""

from __future__ import annotations

from dataclasses import fields
from typing import TypeVar

from accelerate import Accelerator
from accelerate.utils import gather_object


class Counts:
    """Base of dataclasses whose fields are whole numbers, or arrays of them."""

    def merge(self, other: Counts) -> None:
        """Add the counts of another object of the same class."""
        for field in fields(self):  # type: ignore[arg-type]
            total = getattr(self, field.name) + getattr(other, field.name)
            setattr(self, field.name, total)


CountsT = TypeVar('CountsT', bound=Counts)


def sum_over_processes(counts: CountsT, accelerator: Accelerator) -> CountsT:
    """Return the sum over all processes, the same in each of them.

    Counts are whole numbers, so neither the number of processes nor their order matters.
    """
    if accelerator.num_processes == 1:
        return counts
    first, *others = gather_object([counts])
    for other in others:
        first.merge(other)
    return first
