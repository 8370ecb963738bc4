"""Supervised fine-tuning: each supervised token counts alike."""

from typing import Any

import torch
from accelerate import Accelerator

from qwenvl_train.training.evaluation import metrics, score
from qwenvl_train.training.meter import Counts
from qwenvl_train.training.objective import Sums, number


class Answers:
    sums = 5

    def __init__(self) -> None:
        self._seen = Sums()

    def prepare(self, accelerator: Accelerator) -> None:
        pass

    def divisors(self, counts: Counts) -> list[int]:
        return [counts.supervised]

    def loss(self, model: torch.nn.Module, batch: dict[str, Any], divisors: torch.Tensor) -> torch.Tensor:
        scores = model(**batch)
        tokens = number(len(scores.log_probs), scores.log_probs)
        self._seen.add({"right": scores.is_top1.sum(), "entropy": scores.entropy.sum(), "tokens": tokens})
        return -scores.log_probs.sum() / divisors[0]

    def take(self, accelerator: Accelerator) -> dict[str, float]:
        seen = self._seen.take(accelerator)
        tokens = max(seen["tokens"], 1)
        return {"mean_token_accuracy": seen["right"] / tokens, "entropy": seen["entropy"] / tokens}

    def score(self, model: torch.nn.Module, batch: dict[str, Any]) -> torch.Tensor:
        return score(model(**batch), batch["learned"], batch["samples"].cu_seqlens)

    def metrics(self, sums: torch.Tensor) -> dict[str, float]:
        return metrics(sums)
