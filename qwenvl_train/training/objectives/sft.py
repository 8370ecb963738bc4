"""Supervised fine-tuning, in which all learned tokens have equal weight."""

from typing import Any

import torch
from accelerate import Accelerator

from qwenvl_train.model.forward import Scores
from qwenvl_train.training.meter import Counts
from qwenvl_train.training.objectives.objective import Sums, number


class Answers:
    """Objective of supervised fine-tuning: the mean negative log-likelihood of all learned tokens of a step."""

    sums = 5

    def __init__(self) -> None:
        self._seen = Sums()

    def prepare(self, accelerator: Accelerator) -> None:
        """Do nothing, because this objective does not need the accelerator."""

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
        return _score(model(**batch), batch["learned"], batch["samples"].cu_seqlens)

    def metrics(self, sums: torch.Tensor) -> dict[str, float]:
        loss, tokens, tokens_right, samples_right, samples = sums.tolist()
        return {
            "eval_loss": loss / tokens,
            "eval_token_accuracy": tokens_right / tokens,
            "eval_exact_match": samples_right / samples,
            "eval_samples": int(samples),
        }


def _score(scores: Scores, learned: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
    """Return five sums, [5]: loss, learned tokens, correct tokens, correct samples, samples.

    A sample is correct if every learned token is the most likely one given the true tokens before it. If and only if
    that is so, greedy generation returns each of its answers word for word, given the true turns before the answer.
    """
    right = scores.is_top1.double()
    sample_of = torch.searchsorted(cu_seqlens, learned, right=True) - 1
    mistakes = right.new_zeros(len(cu_seqlens) - 1).index_add_(0, sample_of, 1 - right)
    tokens, samples = (number(len(counted), right).double() for counted in (learned, mistakes))
    return torch.stack([-scores.log_probs.double().sum(), tokens, right.sum(), (mistakes == 0).double().sum(), samples])
