from statistics import fmean

import pytest

from qwenvl_train.reporting.pages.charts import Mark, charts, compared_charts, thin

from .rows import evaluation_row, training_row


def rows_of(**curve: list) -> list[dict]:
    (metric, values), *_ = curve.items()
    return [{"step": step, metric: value} for step, value in enumerate(values, 1)]


GENERATED_SCORES = {"eval_generated/anls": 0.5, "eval_generated/em": 0.25}


@pytest.mark.parametrize(
    ("best_metric", "titles"),
    [
        ("eval_loss", ["Held-out score", "Held-out generated anls", "Held-out generated em"]),
        ("eval_generated/em", ["Held-out generated em", "Held-out generated anls", "Held-out score"]),
    ],
)
def test_generated_scores_stand_beside_the_held_out_score(best_metric, titles):
    rows = [training_row(1), *(evaluation_row(step, 0.5) | GENERATED_SCORES for step in (0, 1))]
    found = [chart.title for chart in charts(rows, best_metric)]
    assert found[:5] == ["Loss", *titles, "Learning rate"]
    compared = [chart.title for chart in compared_charts({"a": rows})]
    assert compared[2:4] == ["Held-out generated anls", "Held-out generated em"]


def test_a_line_has_every_logged_step_and_value():
    (chart,) = charts(rows_of(grad_norm=[0.0, 0.5, 1.0]))
    assert [(line.name, line.steps, line.values) for line in chart.lines] == [("all", [1, 2, 3], [0.0, 0.5, 1.0])]


def test_training_and_held_out_loss_share_a_chart():
    loss = charts([training_row(1, 2.0), evaluation_row(1, 0.5, loss=2.0), training_row(2, 1.0)])[0]
    assert (loss.title, loss.format) == ("Loss", "loss")
    assert [(line.name, line.values, line.held_out) for line in loss.lines] == [
        ("training", [2.0, 1.0], False),
        ("held out", [2.0], True),
    ]


def test_learning_rates_of_components_stand_without_the_base_that_would_hide_below_them():
    def drawn(**rates: float) -> list[str]:
        (chart,) = charts([{"step": step, **rates} for step in (1, 2)])
        return [line.name for line in chart.lines]

    assert drawn(lr=2e-4) == ["base"]
    assert drawn(lr=2e-4, lr_mlp=2e-5, lr_llm=2e-4) == ["merger", "language model"]


def test_a_value_that_is_no_number_leaves_a_gap():
    (chart,) = charts(rows_of(grad_norm=[1.0, 2.0, None, 3.0]))
    assert chart.lines[0].values == [1.0, 2.0, None, 3.0]


def test_figures_of_other_methods_get_charts_of_their_own():
    rows = [{"step": 1, "loss": 0.7, "rewards/margins": 0.1, "loss_sft": 0.1, "eval_loss_sft": 0.2, "note": "text"}]
    assert [chart.title for chart in charts(rows)] == ["Loss", "Reward margin", "Held-out loss sft", "Loss sft"]


def test_nothing_to_draw_is_no_chart():
    assert charts([]) == []
    assert charts(rows_of(loss=[None, None])) == []


@pytest.mark.parametrize(
    ("metric", "values", "logarithmic"),
    [
        ("loss", [8.0, 0.02], True),
        ("loss", [8.0, 0.2], False),
        ("loss", [8.0, 0.0], False),
        ("rewards/margins", [8.0, 0.02], False),
    ],
)
def test_a_loss_over_several_powers_of_ten_is_logarithmic_and_a_reward_is_not(metric, values, logarithmic):
    (chart,) = charts(rows_of(**{metric: values}))
    assert chart.logarithmic is logarithmic


def test_throughput_starts_at_zero_so_that_noise_stays_small():
    speed, norm = charts([{"step": 1, "tokens_per_second": 2700.0, "grad_norm": 1.0}])
    assert (speed.from_zero, norm.from_zero) == (True, False)


def test_thinning_keeps_a_spike_a_gap_and_the_order():
    line = [(float(step), 1.0) for step in range(100_000)]
    line[54_321] = (54_321.0, 99.0)
    line[70_000] = (70_000.0, None)
    kept = thin(line, most=600)
    assert len(kept) <= 601
    assert (54_321.0, 99.0) in kept
    assert (70_000.0, None) in kept
    assert kept == sorted(kept, key=lambda point: point[0])
    assert (kept[0], kept[-1]) == (line[0], line[-1])


def test_a_long_line_is_smoothed_from_its_means():
    """Of every ten values nine are 1 and one is 3, so the mean is 1.2, and that of the lowest and the highest 2."""
    (chart,) = charts(rows_of(grad_norm=[3.0 if step % 10 == 0 else 1.0 for step in range(100_000)]))
    (line,) = chart.lines
    assert line.means is not None
    assert len(line.means) <= 1000
    assert fmean(value for _, value in line.means) == pytest.approx(1.2)
    assert line.means[-1][0] == line.steps[-1] == 100_000


def test_a_run_keeps_its_colour_in_charts_that_another_is_not_in():
    rows = {"first": rows_of(loss=[1.0]), "second": [{"step": 1, "loss": 2.0, "grad_norm": 1.0}]}
    numbers = {chart.metric: [line.number for line in chart.lines] for chart in compared_charts(rows)}
    assert numbers == {"loss": [0, 1], "grad_norm": [1]}


def test_a_spike_is_marked_in_the_chart_of_the_loss():
    rows = rows_of(loss=[1.0, 3.0, 1.0])
    rows[1]["loss_spike"] = True
    (chart,) = charts(rows)
    assert chart.marks == [Mark(2, 3.0, "loss spike at step 2")]
