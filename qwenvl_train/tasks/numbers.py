"""Numbers in the records of published formats, with one sentence for what is none."""

import math
from collections.abc import Sequence
from reprlib import Repr
from typing import Any, TypeGuard

from qwenvl_train.errors import UserError

LARGEST = 1e12
"""The largest number of pixels or seconds. JSON can have larger ones, also Infinity, that no arithmetic can take."""
_SHOWN = Repr()
_SHOWN.maxlist = _SHOWN.maxtuple = 10
_SHOWN.maxstring = _SHOWN.maxother = 100
_WORDS = {2: "two", 4: "four", 8: "eight"}


def numbers(value: Any, count: int, what: str, expected: str = "") -> tuple[float, ...]:
    """Return the numbers of a list.

    Args:
        what: What they are, for messages.
        expected: What is expected, for messages, such as [x, y].

    Raises:
        UserError: If the value is no list of as many numbers, or one of them is not finite or too big for a float.
    """
    found = [number(one) for one in value] if isinstance(value, Sequence) and not isinstance(value, str) else []
    if len(found) != count or None in found:
        raise UserError(f"{what} is {shown(value)}; expected {expected or f'{_WORDS.get(count, count)} numbers'}")
    return tuple(one for one in found if one is not None)


def number(value: Any) -> float | None:
    """Return a finite number as a float. Return None for any other value, a bool among them."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def is_number(value: Any) -> TypeGuard[int | float]:
    """Return whether a value is a number of pixels or seconds, which true and false are not."""
    return number(value) is not None and -LARGEST <= value <= LARGEST


def shown(value: Any) -> str:
    """Return a value for a message, without the rest of what is long or deeply nested."""
    return _SHOWN.repr(value)
