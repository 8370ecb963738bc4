"""Coordinates in tool calls and bare coordinates in texts are in the units of each generation, and the published tools
are those of the cookbooks."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from transformers import AutoProcessor

from qwenvl_train.data.formats import to_sample
from qwenvl_train.data.formats.tools import read_tools
from qwenvl_train.data.media.locate import Locator
from qwenvl_train.data.render.regions import with_written_tools
from qwenvl_train.data.sample import PublishedTool, Sample
from qwenvl_train.errors import UserError
from qwenvl_train.families import FAMILIES
from qwenvl_train.families.agent_tools import actions_of, schema_of, screen_of
from tests.loading import renderer_of

LOCATOR = Locator(Path("/media"), fenced=False, allow_remote=False, cache=Path("/cache"))
OLD, MIDDLE, NEW = FAMILIES["qwen2_vl"], FAMILIES["qwen2_5_vl"], FAMILIES["qwen3_vl"]
SIZES = [((960, 480), (448, 224)), ((1000, 2000), (280, 560))]


def click(**arguments: object) -> dict:
    return {"name": "mobile_use", "arguments": {"action": "click", **arguments}}


def row_of(*calls: dict, images: int = 1, **columns: object) -> dict:
    question = {"role": "user", "content": "<image>" * images + "Tap OK."}
    answer = {"role": "assistant", "content": "", "tool_calls": list(calls)}
    return {"messages": [question, answer], "images": [f"{n}.png" for n in range(images)], **columns}


def sample(row: dict) -> Sample:
    return to_sample(row, "rows.jsonl", 3, LOCATOR, "auto")


def written(row: dict, family=NEW) -> list[dict]:
    turns = with_written_tools(sample(row), family, SIZES).turns
    return [json.loads(call.arguments) for turn in turns for call in turn.calls]


@pytest.mark.parametrize(
    ("family", "tool", "expected"),
    [
        (OLD, False, [500, 250]),
        (MIDDLE, False, [112, 112]),
        (NEW, False, [500, 250]),
        (MIDDLE, True, [112, 112]),
        (NEW, True, [499, 250]),  # 499.5 and 249.75 of 999
    ],
)
def test_a_point_of_a_call_is_in_the_units_of_the_family(family, tool, expected):
    row = row_of(click(coordinate={"point_2d": [240, 240]}), **({"tools": ["mobile_use"]} if tool else {}))
    assert written(row, family) == [{"action": "click", "coordinate": expected}]


def test_a_phone_of_qwen3_has_999_units_and_a_computer_has_1000():
    corner = {"point_2d": [480, 960]}
    row = row_of(click(coordinate=corner), {"name": "computer_use", "arguments": {"coordinate": corner}})
    named = row | {"tools": ["mobile_use", "computer_use"]}
    assert [call["coordinate"] for call in written(named)] == [[999, 999], [1000, 1000]]
    assert [call["coordinate"] for call in written(row)] == [[1000, 1000], [1000, 1000]]


def test_a_point_is_in_the_last_image_before_the_call_or_in_the_one_it_names():
    last, first = {"point_2d": [1000, 500]}, {"point_2d": [240, 480], "image": 0}
    row = row_of(click(coordinate=last, coordinate2=first), images=2)
    assert written(row) == [{"action": "click", "coordinate": [500, 500], "coordinate2": [500, 500]}]
    # In a conversation with a screenshot for each turn, each call is about its own.
    (asked, answered) = row_of(click(coordinate={"point_2d": [240, 480]}))["messages"]
    result = {"role": "tool", "content": "<image>"}
    turns = [asked, answered, result, row_of(click(coordinate=last))["messages"][1]]
    assert [call["coordinate"] for call in written({"messages": turns, "images": ["0.png", "1.png"]})] == [
        [500, 500]
    ] * 2


def test_other_arguments_stay_as_they_are():
    given = '{"action":  "zoom", "box": {"bbox_2d": [1, 2, 3, 4], "of": "x"}, "bbox_2d": [5, 6, 7, 8]}'
    (call,) = sample(row_of({"name": "zoom", "arguments": given})).turns[-1].calls
    assert (call.arguments, call.regions) == (given, ())


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (row_of(click(coordinate={"point_2d": [1, 2, 3, 4]})), r"point_2d is \[1, 2, 3, 4\]; a point is \[x, y\]"),
        (row_of(click(coordinate={"point_2d": [1, 2]}), images=0), "there is no image before it"),
        (row_of(click(coordinate={"point_2d": [1, 2], "image": -1})), "-1 is not the index of an image"),
    ],
)
def test_what_is_wrong_with_a_point_is_told(row, words):
    with pytest.raises(UserError, match=words):
        sample(row)


def test_a_point_outside_its_screenshot_is_told():
    with pytest.raises(UserError, match="is not inside its image of 480×960 pixels"):
        written(row_of(click(coordinate={"point_2d": [481, 0]})))


@pytest.mark.parametrize("given", ["mobile_use", ["mobile_use"], '["mobile_use"]'])
def test_published_tools_are_named(given):
    assert read_tools(given, "rows:1") == (PublishedTool("mobile_use"),)


def test_a_published_tool_needs_a_screenshot():
    with pytest.raises(UserError, match="needs the size of a screenshot; add an image"):
        with_written_tools(sample(row_of(click(), images=0, tools=["mobile_use"])), NEW, [])


DIGESTS = {
    ("mobile_use", "qwen3_vl"): "fd7388ac4a2cd6ea",
    ("computer_use", "qwen3_vl"): "27eb70d6464ac4ff",
    ("mobile_use", "qwen2_5_vl"): "0e86391b01b42a55",
    ("computer_use", "qwen2_5_vl"): "0906c21ab5f0b9d6",
}
"""SHA-256 of the schemas as JSON, on a screen of 1000 × 1000 where the tool takes its size. The first is that in the
notebook mobile_agent, the second and third are made of agent_function_call.py, and the last is that in ScreenSpot-Pro's
models/qwen2_5vl.py."""


@pytest.mark.parametrize(("tool", "family"), DIGESTS)
def test_schemas_are_those_of_the_cookbooks(tool, family):
    screen = screen_of(tool, FAMILIES[family], (1000, 1000))
    text = json.dumps(schema_of(tool, FAMILIES[family], screen))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == DIGESTS[tool, family]


def test_each_generation_has_its_own_actions():
    assert {"key", "open"} <= set(actions_of("mobile_use", MIDDLE))
    assert "answer" not in actions_of("mobile_use", MIDDLE)
    assert {"key", "open"}.isdisjoint(actions_of("mobile_use", NEW))
    assert {"triple_click", "hscroll", "answer"}.isdisjoint(actions_of("computer_use", MIDDLE))


BOXED = '<p data-bbox="<bbox>">Total</p>'


@pytest.mark.parametrize(
    ("model_type", "expected"),
    [("qwen2_vl", "250 250 750 500"), ("qwen2_5_vl", "28 28 84 56"), ("qwen3_vl", "250 250 750 500")],
)
def test_bare_numbers_and_calls_are_rendered(model_type, expected, checkpoints, tmp_path):
    """The whole way from a row to tokens. The image has 112 × 112 pixels, and so has the resized one."""
    processor = AutoProcessor.from_pretrained(checkpoints[model_type])
    Image.new("RGB", (112, 112)).save(tmp_path / "screen.png")
    image = str(tmp_path / "screen.png")
    turns = [
        {"role": "user", "content": "<image>Read it."},
        {
            "role": "assistant",
            "content": BOXED,
            "tool_calls": [click(coordinate={"point_2d": [56, 28]})],
        },
    ]
    row = {
        "messages": turns, "images": [image], "tools": ["mobile_use"],
        "objects": {"bbox": [[28, 28, 84, 56]], "separator": " "},
    }  # fmt: skip
    given = to_sample(row, "rows.jsonl", 1, Locator(tmp_path, fenced=False, allow_remote=False, cache=tmp_path), "auto")
    renderer = renderer_of(processor, checkpoints[model_type])
    layout = renderer.layout(given)
    text = processor.tokenizer.decode(layout.input_ids)
    units = {"qwen2_vl": 999, "qwen2_5_vl": 112, "qwen3_vl": 999}[model_type]
    assert f'<p data-bbox="{expected}">Total</p>' in text
    point = [round(56 / 112 * units), round(28 / 112 * units)]
    call = {"name": "mobile_use", "arguments": {"action": "click", "coordinate": point}}
    assert f"<tool_call>\n{json.dumps(call)}\n</tool_call>" in text
    assert f"The screen's resolution is {units}x{units}." in text
    # Without the tool, the call is in the units of boxes.
    plain = processor.tokenizer.decode(renderer.layout(replace(given, tools=())).input_ids)
    full = 112 if model_type == "qwen2_5_vl" else 1000
    assert json.dumps([round(56 / 112 * full), round(28 / 112 * full)]) in plain


def test_a_separator_is_for_single_boxes():
    row = {
        "messages": [{"role": "user", "content": "<image>?"}, {"role": "assistant", "content": "<objects>"}],
        "images": ["0.png"], "objects": {"bbox": [[1, 1, 2, 2]], "ref": ["a"], "separator": ", "},
    }  # fmt: skip
    with pytest.raises(UserError, match="separator has no effect on <objects>"):
        sample(row)
    row["objects"]["separator"] = 3
    with pytest.raises(UserError, match="separator is 3; give the text between two numbers"):
        sample(row)
