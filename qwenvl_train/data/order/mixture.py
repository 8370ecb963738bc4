"""Which samples an epoch holds, and in which order: a pure function of the seed and the epoch."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

# numpy ignores zeros at the end of a seed: (seed, epoch) and (seed, epoch, 0) are one stream.
_PASSES = 1


@dataclass(frozen=True)
class MixtureEntry:
    """The samples from `start` to `stop` are one entry of data.train; at most one of the other two is given."""

    start: int
    stop: int
    weight: float | None
    repeats: float | None


class Mixture:
    """Each source is an endless stream of passes through its usable samples, each pass in an order of its own.

    An epoch takes the next part of every stream, and is shuffled as a whole. So over the epochs the samples of a
    source are seen equally often, up to one, whatever part of it an epoch takes.
    """

    def __init__(self, groups: list[MixtureEntry], usable: np.ndarray, seed: int):
        self._sources = [
            (group.start + np.flatnonzero(usable[group.start : group.stop])).astype(np.int32) for group in groups
        ]
        self._seed = seed
        self._weights = [_exact(group.weight) for group in groups if group.weight is not None]
        self._rates = [
            _exact(1.0 if group.repeats is None else group.repeats) * len(source)
            for group, source in zip(groups, self._sources, strict=True)
        ]

    def before(self, epochs: int) -> int:
        """How many samples the first `epochs` epochs hold."""
        if self._weights:
            return epochs * sum(map(len, self._sources))
        return sum(_rounded(rate, epochs) for rate in self._rates)

    def epoch(self, epoch: int) -> np.ndarray:
        places = zip(self._sources, self.drawn(epoch), self.drawn(epoch + 1), strict=True)
        parts = [self._part(number, *place) for number, place in enumerate(places)]
        samples = np.concatenate(parts)
        return samples[np.random.default_rng((self._seed, epoch)).permutation(len(samples))]

    def total(self, column: np.ndarray, epochs: int) -> int:
        """The sum of `column` over the samples of the first `epochs` epochs."""
        total = 0
        for number, (source, drawn) in enumerate(zip(self._sources, self.drawn(epochs), strict=True)):
            passes, rest = divmod(drawn, len(source))
            total += passes * int(column[source].sum(dtype=np.int64))
            total += int(column[self._part(number, source, drawn - rest, drawn)].sum(dtype=np.int64))
        return total

    def drawn(self, epochs: int) -> list[int]:
        """How many samples of each source the first `epochs` epochs hold."""
        if self._weights:
            return shared_out(self.before(epochs), self._weights)
        return [_rounded(rate, epochs) for rate in self._rates]

    def _part(self, number: int, source: np.ndarray, start: int, stop: int) -> np.ndarray:
        """From `start` to `stop` of the stream of passes. A whole pass stays in the order of the file: the epoch is
        shuffled anyway, and only the part of a pass must be a random one."""
        size, parts = len(source), [source[:0]]
        while start < stop:
            passed, first = divmod(start, size)
            last = min(size, first + stop - start)
            if last - first < size:
                order = np.random.default_rng((self._seed, passed, number, _PASSES)).permutation(size)
                parts.append(source[order[first:last]])
            else:
                parts.append(source)
            start += last - first
        return np.concatenate(parts)


def shared_out(total: int, weights: list[Fraction]) -> list[int]:
    """Whole numbers near the shares of `total` that add up to it, and of which none falls when `total` grows.

    This is the method of Sainte-Laguë: the source that gets its k-th sample does so at (k - 1/2) / weight.
    """
    counts = [int(total * weight / sum(weights) + Fraction(1, 2)) for weight in weights]
    sources = range(len(weights))
    half = Fraction(1, 2)
    while sum(counts) < total:
        counts[min(sources, key=lambda source: ((counts[source] + half) / weights[source], source))] += 1
    while sum(counts) > total:
        counts[max(sources, key=lambda source: ((counts[source] - half) / weights[source], source))] -= 1
    return counts


def _exact(number: float) -> Fraction:
    """As it is written: 0.1 is a tenth, not the nearest binary number."""
    return Fraction(str(number))


def _rounded(rate: Fraction, epochs: int) -> int:
    return (2 * epochs * rate.numerator + rate.denominator) // (2 * rate.denominator)
