"""The order of samples: whole epochs, no loss, no doubling, the same however a batch is cut."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qwenvl_train.data.lengths import Lengths
from qwenvl_train.data.order import samples_of_row
from qwenvl_train.training.meter import Meter


def stream(rows: int, batch_size: int, samples: int, seed: int) -> list[int]:
    return [index for row in range(rows) for index in samples_of_row(row, batch_size, samples, seed)]


@given(samples=st.integers(1, 40), batch_size=st.integers(1, 9), seed=st.integers(0, 2**31), epochs=st.integers(1, 3))
def test_every_epoch_holds_every_sample_once(samples, batch_size, seed, epochs):
    rows = -(-samples * epochs // batch_size)
    seen = stream(rows, batch_size, samples, seed)
    for epoch in range(epochs):
        assert sorted(seen[epoch * samples : (epoch + 1) * samples]) == list(range(samples))


@given(samples=st.integers(1, 40), seed=st.integers(0, 2**31))
def test_the_order_does_not_depend_on_how_it_is_cut(samples, seed):
    assert stream(8, 3, samples, seed) == stream(4, 6, samples, seed) == stream(24, 1, samples, seed)


def test_seed_and_epoch_shuffle():
    assert stream(1, 30, 30, seed=1) != stream(1, 30, 30, seed=2)
    both = stream(2, 30, 30, seed=1)
    assert both[:30] != both[30:]


@given(st.integers(1, 30), st.integers(1, 7), st.integers(0, 12))
def test_the_meter_counts_what_the_order_gives(samples, per_step, step):
    rng = np.random.default_rng(samples)
    lengths = Lengths(*(rng.integers(1, 99, samples, dtype=np.int32) for _ in range(3)))
    totals = Meter(lengths, per_step, seed=5).totals(step)
    seen = stream(step, per_step, samples, seed=5)
    assert totals["samples"] == len(seen)
    assert totals["tokens"] == sum(int(lengths.tokens[index]) for index in seen)
    assert totals["supervised_tokens"] == sum(int(lengths.supervised[index]) for index in seen)
    assert totals["epoch"] == len(seen) / samples
