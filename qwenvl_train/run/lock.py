"""The lock of a run folder. Of two starts with one run_name at the same time, the second is refused."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from uuid import uuid4

from qwenvl_train.errors import UserError
from qwenvl_train.holder import LOCK, Holder, holder_of, in_use
from qwenvl_train.reporting.console import print_line


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder, which is made if it does not exist. Raise UserError if another process holds it. A
    process that already holds it may enter again. Folders that are still empty at the end are removed."""
    lock, mine = folder / LOCK, Holder.this()
    if holder_of(folder) == mine:
        yield
        return
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    _acquire(lock, mine)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        with suppress(OSError):
            for path in new:
                path.rmdir()


def refuse_in_use(key: str, folder: Path) -> None:
    """Raise UserError for a setting that needs a run folder to which no process writes."""
    if in_use(folder):
        raise UserError(f"{key}=true: {folder} is still training; wait until it has ended, or leave {key} out.")


def _acquire(lock: Path, mine: Holder) -> None:
    while not _create(lock, mine):
        held = holder_of(lock.parent)
        if held is None and not lock.exists():
            continue  # its holder has ended in this moment
        if held is None:
            raise UserError(f"{lock} cannot be read; if no run uses {lock.parent}, delete this file.")
        ended = held.belonged_to_earlier_start_of(mine)
        if held.host != mine.host and not ended:
            raise UserError(
                f"{lock.parent} is in use by process {held.pid} on host {held.host}. If that run has ended, delete "
                f"{lock}; otherwise choose another run_name."
            )
        if held.host == mine.host and held.lives:
            raise UserError(
                f"{lock.parent} is in use by process {held.pid} on this machine; wait until it ends, or choose another "
                "run_name."
            )
        if _removed(lock, held):
            print_line(f"{lock.parent}: took over the lock of process {held.pid}, which has ended")


def _create(lock: Path, mine: Holder) -> bool:
    """Return whether the lock was made. It was not if there is one already."""
    try:
        handle = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(json.dumps(asdict(mine)))
    except OSError as error:
        lock.unlink()
        raise OSError(error.errno, error.strerror, str(lock)) from None
    return True


def _removed(lock: Path, held: Holder) -> bool:
    """Remove the lock of a process that has ended. Return False if another start has already replaced it."""
    aside = lock.with_name(f"{LOCK}.{uuid4().hex}")
    try:
        lock.rename(aside)
    except FileNotFoundError:
        return False
    try:
        if Holder(**json.loads(aside.read_text(encoding="utf-8"))) == held:
            return True
        os.link(aside, lock)  # it is the lock of that other start
        return False
    finally:
        aside.unlink()
