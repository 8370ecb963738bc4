"""Evaluates a model on all held-out samples, over all processes and without a trainer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import reduce, send_to_device
from torch.utils.data import DataLoader

from qwenvl_train.data.batches.loader import EvalRows, ignore_terminal_signals
from qwenvl_train.data.index.lengths import Problem
from qwenvl_train.errors import UserError
from qwenvl_train.evaluation.score import Score

OF_SOURCES = ("eval_rewards/accuracies", "eval_exact_match", "eval_token_accuracy", "eval_loss", "eval_samples")
"""The metrics that each entry of data.eval has for itself."""


@dataclass(frozen=True)
class Evaluation:
    """The result of one evaluation."""

    score: Score
    sums: torch.Tensor
    """[entries of data.eval, sums of the score]: the sums over the packed rows of all processes."""
    entries: Sequence[str]
    """The names of the entries."""
    problems: tuple[Problem, ...]
    """The samples of this process that could not be decoded."""

    def metrics(self) -> dict[str, Any]:
        """Return the metrics over all held-out samples, and raise UserError if none of them could be decoded. If there
        are several entries, eval_sources holds the main metrics of each."""
        if not self.sums[:, -1].any():
            raise UserError("data.eval: no sample could be decoded; skipped.jsonl lists the reasons.")
        metrics: dict[str, Any] = self.score.metrics(self.sums.sum(0))
        if len(self.entries) > 1:
            metrics["eval_sources"] = {
                name: self._of_source(sums) for name, sums in zip(self.entries, self.sums, strict=True) if sums[-1]
            }
        return metrics

    def _of_source(self, sums: torch.Tensor) -> dict[str, float]:
        found = self.score.metrics(sums)
        return {key.removeprefix("eval_"): found[key] for key in OF_SOURCES if key in found}


def eval_loader(rows: EvalRows, workers: int) -> DataLoader:
    pin_memory = torch.cuda.is_available()
    return DataLoader(rows, None, num_workers=workers, pin_memory=pin_memory, worker_init_fn=ignore_terminal_signals)


@torch.no_grad()
def evaluate(model: torch.nn.Module, loader: DataLoader, score: Score, device: torch.device) -> Evaluation:
    """Evaluate `model` on the rows of `loader`. All processes must call this together.

    The model is called as it is: what wraps it sets the precision of its passes.
    """
    model.eval()
    held_out = loader.dataset
    assert isinstance(held_out, EvalRows)
    sums = torch.zeros(len(held_out.entries), score.sums, dtype=torch.float64, device=device)
    problems: list[Problem] = []
    for batch, contents, found, entry in loader:
        values = score.score(model, send_to_device(batch, device, non_blocking=loader.pin_memory))
        if entry is None:
            continue
        problems += found
        if contents.lengths:
            sums[entry] += values
    return Evaluation(score, reduce(sums, "sum"), held_out.entries, tuple(problems))
