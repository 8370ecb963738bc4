"""The verb chat as a user runs it: on the terminal, once, and for the rows of a file."""

import io
import json
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qwenvl_train.config.compose import compose
from qwenvl_train.errors import UserError
from qwenvl_train.verbs.chat import shown
from qwenvl_train.verbs.chat.answers import AnswersFile
from qwenvl_train.verbs.chat.settings import CHAT
from qwenvl_train.verbs.chat.shown import dimmed, show
from tests.commands import read_lines
from tests.verbs.chat.models import let_it_say

TEXT = {"type": "text", "text": "What?"}
BOX = '```json\n[\n\t{"bbox_2d": [14, 28, 70, 56], "label": "part"}\n]\n```'


@pytest.fixture
def chat(verb):
    def run(*words: str, code: int = 0) -> tuple[str, str]:
        return verb("chat", *words, code=code)

    return run


@pytest.fixture
def typed(chat, monkeypatch):
    """What a conversation prints on these lines, without its first line."""

    def run(*lines: str, words: tuple[str, ...] = (), by_hand: bool = False) -> list[str]:
        stdin = io.StringIO("".join(f"{line}\n" for line in lines))
        stdin.isatty = lambda: by_hand
        monkeypatch.setattr(sys, "stdin", stdin)
        first, *rest = chat(*words)[0].splitlines()
        assert first.startswith("Qwen2.5-VL from ")
        return rest

    return run


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["run=runs/x", "model.path=mine"], "runs/x does not exist"),
        (["chat.images=a.png"], "chat.images has no effect without chat.prompt; on the terminal, /image"),
        (["chat.prompt=' '"], "chat.prompt is empty"),
        (["chat.input=a.jsonl"], "chat.input needs chat.to"),
        (["chat.input=a.jsonl", "chat.to=b.csv"], r"chat.to=b.csv: the file for the answers must end in .jsonl"),
        (["chat.input=a.jsonl", "chat.to=b.jsonl", "chat.prompt=A"], "chat.prompt has no effect together with chat.in"),
        (["chat.input=a.jsonl", "chat.to=b.jsonl", "chat.save=x"], "chat.save has no effect with chat.input"),
        (["chat.to=b.jsonl"], "chat.to has no effect without chat.input"),
        (["chat.top_k=3"], "chat.top_k has no effect with chat.temperature=0"),
        (["chat.temperature=-1"], "chat.temperature=-1: must be"),
        (["chat.top_p=0"], "chat.top_p=0: must be"),
        (["chat.port=70000"], "chat.port=70000: must be"),
        (["chat.compare=base"], "chat.compare has no effect without chat.web=true"),
        (["chat.web=true", "chat.prompt=A"], "chat.prompt has no effect with chat.web=true"),
        (["chat.web=true", "output=json"], "output=json has no effect with chat.web=true"),
        (["chat.promp=A"], "did you mean chat.prompt"),
    ],
)
def test_a_mistake_in_what_chat_reads_is_named(words, line):
    with pytest.raises(UserError, match=line):
        compose(words, CHAT)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("chat.prompt=Look closely, is it [a] {b} = c?", "Look closely, is it [a] {b} = c?"),
        ("chat.prompt='Is it, or \"not\"?'", 'Is it, or "not"?'),
        ('chat.prompt="', '"'),
        ("chat.prompt=17", "17"),
        ("chat.prompt=null", None),
        ("chat.prompt=${HOME} <image>\nWhat's it?", "${HOME} <image>\nWhat's it?"),
    ],
)
def test_a_question_is_taken_as_it_is_written(word, value):
    assert compose([word], CHAT).config.chat.prompt == value


def test_a_conversation_with_commands(typed, monkeypatch, pictures):
    asked = let_it_say(monkeypatch, "Two images.", "Yes, two.", "No images.")
    lines = typed(
        f"/image {pictures[0]} '{pictures[1]}'", "How many?", "", "Sure?", "/clear", "And now?", "/exit", "Never read",
    )  # fmt: skip
    assert lines == [
        f"image 1: {pictures[0]}, 84×84 pixels, 9 tokens",
        f"image 2: {pictures[1]}, 130×61 pixels, 10 tokens",
        "Two images.",
        "Yes, two.",
        "the conversation starts again",
        "No images.",
    ]
    assert [len(one.layout.pictures) for one in asked] == [2, 2, 0]


def test_the_beginning_of_thoughts_that_the_prompt_has_is_part_of_the_answer(chat, monkeypatch, write_rows, tmp_path):
    """As in the predictions of eval: in files, as JSON and on the terminal. Thoughts that were cut can be told."""
    said, whole, cut = "It may be.\n</think>\n\nA blue disc.", "<think>\nIt may be.\n</think>\n\nA blue disc.", "It may"
    words = ("model=tiny_qwen3_5", "data.thinking=on")
    let_it_say(monkeypatch, said, said, said, cut)
    assert whole in chat(*words, "chat.prompt=A?")[0]
    assert json.loads(chat(*words, "chat.prompt=A?", "output=json")[0])["answer"] == whole
    file, to = write_rows([{"prompt": "A?"}, {"prompt": "B?"}]), tmp_path / "to.jsonl"
    chat(*words, f"chat.input={file}", f"chat.to={to}")
    assert [row["answer"] for row in read_lines(to)] == [whole, f"<think>\n{cut}"]


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        (["<think>\n", "Hm.\n</", "think>\n\nA", " disc."], "[<think>\nHm.\n</think>]\n\nA disc."),
        (["<think>\n", "Hm."], "[<think>\nHm."),
        (["A <think>", " disc."], "A <think> disc."),
    ],
)
def test_thoughts_are_dimmed_on_a_terminal(pieces, shown):
    assert "".join(dimmed(pieces)).replace("\x1b[2m", "[").replace("\x1b[22m", "]") == shown


@pytest.mark.parametrize(
    ("by_hand", "variables", "dims"),
    [(True, {}, True), (True, {"NO_COLOR": "1"}, False), (True, {"TERM": "dumb"}, False), (False, {}, False)],
)
def test_thoughts_are_dimmed_only_where_styles_are_shown(monkeypatch, by_hand, variables, dims):
    out = StringIO()
    out.isatty = lambda: by_hand
    monkeypatch.setattr("sys.stdout", out)
    for name, value in ({"TERM": "xterm"} | variables).items():
        monkeypatch.setenv(name, value)
    show(["<think>\nWell", "\n</think>\n\nA cat."])
    assert ("\x1b[2m" in out.getvalue()) == dims


def test_the_end_of_the_input_ends_the_chat(typed, monkeypatch):
    let_it_say(monkeypatch, "Yes.")
    assert typed("Is it?") == ["Yes."]


def test_what_is_wrong_is_one_line_and_the_chat_goes_on(typed, monkeypatch, tmp_path):
    let_it_say(monkeypatch, "Yes.")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    lines = typed(
        "/image gone.png", f"/image {tmp_path}/broken.png", "/video", "/image 'a", "/picture a.png",
        "/image https://example.org/a.png", "Is it?", by_hand=True,
    )  # fmt: skip
    *wrong, last = [line.removeprefix("> ") for line in lines if line not in ("", "> ", "/help lists commands")]
    assert last == "Yes."
    expected = (
        "/image: the image", "/image: the image", "/video: name a file", "/image: no closing quotation.",
        "/picture: there is no such command", "/image: 'https://example.org/a.png' is not fetched",
    )  # fmt: skip
    assert len(wrong) == len(expected)
    assert all(line.startswith(begin) for line, begin in zip(wrong, expected, strict=True))


def test_a_mistake_of_a_program_ends_the_conversation(chat, monkeypatch):
    let_it_say(monkeypatch, "Yes.")
    monkeypatch.setattr(sys, "stdin", io.StringIO("Is it?\n/image gone.png\nWhat is in it?\n"))
    out, err = chat(code=2)
    assert out.splitlines()[1:] == ["Yes."]
    assert err.startswith("qwenvl-train: /image: the image")


def test_a_system_turn_starts_the_conversation_again(typed, monkeypatch):
    asked = let_it_say(monkeypatch, "One.", "Two.", "Three.")
    typed("A?", "/system Be very brief.", "A?", "/system", "A?", words=("chat.system=Be long.",))
    assert len({tuple(one.layout.input_ids) for one in asked}) == 3
    assert len({len(one.layout.turns) for one in asked}) == 1


def test_ctrl_c_stops_the_answer_and_not_the_chat(typed, monkeypatch):
    let_it_say(monkeypatch, "A long answer", "Yes.", interrupted=True)
    assert typed("A?", "Go on?") == ["A", "(stopped)", "Yes.", "(stopped)"]


def test_ctrl_c_between_two_pieces_stops_the_answer_too(typed, monkeypatch):
    let_it_say(monkeypatch, "A long answer", "Yes.")

    def interrupted(*words, **options):
        print(*words, **options)
        if words == (" long",):
            raise KeyboardInterrupt

    monkeypatch.setattr(shown, "print", interrupted, raising=False)
    assert typed("A?", "Go on?") == ["A long", "(stopped)", "Yes."]


def test_boxes_are_told_and_drawn_in_pixels_of_the_original(chat, monkeypatch, tmp_path):
    """The model has seen 84×56 pixels. The red of the first box is where it belongs."""
    Image.new("RGB", (168, 112), "white").save(tmp_path / "part.png")
    let_it_say(monkeypatch, f"Here: {BOX}")
    out, _ = chat("chat.prompt=Where?", f"chat.images={tmp_path / 'part.png'}", f"chat.save={tmp_path / 'drawn'}")
    *_, box, where = out.splitlines()
    assert box.startswith("box ")
    assert box.endswith("  part")
    left, top, right, bottom = (int(number) for number in box.removeprefix("box ").split("  ")[0].split(", "))
    path = Path(where.removeprefix("drawn into "))
    assert path.parent == tmp_path / "drawn"
    drawn = np.asarray(Image.open(path))
    assert drawn.shape == (112, 168, 3)
    red = (drawn == (0xE6, 0x19, 0x4B)).all(-1)
    edges = [(top, left + 40), (bottom, right - 5), (bottom - 5, left), (bottom - 5, right)]
    assert all(red[place] for place in edges)
    assert not red[bottom - 10, left + 10]
    assert (drawn[bottom - 10, left + 10] == 255).all()


def test_one_question_as_json(chat, monkeypatch, tmp_path):
    Image.new("RGB", (168, 112), "white").save(tmp_path / "part.png")
    let_it_say(monkeypatch, "At [14, 28, 70, 56].")
    out, _ = chat("chat.prompt=Where?", f"chat.images=[{tmp_path / 'part.png'}]", "output=json")
    answer = json.loads(out)
    assert answer["answer"] == "At [14, 28, 70, 56]."
    assert answer["regions"] == [{"kind": "box", "pixels": answer["regions"][0]["pixels"], "label": "", "image": 0}]
    assert Image.open(answer["drawing"]).size == (168, 112)
    assert answer["tokens"]["answer"] == 6
    assert answer["ended"] is True


def test_a_conversation_as_json(chat, monkeypatch):
    let_it_say(monkeypatch, "One.", "Two.")
    monkeypatch.setattr(sys, "stdin", io.StringIO("A?\n/clear\nB?\n"))
    out, _ = chat("output=json")
    assert [json.loads(line)["answer"] for line in out.splitlines()] == ["One.", "Two."]


@pytest.mark.parametrize("files", [["chat.images=gone.png"], ["chat.videos=[gone.mp4]"]])
def test_a_file_that_is_missing_is_exit_2(chat, files):
    _, err = chat("chat.prompt=What?", *files, code=2)
    assert err.count("\n") == 1
    assert "question 1: the " in err
    assert "does not exist" in err


def test_several_pictures_in_a_question_leave_open_where_boxes_are(chat, monkeypatch, pictures):
    let_it_say(monkeypatch, BOX)
    out, _ = chat("chat.prompt=Where?", f"chat.images=[{pictures[0]},{pictures[1]}]")
    assert out.splitlines()[-1].startswith("(the answer has boxes or points, and does not say in which of the 2 images")


def rows(pictures: list[Path]) -> list[dict]:
    asked = [{"role": "user", "content": "<image>What?"}]
    return [
        {"id": "a", "messages": asked, "images": [str(pictures[0])]},
        {"id": "b", "messages": [*asked, {"role": "assistant", "content": "Red."}], "images": [str(pictures[0])]},
        {"id": "c", "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]},
        {"id": "d", "messages": [{"role": "user", "content": "Why?"}]},
    ]


def test_rows_are_answered_and_a_killed_job_goes_on(chat, write_rows, pictures, tmp_path):
    file, to = write_rows(rows(pictures)), tmp_path / "deep" / "answers.jsonl"
    words = (f"chat.input={file}", f"chat.to={to}", "chat.max_new_tokens=4", "chat.system=Be long.")
    out, _ = chat(*words)
    assert out.splitlines()[-1] == f"4 answers added to {to}"
    whole = to.read_bytes()
    answers = read_lines(to)
    assert [row["id"] for row in answers] == ["a", "b", "c", "d"]
    assert answers[0]["answer"] == answers[1]["answer"] != ""
    assert answers[2]["tokens"]["prompt"] != answers[3]["tokens"]["prompt"]
    to.write_bytes(whole[: whole.rindex(b'"answer"')])
    out, _ = chat(*words)
    assert out.splitlines()[-2:] == [f"3 of 4 rows are already answered in {to}", f"1 answer added to {to}"]
    assert to.read_bytes() == whole
    out, _ = chat(*words)
    assert out.splitlines()[-1] == f"4 of 4 rows are already answered in {to}"
    _, err = chat(*words[:3], code=2)
    assert "line 1 was answered with system=Be long., and now it is None" in err
    _, err = chat(*words, "model.max_pixels=3136", code=2)
    assert "line 1 was answered with rendering=" in err
    file.write_text(file.read_text().replace("Why?", "Why not?"))
    _, err = chat(*words, code=2)
    assert f"line 3 answers what {file}:3 was before: the row or its media have changed" in err
    assert to.read_bytes() == whole


def test_other_files_are_not_added_to(chat, write_rows, tmp_path):
    file = write_rows([{"prompt": "A?"}])
    (tmp_path / "mine.jsonl").write_text('{"prompt": "B?"}\n')
    _, err = chat(f"chat.input={file}", f"chat.to={tmp_path / 'mine.jsonl'}", code=2)
    assert "line 1 is not an answer of this command" in err
    assert (tmp_path / "mine.jsonl").read_text() == '{"prompt": "B?"}\n'


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": [{"from": "human", "value": "A?"}]},
        {"prompt": "A?"},
        {"query": "A?", "response": ""},
        {"instruction": "A?", "input": "", "output": None},
        {"prompt": "A?", "chosen": "B.", "rejected": "C."},
    ],
    ids=lambda row: next(iter(row)),
)
def test_every_format_may_lack_its_answer(chat, monkeypatch, write_rows, row, tmp_path):
    asked = let_it_say(monkeypatch, "Yes.")
    chat(f"chat.input={write_rows([row])}", f"chat.to={tmp_path / 'to.jsonl'}")
    assert read_lines(tmp_path / "to.jsonl")[0]["answer"] == "Yes."
    assert len(asked[0].layout.turns) == 2  # with the system turn of the template


def test_a_broken_row_is_named_before_the_first_answer(chat, monkeypatch, write_rows, tmp_path):
    let_it_say(monkeypatch, "Yes.", "No.")
    gone = {"id": "bad", "messages": [{"role": "user", "content": [{"type": "image", "image": "gone.png"}]}]}
    fine = {"messages": [{"role": "user", "content": "Why?"}]}
    file, to = write_rows([fine, gone, fine]), tmp_path / "to.jsonl"
    _, err = chat(f"chat.input={file}", f"chat.to={to}", code=2)
    assert f"{file}:2 (id bad): the image" in err
    assert not to.exists()
    out, _ = chat(f"chat.input={file}", f"chat.to={to}", "data.on_error=skip")
    assert out.splitlines()[-1] == f"2 answers added to {to}; 1 row could not be used"
    assert [row.get("answer", row.get("problem", ""))[:4] for row in read_lines(to)] == ["Yes.", str(file)[:4], "No."]


def test_an_image_that_cannot_be_decoded_does_not_lose_what_is_answered(
    chat, monkeypatch, write_rows, pictures, tmp_path
):
    """Its header is whole, so it is found only when its row is to be answered."""
    let_it_say(monkeypatch, "Yes.", "Yes.", "No.")
    broken = tmp_path / "broken.png"
    broken.write_bytes(pictures[3].read_bytes()[:2000])
    asked = [{"messages": [{"role": "user", "content": [{"type": "image", "image": str(path)}, TEXT]}]}
             for path in (pictures[0], broken, pictures[0])]  # fmt: skip
    words = (f"chat.input={write_rows(asked)}", f"chat.to={tmp_path / 'to.jsonl'}", "chat.temperature=1")
    _, err = chat(*words, code=2)
    assert f"the image {broken} cannot be decoded" in err
    assert [row["line"] for row in read_lines(tmp_path / "to.jsonl")] == [1]
    chat(*words, "data.on_error=skip")
    assert ["answer" in row for row in read_lines(tmp_path / "to.jsonl")] == [True, False, True]


def test_answers_that_cannot_be_written_are_the_users_affair(tmp_path):
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        AnswersFile(tmp_path, {}).done([])
