import json
import math
from dataclasses import replace

import numpy
import pytest

from qwenvl_train.errors import UserError
from qwenvl_train.reporting.metrics import MetricsFile, before_and_after, read_metrics
from qwenvl_train.reporting.reporter import RunInfo

from .rows import SUMMARY, evaluation_row, training_row


def log_steps(run: RunInfo, *steps: int) -> MetricsFile:
    metrics = MetricsFile()
    metrics.start(run)
    for step in steps:
        metrics.log(training_row(step))
    return metrics


def steps_of(run: RunInfo) -> list[int]:
    return [row["step"] for row in read_metrics(run.folder)]


def test_rows_come_back_in_order_as_they_were_logged(run):
    metrics = log_steps(run, 1, 2)
    metrics.log(evaluation_row(2, 0.5))
    assert read_metrics(run.folder) == [training_row(1), training_row(2), evaluation_row(2, 0.5)]


def test_a_row_is_on_disk_before_the_run_ends(run):
    log_steps(run, 1)  # not finished, as after the process was killed
    assert steps_of(run) == [1]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, numpy.float32("nan")])
def test_what_is_no_number_becomes_null(run, value):
    log_steps(run).log(training_row(7, loss=value))

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    row = json.loads((run.folder / "metrics.jsonl").read_text(), parse_constant=refuse)
    assert row["loss"] is None
    assert row["step"] == 7


def test_a_resumed_run_cuts_off_the_steps_that_it_runs_again(run):
    log_steps(run, 10, 20, 30, 40)
    log_steps(replace(run, start_step=20), 30)
    assert steps_of(run) == [10, 20, 30]


def test_a_resumed_run_keeps_the_evaluation_at_its_own_step(run):
    log_steps(run, 20).log(evaluation_row(20, 0.5))
    log_steps(replace(run, start_step=20))
    assert read_metrics(run.folder)[-1] == evaluation_row(20, 0.5)


def test_a_new_run_in_an_old_folder_starts_an_empty_file(run):
    log_steps(run, 10, 20)
    log_steps(run, 10)
    assert steps_of(run) == [10]


def test_a_torn_last_line_is_left_out_and_never_glued_to_the_next(run):
    log_steps(run, 10, 20).finish(SUMMARY)
    path = run.folder / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step": 30, "loss": 0.\xc3')
    assert steps_of(run) == [10, 20]
    log_steps(replace(run, start_step=20), 30)
    assert steps_of(run) == [10, 20, 30]


def test_a_fault_before_the_last_line_is_named(run):
    (run.folder / "metrics.jsonl").write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2"):
        read_metrics(run.folder)


def test_no_file_means_no_rows(tmp_path):
    assert read_metrics(tmp_path) == []


def test_a_single_evaluation_is_either_before_or_after():
    first, last = {"step": 0, "eval_loss": 2.0}, {"step": 9, "eval_loss": 1.0}
    assert before_and_after([first, {"step": 1, "loss": 1.5}]) == (first, None)
    assert before_and_after([{"step": 4, "eval_loss": 1.5}, last]) == (None, last)
    assert before_and_after([first, {"step": 4, "eval_loss": 1.5}, last]) == (first, last)
    assert before_and_after([]) == (None, None)
