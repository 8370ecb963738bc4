"""The boxes and points that a text has as numbers, in one of the notations of the published models."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from qwenvl_train.data.render.regions import Size, to_pixels
from qwenvl_train.data.sample import Region
from qwenvl_train.families.family import Family

# The formats of the published models: JSON objects with numbers and a label; control tokens, with the name before them;
# the elements of a page in HTML; comments before the tables and images of a page in Markdown. Without a label, a region
# is also written as plain numbers in brackets.
_NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
_PAIR, _FOUR = rf"\[{_NUMBER},{_NUMBER}\]", rf"\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]"
# What counts in JSON. Other strings are matched so that their brackets do not count.
_IN_JSON = re.compile(
    rf"""["'](?:bbox_2d["']\s*:\s*{_FOUR}|point_2d["']\s*:\s*{_PAIR})"""
    r"""|["'](?:label|text_content)["']\s*:\s*("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
    r"""|(?<!\\)"(?:[^"\\\n]|\\.)*+"|([{}])"""
)
_IN_TOKENS = re.compile(
    r"(?:<\|object_ref_start\|>((?:(?!<\|object_ref_).)*)<\|object_ref_end\|>)?"
    rf"<\|box_start\|>\({_NUMBER},{_NUMBER}\)(?:,\({_NUMBER},{_NUMBER}\))?<\|box_end\|>",
    re.DOTALL,
)
_IN_HTML = re.compile(r"<(\w+)\b([^<>]*)>")
_BOX = re.compile(r"""\bdata-bbox\s*=\s*["']([^"'<>]*)["']""", re.IGNORECASE)
CLASS = re.compile(r"""\bclass\s*=\s*["']([^"']*)["']""", re.IGNORECASE)
_IN_MARKDOWN = re.compile(rf"<!--\s*(Table|Image)\s*\({_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\)\s*-->")
_PLAIN = re.compile(rf"{_FOUR}|{_PAIR}")


@dataclass(frozen=True)
class Written:
    numbers: tuple[float, ...]
    """The numbers as they stand in the text."""
    label: str


class Sizes(Protocol):
    """The height and width of a picture, as `PictureSize` has them."""

    @property
    def original(self) -> Size: ...
    @property
    def resized(self) -> Size: ...


def written_regions(text: str, plain: bool = False) -> Iterator[Written]:
    """Yield the boxes and points in a text, also those in JSON that is broken or does not end. With `plain`, numbers in
    brackets are regions, too, if the text has no others."""
    found = None
    for found in _in_json(text):
        yield found
    for match in _IN_TOKENS.finditer(text):
        label, *numbers = match.groups()
        yield (found := _written(numbers, label))
    for found in page_elements(text):
        yield found
    if plain and found is None:
        for match in _PLAIN.finditer(text):
            yield _written(list(match.groups()), "")


def page_elements(text: str) -> Iterator[Written]:
    """Yield the elements of a page that have a box, with their classes. The image with which an element begins, as in
    Qwen's HTML, is no element of its own."""
    before = None
    for match in _IN_HTML.finditer(text):
        tag, attributes = match[1].lower(), match[2]
        if not (box := _BOX.search(attributes)):
            continue
        begins = before is not None and tag == "img" and not text[before : match.start()].strip()
        before = match.end()
        numbers = re.findall(r"-?\d+(?:\.\d+)?", box[1])
        if len(numbers) == 4 and not begins:
            yield _written(numbers, _class_of(tag, attributes))
    for match in _IN_MARKDOWN.finditer(text):
        label, *numbers = match.groups()
        yield _written(numbers, label.lower())


def regions_in(text: str, size: Sizes, family: Family, plain: bool) -> list[Region]:
    """Return the boxes and points in a text about a single picture, in pixels of the original picture. With `plain`,
    numbers in brackets are regions, too, if the text has no others."""
    return [
        Region(tuple(to_pixels(one.numbers, family, size.original, size.resized)), one.label, image=0)
        for one in written_regions(text, plain)
    ]


def _in_json(text: str) -> Iterator[Written]:
    """Yield the regions of JSON objects. The label of a region stands before or after its numbers in its object."""
    if '_2d"' not in text and "_2d'" not in text:
        return
    numbers: list[str | None] = []
    label = ""
    for match in _IN_JSON.finditer(text):
        *found, named, bracket = match.groups()
        if any(found):
            if numbers:
                yield _written(numbers, label)
                label = ""
            numbers = found
        elif named:
            label = _unquoted(named)
        elif bracket:
            if numbers:
                yield _written(numbers, label)
            numbers, label = [], ""
    if numbers:
        yield _written(numbers, label)


def _unquoted(quoted: str) -> str:
    inside = quoted[1:-1]
    try:
        return json.loads(f'"{inside}"' if quoted[0] == '"' else '"' + inside.replace('"', '\\"') + '"')
    except json.JSONDecodeError:
        return inside


def _class_of(tag: str, attributes: str) -> str:
    """Return the class of an element of a page. The class of a table only numbers it."""
    named = CLASS.search(attributes)
    return named[1] if named and tag != "table" else "image" if tag == "img" else tag


def _written(numbers: list[str] | list[str | None], label: str | None) -> Written:
    return Written(tuple(float(number) for number in numbers if number is not None), label or "")
