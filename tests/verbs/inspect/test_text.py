import io

import numpy as np
import pytest
from rich.console import Console

from qwenvl_train.verbs.inspect.facts import Broken
from qwenvl_train.verbs.inspect.text import InspectionText

from .samples import overview, sample


def said(tell, terminal: bool = False) -> str:
    stream = io.StringIO()
    tell(InspectionText(Console(file=stream, force_terminal=terminal, width=100, highlight=False)))
    return stream.getvalue()


def test_a_sample_in_a_log_file():
    assert (
        said(lambda text: text.sample(2, 5, sample()))
        == """\

--- 2 of 5  rows.jsonl:3  id a<1>
32 tokens, 8 supervised (25.0 %), 8 visual
box cat: [9, 6, 45, 30] in pixels of the original, written as [8, 6, 42, 28]
user  19 tokens
    <|im_start|>user
    <|vision_start|>[image 1: cat.png 90×60 → 84×56, 6 tokens]<|vision_end|>Cat or
     dog?[video 1, frame pair 1: 4 images 30×30 → 28×28, 4 frames from 0.0 to 1.5 s, 2 per second, 1 token]\
<1.2 seconds>[video 1, frame pair 2: 1 token]<|im_end|>
assistant  9 tokens
    <|im_start|>assistant
    ⟦A caté.<|im_end|>⟧
assistant  4 tokens
    ⟦Or
    ␛[31m<b>not</b>.⟧
"""
    )


def test_on_a_terminal_what_the_loss_counts_is_underlined_and_green_and_nothing_else_is():
    text = said(lambda text: text.sample(1, 1, sample()), terminal=True)
    assert "⟦" not in text
    underlined = [part.split("\x1b[0m")[0] for part in text.split("\x1b[1;4;32m")[1:]]
    assert underlined == ["A caté.", "<|im_end|>", "Or", "␛[31m<b>not</b>."]


def test_what_keeps_a_row_from_training_is_said_above_it():
    text = said(lambda text: text.sample(1, 1, sample(problem="it is 32 tokens long", shrink=0.25)))
    assert "\ncannot be trained on: it is 32 tokens long\n32 tokens" in text
    assert "8 visual; downscaled to 25.0 % of the pixels\n" in text


def test_a_broken_row_is_its_error():
    text = said(lambda text: text.sample(1, 1, Broken(None, "rows.jsonl", 9, "rows.jsonl:9 is not valid JSON")))
    assert text == "\n--- 1 of 1  rows.jsonl:9\ncannot be trained on: rows.jsonl:9 is not valid JSON\n"


def test_the_whole_source():
    text = said(lambda text: text.overview(overview()))
    assert (
        text
        == """\

--- all rows
103 rows, 100 of them can be trained on, judged by the headers of their media
50,500 tokens, 5,050 of them supervised (10.0 %); 12 images and videos
tokens per sample: shortest 10, median 500, 90th percentile 900, 99th percentile 990, longest 1,000
data.max_length=1000: 2 samples downscaled and 1 row too long
an epoch has 13 micro-batches of 4 packed rows of up to 1000 tokens, 98.5 % filled
3 rows cannot be trained on; a run leaves them out and lists them in skipped.jsonl
  rows.jsonl:7 (id x): the image gone.jpg does not exist.
  second <b>
  third
"""
    )


@pytest.mark.parametrize(
    ("changes", "there", "missing"),
    [
        ({"max_length": None}, "an epoch", "max_length"),
        ({"shrunk": 0, "too_long": 0}, "data.max_length=1000: every sample fits", "downscaled"),
        ({"rows_per_epoch": None, "fills": None}, "supervised", "an epoch"),
        ({"fills": None}, "an epoch has 13 micro-batches of 4 packed rows of up to 1000 tokens\n", "filled"),
        ({"problems": [f"no {n}" for n in range(13)]}, "  no 9\n  and 3 rows more\n", "no 10"),
        ({"problems": ["a:1 (id b): no", "a:2: no"]}, "\n  2 rows, the first: a:1 (id b): no\n", "a:2"),
        ({"problems": []}, "longest", "cannot be trained on"),
        ({"lengths": np.array([], dtype=int), "supervised": 0, "media": 0}, "103 rows, 0 of them", "longest"),
    ],
)
def test_what_there_is_to_say_of_a_source(changes, there, missing):
    text = said(lambda text: text.overview(overview(**changes)))
    assert there in text
    assert missing not in text


def test_rich_takes_nothing_in_the_data_for_markup():
    text = said(lambda text: text.files(["[bold]rows:smile:.jsonl[/bold]: 3 rows"]))
    assert text.startswith("[bold]rows:smile:.jsonl[/bold]: 3 rows\n")
