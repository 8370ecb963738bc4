"""The scores of held-out samples, as sums over packed rows."""

from typing import Any, Protocol

import torch

from qwenvl_train.model.forward import Scores


class Score(Protocol):
    """A score that is made of sums over packed rows, so that it is the same however samples are divided into rows and
    rows between processes."""

    sums: int
    """Number of values that `score` returns."""

    def score(self, model: torch.nn.Module, batch: dict[str, Any]) -> torch.Tensor:
        """Return sums over the held-out samples of one packed row, [sums]. The last is the number of samples."""

    def metrics(self, sums: torch.Tensor) -> dict[str, float]:
        """Return the evaluation metrics, including `eval_loss`, from the sums over all packed rows."""


class AnswerScore:
    """The loss and the accuracy of learned tokens, and the share of samples that are answered word for word."""

    sums = 5

    def score(self, model: torch.nn.Module, batch: dict[str, Any]) -> torch.Tensor:
        return _sums(model(**batch), batch["learned"], batch["samples"].cu_seqlens)

    def metrics(self, sums: torch.Tensor) -> dict[str, float]:
        loss, tokens, tokens_right, samples_right, samples = sums.tolist()
        return {
            "eval_loss": loss / tokens,
            "eval_token_accuracy": tokens_right / tokens,
            "eval_exact_match": samples_right / samples,
            "eval_samples": int(samples),
        }


def count_tensor(count: int, like: torch.Tensor) -> torch.Tensor:
    """Return a count that the host knows as a tensor on the device of `like`."""
    return torch.full((), count, device=like.device)


def _sums(scores: Scores, learned: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
    """Return five sums, [5]: loss, learned tokens, correct tokens, correct samples, samples.

    A sample is correct if every learned token is the most likely one given the true tokens before it. If and only if
    that is so, greedy generation returns each of its answers word for word, given the true turns before the answer.
    """
    right = scores.is_top1.double()
    sample_of = torch.searchsorted(cu_seqlens, learned, right=True) - 1
    mistakes = right.new_zeros(len(cu_seqlens) - 1).index_add_(0, sample_of, 1 - right)
    tokens, samples = (count_tensor(len(counted), right).double() for counted in (learned, mistakes))
    return torch.stack([-scores.log_probs.double().sum(), tokens, right.sum(), (mistakes == 0).double().sum(), samples])
