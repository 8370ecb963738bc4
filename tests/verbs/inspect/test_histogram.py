import numpy as np
import pytest

from qwenvl_train.verbs.inspect.histogram import (
    BOTTOM,
    HEIGHT,
    LEFT,
    MOST_BARS,
    RIGHT,
    WIDTH,
    Histogram,
    histogram_of_lengths,
    histogram_of_shares,
    linear_ticks,
)

RNG = np.random.default_rng(0)
CASES = {
    "one length": np.array([7, 7, 7]),
    "few lengths": np.array([5, 7, 8, 25]),
    "narrow": RNG.integers(900, 1000, 500),
    "wide": RNG.integers(100, 2900, 5000),
    "long tail": np.exp(RNG.normal(6, 1, 2000)).astype(int) + 1,
    "from one": np.array([1, 2, 100]),
}


def counted(chart: Histogram) -> int:
    return sum(int(bar.text.split(" ")[0].replace(",", "")) for bar in chart.bars)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("limit", [None, 4096])
def test_every_length_is_in_a_bar_and_every_bar_in_the_box(name, limit):
    chart = histogram_of_lengths("Tokens", CASES[name], "sample", limit)
    assert counted(chart) == len(CASES[name])
    assert len(chart.bars) <= MOST_BARS + 5
    for bar in chart.bars:
        assert bar.x >= LEFT - 0.1
        assert bar.x + bar.width <= WIDTH - RIGHT + 0.1
        assert bar.y + bar.height == pytest.approx(HEIGHT - BOTTOM, abs=0.11)
    for before, after in zip(chart.bars, chart.bars[1:], strict=False):
        assert before.x + before.width <= after.x + 0.1
    assert 1 <= len(chart.x_ticks) <= 9


@pytest.mark.parametrize(
    ("lengths", "texts"),
    [
        ([7, 7, 9], ["2 samples of 7 tokens", "1 sample of 9 tokens"]),
        ([100, 104, 105, 299], ["2 samples of 100 to 104 tokens", "1 sample of 105 to 109 tokens",
                                "1 sample of 295 to 299 tokens"]),
    ],
)  # fmt: skip
def test_a_bar_says_what_is_in_it(lengths, texts):
    assert [bar.text for bar in histogram_of_lengths("Tokens", np.array(lengths), "sample", None).bars] == texts


def test_a_long_tail_is_drawn_on_a_logarithmic_scale():
    assert histogram_of_lengths("Tokens", CASES["long tail"], "sample", None).note == "logarithmic scale"
    assert histogram_of_lengths("Tokens", CASES["wide"], "sample", None).note == ""


def test_a_limit_is_in_the_box_even_above_all_lengths():
    chart = histogram_of_lengths("Tokens", CASES["narrow"], "sample", 2000)
    assert chart.limit is not None
    assert chart.bars[-1].x < chart.limit.at <= WIDTH - RIGHT


@pytest.mark.parametrize("shares", [[1.0, 1.0], [0.991, 0.999, 1.0], [0.2, 0.97, 1.0]])
def test_a_full_row_is_in_the_last_bar(shares):
    chart = histogram_of_shares("Fill", np.array(shares), "row")
    assert counted(chart) == len(shares)
    assert chart.bars[-1].text.endswith("to 100 %")
    assert chart.x_ticks[-1].text == "100 %"


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (3.1, 17.0, [0, 5, 10, 15, 20]), (-3.0, -1.0, [-3, -2.5, -2, -1.5, -1])],
)
def test_linear_ticks_are_round_and_enclose_the_values(low, high, ticks):
    assert linear_ticks(low, high) == pytest.approx(ticks)
