import base64
import io
import json
import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.vision_utils import get_vision_window_index

from qwenvl_train.verbs.inspect.facts import Broken
from qwenvl_train.verbs.inspect.media import Windows, encoded, window_bounds
from qwenvl_train.verbs.inspect.page import DrawnSample, Heading, stretches, write_page
from tests.reporting.browser import chromium, needs_chromium, opened
from tests.reporting.test_report import EVIL, Page

from .samples import CLIP, MARK, PICTURE, drawn, overview, sample

HEADING = Heading("Qwen2.5-VL (here)", "rows.jsonl", ["rows.jsonl: 3 rows, messages"], Windows(2, [1, 3]))


def page_of(tmp_path, items, heading=HEADING, overview=None) -> Page:
    path = tmp_path / "page.html"
    write_page(path, heading, items, overview)
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture
def page(tmp_path) -> Page:
    return page_of(tmp_path, [(sample(), drawn())], overview=overview())


def pixels(uri: str) -> np.ndarray:
    kind, data = uri.split(",")
    assert kind in ("data:image/png;base64", "data:image/jpeg;base64")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_pictures_and_frames_are_exactly_what_was_handed_over(page):
    shown = [pixels(image["href"]) for image in page.all("image")]
    given = [frame for frames in drawn().pixels for frame in frames]
    assert len(shown) == len(given) == 5
    for one, other in zip(shown, given, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_large_photo_is_stored_small_and_nearly_without_loss():
    y, x = np.mgrid[0:600, 0:800]
    photo = np.stack([128 + 90 * np.sin(x / 37), 128 + 90 * np.cos(y / 53), 128 + 60 * np.sin((x + y) / 29)], axis=-1)
    photo = (photo + np.random.default_rng(0).normal(0, 2, photo.shape)).clip(0, 255).astype(np.uint8)
    same = encoded(photo, 480_000)
    assert len(same) < 400_000
    error = np.abs(pixels(same).astype(int) - photo)
    assert (error.mean(), error.max()) < (2, 30)  # 1.6 and 20
    assert pixels(encoded(photo, 120_000)).shape == (300, 400, 3)


@needs_chromium
def test_no_line_covers_a_picture(page, tmp_path):
    with chromium() as browser, opened(browser, f"file://{tmp_path}/page.html") as found:
        fills = found.locator("svg path").evaluate_all("paths => paths.map(path => getComputedStyle(path).fill)")
    assert fills
    assert set(fills) == {"none"}


def test_the_grid_has_a_line_between_all_tokens(page):
    of_picture, *of_frames = [path["d"] for path in page.all("path") if path["class"] == "lines"]
    assert of_picture == "M0,28H84M28,0V56M56,0V56"
    assert of_frames == [""] * 4


def test_windows_are_cut_at_the_border(page):
    first = next(path["d"] for path in page.all("path") if path["class"] == "windows")
    assert first == "M0,0H56V56H0ZM56,0H84V56H56Z"
    assert "windows of 2×2 tokens; blocks 1, 3 attend to the whole image" in page.text


@pytest.mark.parametrize("grid", [(1, 4, 6), (1, 16, 16), (1, 18, 34), (1, 2, 2), (3, 10, 24)])
@pytest.mark.parametrize("window", [56, 112])
def test_windows_are_those_of_the_model(grid, window):
    """Every window of transformers is one of ours, as the set of its merged tokens."""
    side = window // 2 // 14
    index, ends = get_vision_window_index(torch.tensor([grid]), 2, window, 14)
    ends = (ends // 4).tolist()
    theirs = {frozenset(index[start:stop].tolist()) for start, stop in pairwise(ends)}
    rows, columns = grid[1] // 2, grid[2] // 2
    ours = {
        frozenset(
            layer * rows * columns + row * columns + column
            for row in range(top, bottom)
            for column in range(left, right)
        )
        for layer in range(grid[0])
        for top, left, bottom, right in window_bounds(rows, columns, side)
    }
    assert ours == theirs


def test_without_windows_there_is_no_word_of_them(tmp_path):
    page = page_of(tmp_path, [(sample(), drawn())], heading=Heading("Qwen3-VL", "rows.jsonl", [], None))
    assert "windows" not in page.text
    assert not [path for path in page.all("path") if path["class"] == "windows"]


def test_boxes_are_drawn_where_the_written_numbers_lie(page):
    (box,) = [path for path in page.all("path") if path["class"].startswith("mark")]
    assert box["d"] == "M8.00,6.00H42.00V28.00H8.00Z"
    assert f"box cat: [9, 6, 45, 30] in pixels of the original, written as {list(MARK.written)}" in page.text


def test_media_say_their_sizes_and_times(page):
    assert "image 1 cat.png 90×60 → 84×56, 2×3 = 6 tokens, 2 windows" in page.text
    assert "video 1 4 images 30×30 → 28×28, 2×1×1 = 2 tokens, 1 window 4 frames from 0.0 to 1.5 s" in page.text
    assert "0.00 s 0.50 s frame pair 1: 0.25 s 1.00 s 1.50 s frame pair 2: 1.25 s" in page.text
    assert [figure.get("title") for figure in page.all("figcaption")][-2:] == [PICTURE.path, None]


def test_every_token_stands_in_the_strip_with_its_id_label_and_positions(page, tmp_path):
    source = (tmp_path / "page.html").read_text(encoding="utf-8")
    strips = re.findall(r'<div class="strip">(.*?)</div>', source, re.DOTALL)
    parts = [part for strip in strips for part in re.findall(r"<(i|b|button)\b([^>]*)>(.*?)</\1>", strip, re.DOTALL)]
    facts = json.loads(re.search(r'<script type="application/json">(.*?)</script>', source)[1])
    item, words = sample(), iter(facts["ids"])
    ids, trained, counts = [], [], []
    for tag, attributes, _ in parts:
        tokens = int(re.search(r'data-tokens="(\d+)"', attributes)[1]) if tag == "button" else 1
        ids += [7] * tokens if tag == "button" else [next(words)]
        trained += [tag == "b"] * tokens
        counts.append(tokens)
    assert ids == item.input_ids.tolist()
    assert trained == item.trained.tolist()
    assert next(words, None) is None
    positions = [[first + step * n for first, step, many in row for n in range(many)] for row in facts["positions"]]
    assert positions == item.position_ids.tolist()
    starts = [int(svg["data-start"]) for svg in page.all("svg") if "data-start" in svg]
    pads = np.flatnonzero(item.input_ids == 7).tolist()
    assert starts == [pads[0], pads[6], pads[6], pads[7], pads[7]]


def test_the_strip_shows_what_cannot_be_seen(tmp_path, page):
    source = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert '<i>user</i><i>⏎\n</i><i class="c">&lt;|vision_start|&gt;</i><button type="button"' in source
    assert '<b>A</b><b> cat</b><b>·</b><b>é.</b><b class="c">&lt;|im_end|&gt;</b><i>⏎\n</i>' in source
    assert "<b>␛[31m&lt;b&gt;not&lt;/b&gt;</b>" in source
    assert ">video 1, frame pair 2 · 1 token</button>" in source


@pytest.mark.parametrize("row", [[0, 1, 2, 3], [5], [4, 4, 4, 5, 5], [0, 2, 3, 9, 9], [3, 4, 3, 4], [0, 0, 1, 2, 2, 2]])
def test_rows_of_positions_are_told_in_stretches(row):
    found = stretches(np.array(row))
    assert [first + step * n for first, step, many in found for n in range(many)] == row


def test_positions_of_a_large_picture_take_little_room():
    rows, columns = np.indices((40, 60)).reshape(2, -1)
    assert len(stretches(rows)) == 40
    assert len(stretches(columns)) == 40
    assert len(stretches(np.arange(9000))) == 1


def test_only_some_frame_pairs_of_a_long_clip_are_shown_and_the_page_says_so(tmp_path):
    item = sample()
    layers = 100
    long = CLIP.__class__(
        "long.mp4", (30, 30), (28, 28), (layers, 2, 2), 28, layers, tuple(n / 4 for n in range(2 * layers)), 4.0,
        tuple(n / 2 for n in range(layers)),
    )  # fmt: skip
    span = next(span for span in item.spans if span.medium == 1)
    spans = tuple(
        span.__class__(10 + span.start, 10 + span.start + layers, False, True, 1, "") if other is span else other
        for other in item.turns[0].spans
        if other.medium != 1 or other is span
    )
    changed = item.__class__(
        **{**vars(item), "media": (PICTURE, long), "turns": (item.turns[0].__class__("user", spans), *item.turns[1:])}
    )
    frames = [np.full((28, 28, 3), number, dtype=np.uint8) for number in range(2 * layers)]
    page = page_of(tmp_path, [(changed, DrawnSample([""] * 400, [drawn().pixels[0], frames]))])
    shown = [int(pixels(image["href"])[0, 0, 0]) for image in page.all("image")[1:]]
    assert len(shown) == 48
    assert shown[:2] + shown[-2:] == [0, 1, 198, 199]
    assert all(second == first + 1 and first % 2 == 0 for first, second in zip(shown[::2], shown[1::2], strict=True))
    assert "76 frame pairs are not shown" in page.text


def test_figures_of_the_whole_source(page):
    for text in (
        "Samples 100", "Tokens 50,500", "Supervised 10.0 %", "Median length 500", "Longest 1,000",
        "Packed rows filled 98.5 %", "Micro-batches in an epoch 13", "rows.jsonl: 3 rows, messages",
        "data.max_length, 2 samples downscaled and 1 row too long",
        "3 rows cannot be trained on; a run leaves them out and lists them in skipped.jsonl rows.jsonl:7 (id x)",
    ):  # fmt: skip
        assert text in page.text
    assert [svg["aria-label"] for svg in page.all("svg")][:2] == ["Tokens in a sample", "Filled share of a micro-batch"]
    assert sum(int(bar["data-tip"].split(" ")[0]) for bar in page.all("rect") if "data-tip" in bar) == 100 + 3


def test_without_a_summary_only_samples_are_shown(tmp_path):
    page = page_of(tmp_path, [(sample(problem="too long", shrink=0.5), drawn())])
    assert not page.all("dl")
    assert "Cannot be trained on: too long" in page.text
    assert "downscaled to 50.0 % of the pixels" in page.text


def test_a_broken_row_has_its_place(tmp_path):
    page = page_of(tmp_path, [(sample(), drawn()), Broken("b", "rows.jsonl", 4, "rows.jsonl:4 (id b): no such file.")])
    assert "2 rows.jsonl:4 id b Cannot be trained on: rows.jsonl:4 (id b): no such file." in page.text


def test_the_page_needs_nothing_from_outside(page, tmp_path):
    source = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|@import|url\(|<link|<script[^>]+src|fetch\(", source)


def test_every_text_is_escaped(tmp_path):
    item = sample(problem=EVIL)
    mark = MARK.__class__(**{**vars(MARK), "label": EVIL})
    picture = PICTURE.__class__(**{**vars(PICTURE), "path": EVIL})
    evil = item.__class__(
        **{**vars(item), "id": EVIL, "source": EVIL, "marks": (mark,), "media": (picture, CLIP),
           "turns": (item.turns[0].__class__(EVIL, item.turns[0].spans), *item.turns[1:])}
    )  # fmt: skip
    texts = [EVIL if text else "" for text in drawn().texts]
    items = [(evil, DrawnSample(texts, drawn().pixels)), Broken(EVIL, EVIL, 1, EVIL)]
    page = page_of(tmp_path, items, Heading(EVIL, EVIL, [EVIL], None), overview(problems=[EVIL], consequence=EVIL))
    assert len(page.all("script")) == 2
    assert page.all("img") == []
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert page.texts.count(EVIL) >= 20


def test_a_page_that_cannot_be_made_leaves_the_old_one(tmp_path):
    page_of(tmp_path, [(sample(), drawn())])
    before = (tmp_path / "page.html").read_text(encoding="utf-8")

    def failing():
        yield sample(), drawn()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_page(tmp_path / "page.html", HEADING, failing(), None)
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == before
