"""SROIE: for each image, a .txt file with x1,y1,…,x4,y4,text on each line, and a JSON file with key information. The
files are beside the image, or in folders box and entities beside the folder of the images."""

import json
from collections.abc import Iterator
from pathlib import Path

from qwenvl_train.errors import UserError
from qwenvl_train.tasks.boxes import size_of
from qwenvl_train.tasks.converter import Converter, Raw, Records, RowOptions, rows_or_refused
from qwenvl_train.tasks.files import IMAGE_ENDINGS
from qwenvl_train.tasks.ocr.reading import Line, Reading, reading_row, upright_box

_UNREADABLE = "###"
"""The text of a line that nobody could read, in data of the ICDAR's competitions."""


def matches(source: Path) -> bool:
    return source.is_dir() and next(_images(source), None) is not None


def rows(source: Path, options: RowOptions) -> Records:
    """Yield the rows. Images without a file of lines and without key information give none."""
    for image in _images(source):
        key = image.relative_to(source).as_posix()
        yield from rows_or_refused(str(image), _rows(key, image, options))


def _images(source: Path) -> Iterator[Path]:
    for path in sorted(source.rglob("*")):
        if path.suffix.lower() in IMAGE_ENDINGS and (_lines_file(path) or _fields_file(path)):
            yield path


def _rows(key: str, image: Path, options: RowOptions) -> Iterator[Raw]:
    lines_file, fields_file = _lines_file(image), _fields_file(image)
    lines = list(_lines(lines_file, image)) if lines_file and options.form != "fields" else []
    fields = _fields(fields_file) if fields_file and options.form == "fields" else {}
    yield reading_row(Reading(key, image.absolute(), lines, fields), options)


def _lines_file(image: Path) -> Path | None:
    return _first(image.with_suffix(".txt"), image.parent.parent / "box" / f"{image.stem}.txt")


def _fields_file(image: Path) -> Path | None:
    apart = image.parent.parent / "entities"
    # A name can have dots before its ending.
    return _first(image.with_suffix(".json"), apart / f"{image.stem}.txt", apart / f"{image.stem}.json")


def _first(*paths: Path) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _lines(file: Path, image: Path) -> Iterator[Line]:
    size = size_of(image)
    for number, line in enumerate(_text(file).splitlines(), start=1):
        if not line.strip():
            continue
        *corners, text = line.split(",", maxsplit=8)
        try:
            numbers = [float(corner) for corner in corners]
        except ValueError:
            numbers = []
        if len(numbers) != 8 or not text.strip():
            raise UserError(f"line {number} of {file.name} is {line.strip()!r}; expected x1,y1,x2,y2,x3,y3,x4,y4,text")
        if text.strip() != _UNREADABLE:
            yield Line(text.strip(), upright_box(numbers, size, f"line {number} of {file.name}: the box"))


def _fields(file: Path) -> dict[str, str]:
    try:
        found = json.loads(_text(file))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file.name} is not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{file.name} has no object with key information")
    return found


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file.name} is not in UTF-8: {error}") from None


SROIE = Converter("sroie", "a folder as SROIE's: images with .txt files of lines and JSON of fields", matches, rows)
