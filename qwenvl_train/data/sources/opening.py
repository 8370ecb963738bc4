"""From one entry of data.train or data.eval to its sources."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

from qwenvl_train.config.schema import SourceConfig
from qwenvl_train.data.sources.files import PACKED, READ, files_below, files_matching, is_glob, no_file
from qwenvl_train.data.sources.flows import Flow, Hub, Indexed, Lines, Parquet
from qwenvl_train.data.sources.source import Source, unreadable
from qwenvl_train.data.sources.table import at_commit, is_arrow_folder, open_arrow_folder, open_hub, open_parquet
from qwenvl_train.data.sources.text import index_lines, index_list
from qwenvl_train.errors import UserError

_READ = "Read are .jsonl, .json and .parquet files, folders and globs of these, arrow dataset folders, and hub ids."
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_FILE_ENDINGS = (*READ, *PACKED, ".csv", ".tsv", ".txt", ".arrow", ".tar")


def open_sources(config: SourceConfig, key: str, cache: Path) -> list[Source]:
    """`key` is the setting that names the entry, for errors. In the cache lie parquet files as arrow, and of large text
    files where their rows are."""
    with _naming(config, key):
        sources = _open(config, cache)
    for source in sources:
        if len(source) == 0:
            raise UserError(f"{key}: {source.name} has no rows.")
    return sources


def open_flows(config: SourceConfig, key: str, cache: Path) -> list[Flow]:
    """The same to be read from front to back; of a hub id, one commit is settled on."""
    with _naming(config, key):
        match _find(config):
            case "arrow folder":
                folder = Path(os.path.expanduser(config.path))
                open_again = partial(open_arrow_folder, folder, config)
                return [Indexed(open_again().name, open_again, folder)]
            case "hub id":
                return [Hub(at_commit(config))]
            case files:
                return [_flow(file, cache) for file in files]


@contextmanager
def _naming(config: SourceConfig, key: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{key}: {unreadable(config.path, error)}") from None
    except UserError as error:
        raise UserError(f"{key}: {error}") from None


def _open(config: SourceConfig, cache: Path) -> list[Source]:
    match _find(config):
        case "arrow folder":
            return [open_arrow_folder(Path(os.path.expanduser(config.path)), config)]
        case "hub id":
            return [open_hub(config)]
        case files:
            return [_open_file(file, cache) for file in files]


def _find(config: SourceConfig) -> Literal["arrow folder", "hub id"] | list[Path]:
    """What the path stands for, or the data files that it does."""
    path = Path(os.path.expanduser(config.path))
    if not config.path.strip():
        raise UserError(f"the path of an entry is empty. {_READ}")
    if path.is_dir() and is_arrow_folder(path):
        _refuse_settings(config, "an arrow folder", "subset", "revision")
        return "arrow folder"
    if os.path.lexists(path):
        return _settled(files_below(path) if path.is_dir() else [path], config)
    if "://" in config.path:
        raise UserError(f"{config.path} is an address; fetch it, and give the path of the file. {_READ}")
    if is_glob(config.path):
        return _settled(files_matching(path), config)
    if _HUB_ID.fullmatch(config.path) and path.suffix.lower() not in _FILE_ENDINGS:
        return "hub id"
    raise UserError(f"there is no file or folder {path}; relative paths start at {Path.cwd()}. {_READ}")


def _refuse_settings(config: SourceConfig, kind: str, *settings: str) -> None:
    for setting in settings:
        if (value := getattr(config, setting)) is not None:
            raise UserError(f"{setting}={value} has no effect on {kind}, as {config.path} is; leave it out.")


def _settled(files: list[Path], config: SourceConfig) -> list[Path]:
    _refuse_settings(config, "files", "split", "subset", "revision")
    if not files:
        raise UserError(f"{config.path} holds no .jsonl, .json or .parquet file.")
    return files


def _open_file(path: Path, cache: Path) -> Source:
    match _ending(path):
        case ".jsonl":
            return index_lines(path, cache)
        case ".json":
            return index_list(path, cache)
        case ".parquet":
            return open_parquet(path, cache)


def _flow(path: Path, cache: Path) -> Flow:
    match _ending(path):
        case ".jsonl":
            return Lines(path)
        case ".json":
            return Indexed(str(path), partial(index_list, path, cache), path)
        case ".parquet":
            return Parquet(path)


def _ending(path: Path) -> Literal[".jsonl", ".json", ".parquet"]:
    if not path.is_file():
        raise UserError(f"{path} {no_file(path)}.")
    match path.suffix.lower():
        case ".jsonl" | ".json" | ".parquet" as ending:
            return ending
        case packed if packed in PACKED:
            raise UserError(f"{path} is compressed; unpack it. {_READ}")
        case other:
            raise UserError(f"{path} ends in {other or 'nothing'!r}. {_READ}")
