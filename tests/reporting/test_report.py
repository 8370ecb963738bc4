import base64
import io
import json
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from qwenvl_train.reporting.folder import RunFolder
from qwenvl_train.reporting.metrics import MetricsFile
from qwenvl_train.reporting.report import is_right, write_report

from .rows import SUMMARY, draw_receipt, evaluation_row, training_row, write_run

VOID = {"meta", "img", "line", "circle", "path", "link", "br"}


class Page(HTMLParser):
    """Parses the page as a browser does: elements, visible text, and whether every tag is closed."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(source)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("style", "script"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(run) -> Page:
    return Page(write_report(run.folder).read_text(encoding="utf-8"))


@pytest.fixture
def page(run, tmp_path) -> Page:
    write_run(run, tmp_path)
    return page_of(run)


def test_key_figures(page):
    for text in (
        "receipts done",
        "Qwen/Qwen2.5-VL-3B-Instruct · trained on receipts/train.jsonl",
        "Held-out exact match 5.0 % → 97.5 %",
        "Steps 120",
        "Samples 480",
        "Tokens 614,400",
        "Training time 3m 42s",
        "Tokens per second 2,768",
        "Trained parameters 1.0 %",
    ):
        assert text in page.text


def test_curves_hold_every_logged_step_and_say_its_values(page):
    titles = [svg["aria-label"] for svg in page.all("svg")]
    assert titles == [
        f"{name} by step" for name in ("Loss", "Held-out score", "Learning rate", "Tokens per second", "Gradient norm")
    ]
    figures = [json.loads(figure["data-hover"]) for figure in page.all("figure")]
    assert len(figures[0]) == 121
    assert figures[0][0]["values"][0][2] == "3.1000"
    assert figures[1][-1]["step"] == "120"
    assert figures[1][-1]["values"][0][2] == "97.5 %"
    assert all(re.fullmatch(r"M[-\d.]+,[-\d.]+( L[-\d.]+,[-\d.]+)+", path["d"]) for path in page.all("path"))


def test_components_with_their_sum(page):
    assert "llm lora 3,102,404,608 29,933,568 1.0 % 1.0e-04 rank 16 on 252 linear layers" in page.text
    assert "all 3,778,983,424 37,814,784 1.0 %" in page.text


def test_predictions_are_marked_right_or_wrong(page):
    card = "What is the total on this receipt? expected {} before training ✗ wrong"
    answers = "The receipt shows a list of items. after training"
    assert f"{card.format('12.80')} {answers} ✓ right 12.80 receipts/eval.jsonl, line 1" in page.text
    assert f"{card.format('7.35')} {answers} ✗ wrong 7.85 receipts/eval.jsonl, line 2" in page.text


def test_pictures_are_small_and_inside_the_page(page):
    pictures = [image["src"] for image in page.all("img")]
    assert len(pictures) == 3
    for source in pictures:
        kind, encoded = source.split(",")
        assert kind == "data:image/webp;base64"
        picture = Image.open(io.BytesIO(base64.b64decode(encoded)))
        assert picture.size == (120, 160)
        assert picture.getpixel((5, 5))[0] > 200


def test_the_page_needs_nothing_from_outside(run, tmp_path):
    write_run(run, tmp_path)
    source = write_report(run.folder).read_text(encoding="utf-8")
    assert not re.search(r"https?:|@import|url\(|<link|<script[^>]+src|fetch\(", source)
    assert str(tmp_path) not in source


def test_the_full_configuration_and_the_environment_are_there(page):
    assert "max_length: 4096" in page.text
    assert "GPU NVIDIA H100 80GB HBM3" in page.text
    assert re.search(r"transformers \d+\.\d+", page.text)


EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;{{ 7*7 }}"


def test_every_text_is_escaped(run, tmp_path):
    write_run(run, tmp_path)
    folder = RunFolder(run.folder)
    folder.write_config({"run_name": EVIL, "model": {"path": EVIL}, "data": {"train": [{"path": EVIL}]}})
    folder.write_components([{**row, "component": EVIL, "mode": EVIL, "where": EVIL} for row in run.components])
    folder.write_summary({**SUMMARY, "status": EVIL, "reason": EVIL})
    texts = dict.fromkeys(("id", "source", "line", "prompt", "expected", "before", "after"), EVIL)
    draw_receipt(tmp_path / "a.png", "1.00")
    folder.write_predictions([{**texts, "images": [str(tmp_path / "a.png")]}])
    (run.folder / "environment.json").write_text(json.dumps({"python": EVIL, "packages": {EVIL: EVIL}}))
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 121, EVIL: 1.0}) + "\n")
    page = page_of(run)
    assert len(page.all("script")) == 1
    assert [image["src"][:11] for image in page.all("img")] == ["data:image/"]
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert page.texts.count(EVIL) >= 13
    assert any(svg["aria-label"] == f"{EVIL.replace('/', ' ')} by step" for svg in page.all("svg"))


def test_an_empty_folder_still_gives_a_page(run):
    page = page_of(run)
    assert page.text.endswith("receipts not finished")
    assert page.all("svg") == []


def test_a_running_run_shows_its_last_logged_step(run):
    metrics = MetricsFile()
    metrics.start(run)
    metrics.log(evaluation_row(0, 0.05))
    metrics.log(training_row(40))
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 41, "lo')
    text = page_of(run).text
    assert "receipts not finished" in text
    assert "Steps 40" in text
    assert "Training time 1m 14s" in text
    assert "Held-out exact match 5.0 %" in text
    assert "→" not in text


def test_a_loss_that_was_no_number_is_said_on_top(run):
    metrics = MetricsFile()
    metrics.start(run)
    for step in (1, 2, 3):
        metrics.log(training_row(step, loss=float("nan") if step > 1 else 0.5))
    assert "The loss was not a number at 2 logged steps, first at step 2." in page_of(run).text


def test_a_picture_that_is_gone_is_said_in_its_place(run, tmp_path):
    write_run(run, tmp_path)
    (tmp_path / "12.80.png").unlink()
    (tmp_path / "7.35.png").write_bytes(b"not a picture")
    page = page_of(run)
    assert len(page.all("img")) == 1
    assert page.text.count("image cannot be read") == 2


def test_an_answer_that_was_not_asked_for_has_no_mark(run):
    row = {"id": "1", "source": "e.jsonl", "line": 1, "images": [], "prompt": "2+2?", "expected": "4"}
    RunFolder(run.folder).write_predictions([{**row, "before": None, "after": ""}])
    text = page_of(run).text
    assert "before training" not in text
    assert "after training ✗ wrong (empty)" in text


def test_right_means_equal_but_for_white_space_around():
    assert is_right(" 12.80\n", "12.80") is True
    assert is_right("12.8", "12.80") is False
    assert is_right(None, "12.80") is None


def test_a_page_that_cannot_be_made_leaves_the_old_one(run, tmp_path):
    write_run(run, tmp_path)
    before = write_report(run.folder).read_text(encoding="utf-8")
    (run.folder / "summary.json").write_text("{")
    with pytest.raises(json.JSONDecodeError):
        write_report(run.folder)
    assert (run.folder / "report.html").read_text(encoding="utf-8") == before
    assert not list(run.folder.glob("*.part"))
