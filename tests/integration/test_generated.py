"""Runs that generate and score answers at their evaluations, and that end when the score does not improve."""

import json
import sys

import pytest

from qwenvl_train.cli import main
from qwenvl_train.evaluation.generation import AnswerGenerator
from qwenvl_train.training.patience import evaluations_without_improvement
from tests.commands import QUIET, read_lines, rows, summary, train

SHORT = (
    "tune_mm_mlp=true", "train.epochs=null", "train.accumulation=1", "train.log_steps=1", "train.warmup=0",
    "data.workers=0", "eval.generate=true", "eval.max_new_tokens=6",
)  # fmt: skip


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    """A run that cannot improve, and ends after two evaluations without a better score."""
    settings = (
        *SHORT, "train.max_steps=9", "train.eval_steps=2", "train.save_steps=3", "train.lr=1e-9", "eval.samples=5",
        "train.best_metric=eval_generated/anls", "train.patience=2",
        "logging.predictions=2",
    )  # fmt: skip
    output = tmp_path_factory.mktemp("patient")
    generate, groups = AnswerGenerator.__call__, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AnswerGenerator, "__call__", lambda self, row: groups.append(row) or generate(self, row))
        folder = train(output, *settings)
    assert len(groups) == len(rows(folder, "eval_loss"))  # those that are scored are not generated again to be shown
    return folder, settings


def test_answers_are_scored_at_each_evaluation(patient):
    folder, _ = patient
    evaluations = rows(folder, "eval_loss")
    assert [row["step"] for row in evaluations] == [0, 2, 4]
    for row in evaluations:
        answers = read_lines(folder / "answers" / f"step-{row['step']}.jsonl")
        assert len(answers) == 5
        mean = sum(answer["scores"]["anls"]["anls"] for answer in answers) / 5
        figures = json.loads((folder / "answers" / f"step-{row['step']}.json").read_text())
        figure = next(one for one in figures if one["metric"] == "anls")
        assert figure["samples"] == row["eval_answers"] == 5
        assert figure["value"] == row["eval_generated/anls"]
        assert figure["low"] <= figure["value"] <= figure["high"]
        assert row["eval_generated/anls"] == pytest.approx(mean, abs=1e-6)
        assert 0 <= row["eval_generated/exact_match"] <= 1


def test_some_of_the_scored_answers_are_shown_with_their_scores(patient):
    folder, _ = patient
    scored = {(row["line"], row["turn"]): row for row in read_lines(folder / "answers" / "step-4.jsonl")}
    for row in read_lines(folder / "predictions.jsonl"):
        one = scored[row["line"], row["turn"]]
        assert row["after"] == one["answer"]
        assert row["scores"]["after"] == {name: parts[name] for name, parts in one["scores"].items()}
        assert row["scores"]["before"].keys() == {"exact_match", "anls"}
        first = {when: next(iter(scores.values())) for when, scores in row["scores"].items()}
        assert row["right"] == {when: value == 1 for when, value in first.items()}


def test_a_run_without_better_scores_ends(patient, capsys):
    folder, settings = patient
    found = summary(folder)
    assert (found["status"], found["steps"]) == ("done", 4)
    assert "2 evaluations gave no better eval_generated/anls (train.patience)" in found["reason"]
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["step-3", "step-4"]
    assert found["best"]["metric"] == "eval_generated/anls"
    predictions = read_lines(folder / "predictions.jsonl")
    assert [(type(row["before"]), type(row["after"])) for row in predictions] == [(str, str)] * 2
    where = f"output_dir={folder.parent}", "run_name=run", "logging.wandb.mode=disabled"
    assert main([*settings, *where]) == 0
    assert "this run is already finished" in capsys.readouterr().out


def test_with_more_patience_the_run_goes_on(patient):
    folder, settings = patient
    more = [*(one for one in settings if one != "train.patience=2"), "train.patience=9"]
    train(folder.parent, *more)
    assert summary(folder)["steps"] == 9


def test_improvement_has_a_direction_and_the_first_of_equals_counts():
    def since(metric: str, *values: float | None) -> int:
        history = [{"loss": 1.0}, *({} if value is None else {metric: value} for value in values)]
        return evaluations_without_improvement(history, metric)

    assert since("eval_loss", 3, 2, 2.5, 2.1) == 2
    assert since("eval_loss", 3, 2, 1) == 0
    assert since("eval_generated/anls", 0.2, 0.5, 0.5, None, 0.4) == 2
    assert since("eval_generated/wer", 0.5, 0.4) == 0
    assert since("eval_loss") == 0


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            ["train.patience=2", "train.eval_steps=null"],
            "train.patience=2 counts evaluations during training; set train.eval_steps",
        ),
        (["train.best_metric=eval_generated/anls"], "train.best_metric=eval_generated/anls needs eval.generate=true"),
        (["eval.samples=3"], "eval.samples has no effect while eval.generate=false"),
        (["eval.generate=true", "data.eval=null"], "eval.generate has no effect without data.eval"),
        (
            ["eval.generate=true", "eval.metrics=cer", "train.best_metric=eval_generated/anls"],
            "train.best_metric=eval_generated/anls is not among eval.metrics (cer)",
        ),
        (["logging.predictions=2", "eval.metrics=anl"], "eval.metrics: there is no metric anl; did you mean anls?"),
        (["eval.generate=true", "eval.metrics=anl"], "eval.metrics: there is no metric anl; did you mean anls?"),
        (
            ["eval.generate=true", "train.best_metric=eval_generated/wer"],
            "train.best_metric=eval_generated/wer: the generated answers have the scores eval_generated/exact_match",
        ),
    ],
)
def test_settings_of_generation_have_an_effect_or_are_refused(settings, told, tmp_path, capsys):
    common = [
        "tune_mm_mlp=true",
        "train.max_steps=1",
        "data.workers=0",
        f"output_dir={tmp_path}",
        "run_name=run",
    ]
    if "logging.predictions=2" not in settings:
        common.append(QUIET)
    limits = ["eval.samples=2", "eval.max_new_tokens=2"] if "eval.generate=true" in settings else []
    assert main([*common, *limits, *settings, "logging.wandb.mode=disabled"]) == 2
    assert told in capsys.readouterr().err.replace("\n", " ")


def test_a_metric_with_nothing_to_score_does_not_end_a_run(tmp_path, capsys):
    """The answers name shapes, and have no tables."""
    words = ["tune_mm_mlp=true", "train.max_steps=1", QUIET, "data.workers=0", f"output_dir={tmp_path}", "run_name=run"]
    words += ["eval.generate=true", "eval.samples=2", "eval.max_new_tokens=2", "logging.wandb.mode=disabled"]
    assert main([*words, "eval.metrics=[teds,exact_match]", "train.best_metric=eval_generated/teds"]) == 0
    assert "exact match" in capsys.readouterr().out
    (_, *rows) = [row for row in read_lines(tmp_path / "run/metrics.jsonl") if "eval_answers" in row]
    assert rows
    assert all("eval_generated/exact_match" in row and "eval_generated/teds" not in row for row in rows)


def test_a_task_without_held_out_samples_says_so_and_needs_no_metric(
    tmp_path, checkpoints, write_rows, monkeypatch, capsys
):
    """The packages of its metrics need not be installed, since nothing is scored."""
    monkeypatch.setitem(sys.modules, "apted", None)
    monkeypatch.delitem(sys.modules, "qwenvl_train.evaluation.metrics.teds", raising=False)
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    words = ["+task=documents", "tune_mm_mlp=true", f"data.train={write_rows([{'conversations': turns}])}"]
    words += [f"model.path={checkpoints['qwen3_vl']}", "train.max_steps=1", "data.workers=0"]
    assert main([*words, f"output_dir={tmp_path}", "run_name=run", "logging.wandb.mode=disabled"]) == 0
    told = capsys.readouterr().out.replace("\n", " ")
    assert "No answers are scored, since there are no held-out samples. data.eval=held_out.jsonl names some" in told
