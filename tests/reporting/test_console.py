"""Lines break between words on a terminal and where COLUMNS is set, and not at all in a log file."""

import io

import pytest
from rich.console import Console
from rich.text import Text

from qwenvl_train.reporting.console import LOG_WIDTH, console_on, say
from qwenvl_train.reporting.wrapping import wrapped

LINE = "  does not fit on 8 × h100 with 79 GiB, with train.accumulation=16 deepspeed=zero3 [bold]"
LONG_WORD = "/a/path/of/more/than/forty/columns/without/a/space.jsonl"


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def test_a_line_breaks_between_words_on_a_terminal(stream):
    say(Console(file=stream, force_terminal=True, width=40, color_system=None, _environ={}), LINE, hanging=4)
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 40
    assert all(line.startswith("    ") for line in lines[1:])
    assert stream.getvalue().split() == LINE.split()


def test_a_word_that_is_longer_than_the_terminal_stays_whole(stream):
    console = Console(file=stream, force_terminal=True, width=40, color_system=None, _environ={})
    say(console, Text(f"see {LONG_WORD} for\nmore"))
    assert stream.getvalue().splitlines() == ["see", LONG_WORD, "for", "more"]


def test_a_line_of_a_log_file_does_not_break(stream, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    console = console_on(stream)
    say(console, LINE * 3, hanging=4)
    assert (stream.getvalue(), console.width) == (f"{LINE * 3}\n", LOG_WIDTH)


def test_columns_of_the_environment_hold_for_a_pipe_too(stream, monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    say(console_on(stream), LINE)
    assert max(map(len, stream.getvalue().splitlines())) <= 50


def test_a_command_is_continued_with_backslashes():
    command = "  qwenvl-train plan +recipe=sft_full model=qwen2_5_vl_7b plan.devices=8"
    lines = wrapped(command, 40).splitlines()
    assert max(map(len, lines)) <= 40
    assert all(line.endswith(" \\") for line in lines[:-1])
    assert " ".join(lines).replace("\\", "").split() == command.split()
    assert wrapped(command, 80) == command


def test_columns_of_plain_text_stay_aligned():
    assert wrapped("  dpo_full   DPO of the full model", 24, hanging=" " * 13) == (
        "  dpo_full   DPO of the\n             full model"
    )
