"""Finds JSON in the text of an answer."""

import json
import re
from collections.abc import Iterator
from typing import Any

_DECODER = json.JSONDecoder()
_START = re.compile(r"\{|\[\s*[{\[]")


def json_in(text: str) -> Any:
    """Return the JSON that begins with the first object or list of objects in a text, which may stand in a code block
    or between words. Return None if it is broken: an object inside is not taken for the whole."""
    start = _START.search(text)
    try:
        return _DECODER.raw_decode(text, start.start())[0] if start else None
    except (json.JSONDecodeError, RecursionError):
        return None


def objects_in(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield all objects in a JSON value, the outer ones first."""
    if isinstance(tree, dict):
        yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for one in tree:
            yield from objects_in(one)
