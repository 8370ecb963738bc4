"""A sample that is written as a row is read as the same sample."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from qwenvl_train.data.formats import to_sample
from qwenvl_train.data.formats.writing import conversation_row, pair_row, scoring_columns
from qwenvl_train.data.media.locate import Locator
from qwenvl_train.data.sample import Sample, Text, Turn
from tests.conftest import sample_of

LOCATOR = Locator(Path("/"), fenced=False, allow_remote=False, cache=Path("/"))
FORMS = ("ms_swift", "llama_factory", "trl")
ANSWER = {"role": "assistant", "content": "<image> is red."}
PNG = "data:;base64,iVBORw0KGgo="
USER = {"role": "user"}
CLIP = {"type": "video", "video": "/a.mp4", "fps": 2.0, "max_pixels": 9999}
FRAMES = {"type": "video", "video": ["/1.png", "/2.png"]}
CALL = {"function": {"name": "f", "arguments": {"x": [1]}}}
ROWS = {
    "marks": {
        "messages": [USER | {"content": "a <image>\n\nb\n\n<image><image>"}, ANSWER],
        "images": ["/a.png", PNG, "/c.png"],
    },
    "a mark as text": {
        "messages": [USER | {"content": [{"type": "image"}, {"type": "text", "text": "What is <image>?"}]}, ANSWER],
        "images": ["/a.png"],
    },
    "turns": {
        "messages": [
            {"role": "system", "content": "Be short."},
            USER | {"content": [CLIP, {"type": "text", "text": "\nA?"}]},
            {**ANSWER, "loss": False, "reasoning_content": "Hm."},
            USER | {"content": [FRAMES, {"type": "image", "image": "/a.png", "detail": "low"}]},
            {"role": "assistant", "content": "Let me see.", "tool_calls": [CALL]},
            {"role": "tool", "content": "4"},
            ANSWER,
        ],
        "tools": [{"type": "function", "function": {"name": "f"}}],
    },
    "no media": {
        "messages": [USER | {"content": "What does <image> mean?"}, ANSWER],
        "answers": ["A", "B"],
        "metric": "anls",
    },
    "frames": {"messages": [USER | {"content": [FRAMES | {"fps": 1}]}, ANSWER]},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_read_as_the_same_sample(name, form):
    sample = sample_of({**ROWS[name], "id": "x"})
    row = json.loads(json.dumps(conversation_row(sample, form) | scoring_columns(sample)))
    assert sample_of(row) == sample
    contents = {type(message["content"]) for message in row["messages"]}
    assert contents == ({list} if form == "trl" or name == "a mark as text" else {str})


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ROWS)
def test_a_pair_is_read_as_the_same_pair(name, form):
    question = sample_of({**ROWS[name], "id": "x"}).question
    question = replace(
        question, turns=tuple(replace(turn, train=False) for turn in question.turns), accepted=(), metrics=()
    )
    row = json.loads(json.dumps(pair_row(question, "A <video>.", "B", form)))
    read = to_sample(row, "rows", 1, LOCATOR, "auto")
    chosen, rejected = (Turn("assistant", (Text(text),), train=True) for text in ("A <video>.", "B"))
    shared = len(question.turns)
    assert read == Sample(
        **vars(replace(question, turns=(*question.turns, chosen), rejected=(rejected,), shared=shared))
    )
    messages = row["prompt" if form == "trl" else "messages"][:shared]
    earlier = [message.get("loss") for message in messages if message["role"] == "assistant"]
    assert earlier == [False if form == "ms_swift" else None] * len(earlier)


def test_media_are_bare_files_unless_the_row_has_options():
    """Whatever the settings say of their size."""
    limited = {"type": "image", "image": "/b.png", "max_pixels": 9999}
    content = [{"type": "image", "image": "/a.png"}, {"type": "image", "image": PNG}, limited]
    row = conversation_row(sample_of({"id": "x", "messages": [USER | {"content": content}, ANSWER]}), "ms_swift")
    png = PNG.replace("data:;", "data:image/png;")
    assert row["images"] == ["/a.png", png, {"image": "/b.png", "max_pixels": 9999}]


def test_the_peers_find_what_they_look_for():
    """TRL's own functions; of ms-swift and LLaMA-Factory, the keys that docs/data.md shows."""
    from trl.data_utils import is_conversational, maybe_extract_prompt, prepare_multimodal_messages

    question = replace(sample_of({**ROWS["marks"], "id": "x"}).question)
    trl = pair_row(question, "A", "B", "trl")
    assert is_conversational(trl)
    assert maybe_extract_prompt({key: trl[key] for key in ("prompt", "chosen", "rejected")})["prompt"] == trl["prompt"]
    messages = prepare_multimodal_messages(trl["prompt"] + trl["chosen"], images=["a", "b", "c"])
    assert [part["type"] for part in messages[0]["content"]] == ["text", "image", "text", "image", "image"]
    assert pair_row(question, "A", "B", "ms_swift").keys() == {"id", "messages", "rejected_response", "images"}
    factory = pair_row(question, "A", "B", "llama_factory")
    assert factory["chosen"] == {"role": "assistant", "content": "A"}
    assert [message["role"] for message in factory["messages"]] == ["user"]
    assert factory["messages"][0]["content"].count("<image>") == len(factory["images"]) == 3
