"""The interface between the trainer and an objective, and helpers that objectives share."""

from typing import Any, Protocol

import torch
from accelerate import Accelerator

from qwenvl_train.evaluation.score import Score
from qwenvl_train.training.meter import Counts


class Objective(Score, Protocol):
    """What a run learns from its packed rows: the loss, the metrics to log, and the score on held-out samples."""

    def prepare(self, accelerator: Accelerator) -> None:
        """Prepare the objective. The trainer calls this once, when the accelerator is set up, before other methods."""

    def divisors(self, counts: Counts) -> list[int]:
        """Return the divisors of the sums that make up the loss, from the counts of the step over all processes."""

    def loss(self, model: torch.nn.Module, batch: dict[str, Any], divisors: torch.Tensor) -> torch.Tensor:
        """Return the contribution of one micro-batch to the loss of the step."""

    def take(self, accelerator: Accelerator) -> dict[str, Any]:
        """Return the figures to log for all processes and for the passes since the previous call. If there are several
        sources, `sources` holds the figures of each."""


def by_source(values: torch.Tensor, sources: torch.Tensor | None, count: int) -> torch.Tensor:
    """Return the sum of `values` over each of the `count` entries of data.train, [count]. `sources` is the index of the
    entry of each value, or None in a row without any samples."""
    sums = values.new_zeros(count)
    return sums if sources is None else sums.index_add(0, sources, values)


class Sums:
    """Named sums over the passes of this process since the previous call of `take`. They stay on the device."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._sums: torch.Tensor | None = None

    def add(self, new: dict[str, torch.Tensor]) -> None:
        """Add `new` to the sums. Every call must pass the same names."""
        self._names = list(new)
        values = torch.stack([value.detach().double() for value in new.values()])
        self._sums = values if self._sums is None else self._sums + values

    def take(self, accelerator: Accelerator) -> dict[str, float]:
        """Return the sums over all processes, and reset them."""
        assert self._sums is not None
        totals = accelerator.reduce(self._sums).tolist()
        self._sums = None
        return dict(zip(self._names, totals, strict=True))
