"""Our own layout JSON: pages with their elements in the order of reading, as a .json file with `pages` or as a .jsonl
file with a page on each line."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from qwenvl_train.errors import UserError
from qwenvl_train.tasks.boxes import inside, size_of
from qwenvl_train.tasks.converter import Converter, Raw, Records, RowOptions, rows_or_refused
from qwenvl_train.tasks.documents.page import Page, page_row
from qwenvl_train.tasks.documents.parts import Element, checked
from qwenvl_train.tasks.files import first_record, read_json, records_of
from qwenvl_train.tasks.numbers import is_number, shown

_KEYS = ("class", "box", "text", "html", "latex", "level")


def matches(source: Path) -> bool:
    record = first_record(source)
    pages = record.get("pages") if isinstance(record, dict) else None
    page = pages[0] if isinstance(pages, list) and pages else record
    return isinstance(page, dict) and {"image", "elements"} <= page.keys()


def rows(source: Path, options: RowOptions) -> Records:
    for where, record in _pages(source):
        yield from rows_or_refused(where, _rows(record, source, where, options))


def _pages(source: Path) -> Iterator[tuple[str, Any]]:
    if source.suffix == ".jsonl":
        yield from records_of(source)
        return
    found = read_json(source)
    pages = found.get("pages") if isinstance(found, dict) else None
    if not isinstance(pages, list):
        raise UserError(f"{source} has no list of pages.")
    for number, page in enumerate(pages, start=1):
        yield f"{source}, page {number}", page


def _rows(record: Any, source: Path, where: str, options: RowOptions) -> Iterator[Raw]:
    match record:
        case {"image": str(name), "elements": list(elements)}:
            image = options.medium(name, source)
        case _:
            raise UserError("it needs an image and a list of elements")
    size = size_of(image)
    found = [_element(one, size, f"element {number}") for number, one in enumerate(elements, start=1)]
    key = str(record.get("id", name))
    yield page_row(Page(key, image, found), options)


def _element(given: Any, size: tuple[int, int], what: str) -> Element:
    if not isinstance(given, Mapping):
        raise UserError(f"{what} is no object")
    if unknown := given.keys() - set(_KEYS):
        raise UserError(f"{what} has {', '.join(sorted(unknown))}; an element has {', '.join(_KEYS)}")
    match given.get("box"):
        case [x1, y1, x2, y2] if all(map(is_number, (x1, y1, x2, y2))):
            box = inside((x1, y1, x2, y2), size, f"{what}: the box")
        case box:
            raise UserError(f"{what} has the box {shown(box)}; expected [x1, y1, x2, y2]")
    texts = {name: given.get(name) or "" for name in ("class", "text", "html", "latex")}
    for name, value in texts.items():
        if not isinstance(value, str):
            raise UserError(f"{what}: {name} is {shown(value)}, which is no text")
    level = given.get("level", 2)
    if not isinstance(level, int) or isinstance(level, bool):
        raise UserError(f"{what} has the level {shown(level)}; a heading has one from 1 to 6")
    element = Element(texts["class"], box, texts["text"], texts["html"], texts["latex"], level)
    return checked(element, what)


LAYOUT = Converter("layout", "our layout JSON: pages with an image and elements", matches, rows)
