"""Answers that are meant as JSON and are not."""

import json
import re

from qwenvl_train.curation.forms import blocks, form_of
from qwenvl_train.curation.rules.rule import Rule, RuleSection
from qwenvl_train.curation.verdict import Verdict, quoted
from qwenvl_train.curation.view import RowView


def judge(row: RowView, settings: RuleSection) -> Verdict | None:
    texts = [text for answer in row.answers for text in meant_as_json(answer.text)]
    if not texts:
        return None
    faults = filter(None, map(fault_of, texts))
    return next((Verdict(True, evidence=fault) for fault in faults), Verdict(False))


def meant_as_json(answer: str) -> list[str]:
    """Return the parts of an answer that are meant as JSON: its blocks of JSON, or the whole."""
    found = blocks(answer, "json")
    if found:
        return found
    return [answer] if answer[:1] in ("{", "[") and form_of(answer) == "json" else []


def fault_of(text: str) -> str:
    """Return why a text is no JSON, in words. Empty for JSON, also if it is followed by other text, and for JSON
    Lines."""
    at = _after_space(text, 0)
    while True:
        try:
            _, end = _DECODER.raw_decode(text, at)
        except json.JSONDecodeError as error:
            # Python calls the end of a text the place of the fault, too.
            return f"{error.msg} at {quoted(text[max(at, error.pos - 20) : error.pos + 20])}"
        except RecursionError:
            return f"nested too deeply at {quoted(text[at : at + 20])}"
        at = _after_space(text, end)
        if text.startswith(("]", "}", ",", ":"), at):
            return f"text after its end, {quoted(text[at : at + 40].rstrip())}"
        if not text.startswith(("{", "["), at):
            return ""


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


_SPACE = re.compile(r"\s*")
# Python refuses to read integers of thousands of digits, which are valid JSON, so numbers are left as text.
_DECODER = json.JSONDecoder(parse_int=str)

RULE = Rule("malformed_json", "meant as JSON, but broken", True, judge)
