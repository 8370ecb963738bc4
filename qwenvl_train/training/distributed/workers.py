"""Explains why a data loader worker has died. torch reports which process it was, but not what the user can do."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from qwenvl_train.errors import UserError

_DEAD = re.compile(r"DataLoader worker \(pid.*?\) (is killed by signal: (?P<signal>[^.]+)|exited unexpectedly)")


@contextmanager
def naming_dead_workers() -> Iterator[None]:
    """Raise UserError with advice instead of torch's error when a worker dies inside the `with` block."""
    try:
        yield
    except RuntimeError as error:
        dead = _DEAD.search(str(error))
        if dead is None:
            raise
        failure = UserError(_advice(dead["signal"]))
        failure.on_every_process = False
        raise failure from error


def _advice(signal: str | None) -> str:
    match signal:
        case None | "Killed":
            return (
                "A data worker was killed, usually because memory ran out; lower data.workers, and look for a very "
                "large image or video."
            )
        case "Bus error":
            return (
                "A data worker was killed because shared memory ran out; give the container more of it (--shm-size), "
                "or lower data.workers."
            )
    return (
        f"A data worker crashed ({signal}), usually on a damaged image or video; "
        "to see where, run the command with data.workers=0 and python -X faulthandler."
    )
