"""The losses that compare two answers: pure functions of log-probabilities, one value for each pair.

They are those of TRL's DPOTrainer, and held to its values. A loss of several terms is their weighted sum.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from qwenvl_train.config.schema import DpoConfig, PreferenceLoss


@dataclass(frozen=True)
class Pairs:
    """Each [pairs]. Log-probabilities are summed over an answer's tokens."""

    chosen: Tensor
    rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor
    likelihood: Tensor
    """Of the chosen answer; as `chosen`, but each token counts in full."""

    @property
    def chosen_gain(self) -> Tensor:
        """By how much likelier the answer became than the reference has it; negative where less likely."""
        return self.chosen - self.reference_chosen

    @property
    def rejected_gain(self) -> Tensor:
        return self.rejected - self.reference_rejected

    @property
    def margin(self) -> Tensor:
        return self.chosen_gain - self.rejected_gain

    @classmethod
    def of(
        cls, log_probs: Tensor, reference: Tensor, answers: Tensor, answer_of: Tensor, ld_alpha: float | None
    ) -> "Pairs":
        """From a row's learned tokens; `answers` and `answer_of` are as in a Batch. With `ld_alpha` a token counts so
        much beyond the length of the pair's shorter answer."""
        likelihood, _ = of_answers(log_probs, answers, answer_of)
        if ld_alpha is not None:
            counted = torch.ones_like(log_probs).masked_fill(_is_beyond(answers, answer_of), ld_alpha)
            log_probs, reference = log_probs * counted, reference * counted
        chosen, rejected = of_answers(log_probs, answers, answer_of)
        reference_chosen, reference_rejected = of_answers(reference, answers, answer_of)
        tokens = answers.to(log_probs.dtype)
        return cls(chosen, rejected, reference_chosen, reference_rejected, tokens[0::2], tokens[1::2], likelihood)


def of_answers(values: Tensor, answers: Tensor, answer_of: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over the tokens of the chosen answers, and over those of the rejected ones."""
    sums = values.new_zeros(len(answers)).index_add(0, answer_of, values)
    return sums[0::2], sums[1::2]


def own_likelihood(log_probs: Tensor, log_sum_sq_probs: Tensor, answers: Tensor, answer_of: Tensor) -> Tensor:
    """WPO's weights, [pairs]: how likely the model gives these answers itself, per token, against how likely it gives
    what it gives on average."""
    chosen, rejected = of_answers((log_probs - log_sum_sq_probs).detach(), answers, answer_of)
    return torch.exp(chosen / answers[0::2]) * torch.exp(rejected / answers[1::2])


def _is_beyond(answers: Tensor, answer_of: Tensor) -> Tensor:
    """[L]: whether a token is beyond the length of the pair's shorter answer."""
    starts = answers.cumsum(0) - answers
    place = torch.arange(len(answer_of), device=answers.device) - starts[answer_of]
    shorter = torch.minimum(answers[0::2], answers[1::2])[answer_of // 2]
    return place >= shorter


def sigmoid(pairs: Pairs, dpo: DpoConfig) -> Tensor:
    """DPO's own: the better answer wins by the logistic model of Bradley and Terry."""
    return -logsigmoid(dpo.beta * pairs.margin)


def hinge(pairs: Pairs, dpo: DpoConfig) -> Tensor:
    """SLiC: no further once the margin is wide enough."""
    return torch.relu(1 - dpo.beta * pairs.margin)


def ipo(pairs: Pairs, dpo: DpoConfig) -> Tensor:
    """The margin per token is drawn to a fixed width, so that certain preferences do not grow without end."""
    margin = pairs.chosen_gain / pairs.chosen_tokens - pairs.rejected_gain / pairs.rejected_tokens
    return (margin - 1 / (2 * dpo.beta)) ** 2


def robust(pairs: Pairs, dpo: DpoConfig) -> Tensor:
    """Unbiased where a share of the pairs is labelled the wrong way round."""
    wrong = dpo.label_smoothing
    margin = dpo.beta * pairs.margin
    return (wrong * logsigmoid(-margin) - (1 - wrong) * logsigmoid(margin)) / (1 - 2 * wrong)


def exo_pair(pairs: Pairs, dpo: DpoConfig) -> Tensor:
    """The reverse divergence to a target that prefers the better answer with some doubt."""
    margin, doubt = dpo.beta * pairs.margin, torch.tensor(dpo.label_smoothing)
    won = torch.sigmoid(margin) * (logsigmoid(margin) - torch.log1p(-doubt))
    return won + torch.sigmoid(-margin) * (logsigmoid(-margin) - torch.log(doubt))


def nca_pair(pairs: Pairs, dpo: DpoConfig) -> Tensor:
    """Each answer against noise, so that the better one does not become less likely."""
    chosen, rejected = dpo.beta * pairs.chosen_gain, dpo.beta * pairs.rejected_gain
    return -logsigmoid(chosen) - (logsigmoid(-chosen) + logsigmoid(-rejected)) / 2


def bco_pair(pairs: Pairs, dpo: DpoConfig) -> Tensor:
    """Each answer classified by itself: good or bad."""
    return -logsigmoid(dpo.beta * pairs.chosen_gain) - logsigmoid(-dpo.beta * pairs.rejected_gain)


def sppo_hard(pairs: Pairs, dpo: DpoConfig) -> Tensor:
    """Self-play, where the better answer is sure to win."""
    target = 0.5 / dpo.beta
    return (pairs.chosen_gain - target) ** 2 + (pairs.rejected_gain + target) ** 2


def apo_zero(pairs: Pairs, dpo: DpoConfig) -> Tensor:
    """For chosen answers that are better than the model's own: they become likelier."""
    return 1 - torch.sigmoid(dpo.beta * pairs.chosen_gain) + torch.sigmoid(dpo.beta * pairs.rejected_gain)


def apo_down(pairs: Pairs, dpo: DpoConfig) -> Tensor:
    """For chosen answers that are worse than the model's own: both become less likely."""
    return torch.sigmoid(dpo.beta * pairs.chosen_gain) + 1 - torch.sigmoid(dpo.beta * pairs.margin)


def discopop(pairs: Pairs, dpo: DpoConfig) -> Tensor:
    """The logistic loss, and the exponential one where the margin is wide."""
    margin = dpo.beta * pairs.margin
    wide = torch.sigmoid(margin / dpo.discopop_tau)
    return -logsigmoid(margin) * (1 - wide) + torch.exp(-margin) * wide


def sft(pairs: Pairs, dpo: DpoConfig) -> Tensor:
    """The better answer as if it were the only one; the one loss that is a mean over tokens, not over pairs."""
    return -pairs.likelihood


LOSSES: dict[PreferenceLoss, Callable[[Pairs, DpoConfig], Tensor]] = {
    "sigmoid": sigmoid,
    "hinge": hinge,
    "ipo": ipo,
    "robust": robust,
    "exo_pair": exo_pair,
    "nca_pair": nca_pair,
    "bco_pair": bco_pair,
    "sppo_hard": sppo_hard,
    "apo_zero": apo_zero,
    "apo_down": apo_down,
    "discopop": discopop,
    "sft": sft,
}
