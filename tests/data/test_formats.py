"""Rows to samples: what is read, what is refused, and in which words."""

import json
from pathlib import Path

import pytest
from PIL import Image as Pillow

from qwenvl_train.config.schema import SourceConfig
from qwenvl_train.data.formats import to_sample
from qwenvl_train.data.sample import Image, Text
from qwenvl_train.data.samples import Samples
from qwenvl_train.errors import UserError


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("a.png", "b.png"):
        Pillow.new("RGB", (60, 60)).save(tmp_path / name)
    return tmp_path


def llava(value: str, image: object = "a.png", answer: str = "Red.") -> dict:
    return {
        "id": 7,
        "image": image,
        "conversations": [{"from": "human", "value": value}, {"from": "gpt", "value": answer}],
    }


def parts(sample) -> list[str]:
    return [part.text if isinstance(part, Text) else Path(part.path).name for part in sample.turns[0].parts]


@pytest.mark.parametrize(
    ("value", "image", "expected"),
    [
        ("<image>\nWhat?", "a.png", ["a.png", "What?"]),
        ("<image>What?", ["a.png"], ["a.png", "What?"]),
        ("What?\n<image>", "a.png", ["What?", "a.png"]),
        ("Is\n<image>\nlike <image>?", ["a.png", "b.png"], ["Is", "a.png", "like ", "b.png", "?"]),
        ("<image>\n\nTwo breaks: one is the user's.", "a.png", ["a.png", "\nTwo breaks: one is the user's."]),
        ("<image><image>", ["b.png", "a.png"], ["b.png", "a.png"]),
    ],
)
def test_llava_marks_become_pictures_where_they_stand(folder, value, image, expected):
    assert parts(to_sample(llava(value, image), "x.jsonl", 3, folder)) == expected


def test_an_answer_may_speak_of_the_mark(folder):
    sample = to_sample(llava("<image>\nWhat?", answer="Write <image> here."), "x.jsonl", 1, folder)
    assert sample.turns[1].parts == (Text("Write <image> here."),)
    assert sample.turns[1].train


def test_messages_with_typed_parts_and_plain_text(folder):
    row = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": "<image>?"}]},
            {"role": "assistant", "content": "Red.", "train": False},
            {"role": "user", "content": "Sure?"},
            {"role": "assistant", "content": "Yes."},
        ]
    }
    sample = to_sample(row, "x.jsonl", 4, folder)
    assert sample.id == "x-4"
    assert [turn.train for turn in sample.turns] == [False, False, False, False, True]
    assert sample.turns[1].parts == (Image(str(folder / "a.png")), Text("<image>?"))


USER = {"role": "user", "content": "Hi"}
BOT = {"role": "assistant", "content": "Ho"}

REFUSED = {
    "not an object": (["a"], "is a JSON list"),
    "no known key": ({"text": "a"}, "needs 'conversations'"),
    "more marks than pictures": (llava("<image><image>"), "2 <image> in its questions but 1 pictures"),
    "more pictures than marks": (llava("What?"), "0 <image> in its questions but 1 pictures"),
    "picture missing": (llava("<image>", "c.png"), "c.png does not exist; relative paths start at"),
    "picture is no path": (llava("<image>", [3]), "3 is not the path of a picture"),
    "image of wrong type": (llava("<image>", 3), "give one path or a list"),
    "video": ({"video": "v.mp4"} | llava("Hi", []), "videos are not read yet"),
    "unknown speaker": ({"conversations": [{"from": "cat", "value": "x"}]}, "turn 1 is from 'cat'"),
    "turn without value": ({"conversations": [{"from": "human"}]}, "needs the keys 'from' and 'value'"),
    "no turns": ({"messages": []}, "must be a list of turns, and not empty"),
    "turns of wrong type": ({"messages": "Hi"}, "must be a list of turns"),
    "unknown role": ({"messages": [{"role": "tool", "content": "x"}]}, "has the role 'tool'"),
    "message is text": ({"messages": ["Hi"]}, "has the role None"),
    "content of wrong type": ({"messages": [{"role": "user", "content": 3}, BOT]}, "content is 3"),
    "unknown part": ({"messages": [{"role": "user", "content": [{"type": "audio"}]}, BOT]}, "has the part"),
    "part with unknown key": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "wieght": 1}]}, BOT]},
        "wieght",
    ),
    "train of wrong type": ({"messages": [USER, {**BOT, "train": "no"}]}, "train is 'no'"),
    "assistant first": ({"messages": [BOT, USER]}, "the turns go assistant, user"),
    "user last": ({"messages": [USER, BOT, USER]}, "the assistant is last"),
    "two users": ({"messages": [USER, USER, BOT]}, "user, user, assistant"),
    "only a system turn": ({"messages": [{"role": "system", "content": "x"}]}, "the turns go system"),
    "empty answer": ({"messages": [USER, {"role": "assistant", "content": " \n"}]}, "the assistant's turn is empty"),
    "nothing to learn": ({"messages": [USER, {**BOT, "train": False}]}, "no turn to learn from"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_broken_rows_are_named(folder, case):
    row, words = REFUSED[case]
    with pytest.raises(UserError) as raised:
        to_sample(row, "rows.jsonl", 12, folder)
    assert words in str(raised.value)
    assert "rows.jsonl:12" in str(raised.value)


def source(path: Path, **settings: str) -> tuple[SourceConfig]:
    return (SourceConfig(path=str(path), **settings),)


def test_files_are_read_by_line_and_joined(folder):
    first, second = folder / "one.jsonl", folder / "two.json"
    rows = [llava("<image>\nWhat?", answer=f"{index}") for index in range(5)]
    first.write_text("\n".join(json.dumps(row) for row in rows[:3]).replace("\n", "\n\n", 1), encoding="utf-8")
    second.write_text(json.dumps(rows[3:]), encoding="utf-8")
    samples = Samples(source(first) + source(second), "data.train")
    assert len(samples) == 5
    assert [samples[index].turns[1].parts[0].text for index in (4, 0, 3, 2, 1)] == ["4", "0", "3", "2", "1"]
    assert [samples[index].line for index in range(5)] == [1, 3, 4, 1, 2]


FILES = {
    "missing": ("gone.jsonl", None, "is not a file"),
    "folder": (".", None, "is not a file"),
    "unknown ending": ("a.png", None, "ends in '.png'"),
    "empty": ("empty.jsonl", b"\n\n", "has no rows"),
    "object instead of list": ("o.json", b"{}", "one list of rows"),
    "broken array": ("o.json", b"[{]", "is not valid JSON"),
    "not utf-8": ("u.json", b'["\xff"]', "is not UTF-8 text"),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_cannot_be_read_are_named(folder, case):
    name, content, words = FILES[case]
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=words) as raised:
        Samples(source(folder / name), "data.train")
    assert str(folder) in str(raised.value)


def test_a_broken_line_is_named(folder):
    path = folder / "x.jsonl"
    path.write_bytes(json.dumps(llava("<image>")).encode() + b'\n{"id": 1, "mess\n')
    samples = Samples(source(path), "data.train")
    with pytest.raises(UserError, match=r"x\.jsonl:2 is not valid JSON"):
        samples[1]


def test_media_root(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("rows") / "x.jsonl"
    elsewhere.write_text(json.dumps(llava("<image>")), encoding="utf-8")
    with pytest.raises(UserError, match="does not exist"):
        Samples(source(elsewhere), "data.train")[0]
    assert Samples(source(elsewhere, media_root=str(folder)), "data.train")[0].images[0].path == str(folder / "a.png")
    with pytest.raises(UserError, match="is not a folder"):
        Samples(source(elsewhere, media_root=str(folder / "no")), "data.train")
