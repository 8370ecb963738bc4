"""Detect the format of a raw row."""

from dataclasses import dataclass

from qwenvl_train.data.formats.keys import REJECTED_MEDIA, misspelt, present
from qwenvl_train.data.media.locate import shown
from qwenvl_train.errors import UserError

# The first rule whose keys are all in the row decides. Preference rules come first, because a preference row also has
# the keys of another format.
_RULES = (
    ("preference", ("chosen", "rejected")),
    ("preference", ("rejected_response",)),
    ("preference", ("rejected_messages",)),
    *(("preference", (key,)) for key in REJECTED_MEDIA),
    ("sharegpt", ("conversations", "images")),
    ("sharegpt", ("conversations", "videos")),
    ("sharegpt", ("conversations", "system")),
    ("sharegpt", ("conversations", "tools")),
    ("llava", ("conversations",)),
    ("messages", ("messages",)),
    ("prompt_completion", ("prompt", "completion")),
    ("query_response", ("query", "response")),
    ("instruction", ("instruction", "output")),
)
_NEEDED = (
    "'conversations', 'messages', 'prompt' and 'completion', 'query' and 'response', 'instruction' and 'output', "
    "or a question with 'chosen' and 'rejected'"
)


@dataclass(frozen=True)
class Detected:
    format: str
    reason: str
    """A readable explanation of why the row has this format."""


def detect(row: object, where: str) -> Detected:
    columns = present(as_row(row, where))
    # In files with these columns, a row without media for the rejected answer has them empty.
    columns = {key: value for key, value in columns.items() if value or key not in REJECTED_MEDIA}
    for format, keys in _RULES:
        if all(key in columns for key in keys):
            return Detected(format, f"{format}: rows have {_quoted(keys)}{_turn_keys(columns[keys[0]])}")
    raise UserError(
        f"{where} has the keys {', '.join(map(str, columns))}; a row needs {_NEEDED}."
        + misspelt(columns, {key for _, keys in _RULES for key in keys})
        + " If its columns have other names, the entry of the file can say so: columns: {prompt: …, answer: …}."
    )


def as_row(row: object, where: str) -> dict:
    match row:
        case dict():
            return row
        case list():
            raise UserError(f"{where} is a list; a row must be an object.")
    raise UserError(f"{where} is {shown(row)}; a row must be an object.")


def _turn_keys(value: object) -> str:
    match value:
        case [{"from": _, "value": _}, *_]:
            return " with 'from' and 'value'"
        case [{"role": _, "content": _}, *_]:
            return " with 'role' and 'content'"
    return ""


def _quoted(keys: tuple[str, ...]) -> str:
    return " and ".join(repr(key) for key in keys)
