"""Tools and tool calls, in the words that the published chat template has for them."""

import json
from typing import Any

from qwenvl_train.data.formats.keys import present, refuse_unknown
from qwenvl_train.data.media.locate import shown
from qwenvl_train.errors import UserError


def read_tools(value: object, where: str) -> tuple[dict[str, Any], ...]:
    """A list of JSON schemas, or the list as a JSON string; table files cannot keep schemas that differ otherwise."""
    place = f"{where}, tools"
    parsed = _parsed(value, place) if isinstance(value, str) and value else value or []
    if not isinstance(parsed, list):
        raise UserError(f"{place}: {shown(parsed)} is no list of functions.")
    return tuple(_tool(_parsed(tool, place) if isinstance(tool, str) else tool, place) for tool in parsed)


def _tool(tool: Any, place: str) -> dict[str, Any]:
    match tool:
        case {"function": {"name": str()}}:
            return tool
        case {"name": str()}:
            # Servers present a bare function in this wrapping, so the model must see it in training too.
            return {"type": "function", "function": tool}
    raise UserError(
        f'{place}: {shown(tool)} is no function; expected is {{"type": "function", "function": {{"name": …}}}}.'
    )


def read_calls(value: object, place: str) -> tuple[str, ...]:
    """The text of each call; `value` is one call or a list of them, or that as a JSON string."""
    parsed = _parsed(value, place) if isinstance(value, str) else value
    calls = parsed if isinstance(parsed, list) else [parsed]
    return tuple(_call(call, place) for call in calls)


def _call(call: object, place: str) -> str:
    # The template writes neither a call's id nor its type.
    match call:
        case {"function": {"name": str(name), "arguments": arguments, **rest}, **beside}:
            refuse_unknown(present(rest), ("name", "arguments"), place)
            refuse_unknown(present(beside), ("id", "type", "index", "function"), place)
        case {"name": str(name), "arguments": arguments, **rest}:
            refuse_unknown(present(rest), ("id", "type", "name", "arguments"), place)
        case _:
            raise UserError(f'{place}: {shown(call)} is no tool call; expected is {{"name": …, "arguments": {{…}}}}.')
    if isinstance(arguments, str):
        _parsed(arguments, f"{place}, arguments of {name}")
    written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return f'<tool_call>\n{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": {written}}}\n</tool_call>'


def _parsed(value: str, place: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: {shown(value)} is not valid JSON: {error}.") from None
