"""The first glance of the report, for runs as they end."""

import json

import pytest

from qwenvl_train.reporting.metrics import MetricsFile
from qwenvl_train.reporting.pages.findings import evaluation_table, findings
from qwenvl_train.reporting.pages.report import score_tile
from qwenvl_train.reporting.recorded import read_run

from .rows import evaluation_row, training_row


def texts(run, *rows: dict, **environment) -> dict[str, str]:
    """Return the kind of each finding by its text."""
    metrics = MetricsFile()
    metrics.start(run)
    for row in rows:
        metrics.log(row)
    (run.folder / "environment.json").write_text(json.dumps(environment))
    return {finding.text: finding.kind for finding in findings(read_run(run.folder))}


def test_a_score_that_rose_is_told_with_its_interval(run):
    found = texts(run, evaluation_row(0, 0.05), training_row(1), evaluation_row(1, 0.975))
    text = "Held-out exact match rose from 5.0 % to 97.5 % (95 % interval 92.9 to 99.1 %, 120 samples)."
    assert found[text] == "good"


def test_a_change_that_chance_explains_is_said(run):
    found = texts(run, evaluation_row(0, 0.5), evaluation_row(1, 0.55))
    text = (
        "Held-out exact match rose from 50.0 % to 55.0 % (95 % interval 46.1 to 63.6 %, 120 samples). The score before "
        "training lies in this interval."
    )
    assert found[text] == "warning"


def test_a_score_that_fell_and_few_samples(run):
    rows = [evaluation_row(step, score) | {"eval_samples": 20} for step, score in ((0, 0.9), (1, 0.1))]
    found = texts(run, *rows)
    assert found["Held-out exact match fell from 90.0 % to 10.0 % (95 % interval 2.8 to 30.1 %, 20 samples)."] == "bad"
    assert found["20 held-out samples say little: with more of them, the interval is narrower."] == "warning"


def test_generated_answers_stand_before_other_scores(run):
    (run.folder / "answers").mkdir()
    scores = [{"metric": "anls", "entry": "all", "low": 0.7, "high": 0.9, "samples": 64}]
    (run.folder / "answers" / "step-10.json").write_text(json.dumps(scores))
    (run.folder / "answers" / "step-20.json").write_text(json.dumps([{"metric": "anls", "low": 0, "high": 0}]))
    rows = [evaluation_row(step, 0.5) | {"eval_generated/anls": score} for step, score in ((0, 0.2), (10, 0.8))]
    text = "Held-out generated anls rose from 20.0 % to 80.0 % (95 % interval 70.0 to 90.0 %, 64 samples)."
    assert texts(run, *rows)[text] == "good"


@pytest.mark.parametrize(
    ("best_metric", "first"),
    [
        ("eval_generated/anls", "generated anls"),
        ("eval_token_accuracy", "token accuracy"),
        ("eval_loss", "generated em"),
    ],
)
def test_the_metric_that_chooses_checkpoints_stands_for_the_run(best_metric, first, run):
    """Unless it is the loss, which is the default."""
    (run.folder / "config.yaml").write_text(json.dumps({"train": {"best_metric": best_metric}}))
    (run.folder / "answers").mkdir()
    scores = [{"metric": name, "entry": "all", "low": 0.7, "high": 0.9, "samples": 64} for name in ("em", "anls")]
    (run.folder / "answers" / "step-10.json").write_text(json.dumps(scores))
    scored = {"eval_generated/em": 0.2, "eval_generated/anls": 0.8}
    found = texts(run, *(evaluation_row(step, 0.5) | scored for step in (0, 10)))
    assert next(iter(found)).startswith(f"Held-out {first} is ")
    recorded = read_run(run.folder)
    assert evaluation_table(recorded)["headings"][0] == first
    assert score_tile(recorded).name == f"Held-out {first}"


def test_lower_values_of_an_own_metric_may_be_better(run):
    (run.folder / "answers").mkdir()
    of_metric = {"metric": "mine.far", "entry": "a", "low": 0.5, "high": 1.5, "samples": 64, "higher_is_better": False}
    (run.folder / "answers" / "step-10.json").write_text(json.dumps([of_metric]))
    rows = [{"step": step, "eval_generated/mine.far": value} for step, value in ((0, 9.0), (10, 1.0))]
    text = "Held-out generated mine.far fell from 9 to 1 (95 % interval 0.5 to 1.5, 64 samples)."
    assert texts(run, *rows)[text] == "good"
    table = evaluation_table(read_run(run.folder))
    assert [cells for _, cells in table["rows"]] == [[("9", False)], [("1", True)]]


def test_a_score_that_was_and_is_full_is_no_failure(run):
    found = texts(run, evaluation_row(0, 1.0), evaluation_row(1, 1.0))
    text = "Held-out exact match is 100.0 %, as before training (95 % interval 96.9 to 100.0 %, 120 samples)."
    assert found[text] == "note"


def test_a_loss_alone_has_no_interval(run):
    rows = [{"step": step, "eval_loss": loss} for step, loss in ((0, 2.0), (1, 1.0))]
    assert texts(run, *rows)["Held-out loss fell from 2.0000 to 1.0000."] == "good"


def test_no_held_out_score_is_said(run):
    found = texts(run, training_row(1))
    assert any(text.startswith("There is no held-out score.") for text in found)
    assert texts(run) == {}


@pytest.mark.parametrize(
    ("losses", "kind"),
    [((2.0, 1.0, 1.04), "good"), ((2.0, 1.0, 1.06), "warning"), ((0.1, -1.0, -0.5, -1.0), "good"), ((2.0, 1.0), None)],
)
def test_a_held_out_loss_that_rises_again_is_a_sign_of_over_fitting(run, losses, kind):
    found = texts(run, *(evaluation_row(step, 0.5, loss) for step, loss in enumerate(losses)))
    kinds = [kind for text, kind in found.items() if "over-fitting" in text]
    assert kinds == ([kind] if kind else [])


def test_waiting_for_data_spikes_and_broken_steps(run):
    rows = [training_row(1) | {"data_wait": 0.6}, training_row(2) | {"data_wait": 0.2, "loss_spike": True}]
    found = texts(run, *rows, training_row(3, float("nan")) | {"skipped_steps": 1}, overlap="Two rows are in both.")
    assert found["Training waited for data 40.0 % of the time; see data.workers."] == "warning"
    assert found["1 spike of the training loss, at step 2."] == "note"
    assert found["The loss was not a number at 1 logged step, first at step 3."] == "bad"
    assert found["Two rows are in both."] == "warning"
    assert any(text.startswith("1 step without effect") for text in found)


def test_the_forecast_stands_beside_what_came(run):
    rows = [training_row(step) | {"step_seconds": 1.0 + step / 10, "memory_gib": 10.0 + step} for step in (1, 2, 3)]
    found = texts(run, *rows, forecast={"step_seconds": 1.25, "memory_gib": 14.0})
    assert "A step took 1.2 s (forecast 1.25 s), and at most 13 GiB were used (forecast 14 GiB)." in found
    found = texts(run, *rows, forecast={"step_seconds": None, "memory_gib": 14.0})
    assert "At most 13 GiB were used (forecast 14 GiB)." in found


def test_the_table_of_evaluations_marks_the_best_of_each_metric(run):
    rows = [evaluation_row(0, 0.1, 3.0), training_row(1), evaluation_row(10, 0.9, 1.0), evaluation_row(20, 0.8, 2.0)]
    texts(run, *rows)
    table = evaluation_table(read_run(run.folder))
    assert table is not None
    assert table["headings"] == ["exact match", "token accuracy", "loss"]
    assert [(step, [best for _, best in cells]) for step, cells in table["rows"]] == [
        ("0", [False] * 3),
        ("10", [True] * 3),
        ("20", [False] * 3),
    ]
    texts(run, *(evaluation_row(step, 0.0, loss) for step, loss in ((0, 2.0), (10, 1.0))))
    cells = [cells for _, cells in evaluation_table(read_run(run.folder))["rows"]]
    assert cells[1] == [("0.0 %", False), ("40.0 %", False), ("1.0000", True)]
    texts(run, *rows[:2])
    assert evaluation_table(read_run(run.folder)) is None
