"""The tool calls in an answer."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from qwenvl_train.evaluation.metrics.json_text import json_in, json_of
from qwenvl_train.evaluation.metrics.metric import Question
from qwenvl_train.evaluation.metrics.places import Coordinates, as_fractions

_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
# The notation since Qwen3.5.
_FUNCTION = re.compile(r"<function=([^>\n]+)>(.*?)(?:</function>|\Z)", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>", re.DOTALL)

_LARGEST = 1e9
"""The largest number that can be a coordinate."""


@dataclass(frozen=True)
class Call:
    """A call in the form of the Qwen cookbooks."""

    type: str
    """The action of mobile_use and computer_use, and the name of any other function."""
    arguments: dict[str, Any]
    """The arguments without the action."""

    def point(self, key: str, question: Question) -> Coordinates | None:
        """Return a coordinate as fractions of the picture. Return None if it is absent, no pair of numbers, or larger
        than any picture."""
        match self.arguments.get(key):
            case [int() | float() as x, int() | float() as y]:
                if all(abs(number) <= _LARGEST for number in (x, y)):
                    return as_fractions((x, y), question)
        return None


def first_call(text: str) -> Call | None:
    """Return the first tool call in a text, or None if there is none or it is broken."""
    return next(_calls(text), None)


def calls_in(text: str) -> list[Call]:
    """Return the tool calls in a text up to the first broken one, or the text's JSON if it has the form of a call."""
    return [call for call in takewhile(lambda one: one is not None, _calls(text)) if call is not None]


def _calls(text: str) -> Iterator[Call | None]:
    """Yield the tool calls in a text, and None for a broken one."""
    written = _CALL.findall(text)
    for one in written:
        if function := _FUNCTION.search(one):
            arguments = {key: _value(value) for key, value in _PARAMETER.findall(function[2])}
            yield _call(function[1], arguments)
        else:
            yield _in_json(one)
    if not written:
        yield _in_json(text)


def _in_json(text: str) -> Call | None:
    match json_in(text):
        case {"name": str(name), "arguments": arguments}:
            if isinstance(arguments, str):
                try:
                    arguments = json_of(arguments)
                except ValueError:
                    return None
            return _call(name, arguments) if isinstance(arguments, dict) else None
        case {"action": str()} as arguments:
            return _call("", arguments)
    return None


def _call(name: str, arguments: dict[str, Any]) -> Call:
    rest = {key: value for key, value in arguments.items() if key != "action"}
    return Call(str(arguments.get("action", name)), rest)


def _value(written: str) -> Any:
    """Return the value of an argument that is written as JSON, or else its text."""
    try:
        return json_of(written)
    except ValueError:
        return written
