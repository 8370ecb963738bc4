"""Conversations of Qwen3.5, 3.6 and 3.8 are token for token those of the published templates, which TRL contains."""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, get_args
from unicodedata import normalize

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwenvl_train.config.schema import ThinkingMode
from qwenvl_train.data.formats import to_sample
from qwenvl_train.data.media.locate import Locator
from qwenvl_train.data.render.layout import IGNORED, Layout
from qwenvl_train.data.render.renderer import Renderer
from qwenvl_train.data.render.template import as_template
from qwenvl_train.data.render.thoughts import check_mode, thinking_in_words
from qwenvl_train.data.render.tokens import TextEncoder
from qwenvl_train.errors import UserError
from qwenvl_train.families import FAMILIES
from qwenvl_train.families.chat_format import QWEN3_5, QWEN3_5_THINKING, QWEN3_6, QWEN3_8, ChatFormat
from qwenvl_train.families.tiny import ADDED_WORDS, build_model, build_processor
from tests.conftest import conversation, sample_of
from tests.model.test_parity import PUBLISHED, TEMPLATES, assert_positions, check, reference
from tests.settings import run_config
from tests.videos import write_video

FORMATS = {
    "qwen3_5_nothink": QWEN3_5,
    "qwen3_5_think": QWEN3_5_THINKING,
    "qwen3_6": QWEN3_6,
    "qwen3_8": QWEN3_8,
}
MODES: tuple[ThinkingMode, ...] = get_args(ThinkingMode)
POSSIBLE = [
    (name, mode)
    for name, chat in FORMATS.items()
    for mode in MODES
    if mode != "as_given" or (chat.thinking and chat.thinking.earlier != "dropped")
]
BEGIN, EMPTY = "<think>\n", "<think>\n\n</think>\n\n"


@dataclass(frozen=True)
class Published:
    processor: Any
    renderer: Renderer
    chat: ChatFormat
    mode: ThinkingMode

    def text(self, row: dict, prompt: bool = False) -> str:
        """The text of the published template. That of 3.8 does not look for thoughts in the content, so they are given
        apart from it."""
        messages = [apart(message, self.mode == "off") for message in row["messages"]]
        if self.chat != QWEN3_8 and self.mode != "off":
            messages = row["messages"]
        options: dict[str, Any] = {"add_generation_prompt": prompt, "tools": row.get("tools")}
        if self.mode == "as_given":
            options["preserve_thinking"] = True
        if self.mode in ("on", "off"):
            options["enable_thinking"] = self.mode == "on"
        elif not prompt and self.chat == QWEN3_8:
            options["enable_thinking"] = any(message.get("reasoning_content", "").strip() for message in messages)
        return self.processor.apply_chat_template(messages, tokenize=False, **options)

    def ids(self, text: str) -> list[int]:
        return self.processor.tokenizer(text)["input_ids"]

    def decoded(self, layout: Layout) -> str:
        return self.processor.tokenizer.decode(layout.input_ids)

    def learned(self, layout: Layout) -> list[str]:
        edges = np.flatnonzero(np.diff(np.r_[False, layout.labels != IGNORED, False]))
        return [
            self.processor.tokenizer.decode(layout.input_ids[start:end])
            for start, end in zip(edges[::2], edges[1::2], strict=True)
        ]


def apart(message: dict, left_out: bool) -> dict:
    """The message with its thoughts as `reasoning_content`, or without them."""
    if message["role"] != "assistant":
        return message
    content, thoughts = message["content"], message.get("reasoning_content")
    if thoughts is None and "</think>" in content:
        before, *_, after = content.split("</think>")
        content, thoughts = after.lstrip("\n"), before.split("<think>")[-1]
    return message | {"content": content, "reasoning_content": "" if left_out else thoughts or ""}


@cache
def published(name: str, mode: ThinkingMode = "auto", preferences: bool = False) -> Published:
    processor = build_processor("qwen3_5")
    processor.chat_template = (PUBLISHED / f"{name}.jinja").read_text(encoding="utf-8")
    family = as_template(processor, FAMILIES["qwen3_5"], "here")
    check_mode(mode, family, "here")
    config = run_config(**{"data.thinking": mode})
    renderer = Renderer(processor, family, config.model.video, config.data, preferences=preferences)
    return Published(processor, renderer, family.chat, mode)


@pytest.mark.parametrize("name", FORMATS)
def test_the_format_is_that_of_the_template(name):
    assert published(name).chat == FORMATS[name]


WORDS = st.sampled_from(["A wren.", "Sure? 🐦 鸟", "\n\n Is it?\n ", "  two\n\n\nlines\t", "\u3000é", "<b>"])
THOUGHTS = st.sampled_from(["", "It is small.", "\n A beak,\n\nthen. \n", "Is it <b>?"])
INLINE = st.sampled_from(["<think>\n{}\n</think>\n\n", "<think>{}</think>", "{}\n</think>\n\n"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "ä b"]), inner, max_size=2),
    max_leaves=4,
)
CALLS = st.lists(
    st.builds(
        lambda name, arguments: {"type": "function", "function": {"name": name, "arguments": arguments}},
        st.sampled_from(["zoom", "look_up"]),
        st.dictionaries(st.sampled_from(["x", "why", "box"]), VALUES, max_size=3),
    ),
    min_size=1,
    max_size=2,
)
TOOL = {"type": "function", "function": {"name": "zoom", "description": "Näher", "parameters": {"type": "object"}}}


@st.composite
def answers(draw, calls: bool = False) -> dict:
    message: dict[str, Any] = {"role": "assistant", "content": draw(WORDS)}
    match draw(st.sampled_from(["none", "none", "inline", "apart"])):
        case "inline":
            message["content"] = draw(INLINE).format(draw(THOUGHTS)) + message["content"].lstrip()
        case "apart":
            message["reasoning_content"] = draw(THOUGHTS)
    if calls:
        message["tool_calls"] = draw(CALLS)
        message["content"] = draw(st.sampled_from([message["content"], ""]))
    return message


@st.composite
def rows(draw) -> dict:
    """Conversations of questions, each with steps that call tools and an answer."""
    messages = [{"role": "system", "content": draw(WORDS)}] if draw(st.booleans()) else []
    for number in range(draw(st.integers(1, 3))):
        asked = draw(WORDS if number == 0 else WORDS | st.just(" <tool_response>\nA tool.\n</tool_response> "))
        messages.append({"role": "user", "content": asked})
        for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
            messages.append(draw(answers(calls=True)))
            messages += [{"role": "tool", "content": draw(WORDS)} for _ in range(draw(st.integers(1, 2)))]
        messages.append(draw(answers()))
    return {"messages": messages, **({"tools": [TOOL]} if draw(st.booleans()) else {})}


@pytest.mark.parametrize(("name", "mode"), POSSIBLE)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(row=rows())
def test_tokens_are_those_of_the_template(name, mode, row):
    theirs = published(name, mode)
    text = theirs.text(row)
    layout = theirs.renderer.layout(sample_of(row))
    assert theirs.decoded(layout) == text
    # Where the end of empty thoughts is learned, the text is divided before it, as it is when a model writes it.
    if mode != "on" or EMPTY not in text:
        assert layout.input_ids.tolist() == theirs.ids(text)


@pytest.mark.parametrize(("name", "mode"), POSSIBLE)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(row=rows())
def test_a_question_ends_where_the_model_begins(name, mode, row):
    theirs = published(name, mode)
    question = row | {"messages": row["messages"][:-1]}
    text = theirs.text(question, prompt=True)
    thinking = theirs.chat.thinking
    assert text.endswith(BEGIN if mode == "on" or (mode != "off" and thinking and thinking.default) else EMPTY)
    layout = theirs.renderer.layout(sample_of(row).question)
    assert theirs.decoded(layout) == text
    if mode != "on" or EMPTY not in text:
        assert layout.input_ids.tolist() == theirs.ids(text)


@pytest.mark.parametrize(("name", "mode"), POSSIBLE)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(row=rows())
def test_the_last_answer_is_learned_after_the_prompt_of_its_kind(name, mode, row):
    theirs = published(name, mode)
    layout = theirs.renderer.layout(sample_of(row))
    text, learned = theirs.decoded(layout), theirs.learned(layout)[-1]
    before = text.removesuffix(f"{learned}\n")
    assert before != text
    prompt, _, given_thoughts = before.rpartition("<|im_start|>assistant\n")
    assert prompt
    thoughts = apart(row["messages"][-1], mode == "off")["reasoning_content"].strip()
    assert given_thoughts == (BEGIN if thoughts or mode == "on" else EMPTY)
    assert learned.startswith(f"{thoughts}\n</think>\n\n") == bool(thoughts or mode == "on")
    assert learned.endswith("<|im_end|>")


@pytest.mark.parametrize("name", FORMATS)
def test_pixels_and_positions_are_those_of_the_processor_and_model(name, pictures, tmp_path, monkeypatch):
    monkeypatch.setitem(TEMPLATES, "qwen3_5", f"{name}.jinja")
    clip = write_video(tmp_path / "walk.mp4")
    theirs = published(name)
    row = conversation(
        ("system", [" Be brief.\n"]),
        ("user", ["  ", pictures[1], "\nWhich bird? ", clip, " \n"]),
        ("assistant", ["I look."]),
        ("tool", ["\n", pictures[0]]),
        ("tool", ["Small. "]),
        ("assistant", ["A wren."]),
        ("user", [pictures[2]]),
        ("assistant", ["<think>\nIt is brown.\n</think>\n\nA crow. "]),
    )
    row["messages"][2]["tool_calls"] = [{"function": {"name": "zoom", "arguments": {"box": [1, 2.5], "x": None}}}]
    row["messages"][7] |= {"content": "A crow. ", "reasoning_content": "It is brown."}
    for messages, options in ((row["messages"], {}), (row["messages"][:-1], {"add_generation_prompt": True})):
        said = row | {"messages": messages} if not options else row
        sample = sample_of(row) if not options else sample_of(row).question
        rendered = theirs.renderer.render(sample)
        expected = reference(theirs.processor, "qwen3_5", said, theirs.renderer, **options)
        check(rendered, expected, theirs.processor)
        assert_positions(rendered, expected, build_model("qwen3_5"))


CONTROL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|vision_start|>", "<|image_pad|>", "<|video_pad|>"]
PIECES = st.sampled_from([*CONTROL, *ADDED_WORDS, "<|box_start|>", "e\u0301", "\u0338", "<", "|>", "a b", "\n\n", "鸟"])


@given(st.lists(PIECES, max_size=8).map("".join))
def test_text_never_becomes_control_tokens(text):
    """The words of thoughts and tools do become their tokens, as in the processor, and text is normalized as there."""
    tokenizer = published("qwen3_6").processor.tokenizer
    ids = TextEncoder(tokenizer).encode(text)
    assert not {*tokenizer.convert_tokens_to_ids(CONTROL)} & {*ids}
    if any(token in text for token in CONTROL):
        # Marks at the edge of a control token are not composed with it.
        assert normalize("NFC", tokenizer.decode(ids)) == normalize("NFC", text)
    else:
        assert ids == tokenizer(text)["input_ids"]


def turns(*answers: dict) -> dict:
    asked = {"role": "user", "content": "Which?"}
    return {"messages": [turn for answer in answers for turn in (asked, {"role": "assistant"} | answer)]}


THOUGHTFUL = {"content": "A wren.", "reasoning_content": "Small."}
PLAIN = {"content": "A wren."}


@pytest.mark.parametrize(
    ("name", "mode", "answer", "expected"),
    [
        ("qwen3_5_think", "auto", PLAIN, f"{EMPTY}⟦A wren.<|im_end|>⟧"),
        ("qwen3_5_nothink", "auto", THOUGHTFUL, f"{BEGIN}⟦Small.\n</think>\n\nA wren.<|im_end|>⟧"),
        ("qwen3_5_nothink", "on", PLAIN, f"{BEGIN}⟦\n</think>\n\nA wren.<|im_end|>⟧"),
        ("qwen3_5_think", "off", THOUGHTFUL, f"{EMPTY}⟦A wren.<|im_end|>⟧"),
        ("qwen3_8", "as_given", THOUGHTFUL, f"{BEGIN}⟦Small.\n</think>\n\nA wren.<|im_end|>⟧"),
    ],
)
def test_what_is_learned_of_an_answer(name, mode, answer, expected):
    theirs = published(name, mode)
    layout = theirs.renderer.layout(sample_of(turns(answer)))
    (learned,) = theirs.learned(layout)
    *_, before = theirs.decoded(layout).removesuffix(f"{learned}\n").split("assistant\n")
    assert f"{before}⟦{learned}⟧" == expected


def test_the_sentence_about_effort_is_there_if_the_model_is_asked_to_think():
    effort = "Reasoning effort is set to xhigh."
    for mode, answer, expected in (("auto", PLAIN, False), ("auto", THOUGHTFUL, True), ("on", PLAIN, True)):
        theirs = published("qwen3_8", mode)
        assert (effort in theirs.decoded(theirs.renderer.layout(sample_of(turns(answer))))) == expected
    assert effort in theirs.decoded(published("qwen3_8").renderer.layout(sample_of(turns(PLAIN)).question))
    off = published("qwen3_8", "off").renderer
    assert effort not in theirs.decoded(off.layout(sample_of(turns(THOUGHTFUL)).question))


def preference(row: dict):
    locator = Locator(Path("/"), fenced=False, allow_remote=False, cache=Path("/"))
    return to_sample(row, "rows", 1, locator, "preference")


@pytest.mark.parametrize("mode", ["auto", "on", "off"])
@pytest.mark.parametrize("thoughts", [("", "Big."), ("Small.", ""), ("Small.", "Big."), ("", "")])
@pytest.mark.parametrize("name", ["qwen3_5_think", "qwen3_8"])
def test_a_pair_can_have_thoughts_in_either_answer(name, thoughts, mode):
    """The answers are asked for in one way, so that they share all of the question."""
    theirs = published(name, mode, preferences=True)
    row: dict[str, Any] = {"prompt": [{"role": "user", "content": "Which?"}]}
    for key, content, thought in zip(("chosen", "rejected"), ("A wren.", "A crow."), thoughts, strict=True):
        row[key] = [{"role": "assistant", "content": content, "reasoning_content": thought}]
    pair = preference(row)
    layout = theirs.renderer.layout(pair)
    start, chosen = layout.pieces[0].length, layout.pieces[1].length
    question = theirs.processor.tokenizer.decode(layout.input_ids[:start])
    texts = [theirs.processor.tokenizer.decode(ids) for ids in np.split(layout.input_ids[start:], [chosen])]
    effort = name == "qwen3_8" and (mode == "on" or (mode == "auto" and any(thoughts)))
    assert ("Reasoning effort" in question) == effort
    assert "<|im_start|>user\nWhich?<|im_end|>\n<|im_start|>assistant\n<think>" in question
    for text, answer in zip(texts, ("A wren.", "A crow."), strict=True):
        assert text.endswith(f"{answer}<|im_end|>\n")


@pytest.mark.parametrize(("name", "refused"), [("qwen3_5_nothink", True), ("qwen3_8", False)])
def test_a_pair_whose_shared_thoughts_would_differ_is_refused(name, refused):
    ask, answer = ({"role": role, "content": "x"} for role in ("user", "assistant"))
    row = {"prompt": [ask], "chosen": [answer, ask, answer], "rejected": [{**answer, "content": "y"}]}
    renderer = published(name, preferences=True).renderer
    if refused:
        with pytest.raises(UserError, match="one answer is followed by another question"):
            renderer.layout(preference(row))
    else:
        assert len(renderer.layout(preference(row)).answers) == 2


def test_a_line_of_the_output_says_how_thoughts_are_written():
    (auto,) = published("qwen3_5_nothink").renderer.thinking_in_words()
    assert auto.startswith("chat format: Qwen3.5 without thinking by default; ")
    assert auto.endswith("it is asked not to think (data.thinking=auto)")
    (on,), (off,) = (published("qwen3_8", mode).renderer.thinking_in_words() for mode in ("on", "off"))
    assert (on.split(";")[0], "learns to end thoughts" in on) == ("chat format: Qwen3.8", True)
    assert "thoughts are left out" in off
    assert thinking_in_words(FAMILIES["qwen3_vl"].chat, "auto") == []


def test_a_mode_that_the_template_does_not_have_is_refused():
    family = FAMILIES["qwen3_vl"]
    with pytest.raises(UserError, match=r"data\.thinking=on: the chat template of here has no thoughts"):
        check_mode("on", family, "here")
    with pytest.raises(UserError, match="always asks for thoughts"):
        check_mode("off", replace(family, chat=family.other_chats[0]), "here")
    with pytest.raises(UserError, match="leaves out the thoughts before the last question"):
        check_mode("as_given", FAMILIES["qwen3_5"], "here")


def test_a_row_whose_questions_are_all_results_of_tools_is_refused():
    row = turns(PLAIN)
    row["messages"][0]["content"] = "<tool_response>\nx\n</tool_response>"
    with pytest.raises(UserError, match=r"rows:1 .* has no question"):
        published("qwen3_6").renderer.layout(sample_of(row))


def test_arguments_without_names_are_refused():
    row = turns({"content": "", "tool_calls": [{"name": "zoom", "arguments": [1]}]})
    with pytest.raises(UserError, match=r"rows:1 .*: the arguments of the call of zoom are \[1\], but .* JSON object"):
        published("qwen3_6").renderer.layout(sample_of(row))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("|trim %}\n    {%- if message.role", " %}\n    {%- if message.role"),  # white space
        ("'<parameter='", "'<parameter ='"),
        ("</IMPORTANT>", "</important>"),
        ("loop.index0 > ns.last_query_index", "loop.index0 > -1"),  # thoughts of earlier answers
        ("'<think>\\n\\n</think>\\n\\n'", "''"),
    ],
)
def test_another_template_is_refused(before, after):
    processor = build_processor("qwen3_5")
    template = (PUBLISHED / "qwen3_5_think.jinja").read_text(encoding="utf-8")
    processor.chat_template = template.replace(before, after)
    assert processor.chat_template != template
    with pytest.raises(UserError, match=r"^The chat template of here does not .* Qwen3.5 does: it gives .*, expected "):
        as_template(processor, FAMILIES["qwen3_5"], "here")


def test_a_template_that_fails_is_refused():
    processor = build_processor("qwen3_5")
    processor.chat_template = "{{ raise_exception('No.') }}"
    with pytest.raises(UserError, match=r"it gives 'the error No\.'"):
        as_template(processor, FAMILIES["qwen3_5"], "here")
