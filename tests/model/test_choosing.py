"""Tokens are drawn with the probabilities of the model, as transformers limits them."""

import numpy as np
import pytest
import torch
from transformers import GenerationConfig
from transformers.generation.utils import GenerationMixin

from qwenvl_train.model.choosing import RandomChooser, most_likely

LIMITS = [(1.0, 1.0, 0), (0.6, 1.0, 0), (1.3, 0.8, 0), (1.0, 1.0, 5), (0.7, 0.9, 20), (2.0, 0.001, 0)]


def by_hand(logits: np.ndarray, temperature: float, top_p: float, top_k: int) -> np.ndarray:
    """The probabilities of one token: first the limit on the number, then that on the probability."""
    order = np.argsort(-logits)
    kept = order[: top_k or None]
    share = np.exp((logits[kept] - logits[kept[0]]) / temperature)
    share /= share.sum()
    before = np.cumsum(share) - share
    kept, share = kept[before < top_p], share[before < top_p]
    found = np.zeros(len(logits))
    found[kept] = share / share.sum()
    return found


@pytest.mark.parametrize(("temperature", "top_p", "top_k"), LIMITS)
def test_the_same_tokens_stay_with_the_same_probabilities(temperature, top_p, top_k):
    logits = torch.randn(8, 200, generator=torch.Generator().manual_seed(0)) * 3
    found = RandomChooser([0], 1, temperature=temperature, top_p=top_p, top_k=top_k).probabilities(logits)
    expected = np.stack([by_hand(row, temperature, top_p, top_k) for row in logits.double().numpy()])
    assert ((found.numpy() > 0) == (expected > 0)).all()
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    # As `generate` of transformers puts its processors together.
    given = GenerationConfig(do_sample=True, temperature=temperature, top_p=top_p, top_k=top_k)
    theirs = GenerationMixin._get_logits_processor(GenerationMixin(), given)(None, logits)
    torch.testing.assert_close(found, theirs.softmax(-1, dtype=torch.float64), atol=1e-7, rtol=0)


def test_tokens_come_as_often_as_they_are_likely():
    """20,000 draws with fixed seeds against the exact probabilities, by a chi-squared test."""
    logits = torch.randn(30, generator=torch.Generator().manual_seed(1))
    draws = 20_000
    drawn = RandomChooser(range(draws), 1, temperature=0.9, top_p=0.95)
    tokens = drawn(logits.expand(draws, -1), range(draws), 0)
    expected = draws * drawn.probabilities(logits[None])[0].numpy()
    counts = np.bincount(tokens.numpy(), minlength=30)
    assert counts[expected == 0].sum() == 0
    likely = expected > 5
    deviation = ((counts - expected)[likely] ** 2 / expected[likely]).sum()
    freedom = likely.sum() - 1
    assert freedom > 5
    assert abs(deviation - freedom) < 4 * np.sqrt(2 * freedom)
    # The test notices a temperature that is a tenth off.
    other = draws * RandomChooser([0], 1, temperature=1.0, top_p=0.95).probabilities(logits[None])[0].numpy()
    wrong = ((counts - other)[other > 5] ** 2 / other[other > 5]).sum()
    assert wrong > freedom + 8 * np.sqrt(2 * freedom)


def test_an_answer_has_its_own_numbers():
    """Whichever answers are left in the batch. Each of its tokens has another number."""
    logits = torch.zeros(3, 1000)
    drawn = RandomChooser([5, 6, 7], 4, temperature=1)
    together = [drawn(logits, [0, 1, 2], step).tolist() for step in range(4)]
    assert [drawn(logits[:1], [2], step).tolist() for step in range(4)] == [one[2:] for one in together]
    assert [RandomChooser([7], 4, temperature=1)(logits[:1], [0], step).tolist() for step in range(4)] == [
        one[2:] for one in together
    ]
    assert len({token for step in together for token in step}) == 12
    assert most_likely(torch.eye(3), [0, 1, 2], 0).tolist() == [0, 1, 2]


def test_what_is_impossible_is_never_drawn():
    """Also with the smallest and the largest number, at the ends of the vocabulary."""
    logits = torch.full((2, 6), -torch.inf)
    logits[:, 2:4] = 0
    drawn = RandomChooser([0, 0], 1, temperature=1)
    drawn._numbers = torch.tensor([[0.0], [1 - 2**-24]])
    assert drawn(logits, [0, 1], 0).tolist() == [2, 3]
