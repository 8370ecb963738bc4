"""Finds JSON in the text of an answer, also JSON that is broken or does not end."""

import json
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

_DECODER = json.JSONDecoder()
_START = re.compile(r"\{|\[\s*[{\[\]]")
_GAP = re.compile(r"[\s,]*")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"|\'((?:[^\'\\]|\\.)*)\'', re.DOTALL)
_WORD = re.compile(r"[^\s,:\[\]{}\"']+")
_DEEPEST = 100
"""How deep the values of JSON can be inside one another. Deeper ones, which a model writes when it repeats itself, are
broken."""
_WORDS = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}


def json_in(text: str) -> Any:
    """Return the JSON that begins with the first object, list of objects or empty list in a text, which may stand in a
    code block or between words. Return None if it is broken: an object inside is not taken for the whole."""
    start = _START.search(text)
    try:
        return _shallow(_DECODER.raw_decode(text, start.start())[0]) if start else None
    except (ValueError, RecursionError):
        return None


def json_of(text: str) -> Any:
    """Return the JSON that a whole text is.

    Raises:
        ValueError: If it is none, is nested too deep, or has a number with thousands of digits.
    """
    try:
        return _shallow(json.loads(text))
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def readable_json_in(text: str) -> Any:
    """Return the JSON of `json_in`, or what can be read of it if it is broken: up to the first fault or to the end of
    the text, without a value that the end cuts off. Single quotes, missing and additional commas, and Python's names of
    constants are no faults. Return None if there is nothing."""
    start = _START.search(text)
    if (whole := json_in(text)) is not None or start is None:
        return whole
    try:
        return _shallow(_Reader(text, start.start()).value())
    except (_Fault, ValueError, RecursionError):
        return None


def objects_in(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield all objects in a JSON value, the outer ones first."""
    if isinstance(tree, dict):
        yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for one in tree:
            yield from objects_in(one)


def _shallow(tree: Any) -> Any:
    """Return a JSON value. Raise ValueError if it is nested too deep."""
    level = [tree]
    for _ in range(_DEEPEST):
        inside = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        if not (level := list(chain.from_iterable(inside))):
            return tree
    raise ValueError("it is nested too deep")


class _Fault(Exception):
    """There is no value where one should be, or the text ends in it."""


class _Reader:
    """Reads values of broken JSON from a place on."""

    def __init__(self, text: str, at: int):
        self._text = text
        self._at = at

    def value(self) -> Any:
        match self._next():
            case "{":
                return self._object()
            case "[":
                return self._list()
            case '"' | "'":
                return self._string()
        return self._word()

    def _object(self) -> dict[str, Any]:
        self._at += 1
        found: dict[str, Any] = {}
        try:
            while self._next() != "}":
                key = str(self._string() if self._next() in "\"'" else self._word())
                if self._next() != ":":
                    raise _Fault
                self._at += 1
                found[key] = self.value()
            self._at += 1
        except _Fault:
            self._at = len(self._text)
        return found

    def _list(self) -> list[Any]:
        self._at += 1
        found = []
        try:
            while self._next() != "]":
                found.append(self.value())
            self._at += 1
        except _Fault:
            self._at = len(self._text)
        return found

    def _string(self) -> str:
        if not (found := _STRING.match(self._text, self._at)):
            raise _Fault
        self._at = found.end()
        inside = found[1] if found[1] is not None else found[2].replace("\\'", "'").replace('"', '\\"')
        try:
            return json.loads(f'"{inside}"', strict=False)
        except json.JSONDecodeError:
            return inside

    def _word(self) -> Any:
        """Return a number, a constant or a text without quotes."""
        found = _WORD.match(self._text, self._at)
        if not found or found.end() == len(self._text):
            raise _Fault
        self._at = found.end()
        try:
            return _WORDS[found[0]] if found[0] in _WORDS else json.loads(found[0])
        except ValueError:  # other words, and numbers with thousands of digits
            return found[0]

    def _next(self) -> str:
        """Return the next character after white space and commas."""
        gap = _GAP.match(self._text, self._at)
        self._at = gap.end() if gap else self._at
        if self._at == len(self._text):
            raise _Fault
        return self._text[self._at]
