"""What counts as a number in the files of published formats."""

from typing import Any, TypeGuard

LARGEST = 1e12
"""The largest number of pixels or seconds. JSON can have larger ones, also Infinity, that no arithmetic can take."""


def is_number(value: Any) -> TypeGuard[int | float]:
    """Return whether a value is a finite number, which true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST


def shown(value: Any) -> str:
    """Return the beginning of a value for a message. Values that are nested too deep to be written have none."""
    try:
        return f"{value!s:.80}"
    except RecursionError:
        return "…"
