import base64
import io
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from qwenvl_train.errors import UserError
from qwenvl_train.reporting.folder import RunFolder
from qwenvl_train.reporting.metrics import MetricsFile
from qwenvl_train.reporting.pages.answers import Folded, folded
from qwenvl_train.reporting.pages.report import write_report
from qwenvl_train.reporting.recorded import is_right, is_same
from qwenvl_train.reporting.repeat import command

from .rows import SUMMARY, draw_receipt, evaluation_row, training_row, write_run

VOID = {"meta", "img", "input", "line", "circle", "path", "link", "br"}
GROUNDED = {"id": "1", "source": "e.jsonl", "line": 1, "turn": 1, "prompt": "Where?"}


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


def charts_of(page: Page) -> dict:
    (container,) = [found for found in page.all("div") if "data-charts" in found]
    return json.loads(container["data-charts"])


def test_curves_hold_every_logged_step_and_its_value(page):
    drawn = {chart["title"]: chart for chart in charts_of(page)["charts"]}
    assert list(drawn) == [
        "Loss",
        "Held-out score",
        "Learning rate",
        "Tokens per second",
        "Gradient norm before clipping",
    ]
    training, held_out = drawn["Loss"]["lines"]
    assert (training["steps"], len(training["values"])) == (list(range(1, 121)), 120)
    assert held_out["values"][0] == 3.1
    assert drawn["Held-out score"]["lines"][0]["values"][-1] == 0.975


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
        assert picture.size == (420, 560)
        assert picture.getpixel((5, 5))[0] > 200


def test_the_page_needs_nothing_from_outside(run, tmp_path):
    write_run(run, tmp_path)
    source = write_report(run.folder).read_text(encoding="utf-8")
    source = source.replace("/*! https://github.com/leeoniya/uPlot (v1.6.32) */", "")
    assert not re.search(r"https?:|@import|url\(|<link|<script[^>]+src|fetch\(", source)
    assert "12.80.png" not in source


def test_the_full_configuration_and_the_environment_are_there(page):
    assert "max_length: 4096" in page.text
    assert "GPU NVIDIA H100 80GB HBM3" in page.text
    assert re.search(r"transformers \d+\.\d+", page.text)


SCRIPTS = 4
"""uPlot, charts.js, answers.js and report.js."""
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
    assert len(page.all("script")) == SCRIPTS
    assert [image["src"][:11] for image in page.all("img")] == ["data:image/"]
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert page.texts.count(EVIL) >= 13
    assert EVIL.replace("/", " ") in [chart["title"] for chart in charts_of(page)["charts"]]


def test_an_empty_folder_still_gives_a_page(run):
    page = page_of(run)
    assert "receipts not begun" in page.text
    assert page.all("h2") == []


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
    assert "Held-out exact match before training 5.0 %" in text
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


def test_an_answer_is_right_if_it_is_the_same_or_its_metric_says_so():
    assert is_same(" 12.80\n", "12.80")
    assert not is_same("12.8", "12.80")
    row = {"expected": "[100, 200]", "before": "[100, 201]", "after": "[100, 203]"}
    assert not is_right(row, "after")
    scored = row | {"right": {"before": False, "after": True}}
    assert is_right(scored, "after")
    assert not is_right(scored, "before")
    assert not is_right(scored | {"rejected": "[0, 0]"}, "after")


def test_the_page_counts_answers_by_their_metric(run):
    row = {"id": "1", "source": "e.jsonl", "line": 1, "images": [], "prompt": "Where?", "expected": "[100, 200]"}
    right = {"before": False, "after": True}
    RunFolder(run.folder).write_predictions([{**row, "before": "[9, 9]", "after": "[100, 201]", "right": right}])
    text = page_of(run).text
    assert "before training ✗ wrong" in text
    assert "after training ✓ right" in text


def test_a_page_that_cannot_be_made_leaves_the_old_one(run, tmp_path):
    write_run(run, tmp_path)
    before = write_report(run.folder).read_text(encoding="utf-8")
    (run.folder / "summary.json").write_text("{")
    with pytest.raises(UserError, match=r"summary\.json is not JSON"):
        write_report(run.folder)
    assert (run.folder / "report.html").read_text(encoding="utf-8") == before
    assert not list(run.folder.glob("*.part"))


def test_boxes_are_drawn_in_pixels_of_the_original_picture(run, tmp_path):
    """The picture on the page is smaller than the original, and the numbers on the page are those of the original."""
    Image.new("RGB", (1600, 1200), "white").save(tmp_path / "large.png")
    box, point = {"label": "cat", "coordinates": [400, 300, 1200, 900]}, {"label": "", "coordinates": [80.5, 60]}
    turned_round = {"label": "cat", "coordinates": [1200, 900, 400, 300]}
    row = GROUNDED | {"images": [str(tmp_path / "large.png")], "expected": "cat", "before": "dog", "after": "cat"}
    row |= {"regions": {"expected": [box], "before": [point], "after": [turned_round]}}
    RunFolder(run.folder).write_predictions([row])
    page = page_of(run)
    (drawing,) = page.all("svg")
    assert drawing["viewbox"] == "0 0 1600 1200"
    (embedded,) = page.all("image")
    assert (embedded["width"], embedded["height"]) == ("1600", "1200")
    small = Image.open(io.BytesIO(base64.b64decode(embedded["href"].split(",")[1])))
    assert small.size == (640, 480)
    place = {"x": "400", "y": "300", "width": "800", "height": "600"}
    assert page.all("rect") == [place, place]
    assert [(circle["cx"], circle["cy"]) for circle in page.all("circle")] == [("80.5", "60")]
    assert "after training ✓ right cat cat [1200, 900, 400, 300] in pixels of the original image" in page.text


def test_a_box_without_its_picture_is_told_in_words(run):
    row = GROUNDED | {"images": ["gone.png"], "expected": "cat", "before": None, "after": "cat"}
    row |= {"regions": {"expected": [{"label": "cat", "coordinates": [1, 2, 3, 4]}], "before": [], "after": []}}
    RunFolder(run.folder).write_predictions([row])
    page = page_of(run)
    assert page.all("rect") == []
    assert "image cannot be read" in page.text
    assert "cat [1, 2, 3, 4] in pixels of the original image" in page.text


def test_words_in_angle_brackets_are_shown(run):
    row = GROUNDED | {"images": [], "prompt": "Find <ref-object>", "expected": "<box>", "before": None, "after": "<b>x"}
    RunFolder(run.folder).write_predictions([row])
    assert "Find <ref-object> expected <box> after training ✗ wrong <b>x e.jsonl, line 1" in page_of(run).text


def test_a_long_answer_is_folded_and_whole():
    assert folded("Red. " * 20) == Folded("Red. " * 20)
    for text in ("no end " * 256, "no end\n" * 30):
        found = folded(text)
        assert found.start + found.rest == text
        assert 0 < len(found.start) <= 300
        assert found.start.count("\n") < 8


def test_a_long_answer_opens_on_the_page(run):
    row = GROUNDED | {"images": [], "expected": "Red.", "before": None, "after": "no end " * 256}
    RunFolder(run.folder).write_predictions([row])
    page = page_of(run)
    assert page.all("details") == [{"class": "rest"}]
    assert "… 1,492 more characters" in page.text


def test_each_answer_of_a_conversation_has_its_number(run):
    row = GROUNDED | {"images": [], "expected": "Red.", "before": None, "after": "Red."}
    RunFolder(run.folder).write_predictions([row, row | {"turn": 2}])
    assert "e.jsonl, line 1 Where?" in page_of(run).text
    assert "e.jsonl, line 1, answer 2" in page_of(run).text


def of_sources(step: int, *scores: float) -> dict:
    names = ("receipts.jsonl", "cats.jsonl")
    return evaluation_row(step, sum(scores) / 2) | {
        "eval_sources": {
            name: {"exact_match": score, "token_accuracy": 0.5, "loss": 1 - score, "samples": 60}
            for name, score in zip(names, scores, strict=True)
        }
    }


def test_each_source_has_its_held_out_score(run):
    metrics = MetricsFile()
    metrics.start(run)
    metrics.log(of_sources(0, 0.0, 0.1))
    assert "receipts.jsonl 60 0.0 % 50.0 % 1.0000" in page_of(run).text
    metrics.log(of_sources(40, 1.0, 0.2))
    text = page_of(run).text
    assert "source samples exact match token accuracy loss" in text
    assert "receipts.jsonl 60 0.0 % → 100.0 % 50.0 % → 50.0 % 1.0000 → 0.0000" in text
    assert "cats.jsonl 60 10.0 % → 20.0 % 50.0 % → 50.0 % 0.9000 → 0.8000" in text


@pytest.mark.parametrize(("step", "name"), [(0, "Held-out exact match before training"), (40, "Held-out exact match")])
def test_a_single_evaluation_is_no_change(run, step, name):
    metrics = MetricsFile()
    metrics.start(run)
    row = evaluation_row(step, 0.0)
    metrics.log(row)
    before, after = (row, None) if step == 0 else (None, row)
    RunFolder(run.folder).write_summary({**SUMMARY, "metrics": {"before": before, "after": after}})
    text = page_of(run).text
    assert f"{name} 0.0 %" in text
    assert "→" not in text


def test_the_best_checkpoint_on_disk_is_named(run):
    RunFolder(run.folder).write_config({**run.config, "train": {"best_metric": "eval_loss"}})
    for step, loss in ((20, 0.5), (40, 0.25), (60, 0.75)):
        folder = run.folder / "checkpoints" / f"step-{step}"
        folder.mkdir(parents=True)
        (folder / "evaluation.json").write_text(json.dumps({"eval_loss": loss}))
    assert "Best checkpoint (loss 0.2500) step-40" in page_of(run).text
    (run.folder / "checkpoints" / "step-40").rename(run.folder / "checkpoints" / "moved")
    assert "Best checkpoint (loss 0.5000) step-20" in page_of(run).text


def test_how_to_repeat_it(run, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "qwenvl_train", "+recipe=sft_lora", "run_name=my run"])
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    folder = RunFolder(run.folder)
    folder.write_config(run.config)
    adapter = {"path": "first/step-9", "base_model": "m", "adapter": "trained further"}
    folder.write_environment([], {"processes": 1}, {"model": adapter, "recipe": "sft_lora"})
    text = page_of(run).text
    assert "started from LoRA adapter first/step-9 for m, trained further" in text
    assert "command python -m qwenvl_train +recipe=sft_lora 'run_name=my run'" in text
    assert f"working directory {Path.cwd()} recipe sft_lora" in text
    assert f"train with the same settings again qwenvl-train +recipe={run.folder}/config.yaml" in text
    assert re.search(r"versions Python \d\S+, qwenvl-train \S+, torch \S+, transformers", text)


def test_an_executable_script_is_repeated_without_its_interpreter(monkeypatch, tmp_path):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    script = tmp_path / "qwenvl-train"
    script.write_text("")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "orig_argv", ["/usr/bin/python", str(script), "+recipe=sft_lora"])
    assert command() == [str(script), "+recipe=sft_lora"]
