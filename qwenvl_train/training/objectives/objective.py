"""What a run learns from its rows, as the trainer sees it."""

from typing import Any, Protocol

import torch
from accelerate import Accelerator

from qwenvl_train.training.meter import Counts


class Objective(Protocol):
    sums: int
    """How many figures `score` gives."""

    def prepare(self, accelerator: Accelerator) -> None:
        """Called once, when the engine is set up and before anything else."""

    def divisors(self, counts: Counts) -> list[int]:
        """What the sums that make the loss are divided by, from what the step holds on all processes."""

    def loss(self, model: torch.nn.Module, batch: dict[str, Any], divisors: torch.Tensor) -> torch.Tensor:
        """What this pass adds to the loss of the step."""

    def take(self, accelerator: Accelerator) -> dict[str, float]:
        """What there is to log of the passes since the last time, of all processes."""

    def score(self, model: torch.nn.Module, batch: dict[str, Any]) -> torch.Tensor:
        """Sums over held-out samples, the last of them how many there were; those of all rows are added up."""

    def metrics(self, sums: torch.Tensor) -> dict[str, float]:
        """What they tell, `eval_loss` among it."""


class Sums:
    """Named sums of this process since they were last taken; they stay on the device."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._sums: torch.Tensor | None = None

    def add(self, new: dict[str, torch.Tensor]) -> None:
        """The same names each time."""
        self._names = list(new)
        values = torch.stack([value.detach().double() for value in new.values()])
        self._sums = values if self._sums is None else self._sums + values

    def take(self, accelerator: Accelerator) -> dict[str, float]:
        """Of all processes."""
        assert self._sums is not None
        totals = accelerator.reduce(self._sums).tolist()
        self._sums = None
        return dict(zip(self._names, totals, strict=True))


def number(count: int, like: torch.Tensor) -> torch.Tensor:
    """A number that the host knows, where the others are."""
    return torch.full((), count, device=like.device)
