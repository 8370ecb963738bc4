"""The exception that reports a fault in the user's input."""

import re

# Matches the name of UserError, or of a subclass, as a traceback prints it.
_RAISED = re.compile(r"qwenvl_train(?:\.\w+)+: ")


class UserError(Exception):
    """A fault in the user's input. The message says what is wrong, where it is, and what the user can do about it. The
    command prints the message and exits with code 2."""

    exit_code = 2
    on_every_process = True
    """Whether every process raises this error. If True, only the first process prints it. It is False where only this
    process encountered the fault."""


class LostProcess(UserError):
    """Another process of the run has died, or cannot be reached any more. This process is not to blame."""

    exit_code = 1
    on_every_process = False


def message_of(error: UserError) -> str:
    """Return the message for the user, without the traceback that torch adds to an error of a DataLoader worker."""
    return _RAISED.split(str(error))[-1].strip()
