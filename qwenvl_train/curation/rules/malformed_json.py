"""Answers that are meant as JSON and are not."""

import json

from qwenvl_train.curation.forms import blocks, form_of
from qwenvl_train.curation.rules.rule import Rule, RuleSection
from qwenvl_train.curation.verdict import Verdict, quoted
from qwenvl_train.curation.view import RowView


class MalformedJson(RuleSection):
    pass


def judge(row: RowView, settings: MalformedJson) -> Verdict | None:
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
    try:
        _, end = _DECODER.raw_decode(text.lstrip())
    except (ValueError, RecursionError) as error:
        # Python calls the end of a text the place of the fault, too.
        at = getattr(error, "pos", 0)
        reason = getattr(error, "msg", "nested too deeply")
        return f"{reason} at {quoted(text.lstrip()[max(0, at - 20) : at + 20])}"
    rest = text.lstrip()[end:].strip()
    if not rest.startswith(("]", "}", ",", ":")):
        return fault_of(rest) if rest.startswith(("{", "[")) else ""
    return f"text after its end, {quoted(rest[:40])}"


_DECODER = json.JSONDecoder()

RULE = Rule("malformed_json", "meant as JSON, but broken", True, judge)
