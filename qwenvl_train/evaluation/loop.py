"""Evaluates a model on all held-out samples, over all processes and without a trainer."""

from dataclasses import dataclass

import torch
from accelerate.utils import reduce, send_to_device
from torch.utils.data import DataLoader

from qwenvl_train.data.batches.loader import EvalRows, ignore_terminal_signals
from qwenvl_train.data.index.lengths import Problem
from qwenvl_train.errors import UserError
from qwenvl_train.evaluation.score import Score


@dataclass(frozen=True)
class Evaluation:
    """The result of one evaluation."""

    score: Score
    sums: torch.Tensor
    """The sums of the score over the packed rows of all processes."""
    problems: tuple[Problem, ...]
    """The samples of this process that could not be decoded."""

    def metrics(self) -> dict[str, float]:
        """Return the metrics over all held-out samples, and raise UserError if none of them could be decoded."""
        if not self.sums[-1]:
            raise UserError("data.eval: no sample could be decoded; skipped.jsonl lists the reasons.")
        return self.score.metrics(self.sums)


def eval_loader(rows: EvalRows, workers: int) -> DataLoader:
    pin_memory = torch.cuda.is_available()
    return DataLoader(rows, None, num_workers=workers, pin_memory=pin_memory, worker_init_fn=ignore_terminal_signals)


@torch.no_grad()
def evaluate(model: torch.nn.Module, loader: DataLoader, score: Score, device: torch.device) -> Evaluation:
    """Evaluate `model` on the rows of `loader`. All processes must call this together.

    The model is called as it is: what wraps it sets the precision of its passes.
    """
    model.eval()
    sums = torch.zeros(score.sums, dtype=torch.float64, device=device)
    problems: list[Problem] = []
    for batch, contents, found, counted in loader:
        if counted:
            problems += found
        scored = bool(counted and contents.lengths)
        sums += int(scored) * score.score(model, send_to_device(batch, device, non_blocking=loader.pin_memory))
    return Evaluation(score, reduce(sums, "sum"), tuple(problems))
