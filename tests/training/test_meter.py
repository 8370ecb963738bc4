"""The meter's figures are those of the rows that the steps were given."""

import pytest

from qwenvl_train.batch import Contents, Piece
from qwenvl_train.training import meter as module
from qwenvl_train.training.meter import Counts, Devices, Meter, RunProgress
from tests.data.order.mixes import mix, order_of

ORDER = order_of(mix("pictures and text", 500, 4096), batch_size=5)


class Clock:
    now = 1000.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_counts_are_those_of_the_contents():
    counts = Counts.of(
        Contents(pieces=((Piece(4),), (Piece(2), Piece(4, 2))), supervised=3, grids=((1, 4, 6), (2, 2, 2))),
        flops=7_000_000,
    )
    assert counts == Counts(samples=2, tokens=10, supervised=3, media=2, flops=7)
    assert counts.plus(Counts(1, 2, 3, 4, 5, 6)) == Counts(3, 12, 6, 6, 12, 6)
    assert counts.plus(Counts(1, 2, 3, 4, 5, 6)).minus(counts) == Counts(1, 2, 3, 4, 5, 6)
    assert Counts.of(Contents((), 0, ()), 0) == Counts()


def test_totals_and_the_pace_since_the_last_row_without_pauses(clock):
    meter = Meter(ORDER, 2, 2500, Devices(2, peak_tflops=4.0), RunProgress())
    clock.now += 5  # loading
    meter.start()
    clock.now += 10
    meter.took(1, Counts(10, 1000, 100, 20, 20 * 10**6, 5_000_000))
    assert meter.row(1) == {
        "step": 1, "epoch": 0.02, "samples": 10, "tokens": 1000, "supervised_tokens": 100, "seconds": 10,
        "tokens_per_second": 100, "supervised_tokens_per_second": 10, "samples_per_second": 1, "images_per_second": 2,
        "step_seconds": 10, "tflops_per_device": 1, "mfu": 0.25, "data_wait": 0.25, "pack_fill": 0.2,
    }  # fmt: skip
    clock.now += 7
    meter.pause(1)
    meter.saved(2)
    meter.took(2, Counts(9, 800, 80, 18, 8 * 10**6, 1_000_000))  # one did not decode
    meter.took(3, Counts(10, 1200, 120, 0, 0, 0))
    assert meter.row(3) == {
        "step": 3, "epoch": 0.06, "samples": 29, "tokens": 3000, "supervised_tokens": 300, "seconds": 17,
        "tokens_per_second": 2000 / 4, "supervised_tokens_per_second": 200 / 4, "samples_per_second": 19 / 4,
        "images_per_second": 18 / 4, "step_seconds": 2, "tflops_per_device": 1, "mfu": 0.25, "data_wait": 0.125,
        "pack_fill": 0.2, "save_seconds": 2,
    }  # fmt: skip


def test_a_step_that_does_not_end_counts_for_nothing(clock):
    meter = Meter(ORDER, 2, None, Devices(1, None), RunProgress())
    meter.took(1, Counts(10, 1000, 100))
    meter.took(2, Counts(10, 1000, 100))
    assert meter.totals(1)["samples"] == 10


def test_a_resumed_run_goes_on_with_time_and_counts(clock):
    stored = RunProgress(30, 60.0, Counts(290, 3000, 300))
    assert RunProgress.of(stored.as_dict()) == stored
    meter = Meter(ORDER, 2, None, Devices(1, None), stored)
    clock.now += 4
    meter.took(31, Counts(10, 100, 10))
    row = meter.row(31)
    assert row["seconds"] == 64
    assert row["samples"] == 300
    assert row["samples_per_second"] == 10 / 4
    assert not {"mfu", "pack_fill"} & row.keys()
