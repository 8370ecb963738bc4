"""How the tokens of answers are chosen: the most likely ones, or drawn by chance."""

from collections.abc import Callable, Sequence

import torch
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

Chooser = Callable[[torch.Tensor, Sequence[int], int], torch.Tensor]
"""Takes the logits of the next token of some answers, [batch, vocabulary], the numbers of these answers among all, and
how many tokens they have so far. Returns the tokens, [batch]."""


def most_likely(logits: torch.Tensor, answers: Sequence[int], step: int) -> torch.Tensor:
    return logits.argmax(-1)


class RandomChooser:
    """Draws the tokens of each answer by random numbers of its own.

    An answer so depends on its seed alone, and not on the other answers of its batch, except for the rounding of the
    logits, which depends on the size of the batch. Each token takes one random number, to which the sums of the
    probabilities in the order of the vocabulary are compared. A small difference of the logits then changes a token
    only if the number is as close to one of the sums.
    """

    def __init__(
        self, seeds: Sequence[int], max_new_tokens: int, *, temperature: float, top_p: float = 1.0, top_k: int = 0
    ):
        """
        Args:
            seeds: One for each answer.
            top_p: Draw only from the most likely tokens that together have this probability.
            top_k: Draw only from so many of the most likely tokens. With 0, there is no limit.
        """
        numbers = [torch.rand(max_new_tokens, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        self._numbers = torch.stack(numbers)
        """[answers, tokens]: one number in [0, 1) for each token, with 24 bits, so that products with it are exact."""
        self._limits = LogitsProcessorList([TemperatureLogitsWarper(float(temperature))])
        if top_k:
            self._limits.append(TopKLogitsWarper(top_k))
        if top_p < 1:
            self._limits.append(TopPLogitsWarper(top_p))

    def __call__(self, logits: torch.Tensor, answers: Sequence[int], step: int) -> torch.Tensor:
        # The last pass may come without need, so that an answer of the full length asks for one more token.
        numbers = self._numbers[list(answers), min(step, self._numbers.shape[1] - 1)].to(logits.device)
        sums = self.probabilities(logits).cumsum(-1, dtype=torch.float64)
        drawn = numbers.double()[:, None] * sums[:, -1:]
        return torch.searchsorted(sums, drawn, right=True)[:, 0]

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the probability of each token, [batch, vocabulary]."""
        limited = self._limits(None, logits.float())
        return limited.softmax(-1, dtype=torch.float64)
