"""Chooses the samples of data.train that data.eval=5% holds out."""

from collections.abc import Hashable, Sequence

import numpy as np

from qwenvl_train.data.held_out.contents import SampleContent

# Not 0, because numpy ignores zeros at the end of a seed, and not a number that the order of training uses.
_SPLIT = 3


def groups_of(contents: Sequence[SampleContent], same: Sequence[int]) -> np.ndarray:
    """Return the group of each sample, [samples]. Samples that share an image or video are in one group, directly or
    through other samples, and so are the steps of an episode, which tell each other in their questions, and samples
    without media that are equal. `same` gives each media file the number of the first file with the same bytes."""
    above = list(range(len(contents)))

    def top(sample: int) -> int:
        while above[sample] != sample:
            above[sample] = above[above[sample]]
            sample = above[sample]
        return sample

    first: dict[Hashable, int] = {}
    for sample, content in enumerate(contents):
        keys: list[Hashable] = [same[number] for number in content.media]
        if content.episode is not None:
            keys.append(content.episode)
        for key in keys or [content.text]:
            one, other = top(first.setdefault(key, sample)), top(sample)
            above[max(one, other)] = min(one, other)
    return np.array([top(sample) for sample in range(len(contents))], dtype=np.int64)


def held_out(groups: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Return whether each sample is held out, [samples] bool. Whole groups are held out, in random order, as long as
    each brings the number of samples nearer to the share."""
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    wanted, taken = share * len(groups), 0
    chosen = np.zeros(len(sizes), dtype=bool)
    for number in np.random.default_rng((seed, _SPLIT)).permutation(len(sizes)).tolist():
        if abs(taken + sizes[number] - wanted) < abs(taken - wanted):
            chosen[number] = True
            taken += int(sizes[number])
    return chosen[group]
