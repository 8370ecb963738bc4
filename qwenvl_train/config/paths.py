"""The settings that hold paths, and how a relative path becomes an absolute one."""

import os
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import reduce
from pathlib import Path
from typing import Any

_PATHS = (
    "output_dir", "data.cache", "deepspeed.nvme_path", "inspect.file", "run", "eval.to", "export.to", "chat.to",
    "chat.save", "sample.to", "filter.to", "filter.unwanted.words", "filter.classes.tree",
    "source", "to", "convert.media", "convert.labels",
)  # fmt: skip
"""Keys that always hold a path."""
_SOURCES = ("data.train", "data.eval", "chat.input", "chat.images", "chat.videos")
"""Keys whose entries may be paths."""
DATA_ENDINGS = (".jsonl", ".json", ".parquet", ".csv", ".tsv")
"""The ends of the names of data files, in lower case."""


def anchored(values: Mapping[str, object], folder: Path) -> dict[str, object]:
    """Return the values by dotted key, with absolute paths. Relative paths start at `folder`."""
    return {key: _anchored(key, value, folder) for key, value in values.items()}


def with_absolute_paths(tree: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a whole configuration with absolute paths. Relative paths start at `folder`."""
    return _changed(tree, lambda key, value: _anchored(key, value, folder))


def with_relative_paths(tree: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a whole configuration in which paths below `folder` start at it."""
    return _changed(tree, lambda key, value: _relative(value, folder))


def _changed(tree: dict[str, Any], change: Callable[[str, object], object]) -> dict[str, Any]:
    """Return a copy of a whole configuration with `change` applied to the values that hold paths."""
    made = deepcopy(tree)
    for key in (*_PATHS, "train.resume", "model.path", *_SOURCES):
        *sections, name = key.split(".")
        section = reduce(lambda inner, part: inner.get(part) or {}, sections, made)
        if section.get(name) is not None:
            section[name] = change(key, section[name])
    return made


def _relative(value: object, folder: Path) -> object:
    match value:
        case str():
            return "." if value == str(folder) else value.removeprefix(f"{folder}/")
        case list() | tuple():
            return [_relative(entry, folder) for entry in value]
        case dict():
            paths = {key: _relative(value[key], folder) for key in ("path", "media_root") if key in value}
            return value | paths
        case _:
            return value


def _anchored(key: str, value: object, folder: Path) -> object:
    if key in _PATHS and isinstance(value, str):
        return _joined(value, folder)
    if key == "train.resume" and isinstance(value, str) and value not in ("auto", "never"):
        return _joined(value, folder)
    if key == "model.path" and isinstance(value, str):
        return _joined(value, folder) if _is_local(value, folder) else value
    if key in _SOURCES:
        entries = value if isinstance(value, list | tuple) else [value]
        found = [_source(entry, folder) for entry in entries]
        return found if isinstance(value, list | tuple) else found[0]
    return value


def _source(entry: object, folder: Path) -> object:
    if isinstance(entry, str):
        return _joined(entry, folder) if _is_local(entry, folder) else entry
    if isinstance(entry, dict):
        made = dict(entry)
        if isinstance(entry.get("path"), str):
            made["path"] = _source(entry["path"], folder)
        if isinstance(entry.get("media_root"), str):
            made["media_root"] = _joined(entry["media_root"], folder)
        return made
    return entry


def _is_local(path: str, folder: Path) -> bool:
    """Return whether a path, which may also be a hub id, is a local one."""
    return (
        path.startswith(("./", "../"))
        or path.endswith(DATA_ENDINGS)
        or any(sign in path for sign in "*?[")
        or (folder / path).exists()
    )


def _joined(path: str, folder: Path) -> str:
    """Return an absolute path. Interpolations, addresses and paths that begin with ~ stay as they are."""
    if not path or path.startswith(("~", "$")) or "://" in path:
        return path
    return os.path.normpath(folder / path)
