import pytest

from qwenvl_train.reporting.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    charts,
    linear_ticks,
    log_ticks,
    step_ticks,
    thin,
    value_axis,
)

from .rows import evaluation_row, training_row


def rows_of(**curve: list) -> list[dict]:
    (metric, values), *_ = curve.items()
    return [{"step": step, metric: value} for step, value in enumerate(values, 1)]


def test_points_fill_the_box_from_the_first_step_to_the_last_and_from_low_to_high():
    (chart,) = charts(rows_of(grad_norm=[0.0, 0.5, 1.0]))
    middle = f"{(LEFT + WIDTH - RIGHT) / 2:g},{(HEIGHT - BOTTOM + TOP) / 2:g}"
    assert chart.lines[0].paths == [f"M{LEFT},{HEIGHT - BOTTOM} L{middle} L{WIDTH - RIGHT},{TOP}"]


def test_training_and_held_out_loss_share_a_chart_and_its_scale():
    loss = charts([training_row(1, 2.0), evaluation_row(1, 0.5, loss=2.0), training_row(2, 1.0)])[0]
    assert (loss.title, [line.name for line in loss.lines]) == ("Loss", ["training", "held out"])
    assert loss.hover[0]["values"][0][1] == loss.hover[0]["values"][1][1]
    assert [text for *_, text in loss.hover[0]["values"]] == ["2.0000", "2.0000"]


def test_learning_rates_of_components_stand_without_the_base_that_would_hide_below_them():
    def drawn(**rates: float) -> list[str]:
        (chart,) = charts([{"step": step, **rates} for step in (1, 2)])
        return [line.name for line in chart.lines]

    assert drawn(lr=2e-4) == ["base"]
    assert drawn(lr=2e-4, lr_mlp=2e-5, lr_llm=2e-4) == ["merger", "language model"]


def test_every_chart_has_the_same_step_axis():
    drawn = charts([evaluation_row(0, 0.1), *(training_row(step) for step in range(1, 101))])
    assert {tuple(chart.x_ticks) for chart in drawn} == {tuple(drawn[0].x_ticks)}
    assert [tick.text for tick in drawn[0].x_ticks] == ["0", "20", "40", "60", "80", "100"]


def test_a_value_that_is_no_number_leaves_a_gap_and_a_lone_point_a_dot():
    (chart,) = charts(rows_of(grad_norm=[1.0, 2.0, None, 3.0, None, *[1.5] * 50]))
    assert [path.count(",") for path in chart.lines[0].paths] == [2, 50]
    assert len(chart.lines[0].dots) == 1
    assert len(chart.hover) == 53


def test_figures_of_other_methods_get_charts_of_their_own():
    rows = [{"step": 1, "loss": 0.7, "rewards/margins": 0.1, "loss_sft": 0.1, "eval_loss_sft": 0.2, "note": "text"}]
    assert [chart.title for chart in charts(rows)] == ["Loss", "Reward margin", "Held-out loss sft", "Loss sft"]


def test_nothing_to_draw_is_no_chart():
    assert charts([]) == []
    assert charts(rows_of(loss=[None, None])) == []


def test_a_loss_over_several_powers_of_ten_is_logarithmic_and_a_reward_is_not():
    assert value_axis("loss", [8.0, 0.02]).note == "logarithmic scale"
    assert value_axis("loss", [8.0, 0.2]).note == ""
    assert value_axis("loss", [8.0, 0.0]).note == ""
    assert value_axis("rewards/margins", [8.0, 0.02]).note == ""


def test_throughput_starts_at_zero_so_that_noise_stays_small():
    assert value_axis("tokens_per_second", [2700.0, 2720.0]).ticks[0].text == "0"


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (3.1, 17.0, [0, 5, 10, 15, 20]),
        (2.0, 2.0, [1, 1.5, 2, 2.5, 3]),
        (0.0, 0.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (-3.0, -1.0, [-3, -2.5, -2, -1.5, -1]),
    ],
)
def test_linear_ticks_are_round_and_enclose_the_values(low, high, ticks):
    assert linear_ticks(low, high) == pytest.approx(ticks)


def test_log_ticks_are_powers_of_ten_around_the_values():
    assert log_ticks([0.03, 8.0]) == pytest.approx([0.01, 0.1, 1, 10])


def test_steps_are_whole_numbers_also_where_there_is_only_one():
    assert step_ticks(1, 3) == [1, 2, 3]
    assert step_ticks(7, 7) == [7]


@pytest.mark.parametrize(
    ("metric", "values", "texts"),
    [
        ("lr", [0.0, 2e-4], ["0", "5e-5", "1e-4", "1.5e-4", "2e-4"]),
        ("eval_exact_match", [0.05, 0.975], ["0 %", "20 %", "40 %", "60 %", "80 %", "100 %"]),
        ("loss", [8.0, 0.02], ["0.01", "0.1", "1", "10"]),
        ("grad_norm", [0.6, 1.4], ["0.6", "0.8", "1.0", "1.2", "1.4"]),
        ("tokens_per_second", [1800.0], ["0", "500", "1,000", "1,500", "2,000"]),
    ],
)
def test_axis_texts(metric, values, texts):
    assert [tick.text for tick in value_axis(metric, values).ticks] == texts


def test_thinning_keeps_a_spike_a_gap_and_the_order():
    line = [(float(step), 1.0) for step in range(100_000)]
    line[54_321] = (54_321.0, 99.0)
    line[70_000] = (70_000.0, None)
    kept = thin(line, most=600)
    assert len(kept) <= 601
    assert (54_321.0, 99.0) in kept
    assert (70_000.0, None) in kept
    assert kept == sorted(kept, key=lambda point: point[0])


def test_a_spike_is_marked_in_the_chart_of_the_loss():
    rows = rows_of(loss=[1.0, 3.0, 1.0])
    rows[1]["loss_spike"] = True
    (chart,) = charts(rows)
    assert [(mark.x, mark.y) for mark in chart.marks] == [chart.lines[0].dots[1]]
    assert [mark.text for mark in chart.marks] == ["loss spike at step 2"]
