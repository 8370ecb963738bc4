"""Supervised fine-tuning, in which all learned tokens have equal weight."""

from typing import Any

import torch
from accelerate import Accelerator

from qwenvl_train.evaluation.score import AnswerScore, count_tensor
from qwenvl_train.training.meter import Counts
from qwenvl_train.training.objectives.objective import Sums


class Answers(AnswerScore):
    """Objective of supervised fine-tuning: the mean negative log-likelihood of all learned tokens of a step."""

    def __init__(self) -> None:
        self._training_sums = Sums()

    def prepare(self, accelerator: Accelerator) -> None:
        """Do nothing, because this objective does not need the accelerator."""

    def divisors(self, counts: Counts) -> list[int]:
        return [counts.supervised]

    def loss(self, model: torch.nn.Module, batch: dict[str, Any], divisors: torch.Tensor) -> torch.Tensor:
        scores = model(**batch)
        tokens = count_tensor(len(scores.log_probs), scores.log_probs)
        self._training_sums.add({"right": scores.is_top1.sum(), "entropy": scores.entropy.sum(), "tokens": tokens})
        return -scores.log_probs.sum() / divisors[0]

    def take(self, accelerator: Accelerator) -> dict[str, float]:
        sums = self._training_sums.take(accelerator)
        tokens = max(sums["tokens"], 1)
        return {"mean_token_accuracy": sums["right"] / tokens, "entropy": sums["entropy"] / tokens}
