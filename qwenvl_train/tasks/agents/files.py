"""Reads what the files of agents have in common: screenshots, numbers, texts."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from qwenvl_train.errors import UserError
from qwenvl_train.tasks.agents.actions import Point
from qwenvl_train.tasks.converter import RowOptions
from qwenvl_train.tasks.files import first_record, read_json, records_of
from qwenvl_train.tasks.numbers import numbers, shown


def json_files(source: Path) -> list[Path]:
    """Return a file, or the .json and .jsonl files of a folder and its subfolders, in the order of their names."""
    if source.is_file():
        return [source]
    return sorted(path for path in source.rglob("*") if path.suffix in (".json", ".jsonl"))


def records_in(source: Path) -> Iterator[tuple[str, Any]]:
    """Yield the records of all files, each with its name in messages. A .json file without a list is one record."""
    for path in json_files(source):
        if path.suffix == ".jsonl":
            yield from records_of(path)
            continue
        found = read_json(path)
        if isinstance(found, list):
            yield from ((f"{path}, record {number}", record) for number, record in enumerate(found, start=1))
        else:
            yield str(path), found


def has_keys(source: Path, *keys: str) -> bool:
    """Return whether the first record of the source has all keys."""
    first = next(iter(json_files(source)), None)
    record = first_record(first) if first else None
    return isinstance(record, dict) and record.keys() >= set(keys)


def screenshot(record: Mapping[str, Any], key: str, source: Path, options: RowOptions) -> Path:
    """Return the path of a screenshot that a record names."""
    return options.medium(text_of(record, key), source)


def text_of(record: Mapping[str, Any], *keys: str) -> str:
    """Return the text in the first of some columns that has one.

    Raises:
        UserError: If none has.
    """
    for key in keys:
        match record.get(key):
            # TFRecords have lists of one value, which JSON forms of them keep.
            case str(text) | [str(text)] if text.strip():
                return text.strip()
    raise UserError(f"it has no text in {' or '.join(keys)}")


def optional_text(record: Mapping[str, Any], *keys: str) -> str:
    return next((record[key].strip() for key in keys if isinstance(record.get(key), str)), "")


def point_of(value: Any, what: str) -> Point:
    """Return two numbers, which may be given as the text of a list."""
    found = _parsed(value)
    x, y = numbers(value if found is None else found, 2, what)
    return x, y


def _parsed(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value


def list_of(value: Any, what: str) -> list[Any]:
    """Return a list, which may be given as its text."""
    found = _parsed(value)
    if not isinstance(found, list):
        raise UserError(f"{what} is {shown(value)}; expected a list")
    return found
