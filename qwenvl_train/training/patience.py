"""Ends a run whose held-out score does not improve any more."""

from collections.abc import Iterable
from typing import Any

from transformers import TrainerCallback

from qwenvl_train.config.best import is_better


def evaluations_without_improvement(history: Iterable[dict[str, Any]], metric: str) -> int:
    """Return how many evaluations there have been since the best one. `history` has the logs of the trainer."""
    best, since = None, 0
    for logs in history:
        if (value := logs.get(metric)) is None:
            continue
        if best is None or is_better(metric, value, best):
            best, since = value, 0
        else:
            since += 1
    return since


class Patience(TrainerCallback):
    """Callback that ends the training after `patience` evaluations without a better value of `metric`. It counts in the
    logs of the trainer, which a checkpoint has, too, so that a resumed run ends at the same step."""

    def __init__(self, metric: str, patience: int):
        self._metric, self._patience = metric, patience
        self.ended_at: int | None = None
        """The step at which the callback ended the training."""

    def on_evaluate(self, args, state, control, **_) -> None:
        if evaluations_without_improvement(state.log_history, self._metric) >= self._patience:
            self.ended_at = state.global_step
            control.should_save = control.should_training_stop = True
