import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from qwenvl_train.reporting.progress import ProgressReporter, console_on, print_components, step_figures

from .rows import COMPONENTS, SUMMARY, evaluation_row


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def progress(stream, clock) -> ProgressReporter:
    return ProgressReporter(console_on(stream), clock)


def row(step: int) -> dict:
    return {"step": step, "epoch": 0.5, "loss": 0.42134, "lr": 8.1e-4, "tokens_per_second": 5120.3}


def test_a_log_file_gets_one_plain_line_for_each_step(progress, run, stream, clock):
    progress.start(run)
    clock.seconds = 95
    progress.log(row(40))
    assert stream.getvalue() == "step 40/120  loss 0.4213  5,120 tokens/s  lr 8.1e-04  3m 10s left\n"


def test_the_first_step_does_not_tell_how_long_the_others_take(progress, run, stream, clock):
    progress.start(replace(run, start_step=30))
    clock.seconds = 20
    progress.log(row(31))
    assert "left" not in stream.getvalue()
    progress.log(row(32))
    assert stream.getvalue().endswith("14m 40s left\n")


def test_the_last_step_has_nothing_left(progress, run, stream, clock):
    progress.start(run)
    clock.seconds = 95
    progress.log(row(120))
    assert stream.getvalue() == "step 120/120  loss 0.4213  5,120 tokens/s  lr 8.1e-04\n"


def test_time_left_counts_this_runs_steps_and_no_evaluations(progress, run, stream, clock):
    progress.start(replace(run, start_step=30))
    progress.log({**evaluation_row(30, 0.1), "eval_seconds": 60.0})
    clock.seconds = 60 + 20
    progress.log(row(40))
    assert stream.getvalue().splitlines()[-1].endswith("2m 40s left")


def test_a_loss_that_is_no_number_is_said(progress, run, stream):
    progress.start(run)
    progress.log({"step": 3, "loss": float("nan"), "lr": 1e-4})
    assert stream.getvalue() == "step 3/120  loss not a number  lr 1.0e-04  0s left\n"


def test_evaluation_line(progress, run, stream):
    progress.start(run)
    line = {
        "step": 120,
        "eval_loss": 0.0213,
        "eval_exact_match": 0.975,
        "eval_samples": 120,
        "eval_seconds": 3.14,
    }
    progress.log(line)
    expected = "evaluation at step 120: exact match 97.5 %, loss 0.0213 (120 samples, 3.1 s)\n"
    assert stream.getvalue() == expected


def test_generated_answers_are_counted_apart_from_samples(progress, run, stream):
    """eval.samples bounds them, and a sample may have several."""
    scores = {"generated/anls": 0.5, "answers": 8, "exact_match": 0.25, "samples": 60}
    row = {"eval_exact_match": 0.9, "eval_generated/anls": 0.05, "eval_answers": 20, "eval_samples": 120}
    progress.start(run)
    progress.log({"step": 8, **row, "eval_sources": {"a.jsonl": scores}})
    assert stream.getvalue().splitlines() == [
        "evaluation at step 8: generated anls 5.0 % (20 answers); exact match 90.0 % (120 samples)",
        "  a.jsonl: generated anls 50.0 % (8 answers); exact match 25.0 % (60 samples)",
    ]


def test_figures_of_other_methods_are_shown_too(progress, run, stream):
    progress.start(run)
    progress.log({"step": 8, "eval_loss": 0.5, "eval_rewards/accuracies": 0.75, "eval_margin": 2, "eval_samples": 4})
    assert stream.getvalue() == "evaluation at step 8: reward accuracy 75.0 %, loss 0.5000, margin 2 (4 samples)\n"


def test_the_last_line_tells_the_score_before_and_after(progress, run, stream):
    progress.start(run)
    progress.finish(SUMMARY)
    assert stream.getvalue() == "done: 120 steps in 3m 42s, exact match 5.0 % → 97.5 %\n"


def test_the_last_line_of_a_run_without_scores(progress, run, stream):
    progress.start(run)
    progress.finish({"status": "interrupted", "steps": 47, "seconds": 30.0, "metrics": {}})
    assert stream.getvalue() == "interrupted: 47 steps in 30s\n"


def test_a_terminal_gets_a_bar_with_evaluations_above_it(run, stream, clock):
    console = Console(file=stream, force_terminal=True, width=120, color_system=None, _environ={})
    progress = ProgressReporter(console, clock)
    progress.start(run)
    clock.seconds = 95
    progress.log(row(40))
    progress.log(evaluation_row(40, 0.5))
    progress.finish(SUMMARY)
    shown = stream.getvalue()
    assert " 40/120 loss 0.4213  5,120 tokens/s  lr 8.1e-04  3m 10s left" in shown
    assert "evaluation at step 40: exact match 50.0 %" in shown
    assert "step 40/120  loss" not in shown
    assert shown.rstrip().endswith("97.5 %")


def test_components_in_a_log_file_are_aligned_columns(stream):
    print_components(COMPONENTS, console_on(stream))
    assert all(line == line.rstrip() for line in stream.getvalue().splitlines())
    lines = [" ".join(line.split()) for line in stream.getvalue().splitlines()]
    assert lines[0] == "component mode parameters trained share learning rate where"
    assert lines[1] == "vision frozen 668,697,600 0 0.0 % patch embedding, 32 blocks"
    assert lines[3] == "llm lora 3,102,404,608 29,933,568 1.0 % 1.0e-04 rank 16 on 252 linear layers"
    assert lines[4] == "all 3,778,983,424 37,814,784 1.0 %"


def test_components_never_break_a_number_on_a_narrow_terminal(stream):
    console = Console(file=stream, force_terminal=True, width=74, color_system=None, _environ={})
    print_components(COMPONENTS, console)
    assert "3,102,404,608" in stream.getvalue()
    assert max(map(len, stream.getvalue().splitlines())) <= 74


def test_where_the_components_are_follows_if_the_table_is_too_wide(stream):
    console = Console(file=stream, force_terminal=True, width=80, color_system=None, _environ={})
    where = "model.visual.patch_embed, model.visual.pos_embed, model.visual.blocks, model.visual.others"
    print_components([{**COMPONENTS[0], "where": where}, *COMPONENTS[1:]], console)
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert set(where.split()) <= set(stream.getvalue().split())
    assert "3,102,404,608" in stream.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_the_bar_ends_at_the_last_step_and_breaks_no_figure(width, run, stream, clock):
    console = Console(file=stream, force_terminal=True, width=width, color_system=None, _environ={})
    progress = ProgressReporter(console, clock)
    progress.start(run)
    clock.seconds = 95
    progress.log({**row(40), "mfu": 0.34, "data_wait": 0.5})
    progress.finish(SUMMARY)
    last = stream.getvalue().splitlines()[-2]
    assert " 120/120 " in last
    assert "loss 0.4213  5,120 tokens/s  lr 8.1e-04" in last
    assert "…" not in stream.getvalue()
    assert "left" not in last.split("\r")[-1]


def test_each_source_of_an_evaluation_has_a_line(progress, run, stream):
    progress.start(run)
    sources = {
        "receipts.jsonl": {"exact_match": 0.5, "token_accuracy": 0.75, "loss": 0.25, "samples": 1},
        "cats.jsonl": {"rewards/accuracies": 1.0, "loss": None, "samples": 1200},
    }
    progress.log(evaluation_row(40, 0.5) | {"eval_sources": sources})
    first, *lines = stream.getvalue().splitlines()
    assert first == "evaluation at step 40: exact match 50.0 %, token accuracy 65.0 %, loss 0.0213 (120 samples, 3.1 s)"
    assert lines == [
        "  receipts.jsonl: exact match 50.0 %, token accuracy 75.0 %, loss 0.2500 (1 sample)",
        "  cats.jsonl: reward accuracy 100.0 %, loss not a number (1,200 samples)",
    ]


def test_a_spike_is_told_in_the_line_of_its_step():
    assert step_figures({"step": 3, "loss": 2.5, "lr": 1e-4, "loss_spike": True})[:2] == ["loss 2.5000", "loss spike"]


@pytest.mark.parametrize("width", [24, 40, 60, 80, 100, 120])
def test_the_bar_leaves_out_the_least_important_figures_of_a_narrow_terminal(width, run, stream, clock):
    console = Console(file=stream, force_terminal=True, width=width, color_system=None, _environ={})
    progress = ProgressReporter(console, clock)
    progress.start(run)
    progress.log(evaluation_row(40, 0.5))
    clock.seconds = 95
    progress.log({**row(40), "mfu": 0.34})
    progress.finish(SUMMARY)
    # The bar was drawn again and again on the same line.
    bars = [line for line in re.split(r"\r|\n|\x1b\[2K", stream.getvalue()) if " 40/120" in line]
    assert max(map(len, bars)) <= width
    figures = ["loss 0.4213", "exact match 50.0 %", "5,120 tokens/s", "lr 8.1e-04", "MFU 34.0 %"]
    shown = {24: 0, 40: 1, 60: 1, 80: 2, 100: 4, 120: 5}[width]
    assert [figure for figure in figures if figure in bars[-1]] == figures[:shown]
    assert ("left" in bars[-1]) == (width >= 40)


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(run, stream, clock):
    console = Console(file=stream, force_terminal=True, width=80, color_system=None, _environ={"TERM": "dumb"})
    progress = ProgressReporter(console, clock)
    progress.start(run)
    clock.seconds = 95
    progress.log(row(40))
    assert stream.getvalue() == "step 40/120  loss 0.4213  5,120 tokens/s  lr 8.1e-04  3m 10s left\n"


def test_components_are_lines_on_a_very_narrow_terminal(stream):
    console = Console(file=stream, force_terminal=True, width=40, color_system=None, _environ={})
    print_components(COMPONENTS, console)
    assert max(map(len, stream.getvalue().splitlines())) <= 40
    words = " ".join(stream.getvalue().split())
    assert "llm, lora: 29,933,568 of 3,102,404,608 parameters trained (1.0 %), learning rate 1.0e-04" in words
    assert "all: 37,814,784 of 3,778,983,424 parameters trained (1.0 %)" in words
