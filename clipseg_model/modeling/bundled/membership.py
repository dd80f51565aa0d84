"""Which names a class is under, as a table: as a matrix of ones and zeros it takes 14 MB."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def tabulate(members: Tensor, names: int, classes: int) -> Tensor:
    """Return the names of each class, int16 (classes, most); a row is filled up with ``names``.

    Args:
        members: Pairs of a name and a class under it, integers (M, 2); twice is as once.
        names: How many names there are.
        classes: How many classes.
    """
    # Not of inference alone: a model may be trained after.
    with torch.inference_mode(False), torch.no_grad():
        pairs = torch.unique(members.cpu().long().flip(1), dim=0)
        number, name = pairs.unbind(1)
        counts = torch.bincount(number, minlength=classes)
        place = torch.arange(len(pairs)) - (counts.cumsum(0) - counts)[number]
        table = torch.full((classes, max(1, int(counts.max()))), names, dtype=torch.int16)
        table[number, place] = name.to(torch.int16)
        return table.to(members.device)


def sum_of_names(values: Tensor, table: Tensor) -> Tensor:
    """Add up for each class what its names have: (…, names) to (…, classes).

    Values are gathered, not scattered: runtimes of inference are slow at the latter.
    """
    values = functional.pad(values, (0, 1))
    gathered = values.index_select(-1, table.flatten().long())
    return gathered.unflatten(-1, table.shape).sum(-1)


def mean_of_names(vectors: Tensor, table: Tensor) -> Tensor:
    """Average the vectors of each class's names: (names, D) to (classes, D); 0 where it has none.

    One column of the table after another: all at once would be as large as the matrix.
    """
    padded = functional.pad(vectors, (0, 0, 0, 1))
    total = torch.zeros_like(padded[:1])
    for names in table.long().unbind(1):
        total = total + padded.index_select(0, names)
    counts = (table != len(vectors)).sum(1, keepdim=True)
    return total / counts.clamp(min=1).to(total.dtype)
