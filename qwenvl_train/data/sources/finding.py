"""Find out what an entry of data.train or data.eval stands for, before loading any library that could read it."""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from qwenvl_train.config.entries import SourceConfig
from qwenvl_train.config.schema import DataConfig
from qwenvl_train.config.section import AllowRemote
from qwenvl_train.data.remote import PROTOCOLS, files_at, scheme_of
from qwenvl_train.data.sources.files import (
    PACKED,
    READ,
    READ_IN_WORDS,
    files_below,
    files_matching,
    is_glob,
    is_packed,
    no_file,
)
from qwenvl_train.data.sources.source import unreadable
from qwenvl_train.errors import UserError

_READ = (
    "Supported are .jsonl, .json, .parquet, .csv and .tsv files, folders and globs of these, arrow dataset folders, "
    "and hub ids; with data.allow_remote=true also s3://, gs://, hf:// and similar addresses."
)
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_FILE_ENDINGS = (*READ, *PACKED, ".txt", ".arrow", ".tar")


@contextmanager
def naming(config: SourceConfig, key: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{key}: {unreadable(config.path, error)}") from None
    except UserError as error:
        raise UserError(f"{key}: {error}") from None


def refuse_missing(data: DataConfig, keys: Iterable[Literal["train", "eval"]] = ("train", "eval")) -> None:
    """Raise UserError when an entry of one of the keys does not exist or is not a data file."""
    entries = {"train": data.train, "eval": data.eval_entries}
    for key in keys:
        for entry in entries[key]:
            with naming(entry, f"data.{key}"):
                found = find(entry, data.allow_remote)
                for file in found if isinstance(found, list) else []:
                    ending(file)


def find(config: SourceConfig, allow_remote: AllowRemote) -> Literal["arrow folder", "hub id", "address"] | list[Path]:
    """Return the kind of source that the path of the entry stands for, or the data files that it stands for."""
    path = Path(os.path.expanduser(config.path))
    if not config.path.strip():
        raise UserError(f"the path of an entry is empty. {_READ}")
    if path.is_dir() and is_arrow_folder(path):
        _refuse_settings(config, "an arrow folder", "subset", "revision")
        return "arrow folder"
    if os.path.lexists(path):
        return _settled(files_below(path) if path.is_dir() else [path], config)
    if scheme_of(config.path) in PROTOCOLS:
        _refuse_settings(config, "files", "split", "subset", "revision")
        if not allow_remote:
            raise UserError(f"{config.path} is not fetched; set data.allow_remote=true, or copy it to a disk.")
        return "address"
    if "://" in config.path:
        raise UserError(f"{config.path} is an address; download it, and give the path of the file. {_READ}")
    if is_glob(config.path):
        return _settled(files_matching(path), config)
    if is_hub_id(config.path):
        return "hub id"
    raise UserError(f"there is no file or folder {path}; relative paths start at {Path.cwd()}. {_READ}")


def is_hub_id(path: str) -> bool:
    """Return whether the path of an entry is no file or folder, and has the form of a hub id."""
    missing = not os.path.lexists(os.path.expanduser(path))
    return missing and _HUB_ID.fullmatch(path) is not None and not path.lower().endswith(_FILE_ENDINGS)


def find_at_address(config: SourceConfig) -> list[str]:
    """Return the addresses of the data files that the path of the entry, an address, stands for."""
    found = files_at(config.path, is_glob(config.path))
    for name in found:
        if is_packed(Path(name)):
            raise UserError(f"{name} is compressed; unpack it, or remove it from the folder.")
    if files := [name for name in found if name.lower().endswith(READ)]:
        return files
    raise UserError(f"there is no {READ_IN_WORDS} at {config.path}.")


def _refuse_settings(config: SourceConfig, kind: str, *settings: str) -> None:
    for setting in settings:
        if (value := getattr(config, setting)) is not None:
            raise UserError(f"{setting}={value} has no effect on {kind} such as {config.path}; remove it.")


def _settled(files: list[Path], config: SourceConfig) -> list[Path]:
    _refuse_settings(config, "files", "split", "subset", "revision")
    if not files and is_glob(config.path):
        raise UserError(f"no {READ_IN_WORDS} matches {config.path}.")
    if not files:
        raise UserError(f"{config.path} contains no {READ_IN_WORDS}.")
    return files


def is_arrow_folder(folder: Path) -> bool:
    """Return whether the folder is one that save_to_disk writes: one dataset, or one dataset for each split."""
    whole = (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    return whole or (folder / "dataset_dict.json").is_file()


def ending(path: Path) -> Literal[".jsonl", ".json", ".parquet", ".csv", ".tsv"]:
    if not path.is_file():
        raise UserError(f"{path} {no_file(path)}.")
    match path.suffix.lower():
        case ".jsonl" | ".json" | ".parquet" | ".csv" | ".tsv" as known:
            return known
        case packed if packed in PACKED:
            raise UserError(f"{path} is compressed; unpack it. {_READ}")
        case other:
            raise UserError(f"{path} ends in {other or 'nothing'!r}. {_READ}")
