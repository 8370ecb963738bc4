"""The losses of preference tuning. Each is a pure function of log-probabilities that returns one value per pair.

They are the losses of TRL's DPOTrainer, and are tested against its values. A loss with several terms is the weighted
sum of the terms.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from qwenvl_train.config.schema import DpoConfig, PreferenceLoss


@dataclass(frozen=True)
class PreferencePairs:
    """The preference pairs of a packed row. Every field has the shape [pairs]. Log-probabilities are summed over the
    tokens of an answer."""

    chosen: Tensor
    rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor
    likelihood: Tensor
    """Log-probability of the chosen answer, like `chosen`, but every token has full weight despite `ld_alpha`."""

    @property
    def chosen_gain(self) -> Tensor:
        """Log-probability of the chosen answer minus its log-probability under the reference model. It is negative if
        the answer has become less likely."""
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
    ) -> "PreferencePairs":
        """Return the pairs from the log-probabilities of a packed row's learned tokens, [L]. `answers` and `answer_of`
        are as in a Batch. `ld_alpha` is the weight of tokens beyond the length of the pair's shorter answer."""
        likelihood, _ = of_answers(log_probs, answers, answer_of)
        if ld_alpha is not None:
            counted = torch.ones_like(log_probs).masked_fill(_is_beyond(answers, answer_of), ld_alpha)
            log_probs, reference = log_probs * counted, reference * counted
        chosen, rejected = of_answers(log_probs, answers, answer_of)
        reference_chosen, reference_rejected = of_answers(reference, answers, answer_of)
        tokens = answers.to(log_probs.dtype)
        return cls(chosen, rejected, reference_chosen, reference_rejected, tokens[0::2], tokens[1::2], likelihood)


def of_answers(values: Tensor, answers: Tensor, answer_of: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sums of `values` over the tokens of each chosen answer and of each rejected answer, both [pairs]."""
    sums = values.new_zeros(len(answers)).index_add(0, answer_of, values)
    return sums[0::2], sums[1::2]


def own_likelihood(log_probs: Tensor, log_sum_sq_probs: Tensor, answers: Tensor, answer_of: Tensor) -> Tensor:
    """Return the weights of WPO, [pairs]: the probability per token that the model itself generates the two answers,
    relative to the average probability of the tokens that it generates."""
    chosen, rejected = of_answers((log_probs - log_sum_sq_probs).detach(), answers, answer_of)
    return torch.exp(chosen / answers[0::2]) * torch.exp(rejected / answers[1::2])


def _is_beyond(answers: Tensor, answer_of: Tensor) -> Tensor:
    """Return [L] bool: whether a token lies beyond the length of the pair's shorter answer."""
    starts = answers.cumsum(0) - answers
    place = torch.arange(len(answer_of), device=answers.device) - starts[answer_of]
    shorter = torch.minimum(answers[0::2], answers[1::2])[answer_of // 2]
    return place >= shorter


def sigmoid(pairs: PreferencePairs, dpo: DpoConfig) -> Tensor:
    """Return the original loss of DPO, in which the chosen answer wins by the logistic model of Bradley and Terry."""
    return -logsigmoid(dpo.beta * pairs.margin)


def hinge(pairs: PreferencePairs, dpo: DpoConfig) -> Tensor:
    """Return the loss of SLiC, which is zero once the margin is wide enough."""
    return torch.relu(1 - dpo.beta * pairs.margin)


def ipo(pairs: PreferencePairs, dpo: DpoConfig) -> Tensor:
    """Return the loss of IPO, which pulls the margin per token to a fixed width, so that the margin does not grow
    without end where preferences are certain."""
    margin = pairs.chosen_gain / pairs.chosen_tokens - pairs.rejected_gain / pairs.rejected_tokens
    return (margin - 1 / (2 * dpo.beta)) ** 2


def robust(pairs: PreferencePairs, dpo: DpoConfig) -> Tensor:
    """Return the loss that is unbiased if a share `label_smoothing` of the pairs is labelled the wrong way round."""
    wrong = dpo.label_smoothing
    margin = dpo.beta * pairs.margin
    return (wrong * logsigmoid(-margin) - (1 - wrong) * logsigmoid(margin)) / (1 - 2 * wrong)


def exo_pair(pairs: PreferencePairs, dpo: DpoConfig) -> Tensor:
    """Return the reverse KL divergence to a target that prefers the chosen answer with probability
    1 - `label_smoothing`."""
    margin, doubt = dpo.beta * pairs.margin, torch.tensor(dpo.label_smoothing)
    won = torch.sigmoid(margin) * (logsigmoid(margin) - torch.log1p(-doubt))
    return won + torch.sigmoid(-margin) * (logsigmoid(-margin) - torch.log(doubt))


def nca_pair(pairs: PreferencePairs, dpo: DpoConfig) -> Tensor:
    """Return the loss of NCA, which contrasts each answer with noise, so that the chosen answer does not become less
    likely."""
    chosen, rejected = dpo.beta * pairs.chosen_gain, dpo.beta * pairs.rejected_gain
    return -logsigmoid(chosen) - (logsigmoid(-chosen) + logsigmoid(-rejected)) / 2


def bco_pair(pairs: PreferencePairs, dpo: DpoConfig) -> Tensor:
    """Return the loss of BCO, which classifies each answer by itself as good or bad."""
    return -logsigmoid(dpo.beta * pairs.chosen_gain) - logsigmoid(-dpo.beta * pairs.rejected_gain)


def sppo_hard(pairs: PreferencePairs, dpo: DpoConfig) -> Tensor:
    """Return the loss of SPPO (self-play), in which the chosen answer wins with probability 1."""
    target = 0.5 / dpo.beta
    return (pairs.chosen_gain - target) ** 2 + (pairs.rejected_gain + target) ** 2


def apo_zero(pairs: PreferencePairs, dpo: DpoConfig) -> Tensor:
    """Return the loss of APO for chosen answers that are better than the model's own. They become more likely."""
    return 1 - torch.sigmoid(dpo.beta * pairs.chosen_gain) + torch.sigmoid(dpo.beta * pairs.rejected_gain)


def apo_down(pairs: PreferencePairs, dpo: DpoConfig) -> Tensor:
    """Return the loss of APO for chosen answers that are worse than the model's own. Both become less likely."""
    return torch.sigmoid(dpo.beta * pairs.chosen_gain) + 1 - torch.sigmoid(dpo.beta * pairs.margin)


def discopop(pairs: PreferencePairs, dpo: DpoConfig) -> Tensor:
    """Return the loss of DiscoPOP, which changes from the logistic to the exponential loss as the margin widens."""
    margin = dpo.beta * pairs.margin
    wide = torch.sigmoid(margin / dpo.discopop_tau)
    return -logsigmoid(margin) * (1 - wide) + torch.exp(-margin) * wide


def sft(pairs: PreferencePairs, dpo: DpoConfig) -> Tensor:
    """Return the negative log-likelihood of the chosen answer, ignoring the rejected one. This is the only loss that is
    averaged over tokens instead of pairs."""
    return -pairs.likelihood


LOSSES: dict[PreferenceLoss, Callable[[PreferencePairs, DpoConfig], Tensor]] = {
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
