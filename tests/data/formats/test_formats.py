"""Conversion of rows to samples: accepted rows, rejected rows, and error messages."""

import importlib.util
import io
import json
from collections.abc import Iterable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, get_args

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from transformers.utils.chat_template_utils import render_jinja_template
from trl.data_utils import prepare_multimodal_messages

from qwenvl_train.config.entries import RowFormat
from qwenvl_train.data.formats import detect, to_sample
from qwenvl_train.data.media.locate import Locator
from qwenvl_train.data.render.conversation import ConversationWriter
from qwenvl_train.data.sample import (
    Content,
    Coordinates,
    Image,
    Limits,
    Listing,
    Part,
    Reference,
    Sample,
    Sampling,
    Text,
    ToolCall,
    Turn,
    Video,
)
from qwenvl_train.data.sample import given_options as stated
from qwenvl_train.errors import UserError
from qwenvl_train.families import FAMILIES

LOCATOR = Locator(Path("/media"), fenced=False, allow_remote=False, cache=Path("/cache"))
RED = {"bytes": b"red", "path": "red.png"}
CAT = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}


def sample(row: object, format: str = "auto", line: int = 3) -> Sample:
    return to_sample(row, "rows.jsonl", line, LOCATOR, format)


def told(turns: Iterable[Turn]) -> list[str]:
    """Return one line per turn. A star marks turns that are trained on."""
    return [f"{turn.role}{'*' * turn.train}: " + "".join(map(_told, (*turn.parts, *turn.calls))) for turn in turns]


def _told(part: Part | ToolCall) -> str:
    match part:
        case ToolCall(name, arguments):
            return f"[{name} {arguments}]"
        case Text(text):
            return text
        case Image(content, limits):
            return f"[{_name(content)}{_options(limits)}{f' {part.detail}' if part.detail else ''}]"
        case Video(content, limits, sampling):
            names = " ".join(map(_name, content)) if isinstance(content, tuple) else _name(content)
            return f"{{{names}{_options(limits)}{_options(sampling)}}}"
        case Reference(label):
            return f"«{label}»"
        case Coordinates(region):
            return f"({','.join(f'{number:g}' for number in region.coordinates)} {region.label} in {region.image})"
        case Listing(regions):
            return "+".join(_told(Coordinates(region)) for region in regions)


def _name(content: Content) -> str:
    return content.removeprefix("/media/") if isinstance(content, str) else content.decode()


def _options(options: Limits | Sampling) -> str:
    return "".join(f" {key}={value:g}" for key, value in stated(options).items())


def llava(value: str, answer: str = "Red.", **columns: object) -> dict:
    return {"conversations": [{"from": "human", "value": value}, {"from": "gpt", "value": answer}], **columns}


def chat(question: object, answer: object = "Red.", **columns: object) -> dict:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **columns}


def asked(*parts: dict, **columns: object) -> dict:
    return chat([*parts, {"type": "text", "text": "What?"}], **columns)


def boxes(answer: str, question: str = "<image>Where?", image: object = "a.png", **objects: object) -> dict:
    return chat(question, answer, images=image, objects=objects)


def pair(**columns: object) -> dict:
    return {"prompt": "Hi", "chosen": "Yes", "rejected": "No"} | columns


CALL = '[find {"what": "é"}]'
USER, BOT = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}

ROWS: dict[str, tuple[str, dict, list[str]]] = {
    # 1. LLaVA, Q, U
    "one picture": ("llava", llava("<image>\nWhat?", image="a.png"), ["user: [a.png]What?", "assistant*: Red."]),
    "no line break": ("llava", llava("<image>What?", image=["a.png"]), ["user: [a.png]What?", "assistant*: Red."]),
    "picture last": ("llava", llava("What?\n<image>", image="a.png"), ["user: What?[a.png]", "assistant*: Red."]),
    "two line breaks": (
        "llava",
        llava("<image>\n\nOne is the user's.", image="a.png"),
        ["user: [a.png]\nOne is the user's.", "assistant*: Red."],
    ),
    "line breaks of other systems": (
        "llava",
        llava("One\r\n<image>\r\n\r\nTwo", image="a.png"),
        ["user: One[a.png]\r\nTwo", "assistant*: Red."],
    ),
    "two pictures": (
        "llava",
        llava("Is\n<image>\nlike <image>?", image=["a.png", "b.png"]),
        ["user: Is[a.png]like [b.png]?", "assistant*: Red."],
    ),
    "pictures and clips": (
        "llava",
        llava("<video>\n<image>What?", image="a.png", video="v.mp4"),
        ["user: {v.mp4}[a.png]What?", "assistant*: Red."],
    ),
    "clip as frames": (
        "llava",
        llava("<video>What?", video=[["1.png", "2.png"]]),
        ["user: {1.png 2.png}What?", "assistant*: Red."],
    ),
    "an answer may speak of the mark": (
        "llava",
        llava("<image>\nWhat?", "Write <image> or <video> here.", image="a.png"),
        ["user: [a.png]What?", "assistant*: Write <image> or <video> here."],
    ),
    "text only": ("llava", llava("Hi", image=None), ["user: Hi", "assistant*: Red."]),
    "turns that are context": (
        "llava",
        {
            "conversations": [
                *llava("A", "1")["conversations"],
                {"from": "human", "value": "B"},
                {"from": "gpt", "value": "2", "loss": False},
                {"from": "human", "value": "C", "train": False},
                {"from": "gpt", "value": "3", "weight": 1, "train": None},
            ]
        },
        ["user: A", "assistant*: 1", "user: B", "assistant: 2", "user: C", "assistant*: 3"],
    ),
    # 2. ShareGPT
    "system column": (
        "sharegpt",
        llava("<image>What?", images=[RED], system="Be brief."),
        ["system: Be brief.", "user: [red]What?", "assistant*: Red."],
    ),
    "empty columns": (
        "sharegpt",
        llava("What?", images=[], videos=[], system="", tools=""),
        ["user: What?", "assistant*: Red."],
    ),
    "function calls": (
        "sharegpt",
        {
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": "What?"},
                {"from": "function_call", "value": '{"name": "find", "arguments": {"what": "é"}}'},
                {"from": "observation", "value": "<image>Found."},
                {"from": "gpt", "value": "A cat."},
            ],
            "images": ["a.png"],
            "tools": json.dumps([CAT]),
        },
        ["system: Be brief.", "user: What?", f"assistant*: {CALL}", "tool: [a.png]Found.", "assistant*: A cat."],
    ),
    "roles in a conversation": (
        "llava",
        {"conversations": [USER, BOT]},
        ["user: Hi", "assistant*: Ho"],
    ),
    # 3. messages with markers
    "marks in messages": (
        "messages",
        chat("<image>A <video>", images=["a.png"], videos=["v.mp4"]),
        ["user: [a.png]A {v.mp4}", "assistant*: Red."],
    ),
    "no mark: before the first question": (
        "messages",
        {"messages": [{"role": "system", "content": "S"}, USER, BOT, USER, BOT], "images": ["a.png", "b.png"]},
        ["system: S", "user: [a.png][b.png]Hi", "assistant*: Ho", "user: Hi", "assistant*: Ho"],
    ),
    "words about the mark": ("messages", chat("Is <image> HTML?"), ["user: Is <image> HTML?", "assistant*: Red."]),
    "words about placeholders": (
        "messages",
        chat("What is <|image_pad|>?"),
        ["user: What is <|image_pad|>?", "assistant*: Red."],
    ),
    "options in a column": (
        "messages",
        chat("<image><video>", images=[{"image": "a.png", "max_pixels": 9}], videos=[{"video": "v.mp4", "fps": 2}]),
        ["user: [a.png max_pixels=9]{v.mp4 fps=2}", "assistant*: Red."],
    ),
    "several calls as turns": (
        "messages",
        {
            "messages": [
                USER,
                {"role": "assistant", "content": "Look:"},
                {"role": "tool_call", "content": {"name": "find", "arguments": {"what": "é"}}},
                {"role": "tool_call", "content": '[{"name": "find", "arguments": {"what": "é"}}]'},
                {"role": "tool_response", "content": "1"},
                {"role": "tool", "content": ""},
                BOT,
            ]
        },
        ["user: Hi", f"assistant*: Look:{CALL}{CALL}", "tool: 1", "tool: ", "assistant*: Ho"],
    ),
    # 4. typed parts
    "typed parts": (
        "messages",
        asked({"type": "image", "image": "a.png"}, {"type": "text", "text": "<image>\n"}),
        ["user: [a.png]<image>\nWhat?", "assistant*: Red."],
    ),
    "without type": (
        "messages",
        asked({"image": "a.png"}, {"image_url": "b.png"}, {"video": "v.mp4"}, {"text": "A"}),
        ["user: [a.png][b.png]{v.mp4}AWhat?", "assistant*: Red."],
    ),
    "other keys of a part": (
        "messages",
        asked(
            {"type": "image", "url": "a.png"},
            {"type": "image", "path": "b.png"},
            {"type": "image", "base64": "cmVk"},
            {"type": "video", "url": "v.mp4"},
            {"type": "video_url", "video_url": {"url": "w.mp4"}},
        ),
        ["user: [a.png][b.png][red]{v.mp4}{w.mp4}What?", "assistant*: Red."],
    ),
    "structs and bytes": (
        "messages",
        asked({"type": "image", "image": RED}, {"type": "image", "image": b"blue"}),
        ["user: [red][blue]What?", "assistant*: Red."],
    ),
    "empty keys of a table": (
        "messages",
        asked({"type": "image", "image": "a.png", "text": None, "video": None, "max_pixels": None}),
        ["user: [a.png]What?", "assistant*: Red."],
    ),
    "files in a column": (
        "messages",
        asked({"type": "image"}, {"type": "video", "fps": 1}, images=["a.png"], videos=["v.mp4"]),
        ["user: [a.png]{v.mp4 fps=1}What?", "assistant*: Red."],
    ),
    "an answer in parts may speak of the mark": (
        "messages",
        chat("Hi", [{"type": "text", "text": "<image>"}], images=["a.png"]),
        ["user: [a.png]Hi", "assistant*: <image>"],
    ),
    "files by number": (
        "messages",
        asked({"type": "image", "index": 1}, {"type": "image", "index": 0}, images=["a.png", "b.png"]),
        ["user: [b.png][a.png]What?", "assistant*: Red."],
    ),
    "a tool shows a picture": (
        "messages",
        {
            "messages": [
                USER,
                {"role": "assistant", "tool_calls": [{"name": "find", "arguments": {"what": "é"}}]},
                {"role": "tool", "name": "find", "tool_call_id": "1", "content": [{"image": "a.png"}]},
                BOT,
            ]
        },
        ["user: Hi", f"assistant*: {CALL}", "tool: [a.png]", "assistant*: Ho"],
    ),
    # 5. OpenAI
    "image_url": (
        "messages",
        asked(
            {
                "type": "image_url",
                "image_url": {"url": "data:image/png;base64,cmVk", "detail": "auto"},
                "min_pixels": 5,
            },
            {"type": "image_url", "image_url": "a.png", "resized_height": 56.0, "resized_width": 84},
            {"type": "image_url", "image_url": {"url": "b.png", "detail": "low"}},
            {"type": "image_url", "image_url": "c.png", "detail": "high"},
            {"type": "image_url", "image_url": {"url": "d.png", "detail": None}},
        ),
        [
            "user: [red min_pixels=5 auto][a.png resized_height=56 resized_width=84][b.png low][c.png high][d.png]"
            "What?",
            "assistant*: Red.",
        ],
    ),
    # 6. videos
    "every option of a clip": (
        "messages",
        asked(
            {
                "type": "video",
                "video": "v.mp4",
                "fps": 0.5,
                "min_frames": 4,
                "max_frames": 8,
                "min_pixels": 5,
                "max_pixels": 6,
                "total_pixels": 7,
                "video_start": 0,
                "video_end": 2.5,
            }
        ),
        [
            "user: {v.mp4 min_pixels=5 max_pixels=6 fps=0.5 min_frames=4 max_frames=8 "
            "video_start=0 video_end=2.5 total_pixels=7}What?",
            "assistant*: Red.",
        ],
    ),
    "a number of frames": (
        "messages",
        asked({"video": "v.mp4", "nframes": 8, "resized_height": 56, "resized_width": 56}),
        ["user: {v.mp4 resized_height=56 resized_width=56 nframes=8}What?", "assistant*: Red."],
    ),
    "frames and their rate": (
        "messages",
        asked(
            {"type": "video", "video": ["1.png", RED], "fps": 2},
            {"type": "video", "video": ["3.png"], "sample_fps": 4, "max_pixels": 9},
            {"type": "video", "video": ["5.png"]},
        ),
        ["user: {1.png red fps=2}{3.png max_pixels=9 fps=4}{5.png}What?", "assistant*: Red."],
    ),
    # 7. question and answer
    "prompt and completion": (
        "prompt_completion",
        {"prompt": "What?", "completion": "Red.", "image": "a.png"},
        ["user: [a.png]What?", "assistant*: Red."],
    ),
    "an empty prompt": (
        "prompt_completion",
        {"prompt": "", "completion": "A cat.", "image": RED},
        ["user: [red]", "assistant*: A cat."],
    ),
    "prompt as messages": (
        "prompt_completion",
        {"prompt": [USER, BOT, {"role": "user", "content": "<image>?"}], "completion": [BOT], "images": ["a.png"]},
        ["user: Hi", "assistant: Ho", "user: [a.png]?", "assistant*: Ho"],
    ),
    "query and response": (
        "query_response",
        {
            "query": "<image>What?",
            "response": "Red.",
            "history": [["A", "1"], ["B", "2"]],
            "images": ["a.png"],
            "system": "S",
        },
        ["system: S", "user: A", "assistant*: 1", "user: B", "assistant*: 2", "user: [a.png]What?", "assistant*: Red."],
    ),
    "instruction, input and output": (
        "instruction",
        {"instruction": "Say <image>.", "input": "Now.", "output": "Red.", "images": ["a.png"]},
        ["user: Say [a.png].\nNow.", "assistant*: Red."],
    ),
    "instruction without input": (
        "instruction",
        {"instruction": "Hi", "input": "", "output": "Ho", "system": "", "history": []},
        ["user: Hi", "assistant*: Ho"],
    ),
    # 8. preferences
    "texts": (
        "preference",
        {"prompt": "What?", "chosen": "Red.", "rejected": "Blue.", "images": ["a.png"]},
        ["user: [a.png]What?", "assistant*: Red.", "rejected assistant*: Blue."],
    ),
    "a marked prompt": (
        "preference",
        {"prompt": "<image>\nWhat?", "chosen": "Red.", "rejected": "Blue.", "image": "a.png"},
        ["user: [a.png]What?", "assistant*: Red.", "rejected assistant*: Blue."],
    ),
    "messages": (
        "preference",
        {"prompt": [USER, BOT, USER], "chosen": [BOT], "rejected": [{"role": "assistant", "content": "No"}]},
        ["user: Hi", "assistant: Ho", "user: Hi", "assistant*: Ho", "rejected assistant*: No"],
    ),
    "whole conversations": (
        "preference",
        {"prompt": "Hi", "chosen": [USER, BOT], "rejected": [USER, {"role": "assistant", "content": "No"}]},
        ["user: Hi", "assistant*: Ho", "rejected assistant*: No"],
    ),
    "answers as turns": (
        "preference",
        {
            "conversations": [*llava("<image>A")["conversations"], {"from": "human", "value": "B"}],
            "chosen": {"from": "gpt", "value": "Yes"},
            "rejected": {"from": "gpt", "value": "No <image>"},
            "images": ["a.png"],
        },
        ["user: [a.png]A", "assistant: Red.", "user: B", "assistant*: Yes", "rejected assistant*: No <image>"],
    ),
    "a rejected response": (
        "preference",
        {"messages": [{"role": "system", "content": "S"}, USER, BOT], "rejected_response": "No"},
        ["system: S", "user: Hi", "assistant*: Ho", "rejected assistant*: No"],
    ),
    "a rejected response to a query": (
        "preference",
        {"query": "Hi", "response": "Ho", "rejected_response": "No", "history": [["A", "1"]]},
        ["user: A", "assistant: 1", "user: Hi", "assistant*: Ho", "rejected assistant*: No"],
    ),
    "empty columns of a preference": (
        "preference",
        pair(rejected_images=[], rejected_videos=None, images=[], add_vision_id=False),
        ["user: Hi", "assistant*: Yes", "rejected assistant*: No"],
    ),
    "other pictures for the rejected answer": (
        "preference",
        {"prompt": "<image>Hi", "chosen": "Yes", "rejected": "No", "image": "a.png", "rejected_images": ["b.png"]},
        ["user: [a.png]Hi", "assistant*: Yes", "rejected user: [b.png]Hi", "rejected assistant*: No"],
    ),
    "another picture for the rejected answer": (
        "preference",
        {"prompt": "<image>Hi", "chosen": "Yes", "rejected": "No", "images": ["a.png"], "rejected_image": "b.png"},
        ["user: [a.png]Hi", "assistant*: Yes", "rejected user: [b.png]Hi", "rejected assistant*: No"],
    ),
    "the same answer about other pictures": (
        "preference",
        {"messages": [{**USER, "content": "<image>Hi"}, BOT], "images": ["a.png"], "rejected_images": ["b.png"]},
        ["user: [a.png]Hi", "assistant*: Ho", "rejected user: [b.png]Hi", "rejected assistant*: Ho"],
    ),
    "a rejected response to other clips": (
        "preference",
        {
            "query": "<image><video>Hi",
            "response": "Ho",
            "rejected_response": "No",
            "images": ["a.png"],
            "videos": ["a.mp4"],
            "rejected_videos": ["b.mp4"],
        },
        ["user: [a.png]{a.mp4}Hi", "assistant*: Ho", "rejected user: [a.png]{b.mp4}Hi", "rejected assistant*: No"],
    ),
    "rejected messages": (
        "preference",
        {
            "messages": [USER, {"role": "assistant", "content": "1"}, USER, BOT],
            "rejected_messages": [USER, {"role": "assistant", "content": "2"}, USER, BOT],
        },
        [
            *("user: Hi", "assistant*: 1", "user: Hi", "assistant*: Ho"),
            *("rejected assistant*: 2", "rejected user: Hi", "rejected assistant*: Ho"),
        ],
    ),
    "an instruction": (
        "preference",
        {"instruction": "A", "input": "B", "chosen": "Yes", "rejected": "No"},
        ["user: A\nB", "assistant*: Yes", "rejected assistant*: No"],
    ),
    # 9. grounding
    "names and boxes": (
        "messages",
        boxes(
            "<ref-object><bbox> and <ref-object><bbox>.",
            ref=["a dog", "a woman"],
            bbox=[[331.5, 761.4, 853.5, 1594.8], [676.5, 685.8, 1099.5, 1427.4]],
        ),
        [
            "user: [a.png]Where?",
            "assistant*: «a dog»(331.5,761.4,853.5,1594.8 a dog in 0) and "
            "«a woman»(676.5,685.8,1099.5,1427.4 a woman in 0).",
        ],
    ),
    "one name, two boxes": (
        "messages",
        boxes("<bbox><bbox>", "<image>Find the <ref-object>", ref=["sheep"], bbox=[[1, 2, 3, 4], [5, 6, 7, 8]]),
        ["user: [a.png]Find the «sheep»", "assistant*: (1,2,3,4 sheep in 0)(5,6,7,8 sheep in 0)"],
    ),
    "a name that has no box": (
        "messages",
        boxes("<ref-object>: none. <ref-object>: <bbox><bbox>", ref=["A", "B"], bbox=[[1, 2, 3, 4], [5, 6]]),
        ["user: [a.png]Where?", "assistant*: «A»: none. «B»: (1,2,3,4 B in 0)(5,6 B in 0)"],
    ),
    "a point": (
        "messages",
        boxes("click('<bbox>')", ref=[], bbox=[[615, 226]], bbox_type="real"),
        ["user: [a.png]Where?", "assistant*: click('(615,226  in 0)')"],
    ),
    "boxes in several pictures": (
        "messages",
        boxes(
            "<bbox><bbox>",
            "<image><image>?",
            ["a.png", "b.png"],
            ref=["A", "B"],
            bbox=[[1, 2, 3, 4], [5, 6]],
            image_id=[1, 0],
        ),
        ["user: [a.png][b.png]?", "assistant*: (1,2,3,4 A in 1)(5,6 B in 0)"],
    ),
    "all objects": (
        "messages",
        boxes("Here: <objects>", ref=["A", "B"], bbox=[[1, 2, 3, 4], [5, 6]]),
        ["user: [a.png]Where?", "assistant*: Here: (1,2,3,4 A in 0)+(5,6 B in 0)"],
    ),
    "boxes in a LLaVA row": (
        "llava",
        llava("<image>What is in <bbox>?", image="a.png", objects={"bbox": [[1, 2, 3, 4]]}),
        ["user: [a.png]What is in (1,2,3,4  in 0)?", "assistant*: Red."],
    ),
    "no objects in this row": (
        "messages",
        chat("Hi", objects={"ref": [], "bbox": []}),
        ["user: Hi", "assistant*: Red."],
    ),
    "words about boxes": ("messages", chat("What is <bbox>?"), ["user: What is <bbox>?", "assistant*: Red."]),
    "a part of objects": (
        "messages",
        chat(
            [{"image": "a.png"}, {"image": "b.png"}],
            [
                {"text": "Here: "},
                {"type": "objects", "objects": [{"bbox_2d": [1, 2, 3, 4], "label": "A", "point_2d": None}], "image": 1},
                {"objects": [{"point_2d": [5, 6], "label": "B"}], "image": 0},
            ],
        ),
        ["user: [a.png][b.png]", "assistant*: Here: (1,2,3,4 A in 1)(5,6 B in 0)"],
    ),
    "a box in a rejected answer": (
        "preference",
        {
            "prompt": "<image>?",
            "chosen": "<bbox>",
            "rejected": "<bbox>",
            "image": "a.png",
            "objects": {"bbox": [[1, 2, 3, 4], [5, 6, 7, 8]]},
        },
        ["user: [a.png]?", "assistant*: (1,2,3,4  in 0)", "rejected assistant*: (5,6,7,8  in 0)"],
    ),
}


@pytest.mark.parametrize("case", ROWS)
def test_every_format_is_read(case):
    format, row, lines = ROWS[case]
    assert detect(row, "x").format == format
    read = sample(row)
    assert told(read.turns) + [f"rejected {line}" for line in told(read.rejected)] == lines
    assert sample(row, format) == read


REASONS = {
    "one picture": "llava: rows have 'conversations' with 'from' and 'value'",
    "roles in a conversation": "llava: rows have 'conversations' with 'role' and 'content'",
    "system column": "sharegpt: rows have 'conversations' and 'images' with 'from' and 'value'",
    "typed parts": "messages: rows have 'messages' with 'role' and 'content'",
    "prompt and completion": "prompt_completion: rows have 'prompt' and 'completion'",
    "texts": "preference: rows have 'chosen' and 'rejected'",
    "a rejected response": "preference: rows have 'rejected_response'",
}


@pytest.mark.parametrize("case", REASONS)
def test_the_reason_names_the_keys(case):
    assert detect(ROWS[case][1], "x").reason == REASONS[case]


@pytest.mark.parametrize(
    ("row", "id"),
    [({"id": 7}, "7"), ({"id": "a/b"}, "a/b"), ({}, "rows-3"), ({"id": None}, "rows-3"), ({"id": 0}, "0")],
)
def test_ids(row, id):
    read = sample(row | {"messages": [USER, BOT]})
    assert (read.id, read.where) == (id, f"rows.jsonl:3 (id {id})")


def test_rows_of_a_table_read_like_rows_of_a_list():
    """A table gives every row, turn and part the keys of all others, with null values."""
    answer = [{"type": "text", "text": "Ho"}]
    rows = [
        asked({"type": "image", "image": "a.png"}, {"type": "text", "text": "A"}, id="1"),
        asked({"type": "video", "video": "v.mp4", "fps": 2.0, "max_pixels": 5}, id="2", system="S"),
        asked({"image": "b.png", "min_pixels": 3}),
        chat([{"type": "text", "text": "Hi"}], objects={"ref": [], "bbox": []}),
        asked({"type": "image"}, images=[RED]),
    ]
    for row in rows:
        row["messages"][1] |= {"content": answer}
    rows[0]["messages"][1]["train"] = True
    columns = ("id", "messages", "system", "objects", "images")
    table = pyarrow.table({column: [row.get(column) for row in rows] for column in columns}).to_pylist()
    assert table[0]["messages"][0]["content"][0].keys() >= {"text", "image", "video", "fps", "min_pixels", "max_pixels"}
    assert [sample(row) for row in table] == [sample(row) for row in rows]


def test_a_picture_in_memory_is_stored_as_it_is():
    picture = Pillow.effect_noise((31, 17), 80).convert("RGB")
    content = sample(chat("What?", images=[picture])).images[0].content
    assert isinstance(content, bytes)
    assert Pillow.open(io.BytesIO(content)).tobytes() == picture.tobytes()


PLACED = {
    "texts": [USER, BOT, USER, BOT],
    "a system turn first": [{"role": "system", "content": "S"}, USER, BOT],
    "typed parts": [
        {"role": "user", "content": [{"type": "text", "text": "A"}, {"type": "image"}, {"type": "text", "text": "B"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "C"}]},
        {"role": "user", "content": [{"type": "image"}]},
        BOT,
    ],
}


@pytest.mark.parametrize("case", PLACED)
def test_pictures_of_a_column_stand_where_trl_puts_them(case):
    messages = PLACED[case]
    theirs = prepare_multimodal_messages(messages, ["a.png", "b.png"])
    assert sample({"messages": messages, "images": ["a.png", "b.png"]}).turns == sample({"messages": theirs}).turns


CALLS = {
    "one": (
        "",
        [{"type": "function", "id": "1", "function": {"name": "find", "arguments": {"what": 'é " <', "n": 1}}}],
    ),
    "after words": ("Let me look.", [{"name": "find", "arguments": {}}]),
    "several, one as a string": (
        "",
        [
            {"function": {"name": "a", "arguments": '{"x":1}'}},
            {"type": "function", "name": "b", "arguments": {"y": [1.5]}},
        ],
    ),
    "after an empty part": ([{"type": "text", "text": ""}], [{"name": "find", "arguments": {}}]),
    "in typed parts": ([{"type": "text", "text": "Look: "}], [{"name": "find", "arguments": {"deep": {"z": None}}}]),
}


@pytest.mark.parametrize("case", CALLS)
def test_tool_calls_are_written_as_the_published_template_writes_them(case):
    content, calls = CALLS[case]
    messages = [USER, {"role": "assistant", "content": content, "tool_calls": calls}]
    read = sample({"messages": messages, "tools": [CAT]})
    template = Path(importlib.util.find_spec("trl").origin).parent / "chat_templates" / "qwen3_vl.jinja"
    written, _ = render_jinja_template([messages], chat_template=template.read_text(encoding="utf-8"))
    *_, answer = ConversationWriter(FAMILIES["qwen3_vl"]).turns(read, False, lambda part: part.text)
    assert written[0].endswith(f"<|im_start|>assistant\n{''.join(answer.parts)}<|im_end|>\n")


BARE = {"name": "find", "parameters": {"type": "object"}}


@pytest.mark.parametrize(
    "tools", [[CAT], [BARE], json.dumps([CAT]), json.dumps([BARE]), [json.dumps(CAT)], [json.dumps(BARE)]]
)
def test_tools_come_as_objects_or_as_json(tools):
    assert sample(chat("Hi", tools=tools)).tools == (CAT,)


TEXTS = st.lists(st.sampled_from(["<image>", "\n", "a", "<video>", " ", "<", "image>"]), max_size=12).map("".join)


@given(TEXTS)
def test_marks_and_words_keep_their_order(text):
    """Compared with a simple walk through the text: every marker becomes a file, one line break next to it is removed,
    and no other character changes."""
    row = llava(f"q{text}q", image=["a.png"] * text.count("<image>"), video=["v.mp4"] * text.count("<video>"))
    pieces = f"q{text}q".replace("<image>", "\0I\0").replace("<video>", "\0V\0").split("\0")
    for index in range(1, len(pieces), 2):
        pieces[index - 1] = pieces[index - 1].removesuffix("\n")
        pieces[index + 1] = pieces[index + 1].removeprefix("\n")
    expected = [piece for piece in pieces if piece]
    found = [part.text if isinstance(part, Text) else type(part).__name__[0] for part in sample(row).turns[0].parts]
    assert found == expected


@given(st.text(min_size=1).filter(str.strip), st.text(min_size=1).filter(str.strip))
def test_words_without_files_are_never_changed(question, answer):
    for row in (chat(question, answer), chat([{"type": "text", "text": question}], [{"text": answer}])):
        assert [turn.parts for turn in sample(row).turns] == [(Text(question),), (Text(answer),)]


def image(**options: object) -> dict:
    return asked({"type": "image", "image": "a.png", **options})


def clip(content: object = "v.mp4", **options: object) -> dict:
    return asked({"type": "video", "video": content, **options})


def turn(**keys: object) -> dict:
    return {"messages": [USER, {**BOT, **keys}]}


def calling(*calls: object) -> dict:
    return {"messages": [USER, {"role": "assistant", "content": "", "tool_calls": list(calls)}]}


def grounded(entry: object, **keys: object) -> dict:
    return chat([{"image": "a.png"}], [{"type": "objects", "objects": [entry], **keys}])


BOX, NAN = [1, 2, 3, 4], float("nan")
FIND = {"name": "find", "arguments": {}}

REFUSED: dict[str, tuple[object, str]] = {
    # the row
    "not an object": (3, "is 3; a row must be an object"),
    "a list of rows": ([chat("Hi")], "is a list; a row must be an object"),
    "no known key": ({"text": "a"}, "has the keys text; a row needs 'conversations'"),
    "empty": ({}, "a row needs 'conversations'"),
    "misspelt key": ({"messages_": [USER, BOT]}, "Is the column 'messages_' a misspelling of 'messages'?"),
    "misspelt key beside another": (
        {"mesages": [USER, BOT], "images": ["a.png"]},
        "Is the column 'mesages' a misspelling of 'messages'?",
    ),
    "half a format": ({"prompt": "Hi"}, "'prompt' and 'completion'"),
    "vision ids": (chat("Hi", add_vision_id=True), "set data.vision_ids=true"),
    "sound": (chat("Hi", audios=["a.wav"]), "has 'audios'; these models do not support audio"),
    # turns
    "no turns": ({"messages": []}, "must be a list of turns that is not empty"),
    "turns of wrong type": ({"messages": "Hi"}, "'messages' is 'Hi'; it must be a list of turns"),
    "turn is text": ({"messages": ["Hi"]}, "turn 1 is 'Hi'; a turn has"),
    "unknown role": (
        {"messages": [USER, {"role": "robot", "content": "x"}]},
        "turn 2 has the unknown role 'robot'; known roles: ",
    ),
    "unknown speaker": (
        {"conversations": [{"from": "cat", "value": "x"}]},
        "turn 1 has the unknown role 'cat'; known roles: ",
    ),
    "no role": ({"messages": [{"content": "x"}]}, "turn 1 has the unknown role None"),
    "turn without value": ({"conversations": [{"from": "human"}]}, "turn 1: value is None; give text"),
    "content of wrong type": (chat(3), "turn 1: content is 3; give text or a list of parts"),
    "unknown key in a turn": (turn(weight_=0), "turn 2 has the unknown key 'weight_'; did you mean 'weight'?"),
    "loss scale": (turn(loss_scale=2), "has the unknown key 'loss_scale'"),
    "train of wrong type": (turn(train="no"), "turn 2: train is 'no'; give true or 1 (trained)"),
    "part of a weight": (turn(weight=0.5), "turn 2: weight is 0.5"),
    "train against loss": (turn(train=True, loss=0), "turn 2: train and loss disagree"),
    "trained question": (
        {"messages": [{**USER, "train": True}, BOT]},
        "turn 1 has the role 'user'; only turns of the assistant",
    ),
    "nothing to learn": (turn(train=False), "has no supervised turn"),
    # their order
    "assistant first": ({"messages": [BOT, USER]}, "turn 1: the role 'assistant' is not allowed at the start"),
    "tool first": ({"messages": [{"role": "tool", "content": "x"}, BOT]}, "turn 1: the role 'tool' is not allowed"),
    "user last": ({"messages": [USER, BOT, USER]}, "turn 3: the last turn has the role 'user' and no answer"),
    "tool last": (
        {"messages": [USER, BOT, {"role": "tool", "content": "x"}]},
        "turn 3: the last turn has the role 'tool'",
    ),
    "two users": ({"messages": [USER, USER, BOT]}, "turn 2: the role 'user' is not allowed after 'user'"),
    "two assistants": ({"messages": [USER, BOT, BOT]}, "the roles here are user, assistant, assistant"),
    "call first": (
        {"messages": [{"role": "tool_call", "content": FIND}, USER, BOT]},
        "turn 1: the role 'assistant' is not allowed",
    ),
    "empty second answer": (
        {"messages": [USER, BOT, {**BOT, "content": ""}]},
        "turn 3: the role 'assistant' is not allowed",
    ),
    "words and a call after an answer": (
        {"messages": [USER, BOT, {**BOT, "tool_calls": [FIND]}]},
        "turn 3: the role 'assistant' is not allowed after 'assistant'",
    ),
    "a call with another flag": (
        {"messages": [USER, BOT, {"role": "tool_call", "content": FIND, "train": False}]},
        "turn 3: the role 'assistant' is not allowed after 'assistant'",
    ),
    "many turns": (
        {"messages": [USER, BOT] * 9 + [USER]},
        "the roles here are user, assistant, user, assistant, user, assistant, user, assistant, ….",
    ),
    "tool after user": (
        {"messages": [USER, {"role": "tool", "content": "x"}]},
        "turn 2: the role 'tool' is not allowed",
    ),
    "late system turn": (
        {"messages": [USER, {"role": "system", "content": "x"}]},
        "turn 2: the role 'system' is not allowed",
    ),
    "only a system turn": (
        {"messages": [{"role": "system", "content": "x"}]},
        "turn 1: the last turn has the role 'system'",
    ),
    "system twice": (
        {"messages": [{"role": "system", "content": "x"}, USER, BOT], "system": "y"},
        "turn 1 is a system turn, but the row also has a column 'system'",
    ),
    "system of wrong type": (chat("Hi", system=["S"]), "'system' is ['S']; give text"),
    "empty answer": (chat("Hi", " \n"), "turn 2: the assistant turn is empty"),
    "empty context answer": (turn(content="", train=False), "turn 2: the assistant turn is empty"),
    "empty question": (chat(""), "turn 1: the user turn is empty"),
    "empty parts": (chat([{"text": ""}]), "turn 1: the user turn is empty"),
    "empty completion": ({"prompt": "Hi", "completion": ""}, "completion: the assistant turn is empty"),
    # markers and files
    "more marks than pictures": (
        llava("<image><image>", image="a.png"),
        "has 2 <image> in its questions but 1 images",
    ),
    "more pictures than marks": (llava("What?", image="a.png"), "has 0 <image> in its questions but 1 images"),
    "fewer marks than pictures": (chat("<image>?", images=["a", "b"]), "has 1 <image> in its questions but 2 images"),
    "a mark without a column": (llava("<image>?"), "has 1 <image> in its questions but 0 images"),
    "a mark for an empty column": (chat("<image>?", images=[]), "has 1 <image> in its questions but 0 images"),
    "a video mark for pictures": (chat("<video>?", images=["a"]), "has 0 <image> in its questions but 1 images"),
    "clips without marks": (llava("Hi", video="v.mp4"), "has 0 <video> in its questions but 1 videos"),
    "frames as clips": (llava("<video>?", video=["1.png", "2.png"]), "is a list of frames inside the list of videos"),
    "misspelt column": (llava("<image>?", image_path="a.png"), "Is the column 'image_path' a misspelling of 'image'?"),
    "misspelt column of messages": (chat("<image>?", imgs=["a"]), "Is the column 'imgs' a misspelling of 'images'?"),
    "mark in a typed part": (asked({"text": "<image>"}, images=["a"]), "In a typed part <image> is plain text; write"),
    "files named twice": (asked({"image": "a"}, images=["a"]), "has 0 <image> in its questions but 1 images"),
    "part without a file": (asked({"type": "image"}), "has 1 <image> in its questions but 0 images"),
    "file without a part": (asked({"type": "image"}, images=["a", "b"]), "has 1 <image> in its questions but 2"),
    "file of no such number": (asked({"type": "image", "index": 1}, images=["a"]), "1 <image> in its questions but 1"),
    "file of a wrong number": (asked({"type": "image", "index": -1}, images=["a"]), "-1 is not the index of an image"),
    "two columns of pictures": (chat("<image>?", image="a", images=["a"]), "has the columns 'image' and 'images'"),
    "an empty entry": (chat("<image>?", images=["a", None]), "'images' has an empty entry"),
    "picture of wrong type": (llava("<image>", image=[3]), "turn 1: 3 is not a file"),
    "picture without a name": (llava("<image>", image=""), "turn 1: '' is not the path of a file"),
    "entry without a file": (
        chat("<image>?", images=[{"file": "a"}]),
        "has no file under image, image_url, url, path",
    ),
    "picture in an answer": (chat("Hi", [{"image": "a"}, {"text": "x"}]), "turn 2: an answer contains an image"),
    # parts
    "part is text": (chat(["Hi"]), "turn 1 has the part 'Hi'; a part must be an object"),
    "unknown part": (asked({"type": "audio", "audio": "a"}), "known parts: text, image"),
    "part without any key": (asked({}), "has the unknown part {}; known parts:"),
    "text of wrong type": (asked({"type": "text", "text": 3}), "a text part whose text is 3"),
    "text under another name": (asked({"type": "text", "content": "x"}), "has the unknown key 'content'"),
    "unknown key in a text": (
        asked({"type": "text", "text": "x", "weight_": 1}),
        "the text has the unknown key 'weight_'",
    ),
    "unknown option of a picture": (
        image(max_pixel=9),
        "the image has the unknown key 'max_pixel'; did you mean 'max",
    ),
    "option of a clip": (image(fps=2), "the image has the unknown key 'fps'; known keys: detail, max_pixels, min_pix"),
    "base64 of wrong type": (asked({"type": "image", "base64": 3}), "turn 1: 3 is not a file"),
    "two files in a part": (image(url="b.png"), "turn 1: image and url both name the file"),
    "detail": (asked({"image_url": {"url": "a", "detail": "fine"}}), "detail is 'fine'; give low, high, auto, or max_"),
    "detail is a list": (asked({"image_url": {"url": "a", "detail": ["low"]}}), "detail is ['low']; give low, high,"),
    "detail of a size": (
        asked({"image_url": "a", "detail": "low", "resized_height": 56, "resized_width": 56}),
        "detail and resized_height exclude each other",
    ),
    "unknown key of an address": (asked({"image_url": {"uri": "a"}}), "image_url has the unknown key 'uri'"),
    "one side": (image(resized_height=56), "resized_height and resized_width must be given together"),
    "size and limit": (
        image(resized_height=56, resized_width=56, max_pixels=9),
        "max_pixels and resized_height exclude",
    ),
    "limits crossed": (image(min_pixels=9, max_pixels=8), "min_pixels (9) is above max_pixels (8)"),
    "limit as text": (image(max_pixels="9"), "max_pixels is '9'; give a whole number above 0"),
    "half a pixel": (image(max_pixels=9.5), "max_pixels is 9.5; give a whole number above 0"),
    "limit of zero": (image(min_pixels=0), "min_pixels is 0; give a whole number above 0"),
    "limit is true": (image(max_pixels=True), "max_pixels is True; give a whole number"),
    "no rate": (clip(fps=0), "fps is 0; give a number above 0"),
    "endless rate": (clip(fps=float("inf")), "fps is inf; give a number above 0"),
    "rate and count": (clip(fps=2, nframes=8), "fps and nframes exclude each other"),
    "count and most": (clip(nframes=8, max_frames=9), "max_frames and nframes exclude each other"),
    "frames crossed": (clip(min_frames=9, max_frames=8), "min_frames (9) is above max_frames (8)"),
    "start before zero": (clip(video_start=-1), "video_start is -1; give a number of seconds, 0 or more"),
    "end before start": (clip(video_start=3, video_end=3), "video_start (3.0) is not before video_end (3.0)"),
    "no frames": (clip([]), "the video is an empty list of frames"),
    "frame of wrong type": (clip(["1.png", 2]), "2 is not a file"),
    "size of a frame and of all": (
        clip(resized_height=56, resized_width=56, total_pixels=9),
        "total_pixels and resized_height exclude",
    ),
    **{
        f"{option} among frames": (clip(["1.png"], **{option: 2}), f"{option} has no effect on a list of frames")
        for option in ("nframes", "min_frames", "max_frames", "video_start", "video_end")
    },
    "two rates": (clip(["1.png"], fps=2, sample_fps=2), "fps and sample_fps exclude each other"),
    "rate of frames for a file": (clip(sample_fps=2), "the video has the unknown key 'sample_fps'"),
    # tools
    "tools are no JSON": (chat("Hi", tools="[{"), "tools: '[{' is not valid JSON"),
    "tools are no list": (chat("Hi", tools=CAT), "is not a list of functions"),
    "tool without a name": (chat("Hi", tools=[{"type": "function"}]), "is not a function; expected"),
    "call without arguments": (calling({"name": "find"}), "is not a tool call; expected"),
    "call of wrong type": (calling("find"), "turn 2: 'find' is not a tool call"),
    "arguments are no JSON": (calling({"name": "find", "arguments": "x"}), "arguments of find: 'x' is not valid JSON"),
    "unknown key in a call": (calling({"name": "f", "arguments": {}, "args": 1}), "has the unknown key 'args'"),
    "no call": (calling(), "turn 2: the assistant turn is empty"),
    "a call that is no JSON": (
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "function_call", "value": "find(1)"}]},
        "turn 2: 'find(1)' is not valid JSON",
    ),
    "call by a user": ({"messages": [{**USER, "tool_calls": []}, BOT]}, "turn 1 has the unknown key 'tool_calls'"),
    # questions and answers
    "history of wrong type": (
        {"query": "a", "response": "b", "history": ["x"]},
        "history 1 is 'x'; give a question and",
    ),
    "history that is no list": ({"query": "a", "response": "b", "history": "x"}, "'history' is 'x'; give a list"),
    "half a history": ({"query": "a", "response": "b", "history": [["x"]]}, "history 1 is ['x']"),
    "query of wrong type": ({"query": 3, "response": "b"}, "'query' is 3; give text"),
    "response of wrong type": ({"query": "a", "response": 3}, "'response' is 3; give text or a list of turns"),
    # preferences
    "same answers": (pair(rejected="Yes"), "the chosen and the rejected answer are the same"),
    "same turns": (pair(chosen=[BOT, USER, BOT], rejected=[BOT, USER, BOT]), "rejected answer are the same"),
    "no question": ({"chosen": "a", "rejected": "b"}, "has two answers, but no question"),
    "answer by the user": (
        pair(rejected=[USER]),
        "rejected turn 1: the role 'user' is not allowed after 'user'",
    ),
    "empty rejected answer": (pair(rejected=" "), "rejected: the assistant turn is empty"),
    "same answer, same pictures": (
        chat("<image>Hi") | {"images": ["a.png"], "rejected_images": ["a.png"]},
        "the chosen and the rejected answer are the same",
    ),
    "a third answer": (
        pair(completion="Maybe"),
        "has 'completion' as well as 'chosen' and 'rejected'; a pair has two answers, so remove it",
    ),
    "both columns of rejected pictures": (
        {"prompt": "<image>Hi", "chosen": "a", "rejected": "b", "rejected_images": ["a"], "rejected_image": "b"},
        "has the columns 'image' and 'images'",
    ),
    "rejected picture without a mark": (
        {"prompt": "<image>Hi", "chosen": "a", "rejected": "b", "images": ["a"], "rejected_images": ["a", "b"]},
        "the rejected answer has 1 <image> in its questions but 2 images in its columns",
    ),
    "picture in a rejected turn": (
        pair(rejected=[BOT, {"role": "user", "content": [{"image": "a"}]}, BOT]),
        "the rejected turns contain an image",
    ),
    "an answer that is not trained": (
        pair(chosen=[{**BOT, "train": False}]),
        "chosen turn 1: a preference row compares",
    ),
    "a trained prompt": (pair(prompt=[USER, {**BOT, "loss": 1}, USER]), "prompt turn 2: a preference row compares"),
    "different questions": (
        {"chosen": [USER, BOT], "rejected": [{**USER, "content": "Hey"}, BOT]},
        "must be the same up to an answer and differ in it; these share their first 0 turns",
    ),
    "same conversations": ({"chosen": [USER, BOT], "rejected": [USER, BOT]}, "these share their first 2 turns"),
    "a longer conversation": (
        {"chosen": [USER, BOT], "rejected": [USER, BOT, USER, BOT]},
        "these share their first 2 turns",
    ),
    "another prompt": (
        {"prompt": "x", "chosen": [USER, BOT], "rejected": [USER, {**BOT, "content": "No"}]},
        "'prompt' is not the question in 'chosen' and 'rejected'",
    ),
    "response to nothing": (
        {"messages": [USER], "rejected_response": "No"},
        "turn 1: the last turn has the role 'user'",
    ),
    # grounding
    "fewer boxes": (boxes("<bbox><bbox>", bbox=[BOX]), "has 2 <bbox> but 1 boxes in objects"),
    "fewer marks": (boxes("Here.", bbox=[BOX]), "has 0 <bbox> but 1 boxes in objects"),
    "fewer names": (boxes("<ref-object><ref-object>", ref=["a"]), "has 2 <ref-object> but 1 names in objects"),
    "a name too many": (
        boxes("<ref-object><bbox><bbox>", ref=["a", "b"], bbox=[BOX, BOX]),
        "has 1 <ref-object> but 2 names in objects",
    ),
    "names without marks": (boxes("<bbox>", ref=["a", "b"], bbox=[BOX]), "has 0 <ref-object> but 2 names in objects"),
    "listed and marked": (
        boxes("<objects><bbox>", ref=["a"], bbox=[BOX]),
        "<objects> lists every box; it cannot be combined",
    ),
    "listed and named": (
        boxes("<objects><ref-object>", ref=["a"], bbox=[BOX]),
        "cannot be combined with <bbox> or <ref-obj",
    ),
    "listed without names": (boxes("<objects>", bbox=[BOX]), "<objects> needs one name for each box"),
    "nothing to list": (boxes("<objects>"), "<objects> needs one name for each box"),
    "not a number": (boxes("<bbox>", bbox=[[1, 2, 3, NAN]]), "box 1 is [1, 2, 3, nan]; nan is not a coordinate"),
    "infinite box": (boxes("<bbox>", bbox=[[1, 2, 3, float("inf")]]), "inf is not a coordinate"),
    "box beyond all numbers": (boxes("<bbox>", bbox=[[1, 2, 3, 10**400]]), "is not a coordinate"),
    "limit beyond all numbers": (image(max_pixels=10**400), "give a whole number above 0"),
    "box as text": (boxes("<bbox>", bbox=["1,2,3,4"]), "box 1 is '1,2,3,4'; a box is [x1, y1, x2, y2]"),
    "box of truths": (boxes("<bbox>", bbox=[[True, 2, 3, 4]]), "True is not a coordinate"),
    "three numbers": (boxes("<bbox>", bbox=[[1, 2, 3]]), "box 1 is [1, 2, 3]; a box is [x1, y1, x2, y2] and a point"),
    "box of words": (boxes("<bbox>", bbox=[["1", 2, 3, 4]]), "'1' is not a coordinate"),
    "box turned round": (boxes("<bbox>", bbox=[[3, 2, 1, 4]]), "goes from its top left to its bottom right corner"),
    "box upside down": (boxes("<bbox>", bbox=[[1, 4, 3, 2]]), "goes from its top left to its bottom right corner"),
    "flat boxes": (boxes("<bbox>", bbox=BOX), "box 1 is 1; a box is"),
    "boxes of wrong type": (boxes("<bbox>", bbox=3), "objects, bbox is 3; give a list"),
    "relative boxes": (boxes("<bbox>", bbox=[[0, 0, 1, 1]], bbox_type="norm1"), "give boxes in pixels of the original"),
    "name of wrong type": (boxes("<ref-object>", ref=[3]), "the name 3 is not text"),
    "unknown key of objects": (
        boxes("<bbox>", bboxes=[BOX]),
        "objects has the unknown key 'bboxes'; did you mean 'bbox'?",
    ),
    "objects of wrong type": (chat("Hi", objects=[BOX]), "objects is [[1, 2, 3, 4]]; give an object"),
    "too few picture numbers": (boxes("<bbox>", bbox=[BOX], image_id=[]), "has 1 boxes, but 0 values of image_id"),
    "picture number of wrong type": (boxes("<bbox>", bbox=[BOX], image_id=["a"]), "'a' is not the index of an image"),
    "picture number is true": (boxes("<bbox>", bbox=[BOX], image_id=[True]), "True is not the index of an image"),
    "no such picture": (
        boxes("<bbox>", bbox=[BOX], image_id=[1]),
        "has a region in image 1, counted from 0, but 1 images",
    ),
    "which picture": (
        boxes("<bbox>", "<image><image>", ["a", "b"], bbox=[BOX]),
        "has regions and 2 images; set",
    ),
    "which picture of a part": (
        chat([{"image": "a"}, {"image": "b"}], [{"objects": [{"bbox_2d": BOX, "label": "x"}]}]),
        "turn 2 has regions and 2 images; set image_id (in a typed part: image)",
    ),
    "box without a picture": (chat("Hi", "<bbox>", objects={"bbox": [BOX]}), "has regions and 0 images"),
    "part without objects": (chat([{"image": "a"}], [{"objects": []}]), "turn 2 lists no objects"),
    "object without a label": (grounded({"bbox_2d": BOX}), "object 1 is {'bbox_2d': [1, 2, 3, 4]}; expected"),
    "point of four": (grounded({"point_2d": BOX, "label": "x"}), "expected {"),
    "two places": (grounded({"bbox_2d": BOX, "point_2d": [1, 2], "label": "x"}), "expected {"),
    "unknown key of an object": (grounded({"bbox_2d": BOX, "label": "x", "text": "y"}), "object 1 is"),
    "object that is no number": (grounded({"bbox_2d": [NAN, 2, 3, 4], "label": "x"}), "nan is not a coordinate"),
    "objects in another picture": (grounded({"bbox_2d": BOX, "label": "x"}, image=1), "has a region in image 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_broken_rows_are_named(case):
    row, words = REFUSED[case]
    with pytest.raises(UserError) as raised:
        sample(row, line=12)
    assert words in str(raised.value)
    assert str(raised.value).startswith("rows.jsonl:12 (id rows-12)" if isinstance(row, dict) else "rows.jsonl:12 ")


def test_a_column_that_the_row_has_is_not_suggested():
    with pytest.raises(UserError) as raised:
        sample({"msgs": [USER, BOT], "images": ["a.png"]})
    assert "misspelling" not in str(raised.value)


ANYTHING = [
    *(None, True, False, 0, 1, -1, 1.5, NAN, 10**400, "", "x", "<image>", "<bbox>", "[1]", "{}"),
    *([], {}, [None], [1], ["x"], [[]], [{}], [["a", "b"]], {"type": "image"}, [{"text": "x"}], {"bytes": None}),
    *({"name": "f", "arguments": {}}, {"from": "gpt", "value": "x"}, [{"role": "user", "content": "x"}]),
]


def places(value: object) -> Iterator[tuple[Any, Any]]:
    """Yield the path of every list and object in the row."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    for key in keys:
        yield value, key
        yield from places(value[key])


@pytest.mark.parametrize("case", ROWS)
def test_a_row_with_anything_in_it_is_read_or_refused_in_words(case):
    """Every value of a valid row, at any depth, is replaced by another one."""
    row = deepcopy(ROWS[case][1])
    for place, key in list(places(row)):
        good = place[key]
        for value in ANYTHING:
            place[key] = value
            told = ""
            try:
                sample(row)
            except UserError as error:
                told = str(error)
            assert not told or told.startswith("rows.jsonl:3 (id ")
        place[key] = good


FORCED = {
    "rows of another format": ("llava", chat("Hi"), "has no 'conversations', which the format llava needs"),
    "a dropped answer": (
        "messages",
        chat("Hi", rejected_response="No"),
        "has 'rejected_response', a key of preference rows",
    ),
    "a dropped pair": ("prompt_completion", pair(completion="x"), "a key of preference rows"),
    "one answer only": ("preference", {"prompt": "Hi", "chosen": "a"}, "'rejected' is None; give text"),
    "half a row": (
        "query_response",
        {"query": "a", "response_": "b"},
        "Is the column 'response_' a misspelling of 'response'?",
    ),
}


@pytest.mark.parametrize("case", FORCED)
def test_rows_that_a_forced_format_cannot_read(case):
    format, row, words = FORCED[case]
    with pytest.raises(UserError, match=words):
        sample(row, format)


def test_a_hint_stands_only_where_it_helps():
    for row in (
        llava("<image><image>", image="a.png"),
        llava("<image><image>", image="a.png", video=[]),
        llava("<image><image>", image="a.png", image_path="b.png"),
    ):
        with pytest.raises(UserError) as raised:
            sample(row)
        assert str(raised.value) == (
            "rows.jsonl:3 (id rows-3) has 2 <image> in its questions but 1 images in its columns; "
            "write one <image> for each, where it belongs."
        )
    for videos in (["1.mp4"], ["1.mp4", "2.mp4", "3.mp4"]):
        with pytest.raises(UserError, match=r"where it belongs\.$"):
            sample(llava("<video><video>", video=videos))
    with pytest.raises(UserError, match=r"where it belongs\.$"):
        sample(llava("<image>?", image=["1.png", "2.png"]))


def test_long_values_are_told_in_short():
    with pytest.raises(UserError) as raised:
        sample(chat("<image>", images=[{"image": ["x" * 10**6]}]))
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("format", [name for name in get_args(RowFormat) if name != "auto"])
def test_every_format_of_the_configuration_has_rows(format):
    assert any(known == format for known, _, _ in ROWS.values())
