"""What form an answer is meant to have: prose, JSON, HTML or a tool call."""

import re
from typing import Literal

from qwenvl_train.curation.text import FENCE

Form = Literal["prose", "json", "html", "calls"]

_OPENS_JSON = re.compile(r'\{\s*(?:"|\}|$)|\[\s*(?:\{|"|\[\s*[\[{"\d-])|\[\s*-?\d[\d\s.,-]*(?:\]|$)')
_OPENS_HTML = re.compile(
    r"<(?:!doctype html|(?:html|head|body|table|thead|tbody|tr|div|section|article|main|header|footer|nav|form|ul|ol|"
    r"dl|p|h[1-6]|pre|blockquote|figure|span|img|a|style|b|i|strong|em)(?=[\s/>]))",
    re.IGNORECASE,
)


def form_of(text: str) -> Form:
    """Return the form that an answer is meant to have as a whole, judged by how it begins."""
    if text.startswith("```"):
        block = FENCE.match(text)
        match block[1].lower() if block else "":
            case "json":
                return "json"
            case "html":
                return "html"
    if text.startswith(("{", "[")) and _OPENS_JSON.match(text):
        return "json"
    if "<tool_call>" in text or "</tool_call>" in text:
        return "calls"
    if text.startswith("<") and _OPENS_HTML.match(text) and _is_markup(text):
        return "html"
    return "prose"


def _is_markup(text: str) -> bool:
    """Return whether a text that begins with a tag has others, rather than explaining the tag."""
    return text.count("<") > 1


def blocks(text: str, language: str) -> list[str]:
    """Return the contents of the blocks of code in a language."""
    return [block[2] for block in FENCE.finditer(text) if block[1].lower() == language] if "```" in text else []
