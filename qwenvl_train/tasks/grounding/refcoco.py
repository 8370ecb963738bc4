"""Expressions that refer to one object, in the forms in which RefCOCO is passed on: a record for each object with its
sentences, and a box as x, y, width, height (bbox) or as corners (bbox_xyxy)."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from qwenvl_train.errors import UserError
from qwenvl_train.tasks.boxes import inside, middle, size_of
from qwenvl_train.tasks.converter import Converter, Raw, Records, RowOptions
from qwenvl_train.tasks.files import first_record, rows_of_records
from qwenvl_train.tasks.numbers import numbers
from qwenvl_train.tasks.rows import answer_row, listing

_SENTENCES = ("sentences", "sentence", "expression", "expressions", "phrase", "caption", "ref")
_IMAGES = ("file_name", "image", "img_name", "image_path", "img_filename")


def matches(source: Path) -> bool:
    record = first_record(source)
    return isinstance(record, dict) and all(
        any(key in record for key in keys) for keys in (_SENTENCES, _IMAGES, ("bbox", "bbox_xyxy"))
    )


def rows(source: Path, options: RowOptions) -> Records:
    yield from rows_of_records(source, lambda record, where: _rows(record, source, where, options))


def _rows(record: Any, source: Path, where: str, options: RowOptions) -> Iterator[Raw]:
    if not isinstance(record, dict):
        raise UserError("it is no object")
    name = next((record[key] for key in _IMAGES if isinstance(record.get(key), str)), None)
    if name is None:
        raise UserError(f"it names no image ({', '.join(_IMAGES)})")
    path = options.medium(name, source)
    box = inside(_corners(record), size_of(path), "the box")
    given = record.get("ref_id", record.get("id", where.rpartition("/")[2]))
    for number, sentence in enumerate(_sentences(record), start=1):
        region = middle(box) if options.form.startswith("points") else box
        key = f"{given}/{number}"
        question = options.prompts.ask(key, label=sentence, labels=sentence)
        yield answer_row(key, path, question, listing([(region, sentence)]))


def _corners(record: Mapping[str, Any]) -> tuple[float, float, float, float]:
    for key in ("bbox_xyxy", "bbox"):
        if record.get(key) is not None:
            x1, y1, x2, y2 = numbers(record[key], 4, key)
            return (x1, y1, x2, y2) if key == "bbox_xyxy" else (x1, y1, x1 + x2, y1 + y2)
    raise UserError("it has no box: bbox as [x, y, width, height], or bbox_xyxy as [x1, y1, x2, y2]")


def _sentences(record: Mapping[str, Any]) -> list[str]:
    """Return the expressions. In RefCOCO's own files, each is an object with `sent`, or with `raw` as it was typed."""
    given: Any = next((record[key] for key in _SENTENCES if record.get(key)), [])
    entries = given if isinstance(given, list) else [given]
    texts = [one.get("sent") or one.get("raw") if isinstance(one, dict) else one for one in entries]
    found = [text.strip() for text in texts if isinstance(text, str) and text.strip()]
    if not found or len(found) < len(texts):
        raise UserError(f"it has no expression ({', '.join(_SENTENCES)})")
    return found


REFCOCO = Converter("refcoco", "records with an image, expressions and a box, as RefCOCO has them", matches, rows)
