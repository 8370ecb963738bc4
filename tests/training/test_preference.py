"""The losses of pairs, against TRL's own trainer on the same log-probabilities."""

from collections import defaultdict
from types import SimpleNamespace
from typing import get_args

import pytest
import torch
from trl import DPOTrainer

from qwenvl_train.config.schema import DpoConfig, PreferenceLoss
from qwenvl_train.training.objectives.losses import LOSSES, PreferencePairs, own_likelihood
from tests.settings import run_config

# Learned tokens of the chosen and of the rejected answer of each pair: of any order of length.
LENGTHS = [(3, 5), (4, 1), (2, 2), (6, 3)]
BETA = 0.3


def settings(**given) -> DpoConfig:
    return run_config(**{f"dpo.{key}": value for key, value in {"beta": BETA, **given}.items()}).dpo


def values(spread: float = 1.0) -> dict[str, torch.Tensor]:
    """[L] each, in the order of a row."""
    generator = torch.Generator().manual_seed(1)
    tokens = sum(map(sum, LENGTHS))
    made = {
        name: -spread * torch.rand(tokens, generator=generator, dtype=torch.float64)
        for name in ("log_probs", "reference", "log_sum_sq_probs")
    }
    made["log_probs"].requires_grad_()
    return made


ANSWERS = torch.tensor([length for pair in LENGTHS for length in pair])
ANSWER_OF = torch.arange(len(ANSWERS)).repeat_interleave(ANSWERS)


def padded(row: torch.Tensor) -> torch.Tensor:
    """As TRL has them: all chosen answers, then all rejected ones, a token in front that nothing tells."""
    parts = row.split(ANSWERS.tolist())
    return torch.nn.utils.rnn.pad_sequence([*parts[0::2], *parts[1::2]], batch_first=True)


class Given(torch.nn.Module):
    """A model that gives these, whatever it is asked."""

    is_gradient_checkpointing = False

    def __init__(self, log_probs: torch.Tensor, log_sum_sq_probs: torch.Tensor):
        super().__init__()
        self._log_probs, self._log_sum_sq_probs = padded(log_probs), padded(log_sum_sq_probs)

    def forward(self, **_: object) -> SimpleNamespace:
        zeros = torch.zeros_like(self._log_probs)
        return SimpleNamespace(
            log_probs=self._log_probs,
            log_sum_sq_probs=self._log_sum_sq_probs,
            entropy=zeros,
            mean_logits=zeros,
            is_top1=zeros.bool(),
        )


def of_trl(dpo: DpoConfig, given: dict[str, torch.Tensor]) -> torch.Tensor:
    """The loss of its trainer, whose model gives these log-probabilities."""
    shifted = padded(torch.ones_like(ANSWER_OF))
    mask = torch.cat([torch.zeros(len(shifted), 1, dtype=torch.long), shifted], dim=1)
    model, reference = (Given(given[name], given["log_sum_sq_probs"]) for name in ("log_probs", "reference"))
    accelerator = SimpleNamespace(device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x)
    trainer = SimpleNamespace(
        model=model,
        ref_model=reference,
        accelerator=accelerator,
        aux_loss_enabled=False,
        precompute_ref_logps=False,
        ld_alpha=dpo.ld_alpha,
        args=SimpleNamespace(gradient_checkpointing_kwargs=None, discopop_tau=dpo.discopop_tau),
        f_divergence_type="reverse_kl",
        loss_types=list(dpo.loss),
        loss_weights=list(dpo.weights or [1.0] * len(dpo.loss)),
        beta=dpo.beta,
        label_smoothing=dpo.label_smoothing,
        use_weighting=dpo.wpo,
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    inputs = {"input_ids": torch.zeros_like(mask), "attention_mask": mask, "completion_mask": mask}
    return DPOTrainer._compute_loss(trainer, model, inputs, return_outputs=False)


def of_ours(dpo: DpoConfig, given: dict[str, torch.Tensor]) -> torch.Tensor:
    pairs = PreferencePairs.of(given["log_probs"], given["reference"], ANSWERS, ANSWER_OF, dpo.ld_alpha)
    weights = 1.0
    if dpo.wpo:
        weights = own_likelihood(given["log_probs"], given["log_sum_sq_probs"], ANSWERS, ANSWER_OF)
    total = torch.zeros((), dtype=torch.float64)
    for name, weight in zip(dpo.loss, dpo.weights or [1.0] * len(dpo.loss), strict=True):
        per_pair = LOSSES[name](pairs, dpo) * weights
        total = total + weight * per_pair.sum() / (pairs.chosen_tokens.sum() if name == "sft" else len(per_pair))
    return total


def assert_equal(dpo: DpoConfig, spread: float = 1.0) -> None:
    results = []
    for way in (of_ours, of_trl):
        given = values(spread)
        loss = way(dpo, given)
        results.append((loss.detach(), *torch.autograd.grad(loss, given["log_probs"])))
    (loss, gradient), (expected, expected_gradient) = results
    # Measured worst case over losses: 2.5e-16 and 1.1e-16, in float64; exo_pair's doubt is a float32 in both
    assert torch.allclose(loss, expected, rtol=1e-12, atol=0)
    assert torch.allclose(gradient, expected_gradient, rtol=1e-12, atol=1e-15)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("spread", [0.1, 1.0, 6.0])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_and_its_gradient_are_trls(name, spread):
    smoothing = {"robust": 0.2, "exo_pair": 0.1}.get(name, 0.0)
    assert_equal(settings(loss=name, label_smoothing=smoothing), spread)


@pytest.mark.parametrize("name", ["sigmoid", "apo_zero", "ipo", "bco_pair"])
@pytest.mark.parametrize("ld_alpha", [0.0, 0.4, 1.0])
def test_what_is_beyond_the_shorter_answer_counts_less(name, ld_alpha):
    assert_equal(settings(loss=name, ld_alpha=ld_alpha))


@pytest.mark.parametrize("name", ["sigmoid", "bco_pair", "nca_pair"])
def test_pairs_are_weighed_by_how_likely_the_model_gives_them(name):
    assert_equal(settings(loss=name, wpo=True))


def test_a_mixture_is_the_weighted_sum():
    assert_equal(settings(loss=["sigmoid", "bco_pair", "sft"], weights=[0.8, 0.2, 1.0]))
    assert_equal(settings(loss=["ipo", "discopop"], ld_alpha=0.5))


def test_every_loss_of_the_configuration_is_there():
    assert set(LOSSES) == set(get_args(PreferenceLoss))
