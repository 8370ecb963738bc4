"""A raw row that is copied to another folder gives the same sample there."""

import json
from pathlib import Path

import pytest

from qwenvl_train.data.formats import copied_row, to_sample
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


def test_a_row_whose_text_would_change_is_not_copied():
    row = {"query": "<image>Which file?", "response": "a.png", "images": ["a.png"]}
    with pytest.raises(UserError, match="cannot be copied"):
        copied_row(row, "rows", 3, locator("/data"), "query_response")
