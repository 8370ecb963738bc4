"""Tools and tool calls that are nested too deeply to be serialized."""

import json
from functools import reduce

import pytest

from qwenvl_train.data.formats.tools import read_calls, read_tools
from qwenvl_train.errors import UserError


def nested(levels: int, wrap) -> object:
    return reduce(lambda inner, _: wrap(inner), range(levels), 1)


WRAPPED = pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"a": inner}], ids=["lists", "objects"])
WRITTEN = pytest.mark.parametrize("written", [lambda value: value, json.dumps], ids=["value", "text"])


@WRAPPED
@WRITTEN
@pytest.mark.parametrize("levels", [101, 500, 900])
def test_what_is_nested_too_deep_is_told(levels, wrap, written):
    call = {"name": "f", "arguments": written(nested(levels, wrap))}
    with pytest.raises(UserError, match=r"^rows:1, arguments of f: .* is nested more than 100 levels deep"):
        read_calls(call, "rows:1")
    tools = [{"name": "f", "parameters": nested(levels, wrap)}]
    with pytest.raises(UserError, match=r"^rows:1, tools: .* is nested more than 100 levels deep"):
        read_tools(written(tools), "rows:1")


@WRAPPED
def test_what_is_nested_less_is_read(wrap):
    value = nested(90, wrap)
    (call,) = read_calls({"name": "f", "arguments": value}, "rows:1")
    assert json.loads(call.arguments) == value
    (tool,) = read_tools([{"name": "f", "parameters": value}], "rows:1")
    assert tool["function"]["parameters"] == value
