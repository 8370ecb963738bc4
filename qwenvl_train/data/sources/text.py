"""The raw rows of a .jsonl or .json file as byte ranges, so that a row takes memory only while it is read."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from qwenvl_train.data.sources.source import LARGEST_ROW, InFile, keys_of_first, stamp, too_large, unreadable
from qwenvl_train.data.sources.span_files import cached_spans
from qwenvl_train.data.sources.spans import line_spans, list_spans
from qwenvl_train.errors import UserError


@dataclass(frozen=True, eq=False)
class TextRows(InFile):
    path: Path
    starts: np.ndarray
    """[rows]: the position of each row in the file, in bytes."""
    sizes: np.ndarray
    """[rows]: the size of each row in bytes."""
    lines: np.ndarray
    """[rows]: the line number of each row, or in a .json file its number in the list."""
    stamp: str
    """The stamp of the file when it was indexed."""
    address: str | None = None

    def __len__(self) -> int:
        return len(self.starts)

    def line(self, index: int) -> int:
        return int(self.lines[index])

    def fingerprint(self) -> str:
        return self.stamp

    def columns(self) -> list[str]:
        return keys_of_first(partial(self.row, index) for index in range(len(self)))

    def text(self, index: int) -> bytes:
        """Return the bytes of a row."""
        size = int(self.sizes[index])
        if size > LARGEST_ROW:
            raise too_large(f"{self.name}:{self.line(index)}", size)
        try:
            # The file is opened for each row, since processes that share an open file share its position.
            with open(self.path, "rb", buffering=0) as file:
                file.seek(int(self.starts[index]))
                return file.read(size)
        except OSError as error:
            raise unreadable(self.name, error) from None

    def row(self, index: int) -> object:
        raw = self.text(index)
        try:
            return _parse(raw, f"{self.name}:{self.line(index)}")
        except UserError:
            if stamp(self.path) != self.stamp:
                raise UserError(f"{self.name} was changed while it was in use; start the run again.") from None
            raise


def index_lines(path: Path, cache: Path, address: str | None = None) -> TextRows:
    """Index a .jsonl file. Lines that contain only white space are not rows."""
    return _index(path, cache, address, line_spans)


def index_list(path: Path, cache: Path, address: str | None = None) -> TextRows:
    """Index a .json file, which is one list of rows."""
    return _index(path, cache, address, list_spans)


def _index(path: Path, cache: Path, address: str | None, find: Callable[[Path], np.ndarray]) -> TextRows:
    mark = stamp(path)
    starts, sizes, lines = cached_spans(path, mark, cache, find)
    return TextRows(path, starts, sizes, lines, mark, address)


def _parse(raw: bytes, where: str) -> Any:
    try:
        text = raw.decode().strip()
        row = json.loads(text, object_pairs_hook=_object)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(row, ensure_ascii=False).encode()
        return row
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8 text ({error.reason} at byte {error.start + 1}); convert it.") from None
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise UserError(f"{where} contains {half!r}, half of a character; write the whole character.") from None
    except json.JSONDecodeError as error:
        reason = f"{error.msg.removesuffix(' at')} at character {error.pos + 1} of the row"
        raise UserError(
            f"{where} is not valid JSON: {reason}; in a .jsonl file, each line must be a whole row."
        ) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} cannot be read: {error}.") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs as a dict. Raise ValueError for a repeated key, of which `json` would silently keep the last."""
    keyed = dict(pairs)
    if len(keyed) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice in one object")
    return keyed
