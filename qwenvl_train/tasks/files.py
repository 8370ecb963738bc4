"""Reads the files of published formats, with one sentence for what is wrong in them."""

import csv
import json
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from qwenvl_train.errors import UserError
from qwenvl_train.tasks.converter import Raw, Records, Refused, rows_or_refused

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_HEAD = 4096


def is_missing(path: Path) -> bool:
    """Return whether there is nothing at a path. One that cannot be looked at is not missing: reading it tells why."""
    try:
        path.stat()
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False
    return False


def no_medium(path: Path | str) -> UserError:
    return UserError(f"there is no file {path}; convert.media names the folder of the images and videos")


def read_json(path: Path) -> Any:
    """Return the value in a file, which must not be changed: the last file is kept, since the formats that `auto` tries
    and the converter read the same one."""
    try:
        state = path.stat()
        return _read_json(path.absolute(), state.st_mtime_ns, state.st_size)
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}.") from None


@lru_cache(maxsize=1)
def _read_json(path: Path, changed: int, size: int) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def records_of(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the records of a .jsonl file, or of the list in a .json file, each with its name in messages."""
    if path.suffix == ".jsonl":
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    try:
                        yield f"{path}:{number}", json.loads(line.decode())
                    except UnicodeDecodeError as error:
                        raise UserError(f"{path}:{number} is not in UTF-8: {error}.") from None
                    except (ValueError, RecursionError) as error:
                        raise UserError(f"{path}:{number} is not valid JSON: {error}.") from None
        return
    found = read_json(path)
    if not isinstance(found, list):
        raise UserError(f"{path} has no list of records.")
    for number, record in enumerate(found, start=1):
        yield f"{path}, record {number}", record


def rows_of_records(path: Path, rows: Callable[[Any, str], Iterator[Raw]]) -> Records:
    """Yield the rows of all records of a file. `rows` takes a record and its name in messages."""
    for where, record in records_of(path):
        yield from rows_or_refused(where, rows(record, where))


def first_record(path: Path) -> Any:
    """Return the first record of a .jsonl or .json file, or the value of a .json file that has no list. Return None if
    there is none, or the file is no JSON."""
    if not path.is_file() or path.suffix not in (".json", ".jsonl"):
        return None
    try:
        if path.suffix == ".jsonl":
            return next((record for _, record in records_of(path)), None)
        found = read_json(path)
    except UserError:
        return None
    return (found[0] if found else None) if isinstance(found, list) else found


def refuse_broken_json(path: Path) -> None:
    """Raise UserError if a .json file, or the first record of a .jsonl file, cannot be read. Formats are found by what
    is in it."""
    if path.is_file() and path.suffix == ".jsonl":
        next(records_of(path), None)
    elif path.is_file() and path.suffix == ".json":
        read_json(path)


def table_rows(path: Path) -> Iterator[tuple[str, dict[str, str]] | Refused]:
    """Yield the rows of a .csv or .tsv file with a line of column names, each with its name in messages, and the lines
    with more cells than columns. The separator is the one that the line of column names has most of."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            dialect = _dialect(file.read(_HEAD), path)
            file.seek(0)
            for row in (reader := csv.DictReader(file, dialect=dialect)):
                where, surplus = f"{path}:{reader.line_num}", row.pop(None, [])
                if any(cell.strip() for cell in surplus):
                    cells = f"it has {len(row) + len(surplus)} cells for the {len(row)} columns"
                    yield Refused(where, f"{cells}; put a cell that has a separator in quotes")
                else:
                    yield where, {key: (value or "").strip() for key, value in row.items()}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a table: {error}.") from None


def column_names(path: Path) -> list[str]:
    """Return the names of the columns of a table, or no names if there is none."""
    if not path.is_file() or path.suffix.lower() not in (".csv", ".tsv"):
        return []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = file.read(_HEAD)
            return next(csv.reader(head.splitlines(), dialect=_dialect(head, path)), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def _dialect(head: str, path: Path) -> type[csv.Dialect]:
    class Found(csv.excel):
        delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t|", key=head.partition("\n")[0].count)

    return Found
