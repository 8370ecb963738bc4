"""Several answers to a request, drawn by chance."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from qwenvl_train.data.sample import Sample
from qwenvl_train.model.choosing import Chooser, RandomChooser, most_likely


@dataclass(frozen=True)
class Drawing:
    """How the answers to each request are drawn."""

    tries: int
    """Number of answers to each request."""
    temperature: float
    """With 0, the most likely token is always taken."""
    top_p: float
    top_k: int
    seed: int

    def seeds(self, sample: Sample, turn: int) -> list[int]:
        """Return a seed for each answer to a turn. It follows from the seed, the row and the number of the answer, so
        that an answer is the same whenever and beside whichever others it is drawn."""
        return [self._seed(sample, turn, number) for number in range(1, self.tries + 1)]

    def _seed(self, sample: Sample, turn: int, number: int) -> int:
        name = "\0".join(map(str, (self.seed, sample.id, sample.line, turn, number)))
        # Below 2**31, as servers take it.
        return int.from_bytes(hashlib.sha256(name.encode(errors="replace")).digest()[:4], "big") >> 1

    def chooser(self, seeds: Sequence[int], max_new_tokens: int) -> Chooser:
        if self.temperature == 0:
            return most_likely
        return RandomChooser(seeds, max_new_tokens, temperature=self.temperature, top_p=self.top_p, top_k=self.top_k)
