"""The order of samples has whole epochs without lost or repeated samples, and is the same for every caller."""

import pickle
import zlib
from bisect import bisect_left
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwenvl_train.data.index.lengths import Lengths
from qwenvl_train.data.order.mixture import Mixture, MixtureEntry
from qwenvl_train.data.order.order import Order
from qwenvl_train.errors import UserError
from tests.data.order.mixes import lengths_of, mix, order_of, stream


@dataclass(frozen=True)
class Case:
    """Any order that a run can have."""

    lengths: Lengths
    usable: np.ndarray
    entries: list[MixtureEntry]
    options: dict

    def order(self) -> Order:
        return order_of(self.lengths, entries=self.entries, usable=self.usable, **self.options)

    def resumed(self, batch_size: int) -> Order:
        """Return the order of the same run when it resumes with another batch size, on any number of processes."""
        world, first = self.options["world"], self.options["batch_size"]
        options = self.options | {"batch_size": batch_size}
        return order_of(self.lengths, entries=self.entries, usable=self.usable, balanced_for=(world, first), **options)

    def mixture(self) -> Mixture:
        return Mixture(self.entries, self.usable, self.options["seed"])


@st.composite
def cases(draw) -> Case:
    sizes = draw(st.lists(st.integers(1, 25), min_size=1, max_size=3))
    longest = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    samples = sum(sizes)
    usable = rng.random(samples) < draw(st.sampled_from([0.5, 1.0]))
    ends = np.cumsum(sizes).tolist()
    usable[np.array(ends) - 1] = True
    share = draw(st.sampled_from(["weight", "repeats", "neither"]))
    entries = []
    for size, end in zip(sizes, ends, strict=True):
        value = draw(st.sampled_from([0.1, 0.5, 1.0, 2.5]))
        entries.append(
            MixtureEntry(end - size, end, value if share == "weight" else None, value if share == "repeats" else None)
        )
    kind = draw(st.sampled_from(["packing", "bucketing", "plain"]))
    options = {"max_length": longest, "seed": draw(st.integers(0, 2**33))} | {
        "world": draw(st.integers(1, 4)),
        "batch_size": draw(st.integers(1, 4)),
        "packing": kind == "packing",
        "bucketing": kind == "bucketing",
    }
    tokens = np.where(usable, rng.integers(1, longest + 1, samples), 0)
    return Case(lengths_of(tokens, rng.integers(0, 99, samples)), usable, entries, options)


@settings(deadline=None)
@given(cases(), st.integers(1, 6))
def test_a_run_that_resumes_with_other_rows_has_the_same_samples_in_the_same_order(case, batch_size):
    units = 60 * case.options["batch_size"]  # divisible by every batch size
    before, after = stream(case.order(), 60), stream(case.resumed(batch_size), units // batch_size)
    assert before.tolist() == after.tolist()


@settings(deadline=None)
@given(cases())
def test_every_epoch_holds_exactly_the_samples_of_the_mixture(case):
    order, mixture = case.order(), case.mixture()
    seen = stream(order, order.rows(3))
    assert case.usable[seen].all()
    for epoch in range(3):
        part = seen[mixture.before(epoch) : mixture.before(epoch + 1)]
        assert sorted(part.tolist()) == sorted(mixture.epoch(epoch).tolist())


@settings(deadline=None)
@given(cases())
def test_packs_are_never_too_long(case):
    options = case.options | {"batch_size": 1, "packing": True, "bucketing": False}
    order = order_of(case.lengths, entries=case.entries, usable=case.usable, **options)
    assert all(case.lengths.tokens[order.row(row)].sum() <= options["max_length"] for row in range(order.rows(3)))
    many = case.options | {"packing": True, "bucketing": False}
    order = order_of(case.lengths, entries=case.entries, usable=case.usable, **many)
    most = many["batch_size"] * many["max_length"]
    assert all(case.lengths.tokens[order.row(row)].sum() <= most for row in range(order.rows(3)))


@settings(deadline=None)
@given(cases(), st.randoms(use_true_random=False))
def test_a_row_does_not_depend_on_who_asks_and_when(case, random):
    """Each process builds its own order and reads only its own rows, and a worker gets a pickled copy."""
    order = case.order()
    rows, world = order.rows(2.5), case.options["world"]
    expected = [order.row(index).tolist() for index in range(rows)]
    found: dict[int, list[int]] = {}
    for process in range(world):
        own = case.order()
        places = list(range(process, rows, world))
        random.shuffle(places)
        for count, place in enumerate(places):
            if count == len(places) // 2:
                own = pickle.loads(pickle.dumps(own))
            found[place] = own.row(place).tolist()
    assert [found[place] for place in range(rows)] == expected


@settings(deadline=None)
@given(cases())
def test_the_largest_row_is_that_of_the_first_epoch(case):
    order, tokens = case.order(), case.lengths.tokens
    rows = case.order().rows(1)
    assert order.largest(tokens) == max((tokens[case.order().row(row)].sum() for row in range(rows)), default=0)


@settings(deadline=None)
@given(cases(), st.integers(0, 40))
def test_what_was_seen_is_what_the_rows_held(case, rows):
    order = case.order()
    seen = order.seen(rows)
    held = stream(case.order(), rows)
    assert seen.samples == len(held)
    assert seen.tokens == case.lengths.tokens[held].sum()
    assert seen.supervised == case.lengths.supervised[held].sum()
    mixture = case.mixture()
    epoch = bisect_left(range(10**6), len(held), key=mixture.before) - 1  # the last epoch that begins before the end
    size = mixture.before(epoch + 1) - mixture.before(epoch)
    assert seen.epoch == (epoch * size + len(held) - mixture.before(epoch)) / size if rows else seen.epoch == 0


@settings(deadline=None)
@given(cases(), st.sampled_from([0.1, 0.5, 1, 1.7, 2, 3.3]))
def test_rows_are_as_few_as_hold_so_many_epochs(case, epochs):
    order, before = case.order(), case.mixture().before
    whole, part = divmod(Fraction(str(epochs)), 1)
    samples = before(whole) + ceil(part * (before(whole + 1) - before(whole)))
    rows = order.rows(epochs)
    assert order.seen(rows).samples >= samples
    assert rows == 0 or order.seen(rows - 1).samples < samples


@settings(deadline=None)
@given(samples=st.integers(1, 40), seed=st.integers(0, 2**31))
def test_the_order_does_not_depend_on_how_it_is_cut(samples, seed):
    lengths = lengths_of(np.ones(samples))

    def cut(rows: int, batch_size: int) -> list[int]:
        return stream(order_of(lengths, batch_size=batch_size, seed=seed), rows).tolist()

    assert cut(8, 3) == cut(4, 6) == cut(24, 1)


@settings(deadline=None)
@given(samples=st.integers(1, 40), seed=st.integers(0, 2**31), world=st.integers(1, 5))
def test_a_plain_order_is_one_permutation_after_the_other(samples, seed, world):
    order = order_of(lengths_of(np.ones(samples)), batch_size=3, seed=seed, world=world)
    expected = np.concatenate([np.random.default_rng((seed, epoch)).permutation(samples) for epoch in range(3)])
    assert stream(order, samples).tolist() == expected.tolist()


def test_seed_and_epoch_shuffle():
    lengths = lengths_of(np.ones(30))
    assert stream(order_of(lengths, seed=1), 30).tolist() != stream(order_of(lengths, seed=2), 30).tolist()
    both = stream(order_of(lengths, seed=1), 60).tolist()
    assert both[:30] != both[30:]


@pytest.mark.parametrize(("kind", "check"), [("plain", 4142979487), ("bucketing", 952574335), ("packing", 2897966559)])
def test_a_seed_means_the_same_order_in_every_version(kind, check):
    """A resumed run continues with the order of the version that started it."""
    rng = np.random.default_rng(0)
    lengths = lengths_of(rng.integers(1, 900, 2000), rng.integers(0, 3000, 2000))
    entries = [MixtureEntry(0, 700, 1.0, None), MixtureEntry(700, 2000, 3.0, None)]
    options = {} if kind == "plain" else {kind: True}
    order = order_of(lengths, entries=entries, world=4, batch_size=2, seed=7, max_length=4096, **options)
    assert zlib.crc32(stream(order, order.rows(2)).astype("<i8").tobytes()) == check


@pytest.mark.parametrize("options", [{}, {"bucketing": True}])
def test_a_far_position_needs_no_replay(options, monkeypatch):
    planned = []
    epoch_of = Mixture.epoch
    monkeypatch.setattr(Mixture, "epoch", lambda self, epoch: planned.append(epoch) or epoch_of(self, epoch))
    order = order_of(lengths_of(np.ones(100)), world=3, batch_size=7, seed=1, **options)
    assert len(order.row(10**9)) == 7
    assert order.seen(10**9).samples == 7 * 10**9
    assert len(planned) <= 2


def test_an_order_that_was_used_travels_as_light_as_a_new_one():
    order = order_of(mix("chat", 5000, 1024), packing=True, max_length=1024)
    new = len(pickle.dumps(order))
    order.row(order.rows(3))
    assert len(pickle.dumps(order)) < new + 200


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_a_source_without_usable_rows_is_named(bad):
    entries = [MixtureEntry(0, 3, None, None), MixtureEntry(3, 5, None, None), MixtureEntry(5, 9, None, None)]
    usable = np.ones(9, bool)
    usable[entries[bad].start : entries[bad].stop] = False
    with pytest.raises(UserError, match=rf"data\.train\.{bad} \({bad}\.jsonl\): none of its {[3, 2, 4][bad]} rows"):
        order_of(lengths_of(np.ones(9)), entries=entries, usable=usable)
