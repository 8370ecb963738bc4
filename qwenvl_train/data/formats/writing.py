"""Write a sample as a raw row, which this project reads as the same sample, and other trainers read in their form."""

import os
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

from qwenvl_train.data.media.inline import data_address
from qwenvl_train.data.sample import Image, Media, PublishedTool, Sample, Text, ToolCall, Turn, Video, given_options

Form = Literal["ms_swift", "llama_factory", "trl"]
"""The trainer whose form rows have. ms-swift and LLaMA-Factory have the marks <image> and <video> in texts, and TRL has
typed parts."""
Message = dict[str, Any]
Raw = dict[str, Any]
_MARK = re.compile("<(?:image|video)>")


def conversation_row(sample: Sample, form: Form) -> Raw:
    """Return a conversation with its last answer. Its turns have no regions apart from their text."""
    return {"id": sample.id, "messages": _messages(sample.turns, sample, form), **_columns(sample)}


def pair_row(question: Sample, chosen: str, rejected: str, form: Form) -> Raw:
    """Return a question with two answers."""
    messages = _messages(question.turns, question, form)
    for message in messages if form != "ms_swift" else ():
        message.pop("loss", None)  # ms-swift alone trains earlier answers of pairs if it is not told otherwise
    both = [_answer(text, form) for text in (chosen, rejected)]
    row: Raw
    match form:
        case "ms_swift":
            row = {"messages": [*messages, both[0]], "rejected_response": rejected}
        case "llama_factory":
            row = {"messages": messages, "chosen": both[0], "rejected": both[1]}
        case "trl":
            row = {"prompt": messages, "chosen": both[:1], "rejected": both[1:]}
    return {"id": question.id, **row, **_columns(question)}


def scoring_columns(sample: Sample) -> Raw:
    """Return the columns that say how answers to a sample are scored."""
    columns = {
        "answers": list(sample.accepted),
        "metric": list(sample.metrics),
        "targets": [list(box) for box in sample.targets],
        "episode": asdict(sample.episode) if sample.episode else None,
    }
    return {key: value for key, value in columns.items() if value}


def _messages(turns: Sequence[Turn], sample: Sample, form: Form) -> list[Message]:
    typed = form == "trl" or _has_mark_as_text(sample)
    return [_message(turn, typed) for turn in turns]


def _has_mark_as_text(sample: Sample) -> bool:
    """Return whether a text, which is not that of an answer, has a mark in it that stands for no medium."""
    texts = [
        part.text for turn in sample.turns if turn.role != "assistant" for part in turn.parts if isinstance(part, Text)
    ]
    return bool(sample.media) and any(map(_MARK.search, texts))


def _message(turn: Turn, typed: bool) -> Message:
    message: Message = {"role": turn.role, "content": _typed(turn) if typed else _marked(turn)}
    if turn.thoughts is not None:
        message["reasoning_content"] = turn.thoughts
    if turn.calls:
        message["tool_calls"] = list(map(_call, turn.calls))
    if turn.role == "assistant" and not turn.train:
        message["loss"] = False
    return message


def _answer(text: str, form: Form) -> Message:
    return _message(Turn("assistant", (Text(text),), train=True), form == "trl")


def _typed(turn: Turn) -> list[dict[str, str]]:
    return [
        {"type": "text", "text": part.text} if isinstance(part, Text) else {"type": _kind(part)} for part in turn.parts
    ]


def _marked(turn: Turn) -> str:
    """Return the text with marks. A line break beside a mark belongs to the mark, so that one of the text is
    doubled."""
    pieces = [part.text if isinstance(part, Text) else f"<{_kind(part)}>" for part in turn.parts]
    media = [not isinstance(part, Text) for part in turn.parts]
    for place, piece in enumerate(pieces):
        if media[place]:
            continue
        if place and media[place - 1] and piece.startswith(("\n", "\r\n")):
            piece = f"\n{piece}"
        if place + 1 < len(pieces) and media[place + 1] and piece.endswith("\n"):
            piece = f"{piece}\n"
        pieces[place] = piece
    return "".join(pieces)


def _kind(part: object) -> str:
    assert isinstance(part, Image | Video), "regions are written as text before"
    return "image" if isinstance(part, Image) else "video"


def _call(call: ToolCall) -> dict[str, Any]:
    return {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _columns(sample: Sample) -> Raw:
    media = [part for turn in sample.turns for part in turn.parts if isinstance(part, Image | Video)]
    columns: Raw = {
        "images": [_entry(part) for part in media if isinstance(part, Image)],
        "videos": [_entry(part) for part in media if isinstance(part, Video)],
        "tools": [tool.name if isinstance(tool, PublishedTool) else tool for tool in sample.tools],
    }
    return {key: value for key, value in columns.items() if value}


def _entry(media: Media) -> Any:
    """Return the entry of a picture or clip in its column: its file, or a mapping with the options that the row
    sets."""
    contents = [_file(content) for content in media.contents]
    whole = contents if isinstance(media, Video) and isinstance(media.content, tuple) else contents[0]
    if isinstance(media, Image):
        kind, options = "image", given_options(media.limits) | ({"detail": media.detail} if media.detail else {})
    else:
        kind, options = "video", given_options(media.limits) | given_options(media.sampling)
    return {kind: whole, **options} if options else whole


def _file(content: str | bytes) -> str:
    return os.path.abspath(content) if isinstance(content, str) else data_address(content)
