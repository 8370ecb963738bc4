"""`qwenvl-train inspect`, through the whole command."""

import base64
import io
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoTokenizer

from qwenvl_train.config.compose import compose
from qwenvl_train.data.index import measure
from qwenvl_train.data.media.pictures import PictureSize, load_pixels
from qwenvl_train.data.render.layout import IGNORED
from qwenvl_train.data.samples import Samples
from qwenvl_train.data.streaming import windows
from qwenvl_train.model.pretrained import load_family
from qwenvl_train.model.processor import load_processor
from qwenvl_train.run.rows import make_renderer
from qwenvl_train.verbs.inspect.settings import INSPECT
from tests.conftest import conversation, two_families_by_day
from tests.reporting.test_report import Page
from tests.videos import number_of, write_video

TOOL = {"type": "function", "function": {"name": "zoom", "parameters": {"type": "object"}}}
KEYS = ["id", "source", "line", "length", "input_ids", "labels", "position_ids", "supervised_text", "images", "videos"]


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> Path:
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", frames=40, fps=8)


@pytest.fixture(scope="session")
def rows(pictures, clip) -> list[dict]:
    inline = "data:image/png;base64," + base64.b64encode(pictures[0].read_bytes()).decode()
    a, b, c, d = pictures
    grounded = conversation(("user", [d, "Where?"]), ("assistant", ["x"]), id="boxes")
    grounded["messages"][1]["content"] = [
        {"type": "text", "text": "Here: "},
        {"type": "objects", "objects": [{"bbox_2d": [20, 12, 100, 60], "label": "cat"}]},
    ]
    tools = conversation(
        ("user", [a, "Look."]), ("assistant", ["I zoom."]), ("tool", ["Done."]), ("assistant", ["Red."]), id="tools"
    )
    embedded = conversation(("user", ["What?"]), ("assistant", ["Red."]), id="embedded")
    embedded["messages"][0]["content"].insert(0, {"type": "image", "image": inline})
    frames = conversation(("user", ["What?"]), ("assistant", ["Red."]), id="frames")
    frames["messages"][0]["content"].insert(0, {"type": "video", "video": [str(a), inline], "fps": 2})
    turns = conversation(
        ("user", ["Hi"]), ("assistant", ["Not this."]), ("user", ["So?"]), ("assistant", ["This é…"]), id="turns"
    )
    turns["messages"][1]["train"] = False
    return [
        conversation(("user", ["Say <|image_pad|>"]), ("assistant", ["<|im_start|>no"]), id="text"),
        conversation(("user", [a, b, c, "Which?"]), ("assistant", ["The third."]), id="three"),
        conversation(("user", [clip, "What?"]), ("assistant", ["Blocks."]), id="video"),
        conversation(("user", [b, "A", clip, "B"]), ("assistant", ["Both."]), id="both"),
        grounded,
        {**tools, "tools": [TOOL]},
        embedded,
        frames,
        turns,
    ]


def samples_and_renderer(words: list[str]):
    config = compose(words, INSPECT).config
    family = load_family(config.model)
    processor = load_processor(config.model, family)
    return Samples(config.data.train, "data.train", False, config.cache_folder), make_renderer(
        config, processor, family
    )


def spans(labels: np.ndarray) -> list[list[int]]:
    cuts = np.flatnonzero(np.diff(labels != IGNORED)) + 1
    return [part.tolist() for part in np.split(labels, cuts) if part[0] != IGNORED]


def test_json_is_the_renderers_own_layout(model_type, checkpoints, rows, write_rows, pictures, clip, inspect):
    words = [f"model.path={checkpoints[model_type]}", f"data.train={write_rows(rows)}"]
    out, err = inspect(*words, "output=json", "inspect.samples=null")
    found = [json.loads(line) for line in out.splitlines()]
    assert (len(found), err) == (len(rows), "")
    samples, renderer = samples_and_renderer(words)
    tokenizer = AutoTokenizer.from_pretrained(checkpoints[model_type])
    for place, row in enumerate(found):
        sample = samples[place]
        layout = renderer.layout(sample)
        assert list(row) == KEYS
        assert (row["id"], row["source"], row["line"]) == (rows[place]["id"], samples.names()[0], place + 1)
        assert row["length"] == layout.length == len(row["input_ids"])
        assert row["input_ids"] == layout.input_ids.tolist()
        assert row["labels"] == layout.labels.tolist()
        assert row["position_ids"] == layout.position_ids.tolist()
        assert row["supervised_text"] == [tokenizer.decode(span) for span in spans(layout.labels)]
        pictures_of_row = [
            (*map(tuple, (p["original"], p["resized"], p["grid_thw"])), p["tokens"]) for p in row["images"]
        ]
        assert pictures_of_row == [(size.original, size.resized, size.grid, size.tokens) for size in layout.pictures]
        clips_of_row = [
            (v["frames"], v["fps"], *map(tuple, (v["resized"], v["grid_thw"], v["timestamps"])), v["tokens"])
            for v in row["videos"]
        ]
        assert clips_of_row == [
            (len(size.frames), size.sampled_fps, size.resized, size.grid, size.timestamps, size.tokens)
            for size in layout.clips
        ]
    by_id = {row["id"]: row for row in found}
    assert by_id["turns"]["supervised_text"] == ["This é…<|im_end|>"]
    assert len(by_id["tools"]["supervised_text"]) == 2
    assert [picture["path"] for picture in by_id["three"]["images"]] == [str(path) for path in pictures[:3]]
    assert by_id["three"]["images"][1]["original"] == [61, 130]
    assert by_id["embedded"]["images"][0]["path"] is None
    assert by_id["video"]["videos"][0]["path"] == str(clip)
    assert by_id["frames"]["videos"][0]["path"] == [str(pictures[0]), None]
    assert list(by_id["video"]["videos"][0]) == [
        "path", "frames", "fps", "resized", "grid_thw", "tokens", "timestamps"
    ]  # fmt: skip


def test_the_page_shows_the_pixels_the_boxes_and_the_frames(
    model_type, checkpoints, rows, write_rows, inspect, tmp_path
):
    words = [f"model.path={checkpoints[model_type]}", f"data.train={write_rows(rows)}"]
    page_file = tmp_path / "page.html"
    out, _ = inspect(*words, "output=html", "inspect.ids=[three,video,boxes]", f"inspect.file={page_file}")
    assert out == f"written to {page_file}\n"
    page = Page(page_file.read_text(encoding="utf-8"))
    shown = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(image["href"].split(",")[1])))) for image in page.all("image")
    ]
    samples, renderer = samples_and_renderer(words)
    for place, (image, size) in enumerate(zip(samples[1].images, renderer.layout(samples[1]).pictures, strict=True)):
        assert isinstance(size, PictureSize)
        np.testing.assert_array_equal(shown[place], load_pixels(image, size, "here"))
    (clip_size,) = renderer.layout(samples[2]).clips
    frames = shown[3 : 3 + len(clip_size.frames)]
    enlarged = [np.asarray(Image.fromarray(frame).resize((160, 120))) for frame in frames]
    assert [number_of(frame) for frame in enlarged] == list(clip_size.frames)
    for frame in clip_size.frames:
        assert f"{frame / 8:.2f} s" in page.text
    (size,) = renderer.layout(samples[4]).pictures
    (box,) = [path["d"] for path in page.all("path") if path["class"].startswith("mark")]
    drawn = [float(number) for number in re.findall(r"[\d.]+", box)][:4]
    height, width = size.resized
    expected = [20 * width / 200, 12 * height / 120, 100 * width / 200, 60 * height / 120]
    assert drawn == pytest.approx(expected, abs=0.51)
    windows = [path for path in page.all("path") if path["class"] == "windows"]
    assert bool(windows) == (model_type == "qwen2_5_vl")


def test_text_names_each_picture_where_it_went(checkpoints, rows, write_rows, inspect):
    path = write_rows(rows)
    out, err = inspect(f"model.path={checkpoints['qwen2_5_vl']}", f"data.train={path}", "inspect.samples=null")
    assert f"{path}: 9 rows, messages: rows have 'messages' with 'role' and 'content'\n" in out
    assert f"--- 2 of 9  {path}:2  id three\n" in out
    assert re.search(
        r"user\n    <\|vision_start\|>\[image 1: 0\.png 84×84 → \d+×\d+, \d+ tokens\]<\|vision_end\|>", out
    )
    assert re.search(
        r"\[video 1: clip\.mp4 160×120 → \d+×\d+, \d+ frames from 0\.0 to 4\.9 s, 2 per second, \d+ tokens\]", out
    )
    assert "    ⟦The third.<|im_end|>⟧\n" in out
    assert "Not this.<|im_end|>\n" in out
    assert "    Say <|image_pad|><|im_end|>\n" in out
    assert "in the row 84×84" in out
    assert "--- all rows\n9 rows, 9 of them can be trained on" in out
    assert err == ""


@pytest.fixture
def few(write_rows):
    return write_rows(
        [conversation(("user", ["What? " * n]), ("assistant", ["Red."]), id=f"row {n}") for n in range(1, 41)]
    )


def ids(out: str) -> list[str]:
    return [json.loads(line)["id"] for line in out.splitlines()]


def test_rows_by_the_seed_are_shown_unless_others_are_chosen(few, checkpoints, inspect, tmp_path):
    def chosen(*words: str) -> list[str]:
        return ids(inspect(f"model.path={checkpoints['qwen2_vl']}", f"data.train={few}", "output=json", *words)[0])

    drawn = chosen()
    assert len(drawn) == 5
    assert drawn == chosen() != [f"row {n}" for n in range(1, 6)]
    assert drawn != chosen("seed=7")
    drawn = chosen("inspect.random=true", "inspect.samples=8")
    assert drawn == chosen("inspect.random=true", "inspect.samples=8")
    assert drawn != chosen("inspect.random=true", "inspect.samples=8", "seed=7")
    assert len(set(drawn)) == 8
    assert drawn == sorted(drawn, key=lambda id: int(id.split()[1]))
    assert chosen("inspect.random=true", "inspect.samples=99") == [f"row {n}" for n in range(1, 41)]
    assert chosen("inspect.ids=[row 17,row 3]") == ["row 17", "row 3"]
    assert chosen("inspect.lines=[5,2,5]") == ["row 5", "row 2"]
    assert chosen("inspect.lines='rows.jsonl:7'", "inspect.ids=row 9") == ["row 9", "row 7"]
    assert chosen("inspect.source=eval", f"data.eval={few}", "inspect.samples=1") == chosen("inspect.samples=1")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["inspect.ids=[row 3,nobody]"], "inspect.ids: no row of {few} has the id nobody."),
        (["inspect.lines=41"], "inspect.lines: there is no row at 41; {few} has 40 rows."),
        (["inspect.lines=0"], "there is no row at 0"),
        (["inspect.lines=other.jsonl:3"], "inspect.lines: other.jsonl:3 matches no file of {few}"),
        (["inspect.lines=last"], "inspect.lines: last is not a line; write 17 or my.jsonl:17."),
        (["inspect.lines=3", "data.train=[{few},{few}]"], "inspect.lines: 3 matches 2 files"),
    ],
)
def test_a_row_that_is_not_there_is_said(words, told, few, checkpoints, inspect):
    words = [word.format(few=few) for word in words]
    sources = [] if any(word.startswith("data.train") for word in words) else [f"data.train={few}"]
    out, err = inspect(f"model.path={checkpoints['qwen2_vl']}", *sources, *words, code=2)
    assert told.format(few=few) in err
    assert out.count("\n") <= 1, "but for the heading"


@pytest.fixture
def bad(pictures, tmp_path):
    half = tmp_path / "half.png"
    half.write_bytes(pictures[3].read_bytes()[:300])  # its header is whole, its pixels are not
    rows = [
        conversation(("user", ["What?"]), ("assistant", ["Red."]), id="good"),
        conversation(("user", [half, "What?"]), ("assistant", ["Red."]), id="half"),
        conversation(("user", [tmp_path / "gone.png", "What?"]), ("assistant", ["Red."]), id="gone"),
        conversation(("user", ["What? " * 200]), ("assistant", ["Red."]), id="long"),
        conversation(("user", ["What?"]), ("assistant", [""]), ("user", ["?"]), id="no answer"),
    ]
    path = tmp_path / "bad.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_broken_rows_are_shown_and_the_others_too(on_error, bad, checkpoints, inspect):
    words = [
        f"model.path={checkpoints['qwen2_5_vl']}",
        f"data.train={bad}",
        "data.max_length=120",
        f"data.on_error={on_error}",
    ]
    code = {"raise": 2, "skip": 0}[on_error]
    out, err = inspect(*words, "inspect.samples=null", "output=json", code=code)
    found = [json.loads(line) for line in out.splitlines()]
    assert [(row["id"], row["line"], "input_ids" in row) for row in found] == [
        ("good", 1, True), ("half", 2, False), ("gone", 3, False), ("long", 4, True), ("no answer", 5, False),
        (None, 6, False),
    ]  # fmt: skip
    problems = [
        "",
        "half.png cannot be decoded",
        "gone.png does not exist",
        "tokens long, but data.max_length is 120",
        "no answer",
    ]
    for row, words_of in zip(found, [*problems, "is not valid JSON"], strict=True):
        assert words_of in row.get("error", "")
    assert "5 of these 6 rows cannot be trained on" in err
    assert ("a run ends at the first of them" in err) == (on_error == "raise")

    named = ["output=json", "inspect.ids=[no answer]"]
    assert ids(inspect(*words, *named, code=code)[0]) == ["no answer"]
    assert ids(inspect(*words, *named, "data.streaming=true", "train.max_steps=1", code=code)[0]) == ["no answer"]

    text, err = inspect(*words, "inspect.samples=null", code=code)
    assert text.count("\ncannot be trained on: ") == 5
    assert f"{'4 rows' if on_error == 'raise' else '5 of these 6 rows'} cannot be trained on" in err
    # What is wrong behind a picture's header comes out when it is decoded.
    assert "6 rows, 2 of them can be trained on, judged by the headers" in text
    assert "4 rows cannot be trained on; " in text
    assert ("(data.on_error=skip leaves them out)" in text) == (on_error == "raise")
    assert "data.max_length=120: 1 row too long" in text


def test_the_summary_tells_what_a_run_would_see(few, checkpoints, inspect):
    common = [f"model.path={checkpoints['qwen2_vl']}", f"data.train={few}", "inspect.samples=0"]
    out, _ = inspect(*common, "data.packing=true", "data.max_length=128", "data.too_long=skip", "train.batch_size=1")
    found = re.search(r"an epoch has (\d+) micro-batches of 1 packed row of up to 128 tokens, ([\d.]+) % filled", out)
    tokens = int(re.search(r"([\d,]+) tokens, ", out)[1].replace(",", ""))
    assert tokens / (int(found[1]) * 128) == pytest.approx(float(found[2]) / 100, abs=0.03)
    assert "data.max_length=128: every sample fits" in out
    short, _ = inspect(*common, "data.max_length=80", "data.too_long=skip")
    assert (
        re.search(r"data.max_length=80: (\d+) rows too long\n", short)[1] == re.search(r"(\d+) rows cannot", short)[1]
    )
    assert "a run leaves them out and lists them in skipped.jsonl" in short
    held_out, _ = inspect(*common, f"data.eval={few}", "inspect.source=eval")
    assert "an epoch" not in held_out
    assert "40 rows, 40 of them can be trained on\n" in held_out


@pytest.mark.parametrize("streaming", [False, True])
def test_each_file_with_openai_s_detail_is_named_once(streaming, pictures, checkpoints, write_rows, inspect):
    def row(*details: str) -> dict:
        parts = [{"type": "image_url", "image_url": {"url": str(pictures[0]), "detail": detail}} for detail in details]
        parts.append({"type": "text", "text": "What?"})
        return {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "Red."}]}

    files = [write_rows([row(), row("low", "auto"), row("high")], "a.jsonl"), write_rows([row()], "b.jsonl")]
    common = [f"model.path={checkpoints['qwen2_vl']}", f"data.train=[{files[0]},{files[1]}]", "inspect.samples=0"]
    out, _ = inspect(*common, f"data.streaming={str(streaming).lower()}", "train.max_steps=1")
    (line,) = [line for line in out.splitlines() if "detail" in line]
    assert line.startswith(f"{files[0]}: 3 images with detail; low limits an image to 512 × 512 pixels, high and auto")


def test_the_source_is_measured_once_and_only_for_the_summary(few, checkpoints, inspect, monkeypatch, tmp_path):
    measured = []
    whole = measure._measure
    monkeypatch.setattr(measure, "_measure", lambda *given: measured.append(1) or whole(*given))
    common = [f"model.path={checkpoints['qwen2_vl']}", f"data.train={few}"]
    inspect(*common, "output=json")
    inspect(*common, "inspect.summary=false")
    assert not measured
    inspect(*common)
    inspect(*common, "output=html", f"inspect.file={tmp_path / 'page.html'}")
    assert len(measured) == 1


def test_media_made_smaller_are_shown_as_small_as_they_are(checkpoints, rows, write_rows, inspect):
    words = [f"model.path={checkpoints['qwen2_5_vl']}", f"data.train={write_rows(rows)}", "inspect.ids=three"]
    whole = json.loads(inspect(*words, "output=json")[0])
    limit = [f"data.max_length={whole['length'] - 3}", "data.too_long=downscale"]
    small = json.loads(inspect(*words, *limit, "output=json")[0])
    assert small["length"] <= whole["length"] - 3
    assert "error" not in small
    words_alone, still = (row["length"] - sum(p["tokens"] for p in row["images"]) for row in (whole, small))
    assert words_alone == still
    text, _ = inspect(*words, *limit, "inspect.summary=false")
    assert "downscaled to " in text


def test_neither_weights_nor_a_run_nor_a_process_group(few, checkpoints, inspect, monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise AssertionError("weights were asked for")

    monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", refuse)
    inspect("+recipe=sft_lora", f"model.path={checkpoints['qwen2_vl']}", f"data.train={few}", "deepspeed=zero2")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [".cache"]
    assert not torch.distributed.is_initialized()


def test_a_page_that_cannot_be_written_is_said(few, checkpoints, inspect, tmp_path):
    place = tmp_path / "nowhere" / "page.html"
    words = [f"model.path={checkpoints['qwen2_vl']}", f"data.train={few}", "output=html", f"inspect.file={place}"]
    _, err = inspect(*words, code=2)
    assert err == f"qwenvl-train: inspect.file={place} cannot be written: No such file or directory.\n"


@pytest.mark.parametrize("output", ["text", "json"])
def test_a_reader_may_leave(output, few, checkpoints, inspect, monkeypatch):
    unread, stdout = os.pipe()
    os.close(unread)
    with os.fdopen(stdout, "w") as left:
        monkeypatch.setattr(sys, "stdout", left)
        _, err = inspect(f"model.path={checkpoints['qwen2_5_vl']}", f"data.train={few}", f"output={output}")
        left.write("more, as is flushed at the end of a process")
    assert err == ""


@pytest.fixture
def short_window(monkeypatch):
    """A streamed run reads six rows first."""
    monkeypatch.setattr(windows, "_SAMPLES", 6)
    monkeypatch.setattr(windows, "_SMALL", 0)


@two_families_by_day
def test_a_stream_that_is_read_as_a_whole_shows_the_same(model_type, checkpoints, rows, write_rows, bad, inspect):
    words = [f"model.path={checkpoints[model_type]}", "inspect.samples=null", "data.packing=false"]
    words.append("train.accumulation=1")  # a stream does not fit it to the data
    for path, settings in (
        (write_rows(rows), ["data.max_length=1200"]),
        (bad, ["data.max_length=120", "data.on_error=skip"]),
    ):
        both = [*words, f"data.train={path}", *settings]
        indexed, streamed = inspect(*both, "output=json"), inspect(*both, "output=json", "data.streaming=true")
        assert streamed == indexed
        told = [re.sub("an epoch has .*\n", "", inspect(*both, *more)[0]) for more in ([], ["data.streaming=true"])]
        named = f"{path}: {{}}, messages: rows have 'messages' with 'role' and 'content'\n"
        assert told[1] == told[0].replace(
            named.format(f"{len(path.read_text().splitlines())} rows"), named.format("streamed")
        )


def test_of_a_longer_stream_the_first_rows_are_all_that_is_looked_at(
    few, checkpoints, inspect, short_window, monkeypatch, tmp_path
):
    def refuse(*_, **__):
        raise AssertionError("the source was opened by index")

    monkeypatch.setattr(Samples, "__init__", refuse)
    common = [f"model.path={checkpoints['qwen2_vl']}", f"data.train={few}", "data.streaming=true", "data.packing=false"]
    first = [f"row {n}" for n in range(1, 7)]
    rest = "the first 6 rows; the rest is not read\n"

    out, err = inspect(*common, "output=json")
    assert (len(ids(out)), set(ids(out)) - set(first), err) == (5, set(), rest)
    assert ids(inspect(*common, "output=json", "inspect.samples=null")[0]) == first
    assert ids(inspect(*common, "output=json", "inspect.ids=[row 6,row 2]", "inspect.lines=3")[0]) == [
        "row 6", "row 2", "row 3"
    ]  # fmt: skip
    drawn = [
        ids(inspect(*common, "output=json", "inspect.random=true", "inspect.samples=3", f"seed={seed}")[0])
        for seed in range(6)
    ]
    assert {id for found in drawn for id in found} == set(first)
    assert all(found == sorted(found) and len(found) == 3 for found in drawn)

    text, err = inspect(*common, "inspect.samples=1")
    assert text.split("\n", 1)[1].startswith(
        f"{few}: streamed, messages: rows have 'messages' with 'role' and 'content'\n{rest}"
    )
    assert f"--- {rest}6 rows, 6 of them can be trained on\n" in text
    assert "an epoch" not in text
    assert "all rows" not in text
    assert err == ""

    page = tmp_path / "page.html"
    inspect(*common, "output=html", f"inspect.file={page}")
    assert rest.strip() in Page(page.read_text(encoding="utf-8")).texts


def test_how_full_the_first_packs_of_a_stream_are(few, checkpoints, inspect, short_window, tmp_path):
    common = [f"model.path={checkpoints['qwen2_vl']}", f"data.train={few}", "data.streaming=true"]
    packing = ["data.max_length=256", "data.too_long=skip"]
    out, _ = inspect(*common, *packing, "inspect.samples=null")
    tokens = int(re.search(r"([\d,]+) tokens, [\d,]+ of them", out)[1].replace(",", ""))
    packs, share = re.search(r"packed into (\d+) packed rows? of up to 256 tokens, ([\d.]+) % filled\n", out).groups()
    assert float(share) == pytest.approx(100 * tokens / (int(packs) * 256), abs=0.06)
    page = tmp_path / "page.html"
    inspect(*common, *packing, "output=html", f"inspect.file={page}")
    shown = Page(page.read_text(encoding="utf-8")).texts
    assert {"Packed rows filled", f"{share} %", "Filled share of a packed row"} <= set(shown)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["inspect.ids=[row 3,row 7]"],
            "inspect.ids: no row among the first 6 rows of {few} has the id row 7; the rest of the",
        ),
        (
            ["inspect.lines=7"],
            "inspect.lines: there is no row at 7 among the first 6 rows of {few}; the rest of the stream is",
        ),
        (
            ["inspect.lines=3", "data.train=[{few},{few}]"],
            "inspect.lines: 3 matches 2 files of {few}, {few}; write file and",
        ),
        (["inspect.lines=other.jsonl:3"], "inspect.lines: other.jsonl:3 matches no file of {few}"),
    ],
)
def test_a_row_that_does_not_come_first_is_said(words, told, few, checkpoints, inspect, short_window):
    words = [word.format(few=few) for word in words]
    sources = [] if any(word.startswith("data.train") for word in words) else [f"data.train={few}"]
    out, err = inspect(
        f"model.path={checkpoints['qwen2_vl']}", *sources, *words, "data.streaming=true", "data.packing=false", code=2
    )
    assert told.format(few=few) in err
    assert ("data.streaming=false searches all rows" in err) == ("among" in told)
    assert out.count("\n") <= 1, "but for the heading"


def test_a_stream_without_a_row_to_train_on_is_shown(bad, checkpoints, inspect, tmp_path):
    broken = tmp_path / "broken.jsonl"
    broken.write_text("{\n[]\n")
    words = [f"model.path={checkpoints['qwen2_vl']}", f"data.train={broken}", "data.streaming=true"]
    out, err = inspect(*words, "data.max_length=120", code=2)
    assert "2 rows cannot be trained on; a run ends at the first of them (data.on_error=skip" in err
    assert out.split("\n", 1)[1].startswith(f"{broken}: streamed, format not known yet\n")
    assert f"--- 1 of 2  {broken}:1\ncannot be trained on: {broken}:1 is not valid JSON" in out
    assert "--- all rows\n2 rows, 0 of them can be trained on\n" in out
    assert "2 rows cannot be trained on; a run ends at the first of them" in out
    broken.write_text("\n")
    assert f"({broken}) has no rows" in inspect(*words, code=2)[1]


def test_a_mixture_shows_each_row_once_and_held_out_rows_are_no_stream(
    few, checkpoints, write_rows, inspect, short_window
):
    short = write_rows([conversation(("user", ["What?"]), ("assistant", ["Red."]), id="short")], "short.jsonl")
    words = [
        f"model.path={checkpoints['qwen2_vl']}",
        "data.streaming=true",
        "data.packing=false",
        "inspect.samples=null",
        "output=json",
    ]
    both = f"data.train=[{{path: {short}, weight: 1}}, {{path: {few}, weight: 1}}]"
    out, err = inspect(*words, both)
    assert ids(out) == ["short", "row 1", "row 2", "row 3"]
    assert err == "the first 4 rows; the rest is not read\n"
    assert ids(inspect(*words[:3], "output=json", both, "inspect.lines='rows.jsonl:2'")[0]) == ["row 2"]
    assert len(ids(inspect(*words, both, f"data.eval={few}", "inspect.source=eval")[0])) == 40
