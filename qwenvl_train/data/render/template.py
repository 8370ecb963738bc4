"""Finds out which chat format a checkpoint has, by comparing its own chat template with what this project writes."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from jinja2 import TemplateError

from qwenvl_train.config.schema import ThinkingMode
from qwenvl_train.data.render.conversation import ConversationWriter
from qwenvl_train.data.render.thoughts import is_asked_to_think
from qwenvl_train.data.sample import Image, Part, Sample, Text, ToolCall, Turn, Video
from qwenvl_train.errors import UserError
from qwenvl_train.families.chat_format import ChatFormat
from qwenvl_train.families.family import Family

_SHOWN = 60
"""Number of characters that are shown before and after the first difference."""


@dataclass(frozen=True)
class _Probe:
    """A conversation that is written in both ways."""

    sample: Sample
    mode: ThinkingMode = "auto"


@dataclass(frozen=True)
class _Difference:
    written: str
    expected: str
    probes: int
    """Number of probes before this one, all of which were written alike."""
    start: int
    """Number of characters at the beginning that are alike."""

    def shown(self, text: str) -> str:
        """Return the part of a text around the first difference."""
        first, end = max(0, self.start - _SHOWN), self.start + _SHOWN
        return repr("…" * (first > 0) + text[first:end] + "…" * (end < len(text)))


def as_template(processor, family: Family, where: str) -> Family:
    """Return the family with the chat format of the checkpoint's own chat template.

    Raise UserError when the template writes a conversation as none of the family's chat formats does. Such a checkpoint
    would be trained on one format and served in another.
    """
    differences = []
    for chat in (family.chat, *family.other_chats):
        candidate = replace(family, chat=chat)
        difference = _first_difference(processor, candidate)
        if difference is None:
            return candidate
        differences.append(difference)
    nearest = max(differences, key=lambda difference: (difference.probes, difference.start))
    raise UserError(
        f"The chat template of {where} does not format conversations as {family.name} does: "
        f"it gives {nearest.shown(nearest.written)}, expected {nearest.shown(nearest.expected)}. Use a checkpoint with "
        "the published template."
    )


def _first_difference(processor, family: Family) -> _Difference | None:
    for number, probe in enumerate(_probes(family.chat)):
        written, expected = _by_template(processor, probe, family.chat), _by_us(probe, family)
        if written != expected:
            same = (one == other for one, other in zip(written, expected, strict=False))
            return _Difference(written, expected, number, sum(takewhile(bool, same)))
    return None


def _by_us(probe: _Probe, family: Family) -> str:
    sample, writer = probe.sample, ConversationWriter(family, probe.mode)
    text = ""
    for turn in writer.turns(sample, writer.asks_to_think(sample), _words):
        parts = "".join(part if isinstance(part, str) else _placeholder(part) for part in turn.parts)
        text += f"{'<|im_start|>' * turn.opens}{''.join(turn.given)}{parts}{'<|im_end|>' * turn.closes}"
        text += "\n" * turn.closes
    asks = sample.turns[-1].role != "assistant"
    return f"{text}<|im_start|>{''.join(writer.opening())}" if asks else text


def _by_template(processor, probe: _Probe, chat: ChatFormat) -> str:
    thinking, sample = chat.thinking, probe.sample
    asks = sample.turns[-1].role != "assistant"
    options: dict[str, Any] = {}
    if thinking is not None and thinking.optional and not (asks and probe.mode == "auto"):
        options["enable_thinking"] = is_asked_to_think(sample, thinking, probe.mode)
    if probe.mode == "as_given":
        options["preserve_thinking"] = True
    if sample.schemas:
        options["tools"] = list(sample.schemas)
    messages = [_message(turn) for turn in sample.turns]
    try:
        return processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=asks, **options)
    except (TemplateError, TypeError, ValueError) as error:
        return f"the error {error}"


def _message(turn: Turn) -> dict[str, Any]:
    message: dict[str, Any] = {"role": turn.role, "content": [_content(part) for part in turn.parts]}
    if turn.thoughts is not None:
        message["reasoning_content"] = turn.thoughts
    if turn.calls:
        calls = [{"name": call.name, "arguments": json.loads(call.arguments)} for call in turn.calls]
        message["tool_calls"] = [{"type": "function", "function": call} for call in calls]
    return message


def _content(part: Part) -> dict[str, str]:
    if isinstance(part, Image | Video):
        kind = "image" if isinstance(part, Image) else "video"
        return {"type": kind, kind: "x"}
    return {"type": "text", "text": _words(part)}


def _words(part: Part) -> str:
    assert isinstance(part, Text)
    return part.text


def _placeholder(part: Image | Video) -> str:
    kind = "image" if isinstance(part, Image) else "video"
    return f"<|vision_start|><|{kind}_pad|><|vision_end|>"


def _probes(chat: ChatFormat) -> Iterator[_Probe]:
    yield _Probe(_PLAIN)
    yield _Probe(_PLAIN.question)
    if (thinking := chat.thinking) is None:
        return
    yield _Probe(_THOUGHTFUL)
    yield _Probe(_THOUGHTFUL.question)
    if thinking.optional:
        yield _Probe(_THOUGHTFUL, "on")
        yield _Probe(_THOUGHTFUL.question, "on")
        yield _Probe(_PLAIN.question, "off")
    if thinking.earlier != "dropped":
        yield _Probe(_THOUGHTFUL, "as_given")
    if chat.tools.calls == "xml":
        yield _Probe(_CALLING)


def _conversation(*turns: Turn, tools: tuple[dict[str, Any], ...] = ()) -> Sample:
    return Sample("", "the check of the chat template", 1, turns, tools)


def _turn(role: str, *parts: Part, thoughts: str | None = None, calls: tuple[ToolCall, ...] = ()) -> Turn:
    return Turn(role, parts, train=False, thoughts=thoughts, calls=calls)


_ASKED = _turn("user", Image("x"), Text("Which bird?"), Video("x"))
_PLAIN = _conversation(
    _ASKED, _turn("assistant", Text("A wren.")), _turn("user", Text("Sure?")), _turn("assistant", Text("Yes."))
)
_THOUGHTFUL = _conversation(
    _ASKED,
    _turn("assistant", Text("A wren."), thoughts="It is small."),
    _turn("user", Text("Sure?")),
    _turn("assistant", Text("Yes."), thoughts="It is brown."),
)
_VALUES = {"word": "a\nb", "number": 1.5, "truth": True, "nothing": None, "list": [True, "é"], "object": {"a": None}}
_CALL = ToolCall("look", json.dumps(_VALUES, ensure_ascii=False))
_CALLING = _conversation(
    _turn("system", Text("\nBe brief. ")),
    _turn("user", Text("  Which bird?\n")),
    _turn("assistant", Text(" I look.\n"), calls=(_CALL, _CALL)),
    _turn("tool", Text("Brown.\n")),
    _turn("tool", Text("Small.")),
    _turn("assistant", calls=(ToolCall("end", "{}"),)),
    _turn("tool", Text("")),
    _turn("assistant", Text("A wren. ")),
    tools=({"type": "function", "function": {"name": "look", "description": "Näher", "parameters": {}}},),
)
