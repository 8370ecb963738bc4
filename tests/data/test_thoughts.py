"""Thoughts before answers: the tokens are those of the chat template of the Thinking checkpoints, and what the model
writes is supervised."""

import random
from pathlib import Path

import numpy as np
import pytest

from qwenvl_train.data.formats import to_sample
from qwenvl_train.data.media.locate import Locator
from qwenvl_train.data.render.layout import IGNORED
from qwenvl_train.data.render.renderer import Renderer
from qwenvl_train.data.render.template import as_template
from qwenvl_train.data.sample import Sample
from qwenvl_train.errors import UserError
from qwenvl_train.families import FAMILIES
from qwenvl_train.families.tiny import build_processor
from qwenvl_train.families.tools import JSON_TOOLS
from tests.conftest import sample_of
from tests.settings import run_config

# The parts of the template of Qwen3-VL-Thinking that differ from that of Qwen3-VL, written from its description.
QUESTION = """
{%- set found = namespace(last=messages|length - 1, done=false) -%}
{%- for message in messages[::-1] -%}
{%- if not found.done and message.role == 'user' -%}
{%- set said = words(message.content) -%}
{%- if not (said.startswith('<tool_response>') and said.endswith('</tool_response>')) -%}
{%- set found.done = true -%}{%- set found.last = messages|length - 1 - loop.index0 -%}
{%- endif -%}{%- endif -%}{%- endfor -%}
"""
ANSWER = """
{%- set thoughts = '' -%}{%- set content = words(message.content) -%}
{%- if message.reasoning_content is string -%}
{%- set thoughts = message.reasoning_content -%}
{%- elif '</think>' in content -%}
{%- set thoughts = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') -%}
{%- set content = content.split('</think>')[-1].lstrip('\n') -%}
{%- endif -%}
{{- '<|im_start|>assistant\n' -}}
{%- if loop.index0 > found.last and (loop.last or thoughts) -%}
{{- '<think>\n' + thoughts.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') -}}
{%- else -%}{{- content -}}{%- endif -%}
{%- for call in message.tool_calls or [] -%}
{{- '\n' if content or not loop.first -}}
{{- '<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' + (call.function.arguments|tojson) -}}
{{- '}\n</tool_call>' -}}
{%- endfor -%}
{{- '<|im_end|>\n' -}}
"""
THINKING = """
{%- macro words(content) -%}
{%- if content is string -%}{{- content -}}{%- else -%}{%- for part in content -%}
{%- if part.type == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- elif part.type == 'video' -%}{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}
{%- else -%}{{- part.text -}}{%- endif -%}
{%- endfor -%}{%- endif -%}{%- endmacro -%}
{%- set system = words(messages[0].content) if messages[0].role == 'system' else '' -%}
{%- if tools -%}
{{- '<|im_start|>system\n' + system + ('\n\n' if system else '') + BEFORE -}}
{%- for tool in tools -%}{{- '\n' + (tool|tojson) -}}{%- endfor -%}
{{- AFTER + '<|im_end|>\n' -}}
{%- elif system -%}{{- '<|im_start|>system\n' + system + '<|im_end|>\n' -}}{%- endif -%}
QUESTION
{%- for message in messages -%}
{%- if message.role == 'user' -%}{{- '<|im_start|>user\n' + words(message.content) + '<|im_end|>\n' -}}
{%- elif message.role == 'assistant' -%}ANSWER
{%- elif message.role == 'tool' -%}
{{- '<|im_start|>user' if loop.first or messages[loop.index0 - 1].role != 'tool' else '' -}}
{{- '\n<tool_response>\n' + words(message.content) + '\n</tool_response>' -}}
{{- '<|im_end|>\n' if loop.last or messages[loop.index0 + 1].role != 'tool' else '' -}}
{%- endif -%}{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n<think>\n' -}}{%- endif -%}
"""
for name, part in {
    "QUESTION": QUESTION,
    "ANSWER": ANSWER,
    "BEFORE": repr(JSON_TOOLS.before),
    "AFTER": repr(JSON_TOOLS.after),
}.items():
    THINKING = THINKING.replace(name, part)

TOOL = {"type": "function", "function": {"name": "zoom", "parameters": {"type": "object"}}}
THOUGHT = "<think>\nIt is small.\n</think>\n\n"
ANSWERS = [
    "A wren.",
    f"{THOUGHT}A wren.",
    "<think>No break</think>A wren.",
    "It is small.\n</think>\n\nA wren.",
    "<think>\n\n</think>\n\nA wren.",
    "<think>\n\n It is\n\nsmall. \n\n</think>\n\n\nA wren.\n\nYes. ",
    "<think>one</think> or <think>two</think>three",
    "A </think>",
]


def processor_with(template: str):
    processor = build_processor("qwen3_vl")
    # In the published vocabulary, too, these are tokens of their own that are not special.
    processor.tokenizer.add_tokens(["<think>", "</think>"])
    processor.chat_template = template
    return processor


@pytest.fixture(scope="module")
def processor():
    return processor_with(THINKING)


@pytest.fixture(scope="module")
def renderers(processor):
    config = run_config()
    family = as_template(processor, FAMILIES["qwen3_vl"], "here")
    assert family.chat.name == "Qwen3-VL Thinking"
    return [
        Renderer(processor, family, config.model.video, config.data, preferences=preferences)
        for preferences in (False, True)
    ]


def random_row(rng: random.Random) -> dict:
    """Return a conversation of questions, each with steps that call tools and an answer."""
    messages = [{"role": "system", "content": "Be brief."}] if rng.random() < 0.3 else []
    for _ in range(rng.randint(1, 3)):
        question = rng.choice(["Which bird?", "Sure? 🐦", "<tool_response>\nA tool.\n</tool_response>", "\nIs it? "])
        messages.append({"role": "user", "content": question})
        for _ in range(rng.choice([0, 0, 1, 2])):
            call = {"type": "function", "function": {"name": "zoom", "arguments": {"times": rng.randint(1, 9)}}}
            messages.append(answer(rng) | {"tool_calls": [call] * rng.randint(1, 2)})
            messages += [{"role": "tool", "content": "Done."}] * rng.randint(1, 2)
        messages.append(answer(rng))
    return {"messages": messages, **({"tools": [TOOL]} if rng.random() < 0.5 else {})}


def answer(rng: random.Random) -> dict:
    message = {"role": "assistant", "content": rng.choice(ANSWERS)}
    if rng.random() < 0.3:
        message["reasoning_content"] = rng.choice(["", "It is small.", "\nA beak,\n\nthen.\n"])
    return message


def test_tokens_are_those_of_the_template(processor, renderers):
    rng = random.Random(0)
    for _ in range(150):
        row = random_row(rng)
        text = processor.apply_chat_template(row["messages"], tools=row.get("tools"), tokenize=False)
        layout = renderers[0].layout(sample_of(row))
        assert processor.tokenizer.decode(layout.input_ids) == text
        assert layout.input_ids.tolist() == processor.tokenizer(text)["input_ids"], text


def test_a_question_ends_where_the_model_begins_to_think(processor, renderers):
    rng = random.Random(2)
    for _ in range(60):
        row = random_row(rng)
        text = processor.apply_chat_template(
            row["messages"][:-1], tools=row.get("tools"), tokenize=False, add_generation_prompt=True
        )
        layout = renderers[0].layout(sample_of(row).question)
        assert processor.tokenizer.decode(layout.input_ids) == text
        assert layout.input_ids.tolist() == processor.tokenizer(text)["input_ids"], text


def test_generation_continues_where_the_thoughts_are_supervised(processor, renderers):
    rng = random.Random(1)
    for _ in range(40):
        row = random_row(rng)
        # In a conversation without any question, the template writes no thoughts, although its prompt begins them.
        next(message for message in row["messages"] if message["role"] == "user")["content"] = "Which bird?"
        text = processor.apply_chat_template(
            row["messages"][:-1], tools=row.get("tools"), tokenize=False, add_generation_prompt=True
        )
        row["messages"][-1] = {"role": "assistant", "content": f"{THOUGHT}A wren."}
        for message in row["messages"][:-1]:
            message |= {"train": False} if message["role"] == "assistant" else {}
        layout = renderers[0].layout(sample_of(row))
        start = int((layout.labels != IGNORED).argmax())
        assert layout.input_ids[:start].tolist() == processor.tokenizer(text)["input_ids"]
        learned = processor.tokenizer.decode(layout.labels[start:][layout.labels[start:] != IGNORED])
        assert learned == "It is small.\n</think>\n\nA wren.<|im_end|>"


def test_pictures_are_where_the_template_has_them(processor, renderers, pictures):
    parts = [{"type": "image", "image": str(pictures[0])}, {"type": "text", "text": "Which?"}]
    row = {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": f"{THOUGHT}A wren."}]}
    layout = renderers[0].layout(sample_of(row))
    text = processor.apply_chat_template(row["messages"], tokenize=False)
    text = text.replace("<|image_pad|>", "<|image_pad|>" * layout.pictures[0].tokens)
    assert layout.input_ids.tolist() == processor.tokenizer(text)["input_ids"]


def supervised(layout, tokenizer) -> str:
    return tokenizer.decode(layout.labels[layout.labels != IGNORED])


def test_empty_thoughts_are_not_supervised(processor, renderers):
    row = {"messages": [{"role": "user", "content": "Which?"}, {"role": "assistant", "content": "A wren."}]}
    layout = renderers[0].layout(sample_of(row))
    assert supervised(layout, processor.tokenizer) == "A wren.<|im_end|>"
    assert processor.tokenizer.decode(layout.input_ids).endswith("\n<think>\n\n</think>\n\nA wren.<|im_end|>\n")


def test_the_end_of_empty_thoughts_is_supervised_if_every_answer_is_asked_to_think(processor, renderers):
    config = run_config(**{"data.thinking": "on"})
    renderer = Renderer(processor, renderers[0].family, config.model.video, config.data)
    row = {"messages": [{"role": "user", "content": "Which?"}, {"role": "assistant", "content": "A wren."}]}
    layout = renderer.layout(sample_of(row))
    assert supervised(layout, processor.tokenizer) == "\n</think>\n\nA wren.<|im_end|>"
    assert processor.tokenizer.decode(layout.input_ids).endswith("\n<think>\n\n</think>\n\nA wren.<|im_end|>\n")


@pytest.mark.parametrize(
    "thoughts", [("", THOUGHT), (THOUGHT, ""), (THOUGHT, THOUGHT.replace("small", "big")), ("", "")]
)
def test_a_pair_can_have_thoughts_in_either_answer(thoughts, processor, renderers):
    prompt = [{"role": "user", "content": "Which?"}]
    answers = {"chosen": f"{thoughts[0]}A wren.", "rejected": f"{thoughts[1]}A crow."}
    pair = _preference({"prompt": prompt, **answers})
    layout = renderers[1].layout(pair)
    alone = [renderers[1].layout(one) for one in (pair.chosen_conversation, pair.rejected_conversation)]
    start = layout.pieces[0].length
    assert np.array_equal(layout.input_ids[: alone[0].length], alone[0].input_ids)
    assert np.array_equal(layout.input_ids[alone[0].length :], alone[1].input_ids[start:])
    assert layout.supervised == sum(one.supervised for one in alone)
    assert processor.tokenizer.decode(layout.input_ids[:start]).startswith("<|im_start|>user\nWhich?<|im_end|>\n")


def test_a_pair_whose_shared_thoughts_would_differ_is_refused(renderers):
    ask, answer = ({"role": role, "content": "x"} for role in ("user", "assistant"))
    pair = _preference({"prompt": [ask], "chosen": [answer, ask, answer], "rejected": [{**answer, "content": "y"}]})
    with pytest.raises(UserError, match="one answer is followed by another question"):
        renderers[1].layout(pair)


def _preference(row: dict) -> Sample:
    locator = Locator(Path("/"), fenced=False, allow_remote=False, cache=Path("/"))
    return to_sample(row, "rows", 1, locator, "preference")


def test_thoughts_need_a_checkpoint_that_has_them():
    processor = build_processor("qwen3_vl")
    family = as_template(processor, FAMILIES["qwen3_vl"], "here")
    assert family.chat.thinking is None
    config = run_config()
    renderer = Renderer(processor, family, config.model.video, config.data)
    row = {"messages": [{"role": "user", "content": "Which?"}, {"role": "assistant", "content": "A wren."}]}
    row["messages"][1]["reasoning_content"] = "It is small."
    with pytest.raises(UserError, match=r"rows:1 .* has reasoning_content, but .* use a Thinking checkpoint"):
        renderer.layout(sample_of(row))
    row["messages"][1] |= {"reasoning_content": ["It"]}
    with pytest.raises(UserError, match=r"turn 2: reasoning_content is .*; give text"):
        sample_of(row)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("assistant\n<think>\n", "assistant\n"),  # thoughts that the prompt does not begin
        ("> found.last", "> -1"),  # thoughts of earlier answers
    ],
)
def test_another_template_with_thoughts_is_refused(before, after):
    changed = THINKING.replace(before, after)
    assert changed != THINKING
    with pytest.raises(UserError, match="does not format conversations as Qwen3-VL does"):
        as_template(processor_with(changed), FAMILIES["qwen3_vl"], "here")
