"""The table at the end of a run, and its sparklines."""

import io

import pytest
from rich.console import Console

from qwenvl_train.reporting.closing import print_curves
from qwenvl_train.reporting.console import console_on
from qwenvl_train.reporting.metrics import MetricsFile
from qwenvl_train.reporting.progress import ProgressReporter, closing_line
from qwenvl_train.reporting.sparkline import sparkline

from .rows import SUMMARY, evaluation_row, training_row

LOSSES = [training_row(step, loss) for step, loss in ((1, 4.0), (2, 2.0), (3, 0.5))]
SCORES = [evaluation_row(0, 0.05, 3.1), evaluation_row(2, 0.5, 1.0), evaluation_row(3, 0.975)]


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def terminal(stream: io.StringIO, width: int) -> Console:
    return Console(file=stream, force_terminal=True, width=width, color_system=None, _environ={})


def test_a_log_file_gets_a_plain_table(stream):
    print_curves([*LOSSES, *SCORES], console_on(stream))
    assert stream.getvalue() == (
        "                       first    last  curve\n"
        "training loss         4.0000  0.5000  █▄▁\n"
        "held-out exact match   5.0 %  97.5 %  ▁▄█\n"
        "held-out loss         3.1000  0.0213  █▃▁\n"
    )


def test_sources_and_generated_answers_have_a_line_each(stream):
    sources = [{"a.jsonl": {"exact_match": share}, "b.jsonl": {"exact_match": 1 - share}} for share in (0.25, 0.5)]
    rows = [
        evaluation_row(step, 0.5) | {"eval_sources": scores, "eval_generated/anls": 0.125 * step}
        for step, scores in enumerate(sources)
    ]
    print_curves(rows, console_on(stream))
    lines = [" ".join(line.split()) for line in stream.getvalue().splitlines()]
    assert lines[1:] == [
        "held-out generated anls 0.0 % 12.5 % ▁█",
        "held-out exact match 50.0 % 50.0 % ▁▁",
        "a.jsonl 25.0 % 50.0 % ▁█",
        "b.jsonl 75.0 % 50.0 % █▁",
        "held-out loss 0.0213 0.0213 ▁▁",
    ]


def test_the_metric_that_chooses_checkpoints_is_the_first_score(run, stream):
    rows = [evaluation_row(step, 0.5) | {"eval_generated/em": 0.25, "eval_generated/anls": 0.5} for step in (0, 1)]
    for metric, first in (("eval_generated/anls", "generated anls"), ("eval_token_accuracy", "token accuracy")):
        print_curves(rows, console_on(stream), metric)
        assert stream.getvalue().splitlines()[1].startswith(f"held-out {first}")
        metrics = {"before": rows[0], "after": rows[1]}
        assert f", {first} " in closing_line(SUMMARY | {"metrics": metrics}, metric)
        stream.truncate(stream.seek(0))


def test_a_run_without_evaluations_has_its_loss_only(stream):
    print_curves(LOSSES, console_on(stream))
    assert [line.split()[0] for line in stream.getvalue().splitlines()[1:]] == ["training"]
    print_curves([], console_on(stream))
    assert len(stream.getvalue().splitlines()) == 2


def test_one_value_is_no_change(stream):
    print_curves(LOSSES[:1], console_on(stream))
    assert stream.getvalue().splitlines()[1] == "training loss  4.0000"


@pytest.mark.parametrize("width", [20, 30, 40, 50, 80])
def test_the_table_fits_on_a_terminal_of_any_width(width, stream):
    print_curves([*LOSSES, *SCORES], terminal(stream, width))
    assert max(map(len, stream.getvalue().splitlines())) <= width
    assert "97.5 %" in " ".join(stream.getvalue().split())
    assert ("█▄▁" in stream.getvalue()) == (width > 40)


def test_an_encoding_without_blocks_gets_no_curves():
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_curves(LOSSES, console_on(file))
    assert file.buffer.getvalue() == b"                first    last\ntraining loss  4.0000  0.5000\n"


def test_the_table_covers_what_was_before_a_resume(run, stream):
    metrics = MetricsFile()
    metrics.start(run)
    for row in (*SCORES, *LOSSES):
        metrics.log(row)
    metrics.finish(SUMMARY)
    progress = ProgressReporter(console_on(stream))
    progress.start(run)
    progress.finish(SUMMARY)
    *_, loss, closing = stream.getvalue().splitlines()
    assert loss == "held-out loss         3.1000  0.0213  █▃▁"
    assert closing.startswith("done: ")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8], "▁▂▃▄▅▆▇█"),
        ([8, 1], "█▁"),
        ([1, None, float("nan"), 2], "▁█"),
        ([2.5, 2.5, 2.5], "▁▁▁"),
        ([1], ""),
        ([], ""),
        (list(range(1000)), "▁▂▃▃▄▅▆▆▇█"),
    ],
)
def test_sparklines(values, expected):
    assert sparkline(values, 10) == expected
