"""The process that writes to a run folder, as the lock of the folder names it."""

import json
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

LOCK = ".lock"
"""The name of the lock in a run folder."""


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
        return cls(socket.gethostname(), os.getpid(), start_of(os.getpid()), job, restarts)

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
        return self.started is None or self.started == start_of(self.pid)


def holder_of(folder: Path) -> Holder | None:
    """Return the process that holds the lock of a run folder, or None if there is no lock that can be read."""
    try:
        return Holder(**json.loads((folder / LOCK).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def in_use(folder: Path) -> bool:
    """Return whether a process writes to a run folder. One of another host counts as alive."""
    holder = holder_of(folder)
    return holder is not None and (holder.host != socket.gethostname() or holder.lives)


def start_of(pid: int) -> str | None:
    """Return when a process started, or None if it has ended or the system does not tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()  # the name before it may contain spaces
    return None if state in "ZX" else fields[18]
