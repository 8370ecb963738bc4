"""A raw row that is copied to another folder gives the same sample there."""

import json
from pathlib import Path

import pytest

from qwenvl_train.data.formats import copied_row, moved_row, renamed, to_sample
from qwenvl_train.data.media.locate import Locator
from qwenvl_train.errors import UserError

PIXELS = b"\x89PNG pixels"
ROWS = {
    "llava": {
        "image": "a.png",
        "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "Red."}],
    },
    "query_response": {"query": "<image><image>Which?", "response": "No", "images": '["a.png", "b/../c.png"]'},
    "messages": {
        "id": 7,
        "messages": [
            {"role": "user", "content": [{"type": "image", "image": {"bytes": PIXELS, "path": "old.png"}}]},
            {"role": "assistant", "content": "Red."},
        ],
    },
    "prompt_completion": {
        "prompt": "<image>Where?",
        "completion": "<bbox>",
        "images": ["a.png"],
        "objects": {"ref": [], "bbox": [[1, 2, 3, 4]]},
    },
    "preference": {"prompt": "<video>What?", "videos": [["1.png", "2.png"]], "chosen": "Red.", "rejected": "Blue."},
}


def locator(folder: str) -> Locator:
    return Locator(Path(folder), fenced=False, allow_remote=False, cache=Path("/cache"))


def test_bytes_keep_their_type():
    copy = copied_row(ROWS["messages"], "rows", 3, locator("/data"), "messages")
    assert copy["messages"][0]["content"][0]["image"].startswith("data:image/png;base64,")


@pytest.mark.parametrize("format", ROWS)
def test_a_copy_gives_the_same_sample(format):
    copy = json.loads(json.dumps(copied_row(ROWS[format], "rows", 3, locator("/data"), format)))
    there, here = (
        to_sample(row, "rows", 3, locator(folder), format)
        for row, folder in ((copy, "/elsewhere"), (ROWS[format], "/data"))
    )
    assert there.id == here.id
    assert [(turn.role, turn.train) for turn in there.turns] == [(turn.role, turn.train) for turn in here.turns]
    for mine, theirs in zip(there.media, here.media, strict=True):
        for content, original in zip(mine.contents, theirs.contents, strict=True):
            assert content == (original if isinstance(original, bytes) else original.replace("b/../", ""))


NAME = "img/0.png"
ASKED = {"role": "user", "content": [{"type": "image", "image": NAME}, {"type": "text", "text": NAME}]}
SAYS = {"role": "assistant", "content": NAME}
BYTES = {"bytes": PIXELS, "path": NAME}
CALL = {"type": "function", "function": {"name": "zoom", "arguments": {"image": NAME, "url": [NAME]}}}
NAMED: dict[str, tuple[str, dict, dict | None]] = {
    "llava": (
        "llava",
        {
            "id": NAME,
            "image": NAME,
            "conversations": [{"from": "human", "value": f"<image>{NAME}"}, {"from": "gpt", "value": NAME}],
        },
        None,
    ),
    "query_response": (
        "query_response",
        {
            "system": NAME,
            "history": [[f"<image>{NAME}", NAME]],
            "query": NAME,
            "response": NAME,
            "images": f'["{NAME}"]',
        },
        None,
    ),
    "instruction": (
        "instruction",
        {"instruction": "<image>Which?", "input": NAME, "output": NAME, "image": NAME},
        None,
    ),
    "prompt_completion": (
        "prompt_completion",
        {"prompt": NAME, "completion": NAME, "image": [{"image": NAME, "max_pixels": 4096}]},
        None,
    ),
    "messages": ("messages", {"messages": [{"role": "system", "content": NAME}, ASKED, SAYS]}, None),
    "bytes": ("messages", {"messages": [{"role": "user", "content": "<image>?"}, SAYS], "images": [BYTES]}, None),
    "image_url": (
        "messages",
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": NAME, "detail": "low"}}]},
                SAYS,
            ]
        },
        None,
    ),
    "image_url in a column": (
        "prompt_completion",
        {"prompt": "<image>Which?", "completion": NAME, "images": [{"image_url": {"url": NAME}}]},
        None,
    ),
    "calls": (
        "messages",
        {
            "messages": [
                ASKED,
                {"role": "assistant", "content": "", "tool_calls": [CALL]},
                {"role": "tool", "content": NAME},
                {**SAYS, "reasoning_content": NAME},
            ],
            "answers": [NAME],
        },
        None,
    ),
    "frames": (
        "messages",
        {"messages": [{"role": "user", "content": [{"type": "video", "video": [NAME, "1.png"]}]}, SAYS]},
        None,
    ),
    "frames in a column": (
        "prompt_completion",
        {"prompt": "<video>Which?", "completion": NAME, "videos": [[NAME, "1.png"]]},
        None,
    ),
    "frames with options": (
        "prompt_completion",
        {"prompt": "<video>Which?", "completion": NAME, "videos": [{"video": [NAME, "1.png"], "sample_fps": 2}]},
        None,
    ),
    "preference": ("preference", {"prompt": [ASKED], "chosen": NAME, "rejected": [SAYS | {"content": "No"}]}, None),
    "rejected media": (
        "preference",
        {"prompt": "<image>?", "chosen": NAME, "rejected": "1.png", "image": NAME, "rejected_image": "1.png"},
        None,
    ),
    "columns": (
        "prompt_completion",
        {"file": f'["{NAME}"]', "image": NAME, "said": NAME},
        {"images": "file", "prompt": "image", "answer": "said"},
    ),
}


@pytest.mark.parametrize("case", NAMED)
def test_texts_that_are_the_path_of_a_medium_stay(case):
    format, row, columns = NAMED[case]
    sample, copy = moved_row(row, "rows", 3, locator("/data"), format, columns)
    copy = json.loads(json.dumps(copy))
    assert to_sample(renamed(copy, columns), "rows", 3, locator("/elsewhere"), format) == sample
    assert sample.media
    contents = [content for medium in sample.media for content in medium.contents]
    assert all(isinstance(content, bytes) or content.startswith("/data/") for content in contents)


def test_a_row_whose_text_would_change_is_not_copied():
    row, columns = (
        {"question": "Which file?", "file": "a.png"},
        {"image": "file", "prompt": "question", "answer": "file"},
    )
    with pytest.raises(UserError, match="cannot be copied"):
        moved_row(row, "rows", 3, locator("/data"), "prompt_completion", columns)
