"""The one exception that means: the user's input is at fault."""

import re

# A UserError, or one of a more special kind, as a traceback names it.
_RAISED = re.compile(r"qwenvl_train(?:\.\w+)+: ")


class UserError(Exception):
    """Says what is wrong, where, and what to do, in words for the user; the command prints it and exits with 2."""

    on_every_process = True
    """Of several processes that fail alike only the first speaks; False where only this one met the fault."""


def message_of(error: UserError) -> str:
    """The user's sentence, also when a DataLoader worker raised it and torch wrapped a traceback around it."""
    return _RAISED.split(str(error))[-1].strip()
