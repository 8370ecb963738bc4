"""Our own records: a .jsonl or .json list with an image, and its lines or its key information."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from qwenvl_train.errors import UserError
from qwenvl_train.tasks.boxes import size_of
from qwenvl_train.tasks.converter import Converter, Raw, Records, RowOptions
from qwenvl_train.tasks.files import first_record, rows_of_records
from qwenvl_train.tasks.numbers import is_number
from qwenvl_train.tasks.ocr.reading import Line, Reading, reading_row, upright_box


def matches(source: Path) -> bool:
    record = first_record(source)
    return isinstance(record, dict) and "image" in record and bool({"lines", "fields"} & record.keys())


def rows(source: Path, options: RowOptions) -> Records:
    yield from rows_of_records(source, lambda record, where: _rows(record, source, where, options))


def _rows(record: Any, source: Path, where: str, options: RowOptions) -> Iterator[Raw]:
    if not isinstance(record, Mapping) or not isinstance(name := record.get("image"), str):
        raise UserError("it names no image")
    match record.get("lines") or [], record.get("fields") or {}:
        case list(lines), dict(fields):
            image = options.medium(name, source)
        case _:
            raise UserError("lines must be a list, and fields an object")
    size = size_of(image)
    found = [_line(one, size, f"line {number}") for number, one in enumerate(lines, start=1)]
    yield reading_row(Reading(str(record.get("id", name)), image, found, fields), options)


def _line(given: Any, size: tuple[int, int], what: str) -> Line:
    text = given.get("text") if isinstance(given, dict) else given
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{what} has no text")
    if isinstance(given, str) or not (set(given) - {"text"}):
        return Line(text, None)
    if unknown := set(given) - {"text", "box", "quad"}:
        raise UserError(f"{what} has {', '.join(sorted(unknown))}; a line has text, and box or quad")
    numbers = given.get("quad", given.get("box"))
    count = 8 if "quad" in given else 4
    if isinstance(numbers, list) and all(isinstance(one, list) for one in numbers):
        numbers = [number for corner in numbers for number in corner]
    match numbers:
        case [*corners] if len(corners) == count and all(map(is_number, corners)):
            return Line(text, upright_box(corners, size, f"{what}: the box"))
    raise UserError(f"{what}: box has four numbers, and quad four corners of two numbers each")


RECORDS = Converter("records", "our records with an image, and lines or fields", matches, rows)
