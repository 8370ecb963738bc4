"""docs/tasks: the examples of the three pages convert, and give the answers that the pages show."""

import json
import re
from pathlib import Path

import pytest

from qwenvl_train.families.qwen3_vl import FAMILY as QWEN3_VL
from tests.tasks.conftest import answer_of, converted, written

PAGES = Path(__file__).parents[2] / "docs" / "tasks"


def page(name: str) -> str:
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def example(name: str) -> dict:
    """Return the last example of a record on a page."""
    return json.loads(re.findall(r"```json\n(\{\".*?)```", page(name), re.DOTALL)[-1])


@pytest.mark.parametrize("form", ["html", "markdown"])
def test_documents(form, draw, write):
    draw("page-1.png", (800, 600))
    (row,) = converted("documents", write("pages.json", example("documents")), form)
    assert written(row, QWEN3_VL, (600, 800), (600, 800)) in page("documents")


def test_ocr(draw, write, tmp_path):
    draw("sign.jpg", (640, 400))
    (row,) = converted("ocr", write("lines.jsonl", [example("ocr")]), "spotting")
    assert row["objects"]["bbox"][1] == [290, 60, 420, 130]
    draw("SROIE/X.jpg", (400, 600))
    write("SROIE/X.txt", "72,25,326,25,326,64,72,64,TAN WOON YANN\n80,90,200,90,200,110,80,110,TOTAL 9.00\n")
    (row,) = converted("ocr", tmp_path / "SROIE", "spotting")
    assert written(row, QWEN3_VL, (600, 400), (600, 400)) in page("ocr")


def test_video(write):
    source = write("clips.jsonl", [example("video")])
    assert [answer_of(converted("video", source, form)[0]) for form in ("seconds", "caption", "question")] == [
        "1.5 - 4.0 seconds, A dog barks.", "A dog walks and barks.", "B",
    ]  # fmt: skip
    found = {"timestamps": [[0.83, 3.86], [2.37, 7.81]], "sentences": ["A dog walks by.", "It sits down."]}
    (row,) = converted("video", write("train.json", {"v_walk": found}))
    assert answer_of(row) in page("video")
