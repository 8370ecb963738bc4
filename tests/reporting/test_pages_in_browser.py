"""The report in a browser: what a reader does with the mouse, the keyboard and a finger."""

import json
import threading
from pathlib import Path

import pytest

from qwenvl_train.reporting.folder import read_json_lines, write_json_lines_atomic
from qwenvl_train.reporting.pages.report import write_report
from qwenvl_train.reporting.reporter import RunInfo
from qwenvl_train.verbs.watch import open_server

from .browser import chromium, needs_chromium, opened
from .rows import COMPONENTS, CONFIG, write_run

expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = needs_chromium
LIGHT = "rgb(246, 247, 249)"


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A run that was resumed at step 60, has a spike at step 77, and a score for each answer."""
    where = tmp_path_factory.mktemp("pages")
    run = where / "receipts"
    run.mkdir()
    write_run(RunInfo("receipts", run, CONFIG, COMPONENTS, 120, 0), where)
    rows = read_json_lines(run / "metrics.jsonl")
    for row in rows:
        if row["step"] == 77:
            row |= {"loss": 2.5, "loss_spike": True}
    write_json_lines_atomic(run / "metrics.jsonl", rows)
    environment = json.loads((run / "environment.json").read_text())
    environment |= {
        "starts": [{"step": 0}, {"step": 60}],
        "changes": {"deepspeed.gather_on_save": [True, False], "lora.rank": [16, 8]},
    }
    (run / "environment.json").write_text(json.dumps(environment))
    answers = read_json_lines(run / "predictions.jsonl")
    for number, answer in enumerate(answers):
        answer["scores"] = {"before": {"anls": 0.0}, "after": {"anls": (0.75, 0.25, 1.0)[number]}}
    answers[2]["source"] = "receipts/other.jsonl"
    box = {"label": "total", "coordinates": [50, 480, 300, 540]}
    answers[0]["regions"] = {"expected": [box], "before": [], "after": []}
    write_json_lines_atomic(run / "predictions.jsonl", answers)
    write_report(run)
    return run


@pytest.fixture
def page(browser, folder):
    with opened(browser, f"file://{folder}/report.html") as found:
        yield found


def place(page, chart: int, across: float, down: float = 0.5) -> tuple[float, float]:
    """Return a point over a chart, in pixels of the window."""
    box = page.locator(".u-over").nth(chart).bounding_box()
    return box["x"] + across * box["width"], box["y"] + down * box["height"]


def captions(page) -> list[str]:
    return [" ".join(one.inner_text().split()) for one in page.locator("figcaption").all()]


def test_the_cursor_of_one_chart_is_that_of_all(page):
    page.locator(".u-over").first.scroll_into_view_if_needed()
    page.mouse.move(*place(page, 0, 0.5))
    expect(page.locator("figcaption .step").nth(1)).to_have_text("step 60")
    assert captions(page)[:2] == [
        "Loss training 0.3200 held out 0.2545 ○ 1 spike step 60 log",
        "Held-out score exact match 48.8 % token accuracy 64.4 % step 60 log",
    ]
    page.mouse.move(*place(page, 0, 77 / 120))
    expect(page.locator("figcaption .step").first).to_have_text("loss spike at step 77")


def test_dragging_zooms_all_charts_and_a_double_click_shows_all(page):
    show_all = page.get_by_role("button", name="show all")
    page.locator(".u-over").first.scroll_into_view_if_needed()
    page.mouse.move(*place(page, 0, 0.25))
    page.mouse.down()
    page.mouse.move(*place(page, 0, 0.5), steps=4)
    page.mouse.up()
    expect(show_all).to_be_enabled()
    page.mouse.move(*place(page, 1, 0.5))  # of the steps 30 to 60, the evaluation at 40 is the nearest
    expect(page.locator("figcaption .step").nth(1)).to_have_text("step 40")
    page.mouse.dblclick(*place(page, 1, 0.5))
    expect(show_all).to_be_disabled()


def test_the_keyboard_moves_the_cursor_and_zooms(page):
    page.locator(".plot").first.focus()
    page.keyboard.press("Home")
    expect(page.locator("figcaption .step").first).to_have_text("step 0")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.locator("figcaption .step").first).to_have_text("step 2")
    page.keyboard.press("+")
    expect(page.get_by_role("button", name="show all")).to_be_enabled()
    page.keyboard.press("End")
    expect(page.locator("figcaption .step").first).to_have_text("step 61")
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="show all")).to_be_disabled()


def test_keys_of_the_browser_stay_its_own(page):
    page.locator(".plot").first.focus()
    page.evaluate("addEventListener('keydown', event => window.prevented = event.defaultPrevented)")
    for key, prevented in (("Control+Minus", False), ("Alt+ArrowRight", False), ("Minus", True)):
        page.keyboard.press(key)
        assert page.evaluate("window.prevented") is prevented


def test_a_key_does_nothing_where_no_point_is_shown(page):
    """Of the evaluations every 20 steps, none is between the steps 42 and 58."""
    page.locator(".u-over").first.scroll_into_view_if_needed()
    page.mouse.move(*place(page, 0, 42 / 120))
    page.mouse.down()
    page.mouse.move(*place(page, 0, 58 / 120), steps=4)
    page.mouse.up()
    page.mouse.move(0, 0)
    page.locator(".plot").nth(1).focus()
    page.keyboard.press("Home")
    page.keyboard.press("+")
    page.locator(".plot").first.focus()
    page.keyboard.press("Home")
    step = int(page.locator("figcaption .step").first.inner_text().split()[1])
    assert 42 <= step <= 58


def test_smoothing_changes_training_lines_and_not_those_of_evaluations(page):
    before = captions(page)
    page.get_by_label("smoothing").fill("0.9")
    expect(page.locator(".curves output")).to_have_text("0.90")
    after = captions(page)
    assert after[0].split()[2] != before[0].split()[2]
    assert after[0].split()[3:6] == before[0].split()[3:6] == ["held", "out", "0.0209"]
    assert after[1] == before[1]
    page.get_by_label("smoothing").fill("0")
    assert captions(page) == before


def test_a_line_can_be_hidden_and_a_scale_be_linear(page):
    def pixels() -> bytes:
        return page.locator(".plot").first.screenshot()

    log = page.get_by_role("button", name="logarithmic scale").first
    assert log.get_attribute("aria-pressed") == "true"
    logarithmic = pixels()
    log.click()
    assert log.get_attribute("aria-pressed") == "false"
    linear = pixels()
    assert linear != logarithmic
    page.get_by_role("button", name="held out").first.click()
    assert pixels() != linear


def test_answers_are_filtered_sorted_and_enlarged(page):
    def shown() -> list[str]:
        return [one.inner_text() for one in page.locator("article:visible .answers > .origin").all()]

    page.get_by_role("button", name="wrong 1").click()
    assert shown() == ["receipts/eval.jsonl, line 2"]
    page.get_by_role("button", name="all 3").click()
    page.get_by_label("order").select_option("lowest score first")
    expect(page.get_by_label("metric")).to_have_value("anls")
    assert [text[-1] for text in shown()] == ["2", "1", "3"]
    page.get_by_label("metric").select_option("any")
    expect(page.get_by_label("order")).to_have_value("")
    assert [text[-1] for text in shown()] == ["1", "2", "3"]
    page.get_by_label("order").select_option("lowest score first")
    page.get_by_label("source").select_option("receipts/other.jsonl")
    assert [text[-1] for text in shown()] == ["3"]
    expect(page.locator(".gallery output")).to_have_text("1 shown")
    page.get_by_label("source").select_option("all")
    page.get_by_label("find in texts").fill("7.85")
    assert [text[-1] for text in shown()] == ["2"]
    page.get_by_label("find in texts").fill("")
    page.get_by_role("button", name="enlarge").first.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("line 2")
    assert dialog.locator("img").bounding_box()["height"] > 400
    page.keyboard.press("ArrowRight")
    expect(dialog).to_contain_text("line 1")
    assert dialog.locator("rect").count() == 1
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_a_command_is_copied(browser, folder):
    with opened(browser, f"file://{folder}/report.html", permissions=["clipboard-read", "clipboard-write"]) as page:
        page.get_by_role("button", name="copy the command: ask it").click()
        assert page.evaluate("navigator.clipboard.readText()") == f"qwenvl-train chat run={folder}"


@pytest.mark.parametrize("width", [360, 820, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_window(browser, folder, width, scheme):
    settings = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
    with opened(browser, f"file://{folder}/report.html", **settings) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (colour == LIGHT) is (scheme == "light")


def test_a_finger_zooms(browser, folder):
    settings = {"viewport": {"width": 390, "height": 800}, "has_touch": True, "is_mobile": True}
    with opened(browser, f"file://{folder}/report.html", **settings) as page:
        page.locator(".u-over").first.scroll_into_view_if_needed()
        finger = page.context.new_cdp_session(page)
        points = [place(page, 0, across) for across in (0.3, 0.45, 0.6)]
        for kind, point in (("touchStart", points[0]), ("touchMove", points[1]), ("touchMove", points[2])):
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": point[0], "y": point[1]}]})
        finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        expect(page.get_by_role("button", name="show all")).to_be_enabled()


def test_paper_is_light_and_has_the_curves(browser, folder):
    with opened(browser, f"file://{folder}/report.html", color_scheme="dark") as page:
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == LIGHT
        expect(page.locator(".controls").first).to_be_hidden()
        assert page.locator("canvas").first.is_visible()


LINES = """text => {
  const range = document.createRange();
  range.selectNodeContents(text);
  return new Set([...range.getClientRects()].map(box => Math.round(box.top))).size;
}"""
"""Counts the lines that a text takes."""


@pytest.mark.parametrize("width", [390, 1280])
def test_names_of_settings_and_commands_do_not_break_inside_a_word(width, browser, folder):
    with opened(browser, f"file://{folder}/report.html", viewport={"width": width, "height": 800}) as page:
        for name in page.locator(".changes td:first-child").all():
            assert name.evaluate(LINES) == 1
        for command in page.locator(".command code").all():
            assert width > 600 or command.evaluate(LINES) == 1
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator(".command button").first.is_visible()


def test_a_page_that_is_watched_follows_the_run(browser, folder, tmp_path):
    run = tmp_path / "receipts"
    run.mkdir()
    rows = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    answers = (folder / "predictions.jsonl").read_text(encoding="utf-8")
    (run / "config.yaml").write_bytes((folder / "config.yaml").read_bytes())
    server = open_server(run, "0")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with opened(browser, f"http://127.0.0.1:{server.server_address[1]}/") as page:
        expect(page.locator("header .badge")).to_have_text("not finished")
        assert page.locator("figure").count() == 0
        (run / "metrics.jsonl").write_text("".join(rows[:62]))
        expect(page.locator("figcaption .step").first).to_have_text("step 59")
        page.get_by_label("smoothing").fill("0.5")
        (run / "metrics.jsonl").write_text("".join(rows))
        (run / "predictions.jsonl").write_text(answers, encoding="utf-8")
        page.get_by_role("button", name="wrong 1").click()
        expect(page.locator("figcaption .step").first).to_have_text("step 120")
        assert page.get_by_label("smoothing").input_value() == "0.5"
        (run / "predictions.jsonl").write_text(answers.replace('"12.80"', '"12.81"', 1), encoding="utf-8")
        expect(page.locator(".gallery output")).to_have_text("2 shown")
        page.get_by_label("find in texts").focus()
        (run / "predictions.jsonl").write_text(answers, encoding="utf-8")
        expect(page.locator(".gallery output")).to_have_text("1 shown")
        expect(page.get_by_label("find in texts")).to_be_focused()
        speed = page.locator("figcaption", has_text="Tokens per second")
        expect(speed).to_be_visible()
        (run / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n')  # the run has been started from the beginning
        expect(speed).to_be_hidden()
        (run / "summary.json").write_bytes((folder / "summary.json").read_bytes())
        expect(page.locator("header .badge")).to_have_text("done")
        server.shutdown()
        server.server_close()
        expect(page.locator("header .badge")).to_have_class("badge good lost")
