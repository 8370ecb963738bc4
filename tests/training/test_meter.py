"""The meter's figures are those of the rows that were trained on."""

import pytest

from qwenvl_train.training import meter as module
from qwenvl_train.training.meter import Meter
from tests.data.order.mixes import mix, order_of, stream

LENGTHS = mix("pictures and text", 500, 4096)


class Clock:
    now = 1000.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.mark.parametrize("options", [{}, {"bucketing": True}, {"packing": True, "max_length": 4096}])
@pytest.mark.parametrize("step", [0, 1, 17])
def test_totals_count_what_the_order_gives(options, step):
    order = order_of(LENGTHS, world=2, batch_size=3, **options)
    totals = Meter(order, rows_per_step=4).totals(step)
    held = stream(order, 4 * step)
    assert totals["step"] == step
    assert totals["samples"] == len(held)
    assert totals["tokens"] == LENGTHS.tokens[held].sum()
    assert totals["supervised_tokens"] == LENGTHS.supervised[held].sum()
    assert totals["epoch"] == len(held) / 500


def test_the_pace_is_that_since_the_last_row_without_pauses(clock):
    order = order_of(LENGTHS, packing=True, max_length=4096)
    meter = Meter(order, rows_per_step=2)
    clock.now += 5  # loading
    meter.start()
    clock.now += 10
    first = meter.row(10)
    assert first["seconds"] == 10
    assert first["samples_per_second"] == len(stream(order, 20)) / 10
    clock.now += 7
    meter.pause(3)
    second = meter.row(12)
    assert second["seconds"] == 17
    assert second["samples_per_second"] == (second["samples"] - first["samples"]) / 4
    assert second["tokens_per_second"] == (second["tokens"] - first["tokens"]) / 4


def test_a_resumed_run_goes_on_with_time_and_counts(clock):
    order = order_of(LENGTHS, batch_size=2)
    meter = Meter(order, rows_per_step=5, start_step=30, seconds_before=60)
    clock.now += 4
    row = meter.row(32)
    assert row["seconds"] == 64
    assert row["samples"] == 320
    assert row["samples_per_second"] == 20 / 4
