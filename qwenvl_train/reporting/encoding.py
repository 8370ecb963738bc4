"""Output in an encoding that lacks some characters, such as ASCII. These characters are replaced, which is no error."""

import codecs
import sys
from io import TextIOWrapper

_HANDLER = "qwenvl_train.replace"

_ASCII = {
    "…": "...", "→": "->", "←": "<-", "×": "x", "·": "-", "−": "-", "–": "-", "—": "-", "≤": "<=", "≥": ">=",
    "✓": "yes:", "✗": "no:", "⟦": "[[", "⟧": "]]", "⏎": "\\n", "°": " degrees", "¹": "1", "²": "2",
    "‘": "'", "’": "'", "“": '"', "”": '"', "─": "-", "━": "-", "╸": "-", "╺": "-", "│": "|",
}  # fmt: skip
"""What is written for characters that this project and Rich print. Other characters, such as those of an answer, are
written as in a Python string, so that none is lost."""


def replace_unencodable() -> None:
    """Let stdout and stderr replace characters that their encoding lacks."""
    codecs.register_error(_HANDLER, _replaced)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def can_encode(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _replaced(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    characters = error.object[error.start : error.end]
    return "".join(_ASCII.get(one) or one.encode("ascii", "backslashreplace").decode() for one in characters), error.end
