"""SROIE: for each image, a .txt file with x1,y1,…,x4,y4,text on each line, and a JSON file with key information. The
files are beside the image, or in folders box and entities beside the folder of the images."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from qwenvl_train.errors import UserError
from qwenvl_train.tasks.boxes import size_of
from qwenvl_train.tasks.converter import Converter, Empty, Raw, Records, RowOptions, rows_or_refused
from qwenvl_train.tasks.files import IMAGE_ENDINGS
from qwenvl_train.tasks.ocr.reading import Line, Reading, reading_row, upright_box

_FOLDERS = ("box", "entities")
_BEGINNING = re.compile(r"\s*(\{|(-?\d+(\.\d+)?\s*,\s*){8})")
"""The beginning of a file of key information or of lines."""
_UNREADABLE = "###"
"""The text of a line that nobody could read, in data of the ICDAR's competitions."""


def matches(source: Path) -> bool:
    return source.is_dir() and any(_files_of(image).exist for image in _images(source))


def rows(source: Path, options: RowOptions) -> Records:
    """Yield the rows. Images without a file of lines and without key information give none."""
    images = list(_images(source))
    for image in images:
        if (files := _files_of(image)).exist:
            key = image.relative_to(source).as_posix()
            yield from rows_or_refused(str(image), _rows(key, image, files, options))
    for file in _without_image(images):
        yield Empty(str(file), f"there is no image {file.stem} for it")


def _without_image(images: Sequence[Path]) -> Iterator[Path]:
    """Yield the files of lines and of key information of which there is no image. Beside images, only files that look
    like those of lines or of key information are meant, and JSON only where other images have it."""
    stems: dict[Path, set[str]] = {}
    for image in images:
        stems.setdefault(image.parent, set()).add(image.stem)
    for folder, of_images in sorted(stems.items()):
        json_is_meant = any((folder / f"{stem}.json").is_file() for stem in of_images)
        for path in sorted(folder.glob("*.txt")) + (sorted(folder.glob("*.json")) if json_is_meant else []):
            if path.stem not in of_images and path.is_file() and (path.suffix == ".json" or _is_annotation(path)):
                yield path
    for parent in sorted({folder.parent for folder in stems}):
        of_images = {stem for folder, found in stems.items() if folder.parent == parent for stem in found}
        for path in (path for name in _FOLDERS for path in sorted((parent / name).glob("*"))):
            if path.suffix in (".txt", ".json") and path.is_file() and path.stem not in of_images:
                yield path


def _is_annotation(path: Path) -> bool:
    return bool(_BEGINNING.match(_head(path)))


def _images(source: Path) -> Iterator[Path]:
    for path in sorted(source.rglob("*")):
        if path.suffix.lower() in IMAGE_ENDINGS:
            yield path


class _Files(NamedTuple):
    """The files of an image."""

    lines: Path | None
    fields: Path | None

    @property
    def exist(self) -> bool:
        return self != (None, None)


def _files_of(image: Path) -> _Files:
    # A name can have dots before its ending.
    beside, folder = image.with_suffix(".txt"), image.parent.parent
    # The .txt files of the third part of SROIE have key information.
    has_fields = beside.is_file() and _head(beside).lstrip().startswith("{")
    entities = (folder / "entities" / f"{image.stem}{ending}" for ending in (".txt", ".json"))
    fields = _first(image.with_suffix(".json"), *entities)
    lines = _first(*([] if has_fields else [beside]), folder / "box" / f"{image.stem}.txt")
    return _Files(lines, fields or (beside if has_fields else None))


def _rows(key: str, image: Path, files: _Files, options: RowOptions) -> Iterator[Raw]:
    lines = list(_lines(files.lines, image)) if files.lines and options.form != "fields" else []
    fields = _fields(files.fields) if files.fields and options.form == "fields" else {}
    yield reading_row(Reading(key, image.absolute(), lines, fields), options)


def _head(path: Path) -> str:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return file.read(100)


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
