"""Raw rows that end with a question, and questions that are typed: the conversations that a model is to answer."""

from collections.abc import Sequence
from typing import Literal

from qwenvl_train.data.formats.keys import REJECTING, present
from qwenvl_train.data.formats.reader import MEDIA_MARK, Reader
from qwenvl_train.data.formats.turns import RawTurn
from qwenvl_train.data.media.locate import Locator
from qwenvl_train.data.sample import Turn

Reference = tuple[Literal["image", "video"], str]
"""A picture or clip that a question is about, by its path or address."""

_ANSWERS = {"prompt": "completion", "query": "response", "instruction": "output"}
_PLACEHOLDER = "."


def with_answer(row: object) -> object:
    """Return a raw row with an answer in the place of a missing one, so that it is read like any other row."""
    if not isinstance(row, dict) or any(row.get(key) for key in REJECTING):
        return row
    columns = present(row)
    for key in ("messages", "conversations"):
        match columns.get(key):
            case [*turns, {"from": "human" | "user" | "observation" | "tool"} as last]:
                return row | {key: [*turns, last, {"from": "gpt", "value": _PLACEHOLDER}]}
            case [*turns, {"role": "user" | "tool"} as last]:
                return row | {key: [*turns, last, {"role": "assistant", "content": _PLACEHOLDER}]}
            case list():
                return row
    for question, answer in _ANSWERS.items():
        if question in columns and not columns.get(answer):
            return row | {answer: _PLACEHOLDER}
    return row


def typed_question(text: str, media: Sequence[Reference], locator: Locator, where: str) -> Turn:
    """Return the turn of a question. Marks such as <image> in its text stand for its media. Without marks, the media
    come first, in the order given."""
    if media and MEDIA_MARK.search(text):
        row = {f"{kind}s": [path for of, path in media if of == kind] for kind in ("image", "video")}
        content: str | list = text
    else:
        row, content = {}, [*({"type": kind, kind: path} for kind, path in media), {"type": "text", "text": text}]
    reader = Reader(row, where, locator)
    return reader.settle([reader.turn(RawTurn("user", content, where))], [])[0]
