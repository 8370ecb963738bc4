"""Read tools and tool calls."""

import json
from collections.abc import Iterable
from typing import Any

from qwenvl_train.data.formats.keys import present, refuse_unknown
from qwenvl_train.data.formats.objects import LAST, coordinates, picture
from qwenvl_train.data.media.locate import shown
from qwenvl_train.data.sample import PublishedTool, Region, ToolCall
from qwenvl_train.errors import UserError
from qwenvl_train.families.agent_tools import AGENT_TOOLS

_DEEPEST = 100
"""The deepest nesting that is accepted. A deeper value might be read and then fail to be written, because how deep
Python can recurse depends on where in the program it is."""


def read_tools(value: object, where: str) -> tuple[dict[str, Any] | PublishedTool, ...]:
    """Return the tools of a raw row. They are given as a list of JSON schemas and names of published tools, or as a
    JSON string of that list, since table files cannot hold schemas that differ in any other way."""
    place = f"{where}, tools"
    parsed = _parsed(value, place) if isinstance(value, str) and value and value not in AGENT_TOOLS else value or []
    given = [parsed] if isinstance(parsed, str) else parsed
    if not isinstance(given, list):
        raise UserError(f"{place}: {shown(parsed)} is not a list of functions.")
    named = [tool in AGENT_TOOLS for tool in given]
    tools = [
        _parsed(tool, place) if isinstance(tool, str) and not is_name else tool
        for tool, is_name in zip(given, named, strict=True)
    ]
    _refuse_deep(tools, place)
    return tuple(_tool(tool, place) for tool in tools)


def _tool(tool: Any, place: str) -> dict[str, Any] | PublishedTool:
    match tool:
        case "mobile_use" | "computer_use":
            return PublishedTool(tool)
        case {"function": {"name": str()}}:
            return tool
        case {"name": str()}:
            # Servers wrap a bare function like this for the model, so the model must see the same in training.
            return {"type": "function", "function": tool}
    raise UserError(
        f'{place}: {shown(tool)} is not a function; expected {{"type": "function", "function": {{"name": …}}}}.'
    )


def read_calls(value: object, place: str) -> tuple[ToolCall, ...]:
    """Return the calls. `value` is one call or a list of calls, or either of these as a JSON string."""
    parsed = _parsed(value, place) if isinstance(value, str) else value
    calls = parsed if isinstance(parsed, list) else [parsed]
    return tuple(_call(call, place) for call in calls)


def _call(call: object, place: str) -> ToolCall:
    # No template writes a call's id or its type.
    match call:
        case {"function": {"name": str(name), "arguments": arguments, **rest}, **beside}:
            refuse_unknown(present(rest), ("name", "arguments"), place)
            refuse_unknown(present(beside), ("id", "type", "index", "function"), place)
        case {"name": str(name), "arguments": arguments, **rest}:
            refuse_unknown(present(rest), ("id", "type", "name", "arguments"), place)
        case _:
            raise UserError(f'{place}: {shown(call)} is not a tool call; expected {{"name": …, "arguments": {{…}}}}.')
    named = f"{place}, arguments of {name}"
    values = _parsed(arguments, named) if isinstance(arguments, str) else arguments
    _refuse_deep(values, named)
    written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    regions = values.items() if isinstance(values, dict) else ()
    return ToolCall(name, written, tuple((key, _region(value, named)) for key, value in regions if _is_region(value)))


def _is_region(value: object) -> bool:
    """Return whether an argument is a box or a point in pixels of a picture, rather than a value to be written as it
    stands."""
    if not isinstance(value, dict):
        return False
    keys = value.keys() - {"image"}
    return keys in ({"point_2d"}, {"bbox_2d"})


def _region(value: dict[str, Any], place: str) -> Region:
    """Return the region. Without an image, it is in the last one before the call."""
    (key,) = value.keys() - {"image"}
    numbers = coordinates(value[key], f"{place}, {key}")
    if len(numbers) != {"point_2d": 2, "bbox_2d": 4}[key]:
        raise UserError(f"{place}: {key} is {shown(value[key])}; a point is [x, y] and a box [x1, y1, x2, y2].")
    return Region(numbers, "", picture(value["image"], place) if "image" in value else LAST)


def _refuse_deep(value: object, place: str) -> None:
    level = [value]
    for _ in range(_DEEPEST):
        level = [inner for item in level for inner in _inside(item)]
        if not level:
            return
    raise UserError(f"{place}: {shown(value)} is nested more than {_DEEPEST} levels deep; remove the row.")


def _inside(value: object) -> Iterable[object]:
    match value:
        case dict():
            return value.values()
        case list():
            return value
    return ()


def _parsed(value: str, place: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: {shown(value)} is not valid JSON: {error}.") from None
