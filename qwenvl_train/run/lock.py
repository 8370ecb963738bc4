"""The lock of a run folder. Of two starts with one run_name at the same time, the second is refused."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

from qwenvl_train.errors import UserError
from qwenvl_train.reporting.console import print_line

NAME = ".lock"


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock."""

    host: str
    pid: int
    started: str | None
    """When the process started, in the system's own unit, so that another process with the same number is not taken for
    it. None if the system does not tell."""
    job: str | None = None
    """The SLURM job of the process, which keeps its number when it is queued again."""
    restarts: int = 0
    """How often SLURM had started the job again by then."""

    @classmethod
    def this(cls) -> "Holder":
        job, restarts = os.environ.get("SLURM_JOB_ID"), int(os.environ.get("SLURM_RESTART_COUNT") or 0)
        return cls(socket.gethostname(), os.getpid(), _start_of(os.getpid()), job, restarts)

    def belonged_to_earlier_start_of(self, other: "Holder") -> bool:
        """Return whether SLURM has started the job again since, which it does only after all processes have ended. The
        host of the process may be lost."""
        return self.job is not None and self.job == other.job and self.restarts < other.restarts

    @property
    def lives(self) -> bool:
        """Whether the process still exists. It must be one of this host."""
        try:
            with suppress(PermissionError):  # it is the process of another user
                os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return self.started is None or self.started == _start_of(self.pid)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder, which is made if it does not exist. Raise UserError if another process holds it. A
    process that already holds it may enter again. Folders that are still empty at the end are removed."""
    lock, mine = folder / NAME, Holder.this()
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


def holder_of(folder: Path) -> Holder | None:
    """Return the process that holds the lock of a run folder, or None if there is no lock that can be read."""
    try:
        return Holder(**json.loads((folder / NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def in_use(folder: Path) -> bool:
    """Return whether a process writes to a run folder. One of another host counts as alive."""
    holder = holder_of(folder)
    return holder is not None and (holder.host != socket.gethostname() or holder.lives)


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
    aside = lock.with_name(f"{NAME}.{uuid4().hex}")
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


def _start_of(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()  # the name before it may contain spaces
    return None if state in "ZX" else fields[18]
