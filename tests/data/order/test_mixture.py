"""An epoch of a mixture has whole numbers of samples. None is lost, and none is used more often than it should be."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwenvl_train.data.order.mixture import Mixture, MixtureEntry, shared_out


def mixture(sizes: list[int], weights=None, repeats=None, seed: int = 0, usable: np.ndarray | None = None) -> Mixture:
    ends = np.cumsum(sizes)
    groups = [
        MixtureEntry(int(end - size), int(end), weights and weights[number], repeats and repeats[number])
        for number, (size, end) in enumerate(zip(sizes, ends, strict=True))
    ]
    return Mixture(groups, np.ones(ends[-1], bool) if usable is None else usable, seed)


def counts(mixed: Mixture, epochs: int, samples: int) -> np.ndarray:
    return np.bincount(np.concatenate([mixed.epoch(epoch) for epoch in range(epochs)]), minlength=samples)


def of_source(seen: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    return np.split(seen, np.cumsum(sizes)[:-1])


SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=4)
SHARE = st.sampled_from([0.01, 0.1, 0.3, 0.5, 1.0, 1.5, 2.0, 3.7])


@settings(deadline=None)
@given(SIZES, st.integers(0, 2**40), st.integers(0, 5))
def test_an_unweighted_epoch_is_one_permutation_of_all(sizes, seed, epoch):
    expected = np.random.default_rng((seed, epoch)).permutation(sum(sizes))
    assert mixture(sizes, seed=seed).epoch(epoch).tolist() == expected.tolist()


@settings(deadline=None)
@given(SIZES, st.data(), st.integers(1, 4))
def test_what_is_unusable_never_comes(sizes, data, epochs):
    usable = np.concatenate(
        [[True, *data.draw(st.lists(st.booleans(), min_size=n - 1, max_size=n - 1))] for n in sizes]
    )
    assert counts(mixture(sizes, usable=usable), epochs, sum(sizes)).tolist() == (usable * epochs).tolist()


@settings(deadline=None)
@given(SIZES, st.data(), st.integers(1, 7), st.integers(0, 9))
def test_repeats_see_every_sample_equally_often(sizes, data, epochs, seed):
    repeats = data.draw(st.lists(SHARE, min_size=len(sizes), max_size=len(sizes)))
    mixed = mixture(sizes, repeats=repeats, seed=seed)
    seen = counts(mixed, epochs, sum(sizes))
    assert seen.sum() == mixed.before(epochs)
    for part, size, rate in zip(of_source(seen, sizes), sizes, repeats, strict=True):
        assert part.max() - part.min() <= 1
        assert abs(part.sum() - epochs * size * Fraction(str(rate))) <= Fraction(1, 2)


@settings(deadline=None)
@given(SIZES, st.data(), st.integers(1, 7), st.integers(0, 9))
def test_weights_share_out_an_epoch_of_the_usual_size(sizes, data, epochs, seed):
    weights = data.draw(st.lists(SHARE, min_size=len(sizes), max_size=len(sizes)))
    mixed = mixture(sizes, weights=weights, seed=seed)
    assert [len(mixed.epoch(epoch)) for epoch in range(epochs)] == [sum(sizes)] * epochs
    seen = counts(mixed, epochs, sum(sizes))
    for part, weight in zip(of_source(seen, sizes), weights, strict=True):
        assert part.max() - part.min() <= 1
        assert part.sum() == pytest.approx(epochs * sum(sizes) * weight / sum(weights), abs=len(sizes) / 2)


def test_shares_are_counted_as_they_are_written():
    assert counts(mixture([7], repeats=[0.1]), 10, 7).tolist() == [1] * 7
    # The float 0.3 is less than three tenths, and 5 times it is less than 1.5.
    assert mixture([5], repeats=[0.3]).before(1) == 2


def test_every_pass_has_an_order_of_its_own():
    mixed = mixture([100], repeats=[0.5])
    assert sorted(mixed.epoch(0)) != sorted(mixed.epoch(2))


def test_a_half_epoch_is_not_the_first_half_of_the_file():
    halves = [sorted(mixture([100], repeats=[0.5], seed=seed).epoch(0).tolist()) for seed in range(3)]
    assert len({tuple(half) for half in halves}) == 3
    assert all(30 < np.mean(half) < 69 for half in halves)


def test_a_weighted_epoch_is_shuffled_as_a_whole():
    first = mixture([100, 100], weights=[1.0, 1.0]).epoch(0) < 100
    assert 30 < first[:100].sum() < 70


@settings(deadline=None)
@given(SIZES, st.sampled_from(["weights", "repeats", None]), st.data(), st.integers(0, 5))
def test_totals_are_those_of_the_epochs_before(sizes, kind, data, epochs):
    shares = {kind: data.draw(st.lists(SHARE, min_size=len(sizes), max_size=len(sizes)))} if kind else {}
    mixed = mixture(sizes, **shares)
    column = np.arange(sum(sizes), dtype=np.int32) ** 2
    assert mixed.total(column, epochs) == sum(int(column[mixed.epoch(epoch)].sum()) for epoch in range(epochs))
    assert mixed.before(epochs) == sum(len(mixed.epoch(epoch)) for epoch in range(epochs))


@settings(deadline=None)
@given(st.lists(SHARE.map(lambda share: Fraction(str(share))), min_size=1, max_size=6), st.integers(0, 60))
def test_shares_add_up_and_never_fall(weights, total):
    shares, more = shared_out(total, weights), shared_out(total + 1, weights)
    assert sum(shares) == total
    assert sorted(b - a for a, b in zip(shares, more, strict=True)) == [0] * (len(weights) - 1) + [1]


@pytest.mark.parametrize(
    ("total", "votes", "seats"),
    [
        (7, [53_000, 24_000, 23_000], [3, 2, 2]),  # the standard example that distinguishes Sainte-Laguë from D'Hondt
        (8, [100_000, 80_000, 30_000, 20_000], [3, 3, 1, 1]),
    ],
)
def test_shares_are_those_of_sainte_lague(total, votes, seats):
    assert shared_out(total, [Fraction(vote) for vote in votes]) == seats
