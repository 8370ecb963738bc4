"""Determines the samples of an epoch and their order, as a pure function of the seed and the epoch."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

# Not 0, because numpy ignores zeros at the end of a seed: (seed, epoch) and (seed, epoch, 0) give the same stream.
_PASSES = 1


@dataclass(frozen=True)
class MixtureEntry:
    """The samples of one entry of data.train, from `start` to `stop`. At most one of `weight` and `repeats` is set."""

    start: int
    stop: int
    weight: float | None
    repeats: float | None


class Mixture:
    """The samples of every epoch, drawn from all sources.

    Each source is an endless stream of passes through its usable samples, and each pass has an order of its own. An
    epoch takes the next part of every stream and is shuffled as a whole. Whatever part of a source an epoch takes, the
    numbers of times that the samples of one source have been used differ by at most one.
    """

    def __init__(self, entries: list[MixtureEntry], usable: np.ndarray, seed: int):
        self._sources = [
            (entry.start + np.flatnonzero(usable[entry.start : entry.stop])).astype(np.int32) for entry in entries
        ]
        self._seed = seed
        self._weights = [_exact(entry.weight) for entry in entries if entry.weight is not None]
        self._rates = [
            _exact(1.0 if entry.repeats is None else entry.repeats) * len(source)
            for entry, source in zip(entries, self._sources, strict=True)
        ]

    def before(self, epochs: int) -> int:
        """Return the number of samples in the first `epochs` epochs."""
        if self._weights:
            return epochs * sum(map(len, self._sources))
        return sum(_rounded(rate, epochs) for rate in self._rates)

    def epoch(self, epoch: int) -> np.ndarray:
        parts = zip(self._sources, self.drawn(epoch), self.drawn(epoch + 1), strict=True)
        samples = np.concatenate([self._part(number, *part) for number, part in enumerate(parts)])
        return samples[np.random.default_rng((self._seed, epoch)).permutation(len(samples))]

    def total(self, column: np.ndarray, epochs: int) -> int:
        """Return the sum of `column` over the samples of the first `epochs` epochs."""
        total = 0
        for number, (source, drawn) in enumerate(zip(self._sources, self.drawn(epochs), strict=True)):
            passes, rest = divmod(drawn, len(source))
            total += passes * int(column[source].sum(dtype=np.int64))
            total += int(column[self._part(number, source, drawn - rest, drawn)].sum(dtype=np.int64))
        return total

    def drawn(self, epochs: int) -> list[int]:
        """Return the number of samples of each source in the first `epochs` epochs."""
        if self._weights:
            return shared_out(self.before(epochs), self._weights)
        return [_rounded(rate, epochs) for rate in self._rates]

    def _part(self, number: int, source: np.ndarray, start: int, stop: int) -> np.ndarray:
        """Return the samples from `start` to `stop` of a source's stream of passes.

        A whole pass stays in the order of the file, because the epoch is shuffled anyway. If only a part of a pass is
        taken, that part must be random.
        """
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
    """Return whole numbers near each weight's share of `total`. They add up to `total`, and none falls as it grows.

    This is the method of Sainte-Laguë: a source gets its k-th sample at (k - 1/2) / weight.
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
    """Return a number exactly as it is written in decimal: 0.1 is a tenth, not the nearest binary number."""
    return Fraction(str(number))


def _rounded(rate: Fraction, epochs: int) -> int:
    return (2 * epochs * rate.numerator + rate.denominator) // (2 * rate.denominator)
