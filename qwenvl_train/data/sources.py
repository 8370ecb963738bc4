"""From a path to raw rows. A .jsonl file is kept as byte offsets, so that its rows cost no memory."""

import json
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from qwenvl_train.config.schema import SourceConfig
from qwenvl_train.errors import UserError


class Source(Protocol):
    name: str
    folder: Path
    """Where relative picture paths start."""
    format: Literal["auto", "llava", "messages"]

    def __len__(self) -> int: ...

    def line(self, index: int) -> int: ...

    def row(self, index: int) -> object:
        """As it stands in the file; `formats` says whether it is a row at all."""


class JsonLines:
    def __init__(self, path: Path, config: SourceConfig):
        self.name, self.folder, self.format = str(path), _media_root(path, config), config.format
        self._path = path
        self._offsets, self._lines = _index_lines(path)

    def __len__(self) -> int:
        return len(self._offsets)

    def line(self, index: int) -> int:
        return int(self._lines[index])

    def row(self, index: int) -> object:
        with self._path.open("rb") as file:
            file.seek(int(self._offsets[index]))
            return _parse(file.readline(), f"{self.name}:{self.line(index)}")


class JsonArray:
    def __init__(self, path: Path, config: SourceConfig):
        self.name, self.folder, self.format = str(path), _media_root(path, config), config.format
        self._rows: list[object] = _parse(path.read_bytes(), self.name)
        if not isinstance(self._rows, list):
            kind = type(self._rows).__name__
            raise UserError(f"{path} holds a JSON {kind}; a .json data file is one list of rows.")

    def __len__(self) -> int:
        return len(self._rows)

    def line(self, index: int) -> int:
        return index + 1

    def row(self, index: int) -> object:
        return self._rows[index]


def open_source(config: SourceConfig, key: str) -> Source:
    """`key` is the configuration key that named the file, for the error."""
    path = Path(config.path).expanduser()
    if not path.is_file():
        raise UserError(f"{key}: {path} is not a file; give the path of a .jsonl or .json file.")
    match path.suffix.lower():
        case ".jsonl":
            source: Source = JsonLines(path, config)
        case ".json":
            source = JsonArray(path, config)
        case _:
            raise UserError(f"{key}: {path} ends in {path.suffix or 'nothing'!r}; .jsonl and .json are read.")
    if len(source) == 0:
        raise UserError(f"{key}: {path} has no rows.")
    return source


def _media_root(path: Path, config: SourceConfig) -> Path:
    root = Path(config.media_root).expanduser() if config.media_root else path.resolve().parent
    if not root.is_dir():
        raise UserError(f"media_root {root} of {path} is not a folder.")
    return root


def _index_lines(path: Path) -> tuple[np.ndarray, np.ndarray]:
    offsets, lines, offset = [], [], 0
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if raw.strip():
                offsets.append(offset)
                lines.append(number)
            offset += len(raw)
    return np.array(offsets, dtype=np.int64), np.array(lines, dtype=np.int64)


def _parse(raw: bytes, where: str) -> Any:
    try:
        return json.loads(raw)
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8 text ({error.reason} at byte {error.start}); convert it.") from None
    except json.JSONDecodeError as error:
        raise UserError(
            f"{where} is not valid JSON: {error.msg} at line {error.lineno} column {error.colno}."
        ) from None
