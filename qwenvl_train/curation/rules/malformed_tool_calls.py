"""Tool calls that no program could carry out."""

import json
import re
from collections.abc import Iterator
from typing import Any

from qwenvl_train.curation.rules.rule import Rule, RuleSection
from qwenvl_train.curation.verdict import Verdict, quoted
from qwenvl_train.curation.view import AnswerView, RowView
from qwenvl_train.data.sample import PublishedTool

_BEGIN, _END = "<tool_call>", "</tool_call>"
_MARK = re.compile(r"</?tool_call>")
_FUNCTION = re.compile(r"\s*<function=([^>\n]*)>(.*?)</function>\s*", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^<>\n]+)>.*?</parameter>", re.DOTALL)

Required = dict[str, set[str]]
"""The required parameters of each tool by name. Empty if the row has no tools."""


def judge(row: RowView, settings: RuleSection) -> Verdict | None:
    calling = [answer for answer in row.answers if answer.turn.calls or _MARK.search(answer.text)]
    if not calling:
        return None
    required = required_parameters(row.sample.schemas)
    required |= {tool.name: {"action"} for tool in row.sample.tools if isinstance(tool, PublishedTool)}
    faults = (fault for answer in calling for fault in _faults(answer, required))
    return next((Verdict(True, evidence=fault) for fault in faults), Verdict(False))


def required_parameters(tools: tuple[dict[str, Any], ...]) -> Required:
    """Return the required parameters of each tool. Schemas may stand in "function", as in OpenAI's format, or alone."""
    found: Required = {}
    for tool in tools:
        match tool.get("function", tool):
            case {"name": str(name), "parameters": {"required": list(required)}}:
                found[name] = set(map(str, required))
            case {"name": str(name)}:
                found[name] = set()
    return found


def _faults(answer: AnswerView, required: Required) -> Iterator[str]:
    for call in answer.turn.calls:
        yield from _faults_of_json(call.name, call.arguments, required)
    inside = None
    for mark in _MARK.finditer(answer.text):
        if (mark[0] == _BEGIN) != (inside is None):
            yield f"{mark[0]} without its partner"
            return
        if inside is not None:
            yield from _faults_of_text(answer.text[inside : mark.start()], required)
        inside = mark.end() if mark[0] == _BEGIN else None
    if inside is not None:
        yield f"{_BEGIN} is not closed"


def _faults_of_text(text: str, required: Required) -> Iterator[str]:
    """Yield what is wrong in the text of a call, in either notation."""
    if text.lstrip().startswith("<"):
        yield from _faults_of_xml(text, required)
        return
    try:
        call = json.loads(text)
    except (ValueError, RecursionError):
        yield f"no JSON: {quoted(text)}"
        return
    match call:
        case {"name": str(name), **rest} if name.strip():
            yield from _faults_of_json(name, rest.get("arguments", rest.get("parameters", {})), required)
        case _:
            yield f"a call without a name: {quoted(text)}"


def _faults_of_xml(text: str, required: Required) -> Iterator[str]:
    function = _FUNCTION.fullmatch(text)
    if not function:
        yield f"a function is not closed: {quoted(text)}"
        return
    # A parameter without an end is not searched for one, which would take time by the square of the length.
    given, end, after = function[2].rpartition("</parameter>")
    rest = (_PARAMETER.sub("", given + end) + after).strip()
    if rest:
        yield f"no parameter: {quoted(rest)}"
        return
    yield from _faults_of_call(function[1].strip(), set(map(str.strip, _PARAMETER.findall(given + end))), required)


def _faults_of_json(name: str, arguments: object, required: Required) -> Iterator[str]:
    """Yield what is wrong in a call whose arguments are an object, or an object as JSON."""
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            yield f"the arguments of {name} are no JSON: {quoted(str(arguments))}"
            return
    if isinstance(arguments, dict):
        yield from _faults_of_call(name, set(arguments), required)
    else:
        yield f"the arguments of {name} are no object: {quoted(str(arguments))}"


def _faults_of_call(name: str, given: set[str], required: Required) -> Iterator[str]:
    if not name:
        yield "a call without a name"
    elif required and name not in required:
        yield f"the row has no tool {name}"
    elif missing := sorted(required.get(name, set()) - given):
        yield f"{name} without {', '.join(missing)}"


RULE = Rule("malformed_tool_calls", "tool calls that cannot be carried out", True, judge)
