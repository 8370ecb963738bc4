"""Supervised fine-tuning, in which all learned tokens have equal weight."""

from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator

from qwenvl_train.evaluation.score import AnswerScore, count_tensor
from qwenvl_train.training.meter import Counts
from qwenvl_train.training.objectives.objective import Sums, by_source


class Answers(AnswerScore):
    """Objective of supervised fine-tuning: the mean negative log-likelihood of all learned tokens of a step."""

    def __init__(self, sources: Sequence[str] = ()) -> None:
        """`sources` are the names of the entries of data.train, each of which is to have a loss of its own."""
        self._training_sums, self._sources = Sums(), sources

    def prepare(self, accelerator: Accelerator) -> None:
        """Do nothing, because this objective does not need the accelerator."""

    def divisors(self, counts: Counts) -> list[int]:
        return [counts.supervised]

    def loss(self, model: torch.nn.Module, batch: dict[str, Any], divisors: torch.Tensor) -> torch.Tensor:
        scores = model(**batch)
        tokens = count_tensor(len(scores.log_probs), scores.log_probs)
        sums = {"right": scores.is_top1.sum(), "entropy": scores.entropy.sum(), "tokens": tokens}
        if self._sources:
            losses = -scores.log_probs.detach()
            for name, values in (("loss", losses), ("tokens", torch.ones_like(losses))):
                of_sources = by_source(values, batch.get("sources"), len(self._sources))
                sums |= {f"{name}/{number}": one for number, one in enumerate(of_sources.unbind())}
        self._training_sums.add(sums)
        return -scores.log_probs.sum() / divisors[0]

    def take(self, accelerator: Accelerator) -> dict[str, Any]:
        sums = self._training_sums.take(accelerator)
        tokens = max(sums["tokens"], 1)
        figures: dict[str, Any] = {"mean_token_accuracy": sums["right"] / tokens, "entropy": sums["entropy"] / tokens}
        if self._sources:
            figures["sources"] = {
                name: {"loss": sums[f"loss/{number}"] / sums[f"tokens/{number}"]}
                for number, name in enumerate(self._sources)
                if sums[f"tokens/{number}"]
            }
        return figures
