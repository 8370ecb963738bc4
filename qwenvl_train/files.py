"""Writing a file or a folder so that it is complete or absent, and telling whether a disk is full."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4


@contextmanager
def replacing(path: Path, sync: bool = False) -> Iterator[BinaryIO]:
    """Yield a file of another name, which is renamed to `path` when the block ends and deleted when it raises.

    Several processes may write the same path at the same time; the last one renamed remains. With `sync`, the content
    is on the disk before the rename, so that a crash of the machine leaves no file without it.
    """
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        with part.open("wb") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def whole_lines(path: Path) -> list[bytes]:
    """Return the whole lines of a file, and cut off the rest, which a killed process has left. A file that does not
    exist has none."""
    try:
        cut_unfinished_line(path)
        return path.read_bytes().splitlines()
    except FileNotFoundError:
        return []


def cut_unfinished_line(path: Path) -> None:
    """Cut off what follows the last whole line of a file, which a killed process has left."""
    size = end = path.stat().st_size
    with path.open("rb") as file:
        while end:
            start = max(0, end - 2**16)
            file.seek(start)
            if (found := file.read(end - start).rfind(b"\n") + 1) > 0:
                end = start + found
                break
            end = start
    if end < size:
        os.truncate(path, end)


def publish_folder(written: Path, final: Path) -> None:
    """Rename a written folder to `final`, in place of an older one. Its files are on the disk before the rename, so
    that a crash of the machine leaves no folder without them."""
    mode = written.stat().st_mode & 0o666
    for file in sorted(written.rglob("*")):
        if file.is_file():
            file.chmod(mode)  # safetensors makes files that only their owner can read
            _sync(file)
    final.parent.mkdir(exist_ok=True)
    if final.exists():
        shutil.rmtree(final)
    os.replace(written, final)
    _sync(final.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# The writer of safetensors says so in words. That of torch only says that it could not write.
_FULL = ("No space left on device", "Disk quota exceeded", "PytorchStreamWriter failed writing", "inline_container.cc")


def is_full_disk(error: BaseException | None) -> bool:
    """Return whether an error, or one that led to it, says that a disk is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(words in str(error) for words in _FULL):
            return True
        error = error.__cause__ or error.__context__
    return False
