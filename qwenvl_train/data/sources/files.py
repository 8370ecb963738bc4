"""Find the data files that a folder or a glob pattern stands for."""

import fnmatch
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from qwenvl_train.config.paths import DATA_ENDINGS
from qwenvl_train.errors import UserError

READ = DATA_ENDINGS
READ_IN_WORDS = f"{', '.join(READ[:-1])} or {READ[-1]} file"
PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")
_GLOB = re.compile(r"[*?\[]")
_HELD_OUT = re.compile(r"(?<![a-z])(val|valid|validation|test|testing|eval|evaluation|dev|held[-_]?out)(?![a-z])")
"""Matches the names that are usual for held-out rows, in lower case: rows_val, test-00000-of-00001, validation/."""


def is_glob(path: str) -> bool:
    return _GLOB.search(path) is not None


def look_held_out(path: str, names: Iterable[str]) -> list[str]:
    """Return those files of a folder or a glob that are named as held-out rows usually are, relative to that folder. A
    file that the user has named is not among them."""
    whole = os.path.expanduser(path)
    start = whole[: found.start()].rpartition("/")[0] if (found := _GLOB.search(whole)) else whole
    start = start if "://" in start else os.path.normpath(start)
    inside = [name.removeprefix(start).lstrip("/") for name in names if name != whole]
    return [name for name in inside if _HELD_OUT.search(name.lower())]


def is_packed(path: Path) -> bool:
    """Return whether the path names a compressed data file."""
    return path.suffix.lower() in PACKED and Path(path.stem).suffix.lower() in READ


def no_file(path: Path) -> str:
    return "is a broken link" if path.is_symlink() else "is not a file"


def files_below(folder: Path) -> list[Path]:
    """Return all data files in the folder and in the folders below it. Other files, such as pictures, are ignored."""
    return _data_files(below / name for below, names in _walk(folder) for name in names)


def files_matching(pattern: Path) -> list[Path]:
    """Return all data files that match the pattern, in which `**` stands for any number of folders. Unlike Python's own
    glob, raise UserError for a link that leads in circles."""
    start = Path(pattern.anchor)
    parts = pattern.relative_to(start).parts
    found = [start]
    for part in (*parts, "*") if parts[-1] == "**" else parts:
        folders = [path for path in found if path.is_dir()]
        if part == "**":
            # Each folder is kept once, even when two ** reach it.
            found = list(dict.fromkeys(below for folder in folders for below, _ in _walk(folder)))
        elif is_glob(part):
            found = [folder / name for folder in folders for name in _visible(os.listdir(folder), part)]
        else:
            found = [folder / part for folder in folders if os.path.lexists(folder / part)]
    return _data_files(found)


def _walk(folder: Path, above: tuple[tuple[int, int], ...] = ()) -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder with the names of its files. Links are followed; hidden files and folders are skipped."""
    status = folder.stat()
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        raise UserError(f"{folder} is a link to a folder that contains it, so reading it would never end; remove it.")
    with os.scandir(folder) as entries:
        kinds = {entry.name: entry.is_dir() for entry in entries}
    names = _visible(kinds, "*")
    yield folder, [name for name in names if not kinds[name]]
    for name in names:
        if kinds[name]:
            yield from _walk(folder / name, (*above, identity))


def _visible(names: Iterable[str], pattern: str) -> list[str]:
    return sorted(name for name in fnmatch.filter(names, pattern) if not name.startswith(".") or pattern[0] == ".")


def _data_files(files: Iterable[Path]) -> list[Path]:
    """Return the files that are data files, in sorted order. Raise UserError for a file that was meant to be read but
    cannot be."""
    chosen: dict[Path, Path] = {}
    for file in sorted(files):
        if is_packed(file):
            raise UserError(f"{file} is compressed; unpack it, or remove it from the folder.")
        if file.suffix.lower() not in READ or file.is_dir():
            continue
        if not file.is_file():
            raise UserError(f"{file} {no_file(file)}; remove it.")
        twin = chosen.setdefault(file.resolve(), file)
        if twin is not file:
            raise UserError(f"{twin} and {file} are the same file, whose rows would be read twice.")
    return list(chosen.values())
