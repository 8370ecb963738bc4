"""Preference tuning. Of the two answers of a pair, the chosen one is to become more likely than the rejected one,
relative to a reference model.

All pairs have equal weight in the loss. In the term sft, all tokens of the chosen answers have equal weight instead.
"""

from collections.abc import Callable

import torch
from accelerate import Accelerator

from qwenvl_train.config.schema import DpoConfig, PreferenceLoss
from qwenvl_train.evaluation.score import count_tensor
from qwenvl_train.model.forward import Scores
from qwenvl_train.training.meter import Counts
from qwenvl_train.training.objectives.losses import LOSSES, PreferencePairs, of_answers, own_likelihood
from qwenvl_train.training.objectives.objective import Sums
from qwenvl_train.training.objectives.reference import Reference, Row

_FIGURES = (
    "rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected",
    "kl", "entropy", "tokens", "right_tokens", "right_answers", "chosen_tokens", "pairs",
)  # fmt: skip
"""Names of the sums that every pass computes besides the losses. The number of pairs must be the last."""


class Preferences:
    """Objective of preference tuning: the weighted sum of the losses named in dpo.loss."""

    def __init__(
        self,
        dpo: DpoConfig,
        reference: Callable[[Accelerator], Reference],
        shared_features: Callable[[Row], Row] | None = None,
    ):
        """`shared_features` adds the outputs of a frozen vision tower to a batch, so that the tower runs once for both
        models."""
        self._dpo, self._make_reference, self._shared_features = dpo, reference, shared_features
        self._terms = dict(zip(dpo.loss, dpo.weights or [1.0] * len(dpo.loss), strict=True))
        self._training_sums = Sums()
        self._names = [*(f"loss_{term}" for term in self._terms), *_FIGURES]
        self.sums = len(self._names)

    def prepare(self, accelerator: Accelerator) -> None:
        self._accelerator, self._reference = accelerator, self._make_reference(accelerator)

    def divisors(self, counts: Counts) -> list[int]:
        return [counts.samples, counts.chosen]

    def loss(self, model: torch.nn.Module, batch: Row, divisors: torch.Tensor) -> torch.Tensor:
        scores, reference = self._scored(model, batch)
        sums = self._sums(scores, reference, batch)
        self._training_sums.add(sums)
        terms = [weight * sums[f"loss_{term}"] / divisors[int(term == "sft")] for term, weight in self._terms.items()]
        return torch.stack(terms).sum()

    def take(self, accelerator: Accelerator) -> dict[str, float]:
        return self._means(self._training_sums.take(accelerator))

    def score(self, model: torch.nn.Module, batch: Row) -> torch.Tensor:
        sums = self._sums(*self._scored(model, batch), batch)
        return torch.stack([sums[name].double() for name in self._names])

    def metrics(self, sums: torch.Tensor) -> dict[str, float]:
        totals = dict(zip(self._names, sums.tolist(), strict=True))
        means = self._means(totals)
        return {
            "eval_loss": sum(weight * self._mean_loss(totals, term) for term, weight in self._terms.items()),
            "eval_token_accuracy": means.pop("mean_token_accuracy"),
            "eval_exact_match": totals["right_answers"] / totals["pairs"],
            "eval_samples": int(totals["pairs"]),
        } | {f"eval_{name}": value for name, value in means.items()}

    def _scored(self, model: torch.nn.Module, batch: Row) -> tuple[Scores, torch.Tensor]:
        if self._shared_features is not None:
            with self._accelerator.autocast():
                batch = self._shared_features(batch)
        reference = self._reference(batch)
        return model(**batch, spread=self._dpo.wpo), reference

    def _sums(self, scores: Scores, reference: torch.Tensor, batch: Row) -> dict[str, torch.Tensor]:
        """Return sums over the pairs of a packed row or over their tokens, by the names in `self._names`."""
        dpo, answers, answer_of = self._dpo, batch["answers"], batch["answer_of"]
        pairs = PreferencePairs.of(scores.log_probs, reference, answers, answer_of, dpo.ld_alpha)
        weights = 1.0
        if dpo.wpo:
            assert scores.log_sum_sq_probs is not None
            weights = own_likelihood(scores.log_probs, scores.log_sum_sq_probs, answers, answer_of)
        sums = {f"loss_{term}": (LOSSES[term](pairs, dpo) * weights).sum() for term in self._terms}
        with torch.no_grad():
            right, _ = of_answers(scores.is_top1.float(), answers, answer_of)
            gain = scores.log_probs - reference
            return sums | {
                "rewards/chosen": dpo.beta * pairs.chosen_gain.sum(),
                "rewards/rejected": dpo.beta * pairs.rejected_gain.sum(),
                # A tie, as at the start of training, counts as half right. A NaN margin stays NaN.
                "rewards/accuracies": ((pairs.margin > 0) + (pairs.margin == 0) / 2 + 0 * pairs.margin).sum(),
                "rewards/margins": dpo.beta * pairs.margin.sum(),
                "logps/chosen": pairs.chosen.sum(),
                "logps/rejected": pairs.rejected.sum(),
                "pairs": count_tensor(len(pairs.chosen), right),
                # Half the squared difference, because at tokens that the model did not choose itself, unbiased
                # estimates of the KL divergence have no bounds.
                "kl": (gain**2).sum() / 2,
                "entropy": scores.entropy.sum(),
                "tokens": count_tensor(len(gain), right),
                "right_tokens": right.sum(),
                "right_answers": (right == pairs.chosen_tokens).sum(),
                "chosen_tokens": pairs.chosen_tokens.sum(),
            }

    def _means(self, totals: dict[str, float]) -> dict[str, float]:
        """Return the means, under the names that TRL's trainer uses. If the loss has several terms, include each."""
        pairs, tokens, chosen = (max(totals[name], 1) for name in ("pairs", "tokens", "chosen_tokens"))
        means = {name: totals[name] / pairs for name in totals if name.startswith(("rewards/", "logps/"))}
        means |= {"entropy": totals["entropy"] / tokens, "mean_token_accuracy": totals["right_tokens"] / chosen}
        if self._dpo.reference != "none":
            means["kl"] = totals["kl"] / tokens
        if len(self._terms) > 1:
            means |= {f"loss_{term}": self._mean_loss(totals, term) for term in self._terms}
        return means

    def _mean_loss(self, totals: dict[str, float], term: PreferenceLoss) -> float:
        return totals[f"loss_{term}"] / max(totals["chosen_tokens" if term == "sft" else "pairs"], 1)
