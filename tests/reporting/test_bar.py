"""The progress bar shows the remaining time on a terminal, and prints nothing to a log file."""

import io

import pytest
from rich.console import Console

from qwenvl_train.reporting import bar
from qwenvl_train.reporting.bar import counting


@pytest.mark.parametrize(("terminal", "shown"), [(True, True), (False, True), (True, False)])
def test_a_bar_tells_what_is_done_and_the_time_left(terminal, shown, monkeypatch):
    written = io.StringIO()
    console = Console(file=written, force_terminal=terminal, width=100)
    monkeypatch.setattr(bar, "console_on", lambda stream: console)
    with counting("checking data.train", 1000, shown) as progress:
        progress(10)
        progress(250)
    text = written.getvalue()
    if terminal and shown:
        assert "checking data.train" in text
        assert " left" in text
        assert "250/1000" in text
    else:
        assert not text


def test_lines_in_a_log_file_tell_the_progress_from_time_to_time(monkeypatch):
    now = iter((0.0, 10.0, 31.0, 31.0, 40.0, 62.0))
    monkeypatch.setattr(bar, "monotonic", lambda: next(now))
    monkeypatch.setattr(bar, "console_on", lambda stream: Console(file=io.StringIO(), force_terminal=False))
    told = []
    with counting("judging rows", 2000, tell=told.append) as progress:
        for done in (100, 1500, 1600, 2000):
            progress(done)
    assert told == ["judging rows: 1,500 of 2,000 (75.0 %)"]


@pytest.mark.parametrize("width", [30, 40, 59])
def test_a_narrow_terminal_shows_the_share_that_is_done(width, monkeypatch):
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=width, color_system=None, _environ={})
    monkeypatch.setattr(bar, "console_on", lambda stream: console)
    with counting("checking data.train", 1000) as progress:
        progress(250)
    assert "checking data.train  25%" in written.getvalue()
    assert "…" not in written.getvalue()


def test_a_terminal_that_cannot_move_its_cursor_gets_no_bar(monkeypatch):
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=100, _environ={"TERM": "dumb"})
    monkeypatch.setattr(bar, "console_on", lambda stream: console)
    with counting("checking data.train", 1000) as progress:
        progress(250)
    assert not written.getvalue()
