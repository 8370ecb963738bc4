"""CORD: metadata.jsonl as Donut has it, with a file_name and the ground_truth as JSON in a text. Key information is in
gt_parse, and the words of each line are in valid_line."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from qwenvl_train.errors import UserError
from qwenvl_train.tasks.boxes import size_of
from qwenvl_train.tasks.converter import Converter, Raw, Records, RowOptions
from qwenvl_train.tasks.files import first_record, rows_of_records
from qwenvl_train.tasks.numbers import is_number
from qwenvl_train.tasks.ocr.reading import Line, Reading, reading_row, upright_box

_CORNERS = ("x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4")


def _file(source: Path) -> Path:
    return source / "metadata.jsonl" if source.is_dir() else source


def matches(source: Path) -> bool:
    record = first_record(_file(source))
    return isinstance(record, dict) and {"file_name", "ground_truth"} <= record.keys()


def rows(source: Path, options: RowOptions) -> Records:
    source = _file(source)
    yield from rows_of_records(source, lambda record, where: _rows(record, source, where, options))


def _rows(record: Any, source: Path, where: str, options: RowOptions) -> Iterator[Raw]:
    if not isinstance(record, Mapping) or not isinstance(name := record.get("file_name"), str):
        raise UserError("it has no file_name")
    image = options.medium(name, source)
    truth = _truth(record.get("ground_truth"))
    fields = truth.get("gt_parse") or {}
    if not isinstance(fields, dict):
        raise UserError("its gt_parse is no object")
    lines = [] if options.form == "fields" else _lines(truth.get("valid_line") or [], size_of(image))
    yield reading_row(Reading(name, image, lines, fields), options)


def _truth(given: Any) -> Mapping[str, Any]:
    try:
        found = json.loads(given) if isinstance(given, str) else given
    except (ValueError, RecursionError) as error:
        raise UserError(f"its ground_truth is not valid JSON: {error}") from None
    if not isinstance(found, Mapping):
        raise UserError("its ground_truth is no object")
    return found


def _lines(given: Any, size: tuple[int, int]) -> list[Line]:
    if not isinstance(given, list):
        raise UserError("its valid_line is no list")
    return [_line(one, size, f"valid_line {number}") for number, one in enumerate(given, start=1)]


def _line(given: Any, size: tuple[int, int], what: str) -> Line:
    """Return a line with the smallest upright box around its words."""
    words = given.get("words") if isinstance(given, Mapping) else None
    match words:
        case [*found] if found and all(_is_word(word) for word in found):
            corners = [word["quad"][key] for word in found for key in _CORNERS]
            return Line(_text(found), upright_box(corners, size, f"{what}: the box"))
    raise UserError(f"{what} needs words, each with a text and a quad of {', '.join(_CORNERS)}")


def _is_word(word: Any) -> bool:
    match word:
        case {"text": str(), "quad": dict(quad)}:
            return all(is_number(quad.get(key)) for key in _CORNERS)
    return False


def _text(words: Sequence[Mapping[str, Any]]) -> str:
    return " ".join(word["text"] for word in words)


CORD = Converter("cord", "CORD's metadata.jsonl with file_name and ground_truth, or its folder", matches, rows)
