"""Preference tuning. Of the two answers of a pair, the chosen one is to become more likely than the rejected one,
relative to a reference model.

All pairs have equal weight in the loss. In the term sft, all tokens of the chosen answers have equal weight instead.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate import Accelerator

from qwenvl_train.config.schema import DpoConfig, PreferenceLoss
from qwenvl_train.evaluation.score import count_tensor
from qwenvl_train.model.forward import Scores
from qwenvl_train.training.meter import Counts
from qwenvl_train.training.objectives.losses import LOSSES, PreferencePairs, of_answers, own_likelihood
from qwenvl_train.training.objectives.objective import Sums, by_source
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
        sources: Sequence[str] = (),
    ):
        """`shared_features` adds the outputs of a frozen vision tower to a batch, so that the tower runs once for both
        models. `sources` are the names of the entries of data.train, each of which is to have a loss of its own."""
        self._dpo, self._make_reference, self._shared_features = dpo, reference, shared_features
        self._terms = dict(zip(dpo.loss, dpo.weights or [1.0] * len(dpo.loss), strict=True))
        self._training_sums, self._sources = Sums(), sources
        self._names = [*(f"loss_{term}" for term in self._terms), *_FIGURES]
        self.sums = len(self._names)
        self._names_of_sources = [
            *(f"loss_{term}" for term in self._terms),
            "rewards/accuracies",
            "chosen_tokens",
            "pairs",
        ]

    def prepare(self, accelerator: Accelerator) -> None:
        self._accelerator, self._reference = accelerator, self._make_reference(accelerator)

    def divisors(self, counts: Counts) -> list[int]:
        return [counts.samples, counts.chosen]

    def loss(self, model: torch.nn.Module, batch: Row, divisors: torch.Tensor) -> torch.Tensor:
        scores, reference = self._scored(model, batch)
        of_pairs = self._of_pairs(scores, reference, batch)
        sums = self._sums(of_pairs, scores, reference, batch)
        self._training_sums.add(sums | self._sums_of_sources(of_pairs, batch))
        terms = [weight * sums[f"loss_{term}"] / divisors[int(term == "sft")] for term, weight in self._terms.items()]
        return torch.stack(terms).sum()

    def take(self, accelerator: Accelerator) -> dict[str, Any]:
        totals = self._training_sums.take(accelerator)
        if not self._sources:
            return self._means(totals)
        of_sources = {}
        for number, name in enumerate(self._sources):
            own = {key: totals.pop(f"{key}/{number}") for key in self._names_of_sources}
            if own["pairs"]:
                accuracy = own["rewards/accuracies"] / own["pairs"]
                of_sources[name] = {"loss": self._total_loss(own), "rewards/accuracies": accuracy}
        return self._means(totals) | {"sources": of_sources}

    def score(self, model: torch.nn.Module, batch: Row) -> torch.Tensor:
        scores, reference = self._scored(model, batch)
        sums = self._sums(self._of_pairs(scores, reference, batch), scores, reference, batch)
        return torch.stack([sums[name].double() for name in self._names])

    def metrics(self, sums: torch.Tensor) -> dict[str, float]:
        totals = dict(zip(self._names, sums.tolist(), strict=True))
        means = self._means(totals)
        return {
            "eval_loss": self._total_loss(totals),
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

    def _of_pairs(self, scores: Scores, reference: torch.Tensor, batch: Row) -> dict[str, torch.Tensor]:
        """Return values of the pairs of a packed row, each [pairs], by the names in `self._names`."""
        dpo, answers, answer_of = self._dpo, batch["answers"], batch["answer_of"]
        pairs = PreferencePairs.of(scores.log_probs, reference, answers, answer_of, dpo.ld_alpha)
        weights = 1.0
        if dpo.wpo:
            assert scores.log_sum_sq_probs is not None
            weights = own_likelihood(scores.log_probs, scores.log_sum_sq_probs, answers, answer_of)
        losses = {f"loss_{term}": LOSSES[term](pairs, dpo) * weights for term in self._terms}
        with torch.no_grad():
            right, _ = of_answers(scores.is_top1.float(), answers, answer_of)
            return losses | {
                "rewards/chosen": dpo.beta * pairs.chosen_gain,
                "rewards/rejected": dpo.beta * pairs.rejected_gain,
                # A tie, as at the start of training, counts as half right. A NaN margin stays NaN.
                "rewards/accuracies": (pairs.margin > 0) + (pairs.margin == 0) / 2 + 0 * pairs.margin,
                "rewards/margins": dpo.beta * pairs.margin,
                "logps/chosen": pairs.chosen,
                "logps/rejected": pairs.rejected,
                "right_tokens": right,
                "right_answers": right == pairs.chosen_tokens,
                "chosen_tokens": pairs.chosen_tokens,
                "pairs": torch.ones_like(right),
            }

    def _sums(
        self, of_pairs: dict[str, torch.Tensor], scores: Scores, reference: torch.Tensor, batch: Row
    ) -> dict[str, torch.Tensor]:
        """Return sums over the pairs of a packed row or over their tokens, by the names in `self._names`."""
        sums = {name: values.sum() for name, values in of_pairs.items()}
        with torch.no_grad():
            gain = scores.log_probs - reference
            return sums | {
                # Half the squared difference, because at tokens that the model did not choose itself, unbiased
                # estimates of the KL divergence have no bounds.
                "kl": (gain**2).sum() / 2,
                "entropy": scores.entropy.sum(),
                "tokens": count_tensor(len(gain), gain),
            }

    def _sums_of_sources(self, of_pairs: dict[str, torch.Tensor], batch: Row) -> dict[str, torch.Tensor]:
        """Return the sums over the pairs of each source, under their names followed by the number of the source."""
        if not self._sources:
            return {}
        sources, answers = batch.get("sources"), batch["answers"]
        of = None if sources is None else sources[(answers.cumsum(0) - answers)[0::2]]
        return {
            f"{name}/{number}": one
            for name in self._names_of_sources
            for number, one in enumerate(by_source(of_pairs[name].detach(), of, len(self._sources)).unbind())
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

    def _total_loss(self, totals: dict[str, float]) -> float:
        return sum(weight * self._mean_loss(totals, term) for term, weight in self._terms.items())

    def _mean_loss(self, totals: dict[str, float], term: PreferenceLoss) -> float:
        return totals[f"loss_{term}"] / max(totals["chosen_tokens" if term == "sft" else "pairs"], 1)
