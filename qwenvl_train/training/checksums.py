"""Checksums of the files of a checkpoint, by which a damaged checkpoint is recognized before a run resumes from it."""

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CHECKSUMS = "SHA256SUMS"
"""Name of the file in a checkpoint that holds the digests of all other files, in the format of `sha256sum`."""


def write_checksums(folder: Path) -> None:
    files = (file for file in folder.rglob("*") if file.is_file() and file != folder / CHECKSUMS)
    names = sorted(str(file.relative_to(folder)) for file in files)
    lines = [f"{digest}  {name}\n" for name, digest in _digests(folder, names).items()]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def damage(folder: Path) -> str | None:
    """Return what is wrong with the files of a checkpoint, or None if all are as they were written. A checkpoint of a
    version that wrote no checksums is taken as it is."""
    try:
        lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        return f"{CHECKSUMS} cannot be read: {error}"
    written = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    if missing := [name for name in written if not (folder / name).is_file()]:
        return f"{missing[0]} is missing"
    try:
        found = _digests(folder, written)
    except OSError as error:
        return str(error)
    changed = [name for name, digest in found.items() if digest != written[name]]
    return f"the content of {changed[0]} is not that of its checksum" if changed else None


def _digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the digest of each file. One thread is slower than most disks, so several files are read at a time."""
    names = list(names)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return dict(zip(names, pool.map(lambda name: _digest(folder / name), names), strict=True))


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
