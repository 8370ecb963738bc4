"""The rule for spikes of the loss."""

import random

from qwenvl_train.reporting.spikes import SPIKE, Spikes


def marked(losses: list[float | None], before: list[float] = ()) -> list[int]:
    spikes = Spikes({"loss": loss} for loss in before)
    return [index for index, loss in enumerate(losses) if spikes.marked({"loss": loss}).get(SPIKE)]


def falling(count: int) -> list[float]:
    noise = random.Random(0)
    return [2 * 0.99**step + noise.gauss(0, 0.05) for step in range(count)]


def test_noise_is_no_spike():
    assert marked(falling(500)) == []
    assert marked([1.0] * 20 + [1.05]) == []


def test_a_spike_is_marked_once_where_it_begins():
    losses = falling(100)
    losses[40:43] = [3.0, 4.0, 3.5]
    losses[70] = 2.5
    assert marked(losses) == [40, 70]


def test_a_spike_needs_values_to_compare_with():
    assert marked([1.0, 1.1, 0.9, 9.0]) == []
    assert marked([9.0], before=[1.0, 1.1, 0.9] * 4) == [0]


def test_a_loss_that_is_no_number_is_left_to_others():
    assert marked([1.0] * 20 + [None, float("nan"), 5.0]) == [22]


def test_an_evaluation_is_no_logged_loss():
    assert Spikes().marked({"eval_loss": 3.0}) == {"eval_loss": 3.0}
