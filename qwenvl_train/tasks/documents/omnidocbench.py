"""OmniDocBench's annotations: a list of pages, each with layout_dets and page_info. Boxes are given by four corners."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from qwenvl_train.errors import UserError
from qwenvl_train.tasks.boxes import inside, scale_of, size_of
from qwenvl_train.tasks.converter import Converter, Raw, Records, RowOptions
from qwenvl_train.tasks.documents.page import Page, page_row
from qwenvl_train.tasks.documents.parts import Element, checked
from qwenvl_train.tasks.files import first_record, rows_of_records
from qwenvl_train.tasks.numbers import is_number, shown

_TEXTS = (
    "text_block", "reference", "header", "footer", "page_number", "page_footnote", "figure_caption", "figure_footnote",
    "table_caption", "table_footnote", "equation_caption", "code_txt_caption", "code_algorithm_caption",
)  # fmt: skip
_KINDS = {
    **dict.fromkeys(_TEXTS, "paragraph"),
    "title": "heading",
    "table": "table",
    "figure": "image",
    "equation_isolated": "formula",
    "code_txt": "code",
    "code_algorithm": "code",
}
"""The class of an element by OmniDocBench's category."""
_LEFT_OUT = ("abandon",)


def matches(source: Path) -> bool:
    record = first_record(source)
    return isinstance(record, dict) and {"layout_dets", "page_info"} <= record.keys()


def rows(source: Path, options: RowOptions) -> Records:
    yield from rows_of_records(source, lambda record, where: _rows(record, source, where, options))


def _rows(record: Any, source: Path, where: str, options: RowOptions) -> Iterator[Raw]:
    match record:
        case {"layout_dets": list(found), "page_info": {"image_path": str(name)} as info}:
            image = options.medium(name, source)
        case _:
            raise UserError("it needs layout_dets, and page_info with an image_path")
    size = size_of(image)
    scale = scale_of((info.get("width"), info.get("height")), size)
    elements = [_element(one, size, scale) for one in sorted(filter(_is_read, found), key=lambda one: one["order"])]
    yield page_row(Page(name, image, elements), options)


def _is_read(found: Any) -> bool:
    """Return whether an element is part of the page's text. Those that OmniDocBench ignores or masks, and those without
    a place in the order of reading, are not."""
    if not isinstance(found, Mapping) or not isinstance(category := found.get("category_type"), str):
        raise UserError("an entry of layout_dets has no category_type")
    if found.get("ignore") or category.endswith("_mask") or category in _LEFT_OUT:
        return False
    return is_number(found.get("order"))


def _element(found: Mapping[str, Any], size: tuple[int, int], scale: tuple[float, float]) -> Element:
    category, name = found["category_type"], found.get("anno_id")
    what = f"the {category} {name if isinstance(name, int | str) else 'at ' + str(found['order'])}"
    if category not in _KINDS:
        raise UserError(f"{what} has a category that is not known here; known are {', '.join(_KINDS)}")
    match found.get("poly"):
        case [*numbers] if len(numbers) == 8 and all(map(is_number, numbers)):
            across, down = ([side * one for one in numbers[axis::2]] for axis, side in enumerate(scale))
            box = inside((min(across), min(down), max(across), max(down)), size, f"{what}: the box")
        case poly:
            raise UserError(f"{what} has the poly {shown(poly)}; expected eight numbers")
    texts = {name: found.get(name) or "" for name in ("text", "html", "latex")}
    if wrong := [name for name, value in texts.items() if not isinstance(value, str)]:
        raise UserError(f"{what}: {wrong[0]} is no text")
    text, html, latex = texts.values()
    kind = _KINDS[category]
    if kind == "formula":
        latex = latex.strip().removeprefix("$$").removesuffix("$$").strip()
    return checked(Element(kind, box, text.strip(), html.strip(), latex), what)


OMNIDOCBENCH = Converter("omnidocbench", "OmniDocBench's list of pages with layout_dets", matches, rows)
